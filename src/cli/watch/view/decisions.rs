//! The latest decisions: the newest in full, those before on one line each.
#![deny(clippy::disallowed_methods)]

use ratatui::text::{Line, Span};
use serde_json::Value;

use super::{Ink, Section, clipped, wrapped};
use crate::cli::fields::word;
use crate::cli::log_table::weights;
use crate::cli::outlook::tone_of_kind;
use crate::cli::paint::Tone;
use crate::cli::watch::screen::Screen;

/// From this width on the day is shown as well.
const WITH_DAY: usize = 100;
/// Lines that the newest one takes at most.
const IN_FULL: usize = 4;

/// The section; `room` bounds how many there can be.
pub(super) fn section(screen: &Screen, ink: Ink, width: usize, room: usize) -> Section {
    let all = screen.own_decisions();
    let own = all.unwrap_or_default().iter().skip(screen.scroll);
    let own: Vec<&Value> = own.take(room).collect();
    let widest = own.iter().map(|decision| weights(decision).len()).max();
    let mut lines = Vec::new();
    for (place, decision) in own.into_iter().enumerate() {
        lines.extend(written(
            decision,
            ink,
            (width, widest.unwrap_or(0)),
            place == 0,
        ));
    }
    if lines.is_empty() {
        let words = all.map_or(" not read yet", |_| " none yet");
        lines.push(ink.line(Tone::Faint, words));
    }
    Section {
        title: match screen.scroll {
            0 => "decisions, newest first",
            _ => "decisions, scrolled (Home: newest)",
        },
        lines,
        least: 2,
        rank: 5,
    }
}

/// The widths are those of the picture and of the column of weights.
fn written(
    decision: &Value,
    ink: Ink,
    (width, weights_wide): (usize, usize),
    in_full: bool,
) -> Vec<Line<'static>> {
    let at = word(decision, "/at");
    let from = if width >= WITH_DAY { 5 } else { 11 };
    let at = at.get(from..19).unwrap_or(at).replace('T', " ");
    let kind = word(decision, "/kind");
    let weights = weights(decision);
    let head = vec![
        ink.span(Tone::Faint, format!(" {at}  ")),
        ink.span(tone_of_kind(kind), format!("{kind:<12}  ")),
        Span::raw(format!("{weights:<weights_wide$}  ")),
    ];
    let used: usize = head.iter().map(Span::width).sum();
    let room = width.saturating_sub(used);
    let reason = word(decision, "/reason");
    if !in_full {
        let mut line = head;
        line.push(ink.span(Tone::Faint, clipped(reason, room)));
        return vec![Line::from(line)];
    }
    let mut shown = wrapped(reason, room);
    if shown.len() > IN_FULL {
        let rest = shown.split_off(IN_FULL - 1).join(" ");
        shown.push(clipped(&rest, room));
    }
    let mut head = Some(head);
    shown
        .into_iter()
        .map(|part| {
            let mut line = head
                .take()
                .unwrap_or_else(|| vec![Span::raw(" ".repeat(used))]);
            line.push(Span::raw(part));
            Line::from(line)
        })
        .collect()
}
