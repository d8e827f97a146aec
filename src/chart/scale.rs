//! Where the lines of the grid go and what is written beside them.
//!
//! Pure numbers.
#![deny(clippy::disallowed_methods)]

use super::{Frame, Unit};
use crate::clock::UnixMillis;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const TIME_STEPS: [i64; 24] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    5 * DAY,
    10 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
];
/// Pixels between two lines of the grid.
const ROW_PX: u32 = 44;

/// A scale of values from 0: its highest value, and the lines with their labels.
#[derive(Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) max: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

/// The scale of the weight.
pub(super) fn shares() -> Scale {
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0];
    Scale {
        max: 1.0,
        ticks: ticks
            .into_iter()
            .map(|share| (share, format!("{:.0}%", share * 100.0)))
            .collect(),
    }
}

/// A scale that reaches `highest`.
pub(super) fn values(unit: Unit, highest: f64, height: u32) -> Scale {
    let least = match unit {
        Unit::Share => 0.01,
        Unit::Millis => 10.0,
        Unit::Usd => 0.001,
        Unit::PerSecond => 1.0,
    };
    let highest = if highest.is_finite() { highest } else { 0.0 };
    let highest = highest.max(least);
    let rows = (height / ROW_PX).clamp(2, 6);
    let step = nice(highest / f64::from(rows));
    let count = (highest / step - 1e-9).ceil().max(1.0);
    let max = step * count;
    let mut ticks = Vec::new();
    let mut at = 0.0;
    while at <= count + 0.5 {
        ticks.push((step * at, label(unit, step * at, max)));
        at += 1.0;
    }
    Scale { max, ticks }
}

/// The next of 1, 2, 2.5, 5 or 10 times a power of ten.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter();
    let mut fitting = steps
        .map(|step| step * power)
        .filter(|s| *s >= least * 0.999);
    fitting.next().unwrap_or(power * 10.0)
}

/// All labels of an axis have one unit, that of its highest value.
fn label(unit: Unit, value: f64, max: f64) -> String {
    match unit {
        Unit::Share => format!("{}%", plain(value * 100.0)),
        Unit::Millis if max < 1_000.0 => format!("{}ms", plain(value)),
        Unit::Millis => format!("{}s", plain(value / 1_000.0)),
        Unit::Usd => format!("${}", plain(value)),
        Unit::PerSecond => plain(value),
    }
}

/// Without zeros that say nothing, and with `k` or `M` where there would be many.
fn plain(value: f64) -> String {
    let (value, suffix) = if value >= 1e6 {
        (value / 1e6, "M")
    } else if value >= 10_000.0 {
        (value / 1e3, "k")
    } else {
        (value, "")
    };
    format!("{}{suffix}", trimmed(&format!("{value:.6}")))
}

/// About three digits that count.
pub(super) fn three_digits(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        return format!("{value:.0}");
    }
    if size >= 10.0 {
        return trimmed(&format!("{value:.1}"));
    }
    if size >= 1.0 {
        return trimmed(&format!("{value:.2}"));
    }
    if size >= 0.1 {
        return trimmed(&format!("{value:.3}"));
    }
    trimmed(&format!("{value:.4}"))
}

fn trimmed(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// The lines of the time axis with their labels: `14:30`, at midnight `Nov 21`.
pub(super) fn times(frame: &Frame, plot_width: u32) -> Vec<(UnixMillis, String)> {
    let span = frame.to.millis_since(frame.from).max(1);
    // Pixels that a label and the room around it need: seconds are longer.
    let label_px = |step: i64| if step < MINUTE { 84 } else { 58 };
    let most = |step| i64::from((plot_width / label_px(step)).clamp(1, 12));
    let step = TIME_STEPS
        .into_iter()
        .find(|step| span / step <= most(*step))
        .unwrap_or(365 * DAY);
    let offset = i64::from(frame.utc_offset_min) * MINUTE;
    let first = (frame.from.0 + offset).div_euclid(step) * step;
    (0..=span / step + 1)
        .map(|number| first + number * step)
        .filter(|local| (frame.from.0..=frame.to.0).contains(&(local - offset)))
        .map(|local| (UnixMillis(local - offset), time_label(local, step)))
        .collect()
}

fn time_label(local: i64, step: i64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = UnixMillis(local).to_string();
    let part = |range| text.get(range).unwrap_or_default();
    if local.rem_euclid(DAY) == 0 {
        let month = part(5..7).parse::<usize>().unwrap_or(1);
        let name = MONTHS.get(month.saturating_sub(1)).unwrap_or(&"");
        return format!("{name} {}", part(8..10).trim_start_matches('0'));
    }
    if step < MINUTE {
        part(11..19).to_owned()
    } else {
        part(11..16).to_owned()
    }
}
