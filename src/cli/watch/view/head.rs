//! The top of the picture: whether it is true, what is broken, and where the rollout stands and why.
#![deny(clippy::disallowed_methods)]

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::{Ink, Section, wrapped};
use crate::cli::fields::{count, moment, number, share, word};
use crate::cli::outlook::{self, REMINDER};
use crate::cli::paint::Tone;
use crate::cli::watch::screen::Screen;
use crate::clock::{UnixMillis, for_people};

/// The first line: who is shown, and the rollouts to choose from.
pub(super) fn bar(screen: &Screen, ink: Ink, width: usize, now: UnixMillis) -> Section {
    let (tone, live) = match (&screen.lost, &screen.status) {
        (Some(_), _) => (Tone::Bad, "NOT REACHABLE"),
        (None, None) => (Tone::Faint, "connecting"),
        (None, Some(_)) => (Tone::Good, "live"),
    };
    let clock = format!(" {} UTC ", now.time_of_day());
    let mut left = format!(" cutover  {}", screen.addr);
    if let Some(status) = &screen.status {
        let up_s = i64::try_from(count(status, "/uptime_s")).unwrap_or(i64::MAX);
        let up = for_people(up_s.saturating_mul(1_000));
        let more = format!("  {}  up {up}", word(status, "/version"));
        if left.len() + more.len() + live.len() + clock.len() + 2 <= width {
            left += &more;
        }
    }
    let used = left.chars().count() + live.len() + clock.len();
    let gap = " ".repeat(width.saturating_sub(used).max(1));
    let mut lines = vec![Line::from(vec![
        ink.span(Tone::Strong, left),
        Span::raw(gap),
        ink.span(tone, live),
        ink.span(Tone::Faint, clock),
    ])];
    if screen.rollouts().len() > 1 {
        let mut spans = vec![Span::raw(" ")];
        for (place, rollout) in screen.rollouts().iter().enumerate() {
            let state = word(rollout, "/state");
            let name = match state {
                "running" => format!(" {} ", word(rollout, "/name")),
                _ => format!(" {}: {state} ", word(rollout, "/name")),
            };
            let tone = outlook::tone_of_state(state);
            let style = match place == screen.selected {
                true => ink.of(tone).add_modifier(Modifier::REVERSED),
                false => ink.of(tone),
            };
            spans.extend([Span::styled(name, style), Span::raw(" ")]);
        }
        spans.push(ink.span(Tone::Faint, "Tab: next"));
        lines.push(Line::from(spans));
    }
    Section {
        least: lines.len(),
        lines,
        ..Section::default()
    }
}

/// What somebody has to know before anything else.
pub(super) fn trouble(screen: &Screen, ink: Ink, width: usize, now: UnixMillis) -> Section {
    let mut lines = Vec::new();
    if let Some(why) = &screen.lost {
        let since_ms = now.millis_since(screen.heard_at).max(1_000);
        let since = for_people(since_ms - since_ms % 1_000);
        let mut words = format!("not reachable since {since}, trying again: {why}");
        if screen.status.is_some() {
            words += "; what stands below is as old";
        }
        lines.extend(ink.lines(Tone::Bad, &words, width, 1));
    } else if screen.status.is_none() {
        lines.push(ink.line(Tone::Faint, " asking the daemon ..."));
    } else if screen.rollouts().is_empty() {
        lines.push(ink.line(
            Tone::Plain,
            " no rollout is configured: all traffic goes to legacy",
        ));
    }
    for (tone, words) in screen.status.iter().flat_map(outlook::trouble) {
        lines.extend(ink.lines(tone, &words, width, 1));
    }
    Section {
        least: lines.len().min(2),
        lines,
        rank: 2,
        ..Section::default()
    }
}

/// Where the rollout stands, why, and what comes next.
pub(super) fn state(rollout: &Value, ink: Ink, width: usize, now: UnixMillis) -> Section {
    let state = word(rollout, "/state");
    let since = moment(rollout, "/stage/since").map(|at| {
        let ms = now.millis_since(at).max(1_000);
        format!(", {} in it", for_people(ms - ms % 1_000))
    });
    let attempt = match count(rollout, "/attempt") {
        0 | 1 => None,
        attempt => Some(format!(", attempt {attempt}")),
    };
    let word_style = ink
        .of(outlook::tone_of_state(state))
        .add_modifier(Modifier::BOLD | Modifier::REVERSED);
    let (index, of) = (
        number(rollout, "/stage/index"),
        number(rollout, "/stage/of"),
    );
    let mut first = Line::from(vec![
        Span::raw(" "),
        Span::styled(format!(" {} ", state.to_uppercase()), word_style),
        ink.span(
            Tone::Strong,
            format!("  {} to the canary", share(rollout, "/weight")),
        ),
        Span::raw(format!("  stage {index}/{of}")),
    ]);
    for part in [since, attempt].into_iter().flatten() {
        if first.width() + part.len() <= width {
            first.push_span(Span::raw(part));
        }
    }
    let mut lines = vec![first];
    lines.extend(ladder(rollout, ink, width));
    let mut say = |name: &str, tone: Tone, words: &str| {
        let mut name = format!(" {name:<6}");
        for line in wrapped(words, width.saturating_sub(name.len() + 1)) {
            let shown = std::mem::replace(&mut name, " ".repeat(7));
            lines.push(Line::from(vec![
                ink.span(Tone::Faint, shown),
                ink.span(tone, line),
            ]));
        }
    };
    say("why", Tone::Plain, word(rollout, "/reason"));
    if let Some(next) = outlook::next_step(rollout, now) {
        say("next", Tone::Plain, &next);
    }
    if state == "complete" {
        say("keep", Tone::Plain, REMINDER);
    }
    Section {
        least: lines.len().min(3),
        lines,
        rank: 1,
        ..Section::default()
    }
}

/// The stages, the present one in brackets; nothing if they do not fit on a line.
fn ladder(rollout: &Value, ink: Ink, width: usize) -> Option<Line<'static>> {
    let rungs = outlook::ladder(rollout);
    let mut spans = vec![ink.span(Tone::Faint, " stages ")];
    for (place, (weight, is_present)) in rungs.iter().enumerate() {
        if place > 0 {
            spans.push(ink.span(Tone::Faint, " > "));
        }
        spans.push(match is_present {
            true => ink.span(Tone::Strong, format!("[{weight}]")),
            false => Span::raw(weight.clone()),
        });
    }
    let line = Line::from(spans);
    (!rungs.is_empty() && line.width() <= width).then_some(line)
}
