//! What lies over the picture or below it: the question before an order, the help, the keys.
#![deny(clippy::disallowed_methods)]

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::{Ink, wrapped};
use crate::cli::fields::word;
use crate::cli::paint::Tone;
use crate::cli::watch::order::{self, Action};
use crate::cli::watch::screen::{End, Field, Prompt, Screen};

/// The keys, as long as there is room for.
const KEYS: [&str; 3] = [
    " h hold  r resume  p promote  b roll back  t retry  w set weight  ? help  q quit",
    " h hold r resume p promote b back t retry w weight ? q quit",
    " ? keys  q quit",
];

const HELP: &str = "\
h  hold: nothing goes up until resume        r  resume: end a hold, a trip or a retreat
p  promote: the next stage now               b  roll back: everything to legacy
t  retry: a new attempt after a rollback     w  set a weight by hand
Each asks for a reason and for Enter; Esc leaves it. Reasons stand in the decision log.

Tab, arrows  another rollout   Up, Down, Home  older decisions   Space  ask now   q  quit

A bar is a guard's proof that the canary is no worse than allowed, in this stage. A rollout goes \
up when all are full, the dwell is over and nothing speaks against it. Arms: p50 and p99 are of \
the last minutes, counts and costs since the migration began; cost/1k is per 1,000 answers of \
known cost. Masked: failures that the other arm made good.";

/// The last lines: what became of an order, and the keys.
pub(super) fn foot(screen: &Screen, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(answer) = &screen.answer {
        let (tone, head) = match answer.end {
            End::Open => (Tone::Strong, ""),
            End::Done => (Tone::Good, ""),
            End::Refused => (Tone::Bad, "refused: "),
            End::Unknown => (Tone::Bad, "no answer, so look whether it was done: "),
        };
        let shown = ink.lines(tone, &format!("{head}{}", answer.text), width, 1);
        lines.extend(shown.into_iter().take(3));
    }
    let keys = KEYS.iter().find(|keys| keys.len() <= width);
    lines.push(ink.line(Tone::Faint, keys.copied().unwrap_or_default()));
    lines
}

/// The explanation of keys and words.
pub(super) fn help(frame: &mut Frame<'_>, ink: Ink) {
    let width = inner_width(frame, 88);
    let mut lines = Vec::new();
    for line in HELP.lines() {
        lines.extend(ink.lines(Tone::Plain, line, width, 0));
        if line.is_empty() {
            lines.push(Line::default());
        }
    }
    lines.push(ink.line(Tone::Faint, "any key ends this help"));
    window(frame, "help", lines, width, ink);
}

/// The question before an order.
pub(super) fn prompt(frame: &mut Frame<'_>, screen: &Screen, prompt: &Prompt, ink: Ink) {
    let width = inner_width(frame, 72);
    let mut lines = Vec::new();
    match screen.rollout_named(&prompt.rollout) {
        Some(rollout) => {
            let weight = prompt.parsed_weight().ok().flatten();
            let outcome = order::outcome(prompt.action, rollout, weight);
            let state = format!("now {}", word(rollout, "/state").to_uppercase());
            lines.push(ink.line(Tone::Faint, state));
            lines.extend(ink.lines(Tone::Strong, &outcome, width, 0));
        }
        None => lines.push(ink.line(Tone::Care, "this rollout is not configured any more")),
    }
    if screen.lost.is_some() {
        let words = "the daemon does not answer: this may not arrive";
        lines.extend(ink.lines(Tone::Bad, words, width, 0));
    }
    lines.push(Line::default());
    let mut input = |name: &str, typed: &str, is_typed: bool| {
        let room = width.saturating_sub(name.len() + 3);
        // The end is where people type.
        let skip = typed.chars().count().saturating_sub(room);
        let typed: String = typed.chars().skip(skip).collect();
        let (tone, cursor) = match is_typed {
            true => (Tone::Strong, "_"),
            false => (Tone::Plain, ""),
        };
        lines.push(Line::from(vec![
            ink.span(tone, format!("{name}: ")),
            Span::raw(typed),
            ink.span(tone, cursor),
        ]));
    };
    if prompt.action == Action::SetWeight {
        input("weight", &prompt.weight, prompt.field == Field::Weight);
    }
    input("reason", &prompt.reason, prompt.field == Field::Reason);
    lines.push(Line::default());
    if let Some(note) = &prompt.note {
        lines.extend(ink.lines(Tone::Care, note, width, 0));
    }
    let keys = match prompt.field {
        Field::Weight => "Enter: on to the reason   Esc: leave it",
        Field::Reason => "Enter: do it   Esc: leave it",
    };
    lines.push(ink.line(Tone::Faint, keys));
    let title = format!("{} {}", prompt.action.name(), prompt.rollout);
    window(frame, &title, lines, width, ink);
}

/// The room inside a window of at most so many characters.
fn inner_width(frame: &Frame<'_>, most: usize) -> usize {
    usize::from(frame.area().width).saturating_sub(4).min(most)
}

/// A window in the middle, over what was there.
fn window(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'static>>, width: usize, ink: Ink) {
    let area = frame.area();
    let fits = |wanted: usize, most: u16| u16::try_from(wanted).unwrap_or(u16::MAX).min(most);
    let (width, height) = (
        fits(width + 4, area.width),
        fits(lines.len() + 2, area.height),
    );
    let place = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    let title = wrapped(title, usize::from(width).saturating_sub(4)).swap_remove(0);
    let block = Block::bordered()
        .title(ink.span(Tone::Strong, format!(" {title} ")))
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
