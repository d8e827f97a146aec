//! Both arms side by side, with the difference: as many columns as there is room for.
#![deny(clippy::disallowed_methods)]

use ratatui::text::{Line, Span};
use serde_json::Value;

use super::{Ink, Section};
use crate::cli::fields::{dollars, float_at, grouped, millis, percent, speed};
use crate::cli::outlook;
use crate::cli::paint::Tone;

/// A difference below this share of legacy's value is hardly one.
const HARDLY: f64 = 0.05;

/// How a figure is written, and what a difference of it means.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Count,
    Share,
    Millis,
    Speed,
    Dollars,
}

/// A column: its heading, where it is in the answer, its unit, and who gets room first, from 0.
type Column = (&'static str, &'static str, Unit, u8);

const COLUMNS: [Column; 12] = [
    ("requests", "/requests", Unit::Count, 0),
    ("errors", "/error_rate", Unit::Share, 1),
    ("429", "/rate_limited", Unit::Count, 7),
    ("masked", "/masked", Unit::Count, 9),
    ("p50", "/latency_ms/p50", Unit::Millis, 2),
    ("p99", "/latency_ms/p99", Unit::Millis, 3),
    ("ttft p50", "/ttft_ms/p50", Unit::Millis, 5),
    ("ttft p99", "/ttft_ms/p99", Unit::Millis, 4),
    ("tok/s", "/tokens_per_s/p50", Unit::Speed, 8),
    ("cached", "/cache_hit_share", Unit::Share, 11),
    ("cost/1k", "", Unit::Dollars, 6),
    ("cost", "/cost_usd", Unit::Dollars, 10),
];

/// The section.
pub(super) fn section(rollout: &Value, ink: Ink, width: usize) -> Section {
    let saving = outlook::saving(rollout);
    let per_1k = saving
        .as_ref()
        .map(|saving| [saving.legacy_per_1k, saving.canary_per_1k]);
    let columns: Vec<(u8, [(Tone, String); 4])> = COLUMNS
        .iter()
        .map(|(name, field, unit, rank)| {
            let figure = |arm: &str| float_at(rollout, &format!("/arms/{arm}{field}"));
            let [legacy, canary] = match (field.is_empty(), per_1k) {
                (true, Some(per_1k)) => per_1k.map(Some),
                (true, None) => [None, None],
                (false, _) => ["legacy", "canary"].map(figure),
            };
            let cells = [
                (Tone::Faint, (*name).to_owned()),
                (Tone::Plain, written(legacy, *unit)),
                (Tone::Plain, written(canary, *unit)),
                difference(legacy, canary, *unit, name),
            ];
            (*rank, cells)
        })
        .collect();
    let mut lines = rows(&columns, ink, width);
    // The heading and both arms say something without the rest.
    let least = 4;
    for arm in ["legacy", "canary"] {
        let hindrances = outlook::hindrances(rollout, arm).into_iter();
        for (tone, words) in hindrances.filter(|(tone, _)| *tone != Tone::Faint) {
            lines.extend(ink.lines(tone, &words, width, 1));
        }
    }
    if let Some(words) = saving.and_then(|saving| saving.short()) {
        lines.extend(ink.lines(Tone::Plain, &words, width, 1));
    }
    Section {
        title: "arms",
        lines,
        least,
        rank: 4,
    }
}

fn rows(columns: &[(u8, [(Tone, String); 4])], ink: Ink, width: usize) -> Vec<Line<'static>> {
    const NAMES: [&str; 4] = ["", "legacy", "canary", "differs"];
    const NAME_WIDTH: usize = 8;
    let room_of = |cells: &[(Tone, String); 4]| {
        let widths = cells.iter().map(|(_, text)| text.chars().count());
        widths.max().unwrap_or(0) + 2
    };
    let mut by_rank: Vec<_> = columns.iter().collect();
    by_rank.sort_by_key(|(rank, _)| *rank);
    let mut left = width.saturating_sub(NAME_WIDTH);
    let fits = by_rank
        .iter()
        .take_while(|(_, cells)| {
            let room = room_of(cells);
            let fits = room <= left;
            left = left.saturating_sub(room);
            fits
        })
        .count();
    let mut lines: Vec<Vec<Span<'static>>> = NAMES
        .map(|name| {
            vec![Span::raw(format!(
                " {name:<width$}",
                width = NAME_WIDTH - 1
            ))]
        })
        .into();
    for (rank, cells) in columns {
        if usize::from(*rank) >= fits {
            continue;
        }
        let width = room_of(cells);
        for (line, (tone, text)) in lines.iter_mut().zip(cells) {
            line.push(ink.span(*tone, format!("{text:>width$}")));
        }
    }
    lines.into_iter().map(Line::from).collect()
}

fn written(figure: Option<f64>, unit: Unit) -> String {
    let Some(figure) = figure else {
        return "-".to_owned();
    };
    match unit {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count, which is whole and not negative"
        )]
        Unit::Count => grouped(figure as u64),
        Unit::Share => percent(figure),
        Unit::Millis => millis(figure),
        Unit::Speed => speed(Some(&Value::from(figure))),
        Unit::Dollars => dollars(figure),
    }
}

/// How the canary differs from legacy, and whether that is good. Counts depend on the weight and are not
/// compared; nor is the whole cost.
fn difference(legacy: Option<f64>, canary: Option<f64>, unit: Unit, name: &str) -> (Tone, String) {
    let (Some(legacy), Some(canary)) = (legacy, canary) else {
        return (Tone::Plain, String::new());
    };
    let more_is_good = matches!(unit, Unit::Speed) || name == "cached";
    let tone = |change: f64, hardly: f64| {
        if change.abs() < hardly {
            Tone::Faint
        } else if (change > 0.0) == more_is_good {
            Tone::Good
        } else {
            Tone::Care
        }
    };
    let sign = |change: f64| if change > 0.0 { "+" } else { "" };
    match unit {
        Unit::Count => (Tone::Plain, String::new()),
        Unit::Dollars if name == "cost" => (Tone::Plain, String::new()),
        Unit::Share => {
            let change = canary - legacy;
            let points = percent(change).replace('%', "pp");
            (tone(change, 0.001), format!("{}{points}", sign(change)))
        }
        Unit::Millis | Unit::Speed | Unit::Dollars if legacy > 0.0 => {
            let change = canary / legacy - 1.0;
            let text = format!("{}{:.0}%", sign(change), change * 100.0);
            (tone(change, HARDLY), text.replace("-0%", "0%"))
        }
        Unit::Millis | Unit::Speed | Unit::Dollars => (Tone::Plain, String::new()),
    }
}
