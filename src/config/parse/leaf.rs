//! Single values: durations, shares, sizes, addresses, words. Each says what to write instead.
//!
//! Pure: looks at one value only.
#![deny(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::super::raw::keys::nearest;
use super::super::raw::{Field, Wrong};
use crate::arm::Weight;

/// Longer times are slips of the finger, and would overflow deadlines.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
/// Longer texts are not quoted in messages.
const QUOTED_CHARS: usize = 60;

/// A value in the file as a message shows it.
fn quote(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_CHARS).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("\"{}{dots}\"", cut.escape_debug())
}

/// Text, not empty.
pub(in crate::config) fn text(field: &Field<'_>) -> Result<String, Wrong> {
    let text = field
        .value
        .as_str()
        .ok_or_else(|| field.expected("a text in quotes"))?;
    if text.trim().is_empty() {
        return Err(Wrong::new(
            "an empty text",
            "write a value, or remove the key",
        ));
    }
    Ok(text.to_owned())
}

/// `true` or `false`.
pub(in crate::config) fn boolean(field: &Field<'_>) -> Result<bool, Wrong> {
    field
        .value
        .as_bool()
        .ok_or_else(|| field.expected("true or false"))
}

/// A whole number in a range.
pub(in crate::config) fn whole(field: &Field<'_>, least: u64, most: u64) -> Result<u64, Wrong> {
    let what = format!("a whole number from {least} to {most}");
    let number = field
        .value
        .as_integer()
        .ok_or_else(|| field.expected(&what))?;
    u64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| Wrong::new(format!("{number} is out of range"), format!("write {what}")))
}

/// A number that is finite and not negative; whole numbers are taken too.
pub(in crate::config) fn number(field: &Field<'_>) -> Result<f64, Wrong> {
    let what = "a number of at least 0";
    let parsed: Option<f64> = match field.value {
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .and_then(|whole| i32::try_from(whole).ok())
            .map(f64::from),
        DeValue::Float(digits) => digits.as_str().parse().ok(),
        _ => return Err(field.expected(what)),
    };
    parsed
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| Wrong::new("the number is out of range", format!("write {what}")))
}

/// A time with its unit, as `30s` or `1h 30m`; zero is allowed.
pub(in crate::config) fn duration(field: &Field<'_>) -> Result<Duration, Wrong> {
    let what = "a duration with its unit, like \"30s\", \"10m\" or \"24h\"";
    let text = field.value.as_str().ok_or_else(|| field.expected(what))?;
    let what = if text.contains('.') {
        "whole numbers, like \"1s 500ms\""
    } else {
        what
    };
    let duration = humantime::parse_duration(text.trim()).map_err(|_| {
        Wrong::new(
            format!("{} is no duration", quote(text)),
            format!("write {what}"),
        )
    })?;
    if duration > LONGEST {
        return Err(Wrong::new(
            format!("{} is longer than ten years", quote(text)),
            format!("write {what}"),
        ));
    }
    Ok(duration)
}

/// A time above zero.
pub(in crate::config) fn positive_duration(field: &Field<'_>) -> Result<Duration, Wrong> {
    duration(field).and_then(|duration| {
        if duration.as_millis() == 0 {
            return Err(Wrong::new("a duration of zero", "write at least \"1ms\""));
        }
        Ok(duration)
    })
}

/// Milliseconds of a duration that [`duration`] has bounded.
pub(in crate::config) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A time in whole milliseconds; zero is allowed.
pub(in crate::config) fn duration_ms(field: &Field<'_>) -> Result<i64, Wrong> {
    duration(field).map(ms)
}

/// A share in percent: `5%` is 5.0. Between 0 and 100.
pub(in crate::config) fn percent(field: &Field<'_>) -> Result<f64, Wrong> {
    let what = "a share in percent, like \"5%\"";
    let Some(text) = field.value.as_str() else {
        return Err(field.expected(what));
    };
    let wrong = || {
        Wrong::new(
            format!("{} is no share", quote(text)),
            format!("write {what}"),
        )
    };
    let digits = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
    let percent: f64 = digits.parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent)
    } else {
        Err(Wrong::new(
            format!("{} is out of range", quote(text)),
            "write a share from 0% to 100%",
        ))
    }
}

