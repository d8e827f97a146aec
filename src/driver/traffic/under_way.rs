//! Requests under way: how many live first attempts began in which second and have not ended yet.
//!
//! Pure. Counts come from routing, ends from samples; both name the second in which the attempt began, so
//! they find each other in any order. Bounded: [`SECONDS_MAX`] seconds per arm. What is older than any
//! timeout is forgotten, so that a sample that was dropped leaves no ghost for long.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::sample::second_of;

/// Seconds that are told apart, and so the oldest request that is remembered: two hours.
pub(super) const SECONDS_MAX: usize = 7_200;

/// Requests under way, per arm.
#[derive(Debug, Default)]
pub(in crate::driver) struct UnderWay {
    arms: PerArm<Seconds>,
}

/// How many of each second are under way. Starts and ends with a second that has some.
#[derive(Debug, Default)]
struct Seconds {
    first: i64,
    counts: VecDeque<u32>,
}

impl UnderWay {
    /// So many attempts began in `second`.
    pub(super) fn began(&mut self, arm: Arm, second: i64, count: u32) {
        self.arms.get_mut(arm).add(second, count);
    }

    /// An attempt that began in `second` ended. One that was forgotten is nobody's end.
    pub(super) fn ended(&mut self, arm: Arm, second: i64) {
        self.arms.get_mut(arm).remove(second);
    }

    /// Forgets what began longer ago than `keep_ms`: no timeout lets it go on for so long, so its sample
    /// was lost.
    pub(in crate::driver) fn forget(&mut self, now: UnixMillis, keep_ms: i64) {
        for arm in Arm::BOTH {
            let seconds = self.arms.get_mut(arm);
            let old = seconds.older_than(second_of(now.plus_millis(-keep_ms)));
            seconds.drop_oldest(old);
        }
    }

    /// How many are under way.
    pub(in crate::driver) fn count(&self, arm: Arm) -> u64 {
        let counts = self.arms.get(arm).counts.iter();
        counts.map(|&count| u64::from(count)).sum()
    }

    /// How many have been under way for longer than `after_ms`. The whole second must be older.
    pub(in crate::driver) fn overdue(&self, now: UnixMillis, after_ms: i64) -> PerArm<u64> {
        let before = second_of(now.plus_millis(-after_ms));
        PerArm::from_fn(|arm| {
            let seconds = self.arms.get(arm);
            let old = seconds.counts.iter().take(seconds.older_than(before));
            old.map(|&count| u64::from(count)).sum()
        })
    }
}

impl Seconds {
    fn add(&mut self, second: i64, count: u32) {
        if self.counts.is_empty() {
            self.first = second;
        }
        let earlier = usize::try_from(self.first.saturating_sub(second)).unwrap_or(0);
        if earlier.saturating_add(self.counts.len()) > SECONDS_MAX {
            // The clock was set back by hours: times from before say nothing any more.
            self.counts.clear();
            self.first = second;
        } else {
            for _ in 0..earlier {
                self.counts.push_front(0);
            }
            self.first = self.first.min(second);
        }
        let Some(mut at) = self.place_of(second) else {
            return;
        };
        if at >= SECONDS_MAX {
            self.drop_oldest((at - SECONDS_MAX).saturating_add(1));
            if self.counts.is_empty() {
                self.first = second;
            }
            at = self.place_of(second).unwrap_or(0);
        }
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        if let Some(slot) = self.counts.get_mut(at) {
            *slot = slot.saturating_add(count);
        }
    }

    fn remove(&mut self, second: i64) {
        let place = self.place_of(second);
        if let Some(slot) = place.and_then(|at| self.counts.get_mut(at)) {
            *slot = slot.saturating_sub(1);
        }
        self.trim();
    }

    /// The place of a second; `None` if it is before the first.
    fn place_of(&self, second: i64) -> Option<usize> {
        usize::try_from(second.saturating_sub(self.first)).ok()
    }

    /// How many of the kept seconds are before `second`.
    fn older_than(&self, second: i64) -> usize {
        self.place_of(second).unwrap_or(0).min(self.counts.len())
    }

    fn drop_oldest(&mut self, count: usize) {
        let count = count.min(self.counts.len());
        drop(self.counts.drain(..count));
        self.first = self.first.saturating_add(i64::try_from(count).unwrap_or(0));
        self.trim();
    }

