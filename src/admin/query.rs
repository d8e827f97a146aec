//! The part of a URL behind the question mark: known keys, each once, decoded.
//!
//! Pure. A key that a route does not know is refused, so that a mistyped filter never looks like an answer.
#![deny(clippy::disallowed_methods)]

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::UnixMillis;

/// Decoded parameters.
#[derive(Debug)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads `raw`. Keys without a value count as absent.
    ///
    /// # Errors
    /// With a sentence about the first parameter that is unknown, given twice, or encoded wrongly.
    pub(super) fn parse(raw: Option<&str>, known: &[&'static str]) -> Result<Self, String> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        let pairs = raw.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decoded(key).ok_or("a parameter's name is not encoded as UTF-8")?;
            let Some(key) = known.iter().find(|known| **known == key) else {
                return Err(match known {
                    [] => "no parameters are known here".to_owned(),
                    known => format!("known parameters are {}", listed(known)),
                });
            };
            let value = decoded(value).ok_or_else(|| format!("{key} is not encoded as UTF-8"))?;
            if found.iter().any(|(before, _)| before == key) {
                return Err(format!("{key} is given twice"));
            }
            found.push((key, value));
        }
        found.retain(|(_, value)| !value.is_empty());
        Ok(Self(found))
    }

    /// The value of `key`.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let mut found = self.0.iter();
        let (_, value) = found.find(|(found, _)| *found == key)?;
        Some(value)
    }

    /// The value of `key` as something else.
    ///
    /// # Errors
    /// With the sentence `key` + `wanted`.
    pub(super) fn value<T: FromStr>(&self, key: &str, wanted: &str) -> Result<Option<T>, String> {
        let parsed = self.text(key).map(str::parse);
        parsed.transpose().map_err(|_| format!("{key} {wanted}"))
    }

    /// How many rows are wanted, at least one.
    ///
    /// # Errors
    /// If it is no number.
    pub(super) fn limit(&self, default: u32, most: u32) -> Result<u32, String> {
        let limit = self.value("limit", &format!("is a number up to {most}"))?;
        Ok(limit.unwrap_or(default).clamp(1, most))
    }

    /// `true` or `false`; false when absent.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn flag(&self, key: &str) -> Result<bool, String> {
        Ok(self.value(key, "is true or false")?.unwrap_or(false))
    }

    /// A time: RFC 3339 in UTC, milliseconds since 1970, `now`, or before now like `-24h`.
    ///
    /// # Errors
    /// If it is none of them.
    pub(super) fn time(&self, key: &str, now: UnixMillis) -> Result<Option<UnixMillis>, String> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let time = time_of(text, now).ok_or_else(|| {
            format!(
                "{key} is a time like 2026-01-31T08:00:00Z, milliseconds since 1970, now, or -24h"
            )
        })?;
        Ok(Some(time))
    }
}

fn time_of(text: &str, now: UnixMillis) -> Option<UnixMillis> {
    if text == "now" {
        return Some(now);
    }
    if let Ok(millis) = text.parse::<u64>() {
        return i64::try_from(millis).ok().map(UnixMillis);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Some(now.plus_millis(-millis_of(humantime::parse_duration(ago).ok()?)?));
    }
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    millis_of(time.duration_since(UNIX_EPOCH).ok()?).map(UnixMillis)
}

/// A length of time in milliseconds.
pub(super) fn millis_of(duration: Duration) -> Option<i64> {
    i64::try_from(duration.as_millis()).ok()
}

fn listed(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        names => names.concat(),
    }
}

/// Undoes the encoding of forms: `%2F` and `+`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["rollout", "limit", "from"];
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn parameters_are_decoded_and_unknown_ones_refused() {
        let check = |raw: &str, expected: Result<Option<&str>, &str>| {
            let query = Query::parse(Some(raw), KNOWN);
            let found = query.as_ref().map(|query| query.text("rollout"));
            assert_eq!(found.map_err(String::as_str), expected, "{raw}");
        };
        check("", Ok(None));
        check("&&rollout=&", Ok(None));
        check("rollout", Ok(None));
        check("limit=1&rollout=a-b_c", Ok(Some("a-b_c")));
        check(
            "rollout=a%20b+c%2Bd%26%3D%c3%A4",
            Ok(Some("a b c+d&=\u{e4}")),
        );
        check("roll%6fut=x", Ok(Some("x")));
        check("rollout=a=b", Ok(Some("a=b")));
        check(
            "speed=1",
            Err("known parameters are rollout, limit and from"),
        );
        check("rollout=a&rollout=", Err("rollout is given twice"));
        for raw in [
            "rollout=%",
            "rollout=%2",
            "rollout=%g0",
            "rollout=%ff",
            "rollout=%+1",
        ] {
            check(raw, Err("rollout is not encoded as UTF-8"));
        }
        let none = Query::parse(Some("x=1"), &[]).unwrap_err();
        assert_eq!(none, "no parameters are known here");
    }

    #[test]
    fn numbers_and_flags_are_read_or_named() {
        let query = |raw| Query::parse(Some(raw), &["limit", "failed", "before"]).unwrap();
        assert_eq!(query("").limit(50, 1000), Ok(50));
        assert_eq!(query("limit=0").limit(50, 1000), Ok(1));
        assert_eq!(query("limit=5000").limit(50, 1000), Ok(1000));
        let wrong = query("limit=-1").limit(50, 1000).unwrap_err();
        assert_eq!(wrong, "limit is a number up to 1000");
        assert_eq!(query("failed=true").flag("failed"), Ok(true));
        assert_eq!(query("").flag("failed"), Ok(false));
        assert!(query("failed=yes").flag("failed").is_err());
        let before = query("before=-7").value::<i64>("before", "is an id");
        assert_eq!(before, Ok(Some(-7)));
    }

    #[test]
    fn times_come_in_the_forms_that_people_and_programs_have() {
        let check = |text: &str, expected: Option<i64>| {
            let found = time_of(text, NOW).map(|time| time.0);
            assert_eq!(found, expected, "{text}");
        };
        check("2027-01-15T08:00:00Z", Some(NOW.0));
        check("2027-01-15T07:59:59.500Z", Some(NOW.0 - 500));
        check("2027-01-15 08:00:00", Some(NOW.0));
        check("1800000000000", Some(NOW.0));
        check("now", Some(NOW.0));
        check("-24h", Some(NOW.0 - 86_400_000));
        check("-1h 30m", Some(NOW.0 - 5_400_000));
        check("-0s", Some(NOW.0));
        for text in [
            "",
            "-",
            "24h",
            "--1h",
            "yesterday",
            "1e3",
            "99999999999999999999",
            "-999999999999y",
        ] {
            check(text, None);
        }
    }
}
