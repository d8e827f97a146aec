//! How much more than its clients ask for cutover may ask of the arms: the retry budget of one worker.
//!
//! Pure: `now` comes in. Every request of a rollout earns a fifth of a retry, which is worth something for
//! five to ten seconds, and each second earns ten, which are not saved up beyond that. So an outage never
//! multiplies the load on what is left.
#![deny(clippy::disallowed_methods)]

use crate::clock::UnixMillis;

/// What one retry costs.
const RETRY: u32 = 1_000;
/// What each request earns: 20%.
const PER_REQUEST: u32 = 200;
/// What each millisecond earns: ten retries a second. Also the bound in retries for one second's worth.
const PER_MS: u32 = 10;
const FROM_TIME_MAX: u32 = PER_MS * 1_000;
/// Earnings of requests are kept in two generations of this age.
const GENERATION_MS: i64 = 5_000;

/// A worker's budget.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    young: u32,
    old: u32,
    young_since: UnixMillis,
    from_time: u32,
    counted_to: UnixMillis,
}

impl Budget {
    /// A budget with one second's worth of retries.
    #[must_use]
    pub const fn new(now: UnixMillis) -> Self {
        Self {
            young: 0,
            old: 0,
            young_since: now,
            from_time: FROM_TIME_MAX,
            counted_to: now,
        }
    }

    /// A request came in.
    pub fn earn(&mut self, now: UnixMillis) {
        self.age(now);
        self.young = self.young.saturating_add(PER_REQUEST);
    }

    /// Pays for one retry; false if there is not enough.
    #[must_use]
    pub fn spend(&mut self, now: UnixMillis) -> bool {
        self.age(now);
        let passed_ms = now.millis_since(self.counted_to).clamp(0, 1_000);
        let earned = u32::try_from(passed_ms).unwrap_or(0) * PER_MS;
        self.from_time = (self.from_time + earned).min(FROM_TIME_MAX);
        self.counted_to = now;
        let all = self
            .old
            .saturating_add(self.young)
            .saturating_add(self.from_time);
        if all < RETRY {
            return false;
        }
        let mut left = RETRY;
        for purse in [&mut self.old, &mut self.young, &mut self.from_time] {
            let taken = left.min(*purse);
            *purse -= taken;
            left -= taken;
        }
        true
    }

    fn age(&mut self, now: UnixMillis) {
        let age_ms = now.millis_since(self.young_since);
        if (0..GENERATION_MS).contains(&age_ms) {
            return;
        }
        // A clock that was set back ages everything once, too.
        self.old = if age_ms < 2 * GENERATION_MS {
            self.young
        } else {
            0
        };
        self.young = 0;
        self.young_since = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spend_all(budget: &mut Budget, now: i64) -> usize {
        (0..).take_while(|_| budget.spend(UnixMillis(now))).count()
    }

    #[test]
    fn requests_earn_a_fifth_and_seconds_earn_ten() {
        let mut budget = Budget::new(UnixMillis(0));
        assert_eq!(spend_all(&mut budget, 0), 10);
        assert_eq!(spend_all(&mut budget, 500), 5);
        assert_eq!(
            spend_all(&mut budget, 60_000),
            10,
            "a quiet minute saves up nothing"
        );
        for _ in 0..100 {
            budget.earn(UnixMillis(60_000));
        }
        assert_eq!(spend_all(&mut budget, 60_000), 20);
    }

    #[test]
    fn what_requests_earned_is_gone_after_ten_seconds() {
        for (later_ms, expected) in [(4_999, 30), (9_999, 30), (10_000, 10)] {
            let mut budget = Budget::new(UnixMillis(0));
            for _ in 0..100 {
                budget.earn(UnixMillis(0));
            }
            assert_eq!(spend_all(&mut budget, later_ms), expected, "{later_ms}");
        }
    }

    proptest! {
        #[test]
        fn however_it_is_used_retries_stay_below_a_fifth_of_the_requests_and_ten_a_second(
            acts in proptest::collection::vec((0i64..300, 0u32..4, 0u32..4), 1..300)
        ) {
            let mut budget = Budget::new(UnixMillis(0));
            let (mut now, mut requests, mut retries) = (0, 0i64, 0i64);
            for (wait_ms, asked, wanted) in acts {
                now += wait_ms;
                for _ in 0..asked {
                    budget.earn(UnixMillis(now));
                    requests += 1;
                }
                for _ in 0..wanted {
                    retries += i64::from(budget.spend(UnixMillis(now)));
                }
                prop_assert!(retries * 1_000 <= requests * 200 + now * 10 + 10_000);
            }
        }

        #[test]
        fn a_clock_that_jumps_neither_breaks_nor_mints(
            jumps in proptest::collection::vec(-1_000_000i64..1_000_000, 1..50)
        ) {
            let mut budget = Budget::new(UnixMillis(0));
            for jump in jumps {
                budget.earn(UnixMillis(jump));
                prop_assert!(spend_all(&mut budget, jump) <= 11);
            }
        }
    }
}
