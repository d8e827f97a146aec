//! How many requests per second a rollout has, steady enough to plan with.
//!
//! Plain numbers. A window of ten minutes says little when ten requests come in an hour; this forgets by
//! halves instead, and knows when it does not know yet.

use crate::clock::UnixMillis;

const HALF_LIFE_MS: f64 = 3_600_000.0;
/// Requests before the rate means anything.
const COUNTED_MIN: u32 = 20;

/// Requests, with a half-life of an hour.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<UnixMillis>,
    at: UnixMillis,
    faded: f64,
    counted: u32,
}

impl Pace {
    /// Counts a request.
    pub(super) fn record(&mut self, now: UnixMillis) {
        if self.since.is_none() {
            // The time runs from the first request, which therefore does not count itself.
            (self.since, self.at) = (Some(now), now);
            return;
        }
        // Most come in the millisecond of the one before.
        if now > self.at {
            self.faded *= kept(now.millis_since(self.at));
            self.at = now;
        }
        self.faded += 1.0;
        self.counted = self.counted.saturating_add(1);
    }

    /// Requests per second; 0 while too few were counted.
    pub(super) fn per_s(&self, now: UnixMillis) -> f64 {
        let Some(since) = self.since.filter(|_| self.counted >= COUNTED_MIN) else {
            return 0.0;
        };
        let lasted_ms = now.max(self.at).millis_since(since).max(1_000);
        let faded = self.faded * kept(now.millis_since(self.at));
        // What one request per millisecond would have left by now.
        let unit = HALF_LIFE_MS / std::f64::consts::LN_2 * (1.0 - kept(lasted_ms));
        faded / unit * 1_000.0
    }
}

fn kept(ms: i64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "times below 285 years are exact"
    )]
    let half_lives = ms.max(0) as f64 / HALF_LIFE_MS;
    0.5f64.powf(half_lives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_whether_high_or_low() {
        for gap_ms in [10, 1_000, 6_000, 360_000] {
            let mut pace = Pace::default();
            for count in 0..2_000 {
                let now = UnixMillis(count * gap_ms);
                pace.record(now);
                let rate = pace.per_s(now);
                if count < 20 {
                    assert!(rate < 1e-9, "{rate} after {count}");
                } else if count * gap_ms >= 1_000 {
                    let ratio = rate * gap_ms as f64 / 1_000.0;
                    assert!((ratio - 1.0).abs() < 0.1, "{ratio} at {count} of {gap_ms}");
                }
            }
        }
    }

    #[test]
    fn traffic_that_ends_fades_away() {
        let mut pace = Pace::default();
        for second in 0..7_200 {
            pace.record(UnixMillis(second * 1_000));
        }
        assert!(pace.per_s(UnixMillis(2 * 86_400_000)) < 1e-6);
    }
}