/// A share as a fraction: `5%` is 0.05.
pub(in crate::config) fn share(field: &Field<'_>) -> Result<f64, Wrong> {
    percent(field).map(|percent| percent / 100.0)
}

/// A confidence, as the error that is left: `99%` is 0.01. Above 50% and below 100%.
pub(in crate::config) fn alpha(field: &Field<'_>) -> Result<f64, Wrong> {
    let percent = percent(field)?;
    if percent > 50.0 && percent < 100.0 {
        Ok(alpha_of(percent))
    } else {
        Err(Wrong::new(
            "a confidence lies above 50% and below 100%",
            "write, for example, \"99%\"",
        ))
    }
}

/// What a confidence in percent leaves to error.
pub(in crate::config) fn alpha_of(percent: f64) -> f64 {
    (100.0 - percent) / 100.0
}

/// A weight above 0%.
pub(in crate::config) fn weight(field: &Field<'_>) -> Result<Weight, Wrong> {
    let what = "a share in percent, like \"5%\"";
    let text = field.value.as_str().ok_or_else(|| field.expected(what))?;
    let weight = Weight::parse(text).map_err(|_| {
        Wrong::new(
            format!("{} is no weight", quote(text)),
            "write a share from 0.01% to 100% in steps of 0.01%, like \"5%\"",
        )
    })?;
    if weight == Weight::ZERO {
        return Err(Wrong::new(
            "a weight of 0% measures nothing",
            "write a share from 0.01% to 100%",
        ));
    }
    Ok(weight)
}

/// A size in bytes, as `64MiB`, `1GB` or a whole number of bytes; at least 1.
pub(in crate::config) fn bytes(field: &Field<'_>) -> Result<u64, Wrong> {
    let what = "a size with its unit, like \"64MiB\"";
    if field.value.is_integer() {
        return whole(field, 1, u64::from(u32::MAX) << 10);
    }
    let text = field.value.as_str().ok_or_else(|| field.expected(what))?;
    let wrong = || {
        Wrong::new(
            format!("{} is no size", quote(text)),
            format!("write {what}"),
        )
    };
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = trimmed.get(digits.len()..).unwrap_or_default().trim();
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let most = u64::from(u32::MAX) << 10;
    count
        .checked_mul(factor)
        .filter(|bytes| (1..=most).contains(bytes))
        .ok_or_else(|| {
            Wrong::new(
                format!("{} is out of range", quote(text)),
                format!("write {what}"),
            )
        })
}

/// An address to listen on.
pub(in crate::config) fn socket(field: &Field<'_>) -> Result<SocketAddr, Wrong> {
    let what = "an IP address and a port, like \"127.0.0.1:8080\" or \"[::]:8080\"";
    let text = field.value.as_str().ok_or_else(|| field.expected(what))?;
    text.trim().parse().map_err(|_| {
        Wrong::new(
            format!("{} is no address to listen on", quote(text)),
            format!("write {what}"),
        )
    })
}

/// One of a few words.
pub(in crate::config) fn word<T: Copy>(field: &Field<'_>, words: &[(&str, T)]) -> Result<T, Wrong> {
    let listed: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let what = format!("one of {}", listed.join(", "));
    let text = field.value.as_str().ok_or_else(|| field.expected(&what))?;
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let remedy = nearest(text, &names).map_or_else(
                || format!("write {what}"),
                |near| format!("did you mean \"{near}\"?"),
            );
            Wrong::new(format!("{} is not known here", quote(text)), remedy)
        })
}

/// A list of texts.
pub(in crate::config) fn texts(field: &Field<'_>) -> Result<Vec<String>, Wrong> {
    let what = "a list of texts, like [\"gpt-*\"]";
    let elements = field.elements().ok_or_else(|| field.expected(what))?;
    let texts: Result<Vec<String>, Wrong> = elements.iter().map(text).collect();
    texts.and_then(|texts| {
        if texts.is_empty() {
            return Err(Wrong::new(
                "an empty list",
                "write a value, or remove the key",
            ));
        }
        Ok(texts)
    })
}

/// True if `field` holds exactly the word `off`.
pub(in crate::config) fn is_off(field: &Field<'_>) -> bool {
    field.value.as_str() == Some("off")
}
