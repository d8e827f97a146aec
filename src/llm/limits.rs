//! How long a provider asks its callers to wait, from the many headers that say so.
//!
//! Pure. The answer is always capped: a relay that sends a day would hang every client for a day.
#![deny(clippy::disallowed_methods)]

use http::{HeaderMap, HeaderValue};

use crate::clock::UnixMillis;

/// No wait is longer, whatever a header says. OpenAI's SDK fails at once above 120 s, Anthropic's
/// sleeps for any time.
pub const RETRY_AFTER_MS_MAX: u64 = 120_000;

/// An `x-ratelimit-reset` below this is a number of seconds, above it a point in time.
const EPOCH_FROM_S: f64 = 30.0 * 86_400.0;

/// Milliseconds to wait before the next try, at most [`RETRY_AFTER_MS_MAX`]; `None` if no header says.
#[must_use]
pub fn retry_after_ms(headers: &HeaderMap, now: UnixMillis) -> Option<u64> {
    let wait_ms = millis(headers, "retry-after-ms")
        .or_else(|| millis(headers, "x-ms-retry-after-ms"))
        .or_else(|| {
            let value = text(headers, "retry-after")?;
            seconds(value).or_else(|| until(http_date_ms(value)?, now))
        })
        .or_else(|| anthropic_reset(headers, now))
        .or_else(|| openai_reset(headers))
        .or_else(|| plain_reset(headers, now))
        .or_else(|| cerebras_reset(headers))?;
    Some(clamp(wait_ms))
}

/// Shortens every wait above [`RETRY_AFTER_MS_MAX`] that the headers ask a client for. Others, and what
/// cannot be read, stay byte for byte.
pub fn clamp_retry_after(headers: &mut HeaderMap, now: UnixMillis) {
    let longest_ms = 120_000.0;
    for (name, longest) in [
        ("retry-after", "120"),
        ("retry-after-ms", "120000"),
        ("x-ms-retry-after-ms", "120000"),
    ] {
        let Some(value) = text(headers, name) else {
            continue;
        };
        let wait_ms = if name == "retry-after" {
            seconds(value).or_else(|| until(http_date_ms(value)?, now))
        } else {
            number(value)
        };
        if wait_ms.is_some_and(|wait_ms| wait_ms > longest_ms) {
            headers.insert(name, HeaderValue::from_static(longest));
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(value: &str) -> Option<f64> {
    value
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

fn millis(headers: &HeaderMap, name: &str) -> Option<f64> {
    number(text(headers, name)?)
}

fn seconds(value: &str) -> Option<f64> {
    number(value).map(|seconds| seconds * 1e3)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value lies within 0 and the cap"
)]
fn clamp(wait_ms: f64) -> u64 {
    wait_ms.clamp(0.0, 120_000.0).ceil() as u64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times of this age are exact in an f64"
)]
fn until(at_ms: i64, now: UnixMillis) -> Option<f64> {
    Some(UnixMillis(at_ms).millis_since(now).max(0) as f64)
}

fn is_exhausted(headers: &HeaderMap, name: &str) -> bool {
    text(headers, name).is_some_and(|value| value == "0")
}

/// The latest reset among the buckets that are empty: all of them must fill again.
fn anthropic_reset(headers: &HeaderMap, now: UnixMillis) -> Option<f64> {
    ["requests", "tokens", "input-tokens", "output-tokens"]
        .into_iter()
        .filter(|bucket| is_exhausted(headers, &format!("anthropic-ratelimit-{bucket}-remaining")))
        .filter_map(|bucket| {
            let reset = text(headers, &format!("anthropic-ratelimit-{bucket}-reset"))?;
            until(rfc3339_ms(reset)?, now)
        })
        .reduce(f64::max)
}

/// The shortest reset among the buckets that are empty.
fn openai_reset(headers: &HeaderMap) -> Option<f64> {
    ["requests", "tokens"]
        .into_iter()
        .filter(|bucket| is_exhausted(headers, &format!("x-ratelimit-remaining-{bucket}")))
        .filter_map(|bucket| duration_ms(text(headers, &format!("x-ratelimit-reset-{bucket}"))?))
        .reduce(f64::min)
}

fn plain_reset(headers: &HeaderMap, now: UnixMillis) -> Option<f64> {
    let value = number(text(headers, "x-ratelimit-reset")?)?;
    if value < EPOCH_FROM_S {
        return Some(value * 1e3);
    }
    // Some send the point in time in milliseconds.
    let at_ms = if value > 1e11 { value } else { value * 1e3 };
    #[expect(
        clippy::cast_precision_loss,
        reason = "times of this age are exact in an f64"
    )]
    let now_ms = now.0 as f64;
    Some((at_ms - now_ms).max(0.0))
}

fn cerebras_reset(headers: &HeaderMap) -> Option<f64> {
    ["requests-day", "tokens-minute"]
        .into_iter()
        .filter(|bucket| is_exhausted(headers, &format!("x-ratelimit-remaining-{bucket}")))
        .filter_map(|bucket| duration_ms(text(headers, &format!("x-ratelimit-reset-{bucket}"))?))
        .reduce(f64::max)
}

/// A length of time as Go prints it (`1s`, `6m0s`, `17ms`, `1h2m3.5s`), or a number of seconds.
fn duration_ms(value: &str) -> Option<f64> {
    if let Some(plain) = seconds(value) {
        return Some(plain);
    }
    let mut rest = value;
    let mut total_ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at_checked(digits)?;
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let unit_ms = match unit {
            "d" => 86_400_000.0,
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1e3,
            "ms" => 1.0,
            "us" => 1e-3,
            "ns" => 1e-6,
            _ => return None,
        };
        total_ms += number(amount)? * unit_ms;
        rest = tail;
    }
    (!value.is_empty()).then_some(total_ms)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of date that HTTP still allows to send.
