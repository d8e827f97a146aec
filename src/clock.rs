//! Time as plain numbers, and the one place that reads the wall clock.
//!
//! Pure code receives [`UnixMillis`] as an argument, so tests and the simulator can hand it any time.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Reads the wall clock. A clock before 1970 or absurdly far ahead reads as the nearest end.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds from `earlier` to `self`; negative when the clock was set back.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time moved by `millis`.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// The time of day in UTC, `14:32:10`, as the decision log prints it.
    #[must_use]
    pub fn time_of_day(self) -> String {
        let rfc3339 = self.to_string();
        rfc3339.get(11..19).unwrap_or("??:??:??").to_owned()
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years above 9999 cannot be written in this form; the year 9999 then stands for "never".
        let millis = u64::try_from(self.0).unwrap_or(0).min(253_402_300_799_999);
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        write!(f, "{}", humantime::format_rfc3339_millis(time))
    }
}

/// Milliseconds since some moment early in this process: never goes back, the same for all threads.
#[must_use]
pub fn monotonic_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The same in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A length of time for people: `31m`, `2h 5m`, `3d 4h`, `850ms`; two units at most.
#[must_use]
pub fn for_people(millis: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let millis = millis.max(0);
    let Some(first) = UNITS.iter().position(|(size, _)| millis >= *size) else {
        return format!("{millis}ms");
    };
    let mut text = String::new();
    let mut rest = millis;
    for (size, unit) in UNITS.iter().skip(first).take(2) {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            let space = if text.is_empty() { "" } else { " " };
            text.push_str(&format!("{space}{count}{unit}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_keep_two_units() {
        let cases = [
            (0, "0ms"),
            (850, "850ms"),
            (61_000, "1m 1s"),
            (1_860_000, "31m"),
            (7_500_000, "2h 5m"),
            (273_600_000, "3d 4h"),
        ];
        for (millis, text) in cases {
            assert_eq!(for_people(millis), text);
        }
    }

    #[test]
    fn times_print_in_utc() {
        assert_eq!(
            UnixMillis(1_700_000_000_123).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(UnixMillis(1_700_000_000_123).time_of_day(), "22:13:20");
        assert_eq!(UnixMillis(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
