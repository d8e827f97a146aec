//! Numbers and times as a report says them.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use super::{Difference, Estimate};
use crate::chart::{Unit, text_of};
use crate::clock::{UnixMillis, for_people};

/// `2026-11-21 14:30:05`
pub(super) fn moment(at: UnixMillis) -> String {
    let text = at.to_string().replace('T', " ");
    text.get(..19).unwrap_or(&text).to_owned()
}

/// `2026-11-21 14:30`
pub(super) fn minute(at: UnixMillis) -> String {
    let text = moment(at);
    text.get(..16).unwrap_or(&text).to_owned()
}

/// Seconds as a length of time.
pub(super) fn length(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "`as` stops at the ends")]
    let ms = (seconds * 1_000.0) as i64;
    for_people(ms)
}

/// A count with its thousands separated.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 request`, `2 requests`.
pub(super) fn counted(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(number))
}

/// A fraction in percent.
pub(super) fn share(fraction: f64) -> String {
    text_of(Unit::Share, fraction)
}

/// `$1,234`, `$0.0021`; the sign before the currency.
pub(super) fn money(usd: f64) -> String {
    let sign = if usd < 0.0 { "-" } else { "" };
    let size = usd.abs();
    if size >= 1_000.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` stops at the ends"
        )]
        let whole = size.round() as u64;
        return format!("{sign}${}", count(whole));
    }
    if size >= 1.0 {
        return format!("{sign}${size:.2}");
    }
    format!("{sign}{}", text_of(Unit::Usd, size))
}

/// What a figure is called, and in what it is measured.
pub(super) fn metric(name: &str) -> (&'static str, Unit) {
    match name {
        "error_rate" => ("errors", Unit::Share),
        "latency_p50_ms" => ("latency, median", Unit::Millis),
        "latency_p99_ms" => ("latency, 99th percentile", Unit::Millis),
        "ttft_p50_ms" => ("first token, median", Unit::Millis),
        "ttft_p99_ms" => ("first token, 99th percentile", Unit::Millis),
        "output_tokens_per_s" => ("tokens per second, median", Unit::PerSecond),
        _ => ("cost of 1,000 answers", Unit::Usd),
    }
}

/// A value in its unit.
pub(super) fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Usd => money(value),
        _ if value < 0.0 => format!("-{}", text_of(unit, value.abs())),
        _ => text_of(unit, value),
    }
}

/// `0.12s to 0.34s`; which end is not known is said.
pub(super) fn range(unit: Unit, estimate: &Estimate) -> String {
    match (estimate.ci95_low, estimate.ci95_high) {
        (Some(low), Some(high)) => format!("{} to {}", value(unit, low), value(unit, high)),
        (Some(low), None) => format!("{} or more", value(unit, low)),
        (None, Some(high)) => format!("{} or less", value(unit, high)),
        (None, None) => "too few to tell how sure".to_owned(),
    }
}

/// A difference of rates is in points, not in percent of anything.
pub(super) fn shift(unit: Unit, by: f64) -> String {
    match unit {
        Unit::Share => {
            let text = text_of(Unit::Share, by.abs());
            format!("{} points", text.trim_end_matches('%'))
        }
        _ => value(unit, by.abs()),
    }
}

/// `lower by 0.12s`, `no measurable difference`.
pub(super) fn verdict(difference: &Difference) -> String {
    let (_, unit) = metric(difference.metric);
    let by = || shift(unit, difference.difference.value);
    match difference.verdict {
        "no-measurable-difference" => "no measurable difference".to_owned(),
        "unknown" => "too few to tell".to_owned(),
        word => format!("{word} by {}", by()),
    }
}

/// The interval of a difference, with signs: `-0.2 to +0.1 points`.
pub(super) fn shift_range(unit: Unit, estimate: &Estimate) -> String {
    let (Some(low), Some(high)) = (estimate.ci95_low, estimate.ci95_high) else {
        return "too few to tell how sure".to_owned();
    };
    let signed = |by: f64| {
        let text = match unit {
            Unit::Share => text_of(Unit::Share, by.abs())
                .trim_end_matches('%')
                .to_owned(),
            _ => value(unit, by.abs()),
        };
        format!("{}{text}", if by < 0.0 { "-" } else { "+" })
    };
    let points = if unit == Unit::Share { " points" } else { "" };
    format!("{} to {}{points}", signed(low), signed(high))
}

/// What a kind of decision is called in a sentence.
pub(super) fn kind(word: &str) -> &str {
    match word {
        "trip" => "tripped",
        "roll-back" => "rolled back",
        "retreat" => "stepped back",
        other => other,
    }
}
