//! Numbers as text that reads back to the same bits, minus infinity included.
//!
//! JSON knows no infinities, and a common JSON reader may miss the last bit of a fraction; a ledger that
//! changes by a restart would make decisions irreproducible. So lists of numbers are stored as one string.
#![deny(clippy::disallowed_methods)]

use std::fmt::{Display, Write};

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes numbers separated by blanks.
pub(super) fn to_text(numbers: impl Iterator<Item = f64>) -> String {
    let mut text = String::new();
    for number in numbers {
        if !text.is_empty() {
            text.push(' ');
        }
        // Writing to a String cannot fail.
        if number.abs() < 1e15 && number.fract().abs() < f64::MIN_POSITIVE && number.is_finite() {
            write!(text, "{number:?}").unwrap_or_default();
        } else {
            write!(text, "{number:e}").unwrap_or_default();
        }
    }
    text
}

/// Reads what [`to_text`] wrote.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = Result<f64, impl Display>> {
    text.split_ascii_whitespace().map(str::parse::<f64>)
}

/// `#[serde(with = "exact")]` for arrays.
pub(super) fn serialize<const N: usize, S: Serializer>(
    values: &[f64; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(values.iter().copied()))
}

/// `#[serde(with = "exact")]` for arrays.
pub(super) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[f64; N], D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    let values = numbers(&text)
        .collect::<Result<Vec<f64>, _>>()
        .map_err(D::Error::custom)?;
    let count = values.len();
    <[f64; N]>::try_from(values)
        .map_err(|_| D::Error::custom(format!("expected {N} numbers, found {count}")))
}