fn http_date_ms(value: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, value) = value.split_once(", ")?;
    let mut parts = value.split(' ');
    let day = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = 1 + MONTHS.iter().position(|month| *month == name)?;
    let year = parts.next()?.parse().ok()?;
    let time = parts.next()?;
    (parts.next()? == "GMT").then_some(())?;
    unix_ms(year, i64::try_from(month).ok()?, day, time)
}

/// `2026-08-23T10:00:00Z`, with a fraction or an offset if need be.
fn rfc3339_ms(value: &str) -> Option<i64> {
    let (date, time) = value.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(at)?;
    let clock = clock.split('.').next()?;
    let offset_min: i64 = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes: u16 = minutes.parse().ok()?;
            let hours: u16 = hours.parse().ok()?;
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            sign * (i64::from(hours) * 60 + i64::from(minutes))
        }
    };
    Some(unix_ms(year, month, day, clock)? - offset_min * 60_000)
}

/// Days by the civil calendar: years begin in March, so that the leap day is their last.
fn unix_ms(year: i64, month: i64, day: i64, clock: &str) -> Option<i64> {
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let sane = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    sane.then_some(())?;
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds =
        days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(seconds * 1000)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    /// 2026-08-23T10:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_787_479_200_000);

    fn check(headers: &[(&'static str, &str)], expected: Option<u64>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            map.insert(HeaderName::from_static(name), value);
        }
        assert_eq!(retry_after_ms(&map, NOW), expected, "{headers:?}");
    }

    #[test]
    fn the_test_clock_is_what_it_says() {
        assert_eq!(NOW.to_string(), "2026-08-23T10:00:00.000Z");
        assert_eq!(rfc3339_ms("1994-11-06T08:49:37Z"), Some(784_111_777_000));
        assert_eq!(
            http_date_ms("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777_000)
        );
        assert_eq!(
            rfc3339_ms("2024-02-29T23:59:59.5+02:00"),
            Some(1_709_243_999_000)
        );
        assert_eq!(rfc3339_ms("1970-01-01T00:00:00Z"), Some(0));
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        check(&[], None);
        check(&[("retry-after", "7")], Some(7_000));
        check(&[("retry-after", "0.25")], Some(250));
        check(&[("retry-after", "86400")], Some(RETRY_AFTER_MS_MAX));
        check(&[("retry-after", "-5")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "soon")], None);
        check(
            &[("retry-after", "Sun, 23 Aug 2026 10:00:30 GMT")],
            Some(30_000),
        );
        check(&[("retry-after", "Sun, 23 Aug 2026 09:00:30 GMT")], Some(0));
        check(
            &[("retry-after-ms", "1500"), ("retry-after", "9")],
            Some(1_500),
        );
        check(
            &[("x-ms-retry-after-ms", "20"), ("retry-after", "9")],
            Some(20),
        );
    }

    #[test]
    fn only_waits_above_the_cap_are_shortened() {
        let cases = [
            ("retry-after", "120", "120"),
            ("retry-after", "121", "120"),
            ("retry-after", "86400", "120"),
            ("retry-after", "soon", "soon"),
            (
                "retry-after",
                "Sun, 23 Aug 2026 10:02:00 GMT",
                "Sun, 23 Aug 2026 10:02:00 GMT",
            ),
            ("retry-after", "Mon, 24 Aug 2026 10:00:00 GMT", "120"),
            ("retry-after-ms", "120000.5", "120000"),
            ("x-ms-retry-after-ms", "7", "7"),
        ];
        for (name, value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            clamp_retry_after(&mut headers, NOW);
            assert_eq!(headers.get(name).unwrap(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn resets_count_only_for_buckets_that_are_empty() {
        check(
            &[
                ("anthropic-ratelimit-tokens-remaining", "0"),
                ("anthropic-ratelimit-tokens-reset", "2026-08-23T10:00:12Z"),
                ("anthropic-ratelimit-requests-remaining", "5"),
                ("anthropic-ratelimit-requests-reset", "2026-08-23T10:01:00Z"),
            ],
            Some(12_000),
        );
        check(
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "1m2.5s"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "17ms"),
            ],
            Some(17),
        );
        check(
            &[
                ("x-ratelimit-remaining-requests", "10"),
                ("x-ratelimit-reset-requests", "1s"),
            ],
            None,
        );
        check(&[("x-ratelimit-reset", "5")], Some(5_000));
        check(&[("x-ratelimit-reset", "1787479203")], Some(3_000));
        check(&[("x-ratelimit-reset", "1787479203000")], Some(3_000));
        check(
            &[
                ("x-ratelimit-remaining-requests-day", "0"),
                ("x-ratelimit-reset-requests-day", "33011.38"),
            ],
            Some(RETRY_AFTER_MS_MAX),
        );
    }

    #[test]
    fn lengths_of_time_are_read_as_go_prints_them() {
        let cases = [
            ("1s", Some(1e3)),
            ("6m0s", Some(360e3)),
            ("17ms", Some(17.0)),
            ("1h2m3.5s", Some(3_723_500.0)),
            ("12", Some(12e3)),
            ("", None),
            ("s", None),
            ("1x", None),
            ("1.2.3s", None),
            ("5m ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }
}
