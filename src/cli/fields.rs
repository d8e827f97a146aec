//! Fields of the admin API's answers as words: what is missing shows as `-`, never as 0.
//!
//! Pure text from JSON. Shared by the tables and by the live view, so that both use the same words.
#![deny(clippy::disallowed_methods)]

use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::clock::{UnixMillis, for_people};

/// The elements of an array; none if there is no such array.
pub(super) fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A text, if there is one.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// A text, else `-`.
pub(super) fn word<'a>(value: &'a Value, pointer: &str) -> &'a str {
    text(value, pointer).unwrap_or("-")
}

/// A number, if there is one.
pub(super) fn float_at(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Value::as_f64)
}

/// A count, else 0: for counts that are left out where there is nothing.
pub(super) fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A number as it is.
pub(super) fn number(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .filter(|found| found.is_number())
        .map_or("-".into(), Value::to_string)
}

/// A share as a percentage.
pub(super) fn share(value: &Value, pointer: &str) -> String {
    rate(value.pointer(pointer))
}

/// A share as a percentage.
pub(super) fn rate(value: Option<&Value>) -> String {
    value
        .and_then(Value::as_f64)
        .map_or("-".to_owned(), percent)
}

/// `0.49%`, `25%`
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let mut text = if percent.abs() >= 10.0 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.2}")
    };
    while text.contains('.') && (text.ends_with('0') || text.ends_with('.')) {
        text.pop();
    }
    if text == "-0" {
        text.remove(0);
    }
    text + "%"
}

/// Milliseconds: `340ms`, `1.21s`.
pub(super) fn time(value: Option<&Value>) -> String {
    value.and_then(Value::as_f64).map_or("-".to_owned(), millis)
}

/// `340ms`, `1.21s`
pub(super) fn millis(ms: f64) -> String {
    if ms.abs() < 1_000.0 {
        format!("{ms:.0}ms")
    } else {
        format!("{:.2}s", ms / 1_000.0)
    }
}

/// US dollars. Small sums keep two digits that say something.
pub(super) fn money(value: Option<&Value>) -> String {
    value
        .and_then(Value::as_f64)
        .map_or("-".to_owned(), dollars)
}

/// `$0.000123`, `$0.5000`, `$1234.57`
pub(super) fn dollars(usd: f64) -> String {
    let sign = if usd < 0.0 { "-" } else { "" };
    let usd = usd.abs();
    if usd > 0.0 && usd < 0.01 {
        format!("{sign}${usd:.6}")
    } else if usd > 0.0 && usd < 1.0 {
        format!("{sign}${usd:.4}")
    } else {
        format!("{sign}${usd:.2}")
    }
}

/// Tokens per second.
pub(super) fn speed(value: Option<&Value>) -> String {
    match value.and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(speed) if speed < 10.0 => format!("{speed:.1}"),
        Some(speed) => format!("{speed:.0}"),
    }
}

/// A count with its thousands apart: `12,745`.
pub(super) fn grouped(count: u64) -> String {
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

/// An estimate to two significant digits, rounded up: `1,900`.
pub(super) fn about(count: u64) -> String {
    let mut unit = 1;
    while count / unit >= 100 {
        unit *= 10;
    }
    grouped(count.div_ceil(unit).saturating_mul(unit))
}

/// A moment in RFC 3339.
pub(super) fn moment(value: &Value, pointer: &str) -> Option<UnixMillis> {
    let at = humantime::parse_rfc3339(text(value, pointer)?).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}

/// `in 12m (14:32:10 UTC)`, for a moment to come.
pub(super) fn in_time(at: UnixMillis, now: UnixMillis) -> String {
    let left = for_people(at.millis_since(now).max(1_000));
    format!("in {left} ({} UTC)", at.time_of_day())
}

/// Bytes that may stand in a query or a path as they are; all others as `%XX`.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn money_keeps_digits_that_say_something_and_unknown_is_no_zero() {
        let cases = [
            (json!(null), "-"),
            (json!(0.0), "$0.00"),
            (json!(0.000_123), "$0.000123"),
            (json!(0.5), "$0.5000"),
            (json!(1234.567), "$1234.57"),
            (json!(-0.25), "-$0.2500"),
        ];
        for (usd, expected) in cases {
            assert_eq!(money(Some(&usd)), expected);
        }
    }

    #[test]
    fn estimates_keep_two_digits_and_counts_keep_all() {
        for (count, expected) in [
            (0, "0"),
            (7, "7"),
            (99, "99"),
            (101, "110"),
            (1_893, "1,900"),
            (1_234_567, "1,300,000"),
        ] {
            assert_eq!(about(count), expected, "{count}");
        }
        assert_eq!(grouped(12_745), "12,745");
        assert_eq!(grouped(745), "745");
    }

    #[test]
    fn moments_are_told_from_now() {
        let value = json!({ "at": "2023-11-14T22:13:20.123Z", "not": "yesterday" });
        let at = moment(&value, "/at").unwrap();
        assert_eq!(at, UnixMillis(1_700_000_000_123));
        assert_eq!(moment(&value, "/not"), None);
        assert_eq!(
            in_time(at, at.plus_millis(-720_000)),
            "in 12m (22:13:20 UTC)"
        );
    }

    #[test]
    fn names_from_people_cannot_change_a_query() {
        assert_eq!(encoded("search-2_a"), "search-2_a");
        assert_eq!(encoded("a&limit=1 \u{e9}"), "a%26limit%3D1%20%C3%A9");
    }

    #[test]
    fn shares_and_times_are_short() {
        for (share, expected) in [
            (0.0049, "0.49%"),
            (0.25, "25%"),
            (-0.00001, "0%"),
            (0.123_4, "12.3%"),
        ] {
            assert_eq!(percent(share), expected);
        }
        assert_eq!(
            (millis(340.4), millis(1_211.0)),
            ("340ms".to_owned(), "1.21s".to_owned())
        );
    }
}
