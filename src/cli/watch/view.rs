//! How the screen looks: sections of lines, of which the most telling keep their place when it gets small.
//!
//! Drawing reads the screen and the time and changes nothing. States are told by word as well as colour.
#![deny(clippy::disallowed_methods)]

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::screen::{Mode, Screen};
use crate::cli::paint::{Paint, Tone};
use crate::clock::UnixMillis;

mod arms;
mod decisions;
mod guards;
mod head;
mod over;

/// Below this nothing useful fits.
const SMALLEST: (u16, u16) = (30, 8);
/// From here on everything does.
const ENOUGH: &str = "60x20";

/// A part of the picture.
#[derive(Debug, Default)]
struct Section {
    title: &'static str,
    lines: Vec<Line<'static>>,
    /// With fewer lines, its title included, it is left out.
    least: usize,
    /// Who gets room first, from 0.
    rank: u8,
}

impl Section {
    fn wanted(&self) -> usize {
        self.lines.len() + usize::from(!self.title.is_empty())
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, paint: Paint, now: UnixMillis) {
    let area = frame.area();
    let ink = Ink { paint };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let words = format!("the terminal is too small; {ENOUGH} is enough (q: quit)");
        let lines = wrapped(&words, usize::from(area.width));
        let lines: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
        frame.render_widget(Paragraph::new(lines), area);
        return;
    }
    let width = usize::from(area.width);
    let foot = over::foot(screen, ink, width);
    let room = usize::from(area.height).saturating_sub(foot.len());
    let mut sections = vec![
        head::bar(screen, ink, width, now),
        head::trouble(screen, ink, width, now),
    ];
    if let Some(rollout) = screen.rollout() {
        sections.push(head::state(rollout, ink, width, now));
        sections.push(arms::section(rollout, ink, width));
        sections.push(guards::section(rollout, ink, width));
        sections.push(decisions::section(screen, ink, width, room));
    }
    let heights = shared_out(&sections, room);
    let mut top = area.y;
    for (section, height) in sections.into_iter().zip(heights) {
        let place = Rect::new(area.x, top, area.width, height);
        top += height;
        draw_section(frame, section, place, ink);
    }
    let height = u16::try_from(foot.len())
        .unwrap_or(u16::MAX)
        .min(area.height);
    let bottom = Rect::new(area.x, area.bottom() - height, area.width, height);
    frame.render_widget(Paragraph::new(foot), bottom);
    match &screen.mode {
        Mode::Look => {}
        Mode::Help => over::help(frame, ink),
        Mode::Ask(prompt) => over::prompt(frame, screen, prompt, ink),
    }
}

fn draw_section(frame: &mut Frame<'_>, section: Section, place: Rect, ink: Ink) {
    if place.height == 0 {
        return;
    }
    let mut block = Block::new();
    if !section.title.is_empty() {
        let title = Span::styled(format!(" {} ", section.title), ink.of(Tone::Strong));
        block = block
            .borders(Borders::TOP)
            .border_style(ink.of(Tone::Faint))
            .title(title);
    }
    frame.render_widget(Paragraph::new(section.lines).block(block), place);
}

/// The height of each section: first what each needs at least, then what is left, both by rank.
fn shared_out(sections: &[Section], room: usize) -> Vec<u16> {
    let mut heights = vec![0; sections.len()];
    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|place| sections.get(*place).map(|section| section.rank));
    let mut left = room;
    for is_first in [true, false] {
        for place in &order {
            let (Some(section), Some(height)) = (sections.get(*place), heights.get_mut(*place))
            else {
                continue;
            };
            let more = match is_first {
                true => section.least.min(section.wanted()),
                false if *height == 0 => 0,
                false => section.wanted() - *height,
            };
            // A part of a section's least says nothing.
            if is_first && more > left {
                continue;
            }
            let more = more.min(left);
            *height += more;
            left -= more;
        }
    }
    heights
        .into_iter()
        .map(|height| u16::try_from(height).unwrap_or(u16::MAX))
        .collect()
}

/// Tones as styles.
#[derive(Debug, Clone, Copy)]
struct Ink {
    paint: Paint,
}

impl Ink {
    fn of(self, tone: Tone) -> Style {
        let style = Style::new();
        let colour = |colour| match self.paint.is_on() {
            true => style.fg(colour),
            false => style,
        };
        match tone {
            Tone::Plain => style,
            Tone::Good => colour(Color::Green),
            Tone::Care => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Strong => style.add_modifier(Modifier::BOLD),
            Tone::Faint => style.add_modifier(Modifier::DIM),
        }
    }

    fn span(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.of(tone))
    }

    fn line(self, tone: Tone, text: impl Into<String>) -> Line<'static> {
        Line::from(self.span(tone, text))
    }

    /// A text over as many lines as it takes, each after `indent` spaces.
    fn lines(self, tone: Tone, text: &str, width: usize, indent: usize) -> Vec<Line<'static>> {
        let room = width.saturating_sub(indent);
        let lines = text.lines().flat_map(|line| wrapped(line, room));
        let indent = " ".repeat(indent);
        lines
            .map(|line| self.line(tone, format!("{indent}{line}")))
            .collect()
    }
}

/// A text in lines of at most `width` characters, broken between words where that is possible.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        while used + word.len() > width {
            let rest = word.split_off(width - used);
            line.extend(word);
            lines.push(std::mem::take(&mut line));
            (word, used) = (rest, 0);
        }
        used += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

/// A text that fits: what is too much ends in `..`.
fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    kept + ".."
}

#[cfg(test)]
mod tests;