    fn trim(&mut self) {
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first = self.first.saturating_add(1);
        }
        while self.counts.back() == Some(&0) {
            self.counts.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000;

    fn overdue(table: &UnderWay, now_s: i64, after_s: i64) -> (u64, u64) {
        let found = table.overdue(UnixMillis(now_s * SECOND), after_s * SECOND);
        (found.legacy, found.canary)
    }

    #[test]
    fn a_request_is_overdue_once_it_is_older_than_allowed_and_until_it_ends() {
        let mut table = UnderWay::default();
        table.began(Arm::Canary, 100, 3);
        table.began(Arm::Legacy, 100, 1);
        assert_eq!(
            overdue(&table, 160, 60),
            (0, 0),
            "it began late in its second"
        );
        assert_eq!(overdue(&table, 161, 60), (1, 3));
        table.ended(Arm::Canary, 100);
        assert_eq!(overdue(&table, 500, 60), (1, 2));
        table.ended(Arm::Canary, 100);
        table.ended(Arm::Canary, 100);
        table.ended(Arm::Legacy, 100);
        assert_eq!(overdue(&table, 500, 60), (0, 0));
        assert!(table.arms.canary.counts.is_empty(), "nothing is kept of it");
    }

    #[test]
    fn counts_of_another_worker_may_come_late_and_out_of_order() {
        let mut table = UnderWay::default();
        table.began(Arm::Canary, 102, 1);
        table.ended(Arm::Canary, 102);
        table.began(Arm::Canary, 103, 1);
        table.began(Arm::Canary, 101, 2);
        assert_eq!(overdue(&table, 110, 5), (0, 3));
        table.ended(Arm::Canary, 103);
        assert_eq!(overdue(&table, 110, 5), (0, 2));
    }

    #[test]
    fn an_end_without_a_beginning_takes_no_other_request_away() {
        let mut table = UnderWay::default();
        table.began(Arm::Canary, 100, 1);
        for second in [i64::MIN, 0, 99, 101, i64::MAX] {
            table.ended(Arm::Canary, second);
        }
        table.ended(Arm::Legacy, 100);
        assert_eq!(overdue(&table, 200, 60), (0, 1));
    }

    #[test]
    fn ghosts_of_dropped_samples_are_forgotten_and_their_late_ends_hurt_nobody() {
        let mut table = UnderWay::default();
        table.began(Arm::Canary, 100, 5);
        table.began(Arm::Canary, 400, 1);
        table.forget(UnixMillis(700 * SECOND), 600 * SECOND);
        assert_eq!(overdue(&table, 700, 60), (0, 6));
        table.forget(UnixMillis(701 * SECOND), 600 * SECOND);
        assert_eq!(overdue(&table, 701, 60), (0, 1));
        table.ended(Arm::Canary, 100);
        assert_eq!(overdue(&table, 701, 60), (0, 1));
    }

    #[test]
    fn a_clock_that_jumps_costs_memory_of_the_past_and_nothing_else() {
        let mut table = UnderWay::default();
        table.began(Arm::Legacy, 1_000_000, 9);
        table.began(Arm::Legacy, 10, 2);
        assert_eq!(overdue(&table, 100, 60), (2, 0));
        table.began(Arm::Legacy, 1_000_000, 4);
        assert_eq!(overdue(&table, 1_000_100, 60), (4, 0));
        for second in [i64::MAX, i64::MIN, 0, i64::MAX] {
            table.began(Arm::Legacy, second, 1);
            assert!(table.arms.legacy.counts.len() <= SECONDS_MAX);
        }
    }

    proptest! {
        #[test]
        fn what_began_less_what_ended_is_under_way(
            began in proptest::collection::vec((0i64..9_000, 1u32..4), 1..200),
            ends in proptest::collection::vec(0usize..200, 0..200),
        ) {
            // All in one window of two hours, in any order.
            let mut table = UnderWay::default();
            let mut left: Vec<u32> = began.iter().map(|(_, count)| *count).collect();
            let second = |at: i64| at.min(SECONDS_MAX as i64 - 1);
            for (at, count) in &began {
                table.began(Arm::Canary, second(*at), *count);
            }
            for end in ends {
                if let Some(count) = left.get_mut(end).filter(|count| **count > 0) {
                    *count -= 1;
                    table.ended(Arm::Canary, second(began[end].0));
                }
            }
            let expected: u64 = left.iter().map(|count| u64::from(*count)).sum();
            prop_assert_eq!(overdue(&table, 20_000, 0).1, expected);
        }
    }
}
