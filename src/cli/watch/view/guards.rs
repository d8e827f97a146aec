//! The guards: what each says, how far its proof is, and what it still needs.
#![deny(clippy::disallowed_methods)]

use ratatui::symbols::{block, shade};
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::{Ink, Section, clipped};
use crate::cli::fields::{array, word};
use crate::cli::outlook;
use crate::cli::paint::Tone;
use crate::cli::table::guard_value;

/// Below this width the canary's value and its limit give way to the words.
const WITH_VALUES: usize = 72;
const BAR: std::ops::RangeInclusive<usize> = 8..=24;

/// The section. What is not proven stands first: that is why the rollout does not move.
pub(super) fn section(rollout: &Value, ink: Ink, width: usize) -> Section {
    let guards = array(rollout, "/guards");
    let is_open = |guard: &&Value| word(guard, "/verdict") != "healthy";
    let (open, proven): (Vec<&Value>, Vec<&Value>) = guards.iter().partition(is_open);
    let all: Vec<&Value> = open.into_iter().chain(proven).collect();
    let widest = |of: &dyn Fn(&Value) -> String| {
        let widths = all.iter().map(|guard| of(guard).chars().count());
        widths.max().unwrap_or(0)
    };
    let name = |guard: &Value| word(guard, "/name").to_owned();
    let verdict = |guard: &Value| word(guard, "/verdict").to_owned();
    let values = |guard: &Value| {
        let (value, limit) = (guard_value(guard, "/value"), guard_value(guard, "/limit"));
        match value.as_str() {
            "-" => String::new(),
            _ => format!("{value} of {limit}"),
        }
    };
    let (names, verdicts) = (widest(&name), widest(&verdict));
    let values_wide = if width >= WITH_VALUES {
        widest(&values)
    } else {
        0
    };
    let needs_wide = widest(&outlook::needs);
    let gaps = if values_wide > 0 { 6 } else { 4 };
    let used = 1 + names + verdicts + values_wide + needs_wide + gaps;
    let bar = width
        .saturating_sub(used + 2)
        .clamp(*BAR.start(), *BAR.end());
    let lines = all
        .iter()
        .map(|guard| {
            let tone = outlook::tone_of_verdict(word(guard, "/verdict"));
            let mut spans = vec![
                Span::raw(format!(" {:<names$}  ", name(guard))),
                ink.span(tone, format!("{:<verdicts$}", verdict(guard))),
            ];
            if values_wide > 0 {
                spans.push(Span::raw(format!("  {:>values_wide$}", values(guard))));
            }
            spans.push(Span::raw("  "));
            spans.extend(filled(guard, ink, bar));
            let so_far: usize = spans.iter().map(Span::width).sum();
            let needs = clipped(&outlook::needs(guard), width.saturating_sub(so_far + 2));
            spans.push(Span::raw(format!("  {needs}")));
            Line::from(spans)
        })
        .collect();
    Section {
        title: "guards: proof towards the next stage",
        lines,
        least: 3,
        rank: 3,
    }
}

/// A bar that fills with the proof.
fn filled(guard: &Value, ink: Ink, width: usize) -> [Span<'static>; 2] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part of a bar of some characters"
    )]
    let full = ((outlook::progress(guard) * width as f64) as usize).min(width);
    let tone = match word(guard, "/verdict") {
        "harm" => Tone::Bad,
        "healthy" => Tone::Good,
        _ => Tone::Care,
    };
    [
        ink.span(tone, block::FULL.repeat(full)),
        ink.span(Tone::Faint, shade::LIGHT.repeat(width - full)),
    ]
}
