//! How much of the canary's rate limits is used, and how much of that by one rollout at its present weight.
//!
//! Plain numbers, owned by the driver. A limit that refills all the time is nearly whole after each answer,
//! however much of it is used; so the requests that were counted stand beside what the answers say. Counts
//! begin anew with each weight. Bounded: an hour of minutes.

use std::collections::BTreeMap;

use crate::clock::UnixMillis;
use crate::controller::headroom::{Headroom, Used};
use crate::upstream::headroom::{Room, Rooms};

const MINUTE_MS: i64 = 60_000;
/// Answers of the weight before still end for so long.
const SETTLES_MS: i64 = 60_000;
/// What the gauges say so soon after a weight was lowered is of the weight before.
const STALE_MS: i64 = 120_000;
/// Whole minutes that make a rate.
const MINUTES_LEAST: i64 = 2;
/// Minutes that are kept.
const MINUTES_MOST: i64 = 60;
/// Fewer attempts do not say whose they are.
const ATTEMPTS_LEAST: u64 = 20;

/// The attempts at the canary since a rollout has its weight.
#[derive(Debug)]
pub(super) struct Demand {
    since: UnixMillis,
    /// The weight before was higher.
    is_lowered: bool,
    minutes: BTreeMap<i64, Attempts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    /// Of every role and rollout: the account is one.
    all: u64,
    /// Live ones of this rollout: they grow with its weight.
    own: u64,
}

impl Demand {
    /// Counts from now on.
    pub(super) fn begin(now: UnixMillis, is_lowered: bool) -> Self {
        Self {
            since: now,
            is_lowered,
            minutes: BTreeMap::new(),
        }
    }

    /// Counts attempts of any role and rollout.
    pub(super) fn add(&mut self, attempts: u64, now: UnixMillis) {
        if attempts > 0 {
            self.minute(now).all += attempts;
        }
    }

    /// One of them was a live one of this rollout.
    pub(super) fn add_own(&mut self, now: UnixMillis) {
        self.minute(now).own += 1;
    }

    fn minute(&mut self, now: UnixMillis) -> &mut Attempts {
        let this = minute_of(now);
        if !self.minutes.contains_key(&this) {
            // Both ways: a clock that was set back leaves minutes that are still to come.
            let kept = this - MINUTES_MOST..this;
            self.minutes.retain(|minute, _| kept.contains(minute));
        }
        self.minutes.entry(this).or_default()
    }

    /// What is used of the canary's limits, as its answers and the counts say.
    pub(super) fn headroom(&self, rooms: Rooms, now: UnixMillis) -> Headroom {
        if self.is_lowered && now.millis_since(self.since) < STALE_MS {
            return Headroom::default();
        }
        let counted = self.per_minute(now);
        let said = |room: Room| Used {
            limit: room.limit,
            share: 1.0 - room.lowest_share,
        };
        let requests = rooms.requests.map(|room| {
            let counted = counted.map_or(0.0, |counted| counted.share_of(room.limit));
            let said = said(room);
            Used {
                share: said.share.max(counted),
                ..said
            }
        });
        Headroom {
            requests,
            tokens: rooms.tokens.map(said),
            own: self.own(),
            is_counted: counted.is_some(),
        }
    }

    /// This rollout's part of the attempts, a fraction.
    fn own(&self) -> Option<f64> {
        let all: u64 = self.minutes.values().map(|attempts| attempts.all).sum();
        let own: u64 = self.minutes.values().map(|attempts| attempts.own).sum();
        (all >= ATTEMPTS_LEAST).then(|| (float(own) / float(all)).min(1.0))
    }

    /// Attempts in the whole minutes since this weight has settled.
    fn per_minute(&self, now: UnixMillis) -> Option<PerMinute> {
        let this = minute_of(now);
        let settled = minute_of(self.since.plus_millis(SETTLES_MS + MINUTE_MS - 1));
        let first = settled.max(this - MINUTES_MOST);
        if this - first < MINUTES_LEAST {
            return None;
        }
        let counts = self.minutes.range(first..this).map(|(_, it)| it.all);
        let (sum, most) = counts.fold((0, 0), |(sum, most), all| (sum + all, most.max(all)));
        let minutes = u64::try_from(this - first).unwrap_or(1);
        Some(PerMinute {
            mean: float(sum) / float(minutes),
            most: float(most),
        })
    }
}

/// Attempts per minute.
#[derive(Debug, Clone, Copy)]
struct PerMinute {
    mean: f64,
    most: f64,
}

impl PerMinute {
    /// The share of a limit per minute that the fullest minute took. What takes more than all of it on
    /// average is limited by another period, of which the counts say nothing.
    fn share_of(self, limit: u32) -> f64 {
        let limit = f64::from(limit.max(1));
        if self.mean > limit {
            0.0
        } else {
            (self.most / limit).min(1.0)
        }
    }
}

const fn minute_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(MINUTE_MS)
}

#[expect(clippy::cast_precision_loss, reason = "counts of an hour")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis(1_700_000_000_000);

    fn rooms(limit: u32, remaining: u32) -> Rooms {
        let room = Room {
            limit,
            remaining,
            lowest_share: f64::from(remaining) / f64::from(limit),
        };
        Rooms {
            requests: Some(room),
            tokens: None,
        }
    }

    /// So many attempts in each of these minutes, of which each `nth` is the rollout's own.
    fn busy(demand: &mut Demand, from_minute: i64, per_minute: &[u64], nth: u64) -> UnixMillis {
        let mut now = START.plus_millis(from_minute * MINUTE_MS);
        for count in per_minute {
            for number in 0..*count {
                demand.add(1, now);
                if number % nth == 0 {
                    demand.add_own(now);
                }
            }
            now = now.plus_millis(MINUTE_MS);
        }
        now
    }

    fn share(demand: &Demand, limit: u32, remaining: u32, now: UnixMillis) -> Option<f64> {
        let used = demand.headroom(rooms(limit, remaining), now).requests;
        used.map(|used| (used.share * 1e6).round() / 1e6)
    }

    #[test]
    fn a_limit_that_refills_all_the_time_is_used_by_what_was_counted() {
        let mut demand = Demand::begin(START, false);
        // The minute in which the weight settles does not count, nor does one that has not ended.
        let now = busy(&mut demand, 0, &[480, 480, 400, 400, 380], 1);
        assert_eq!(share(&demand, 500, 498, now), Some(0.8));
        assert_eq!(share(&demand, 500, 498, now.plus_millis(30_000)), Some(0.8));
        // What the answers say counts where it is more.
        assert_eq!(share(&demand, 500, 25, now), Some(0.95));
        // A limit per second or per day is none that a minute could fill.
        assert_eq!(share(&demand, 100, 99, now), Some(0.01));
        // A full minute is no sign of another period as long as the mean is below.
        assert_eq!(share(&demand, 395, 394, now), Some(1.0));
        assert_eq!(demand.headroom(Rooms::default(), now).requests, None);
    }

    #[test]
    fn a_rate_is_none_before_two_whole_minutes_of_the_present_weight() {
        let begins = START.plus_millis(10_000);
        let mut demand = Demand::begin(begins, false);
        busy(&mut demand, 0, &[400; 10], 1);
        for (after_ms, expected) in [(0, 0.004), (200_000, 0.004), (250_000, 0.8)] {
            let now = begins.plus_millis(after_ms);
            assert_eq!(share(&demand, 500, 498, now), Some(expected), "{after_ms}");
            let is_counted = demand.headroom(rooms(500, 498), now).is_counted;
            assert_eq!(is_counted, expected > 0.5);
        }
    }

    #[test]
    fn the_fullest_minute_of_the_last_hour_counts() {
        let mut demand = Demand::begin(START, false);
        let now = busy(&mut demand, 2, &[450], 1);
        let later = busy(&mut demand, 3, &[100; 59], 1);
        assert_eq!(
            share(&demand, 500, 499, now.plus_millis(MINUTE_MS)),
            Some(0.9)
        );
        assert_eq!(share(&demand, 500, 499, later), Some(0.9));
        let later = busy(&mut demand, 62, &[100], 1);
        assert_eq!(share(&demand, 500, 499, later), Some(0.2));
        assert!(demand.minutes.len() <= 61);
        // A clock that was set back begins anew.
        demand.add(1, START);
        assert_eq!(demand.minutes.len(), 1);
    }

    #[test]
    fn what_a_lowered_weight_had_used_is_not_held_against_it() {
        let demand = Demand::begin(START, true);
        let soon = START.plus_millis(STALE_MS - 1);
        assert_eq!(demand.headroom(rooms(500, 20), soon), Headroom::default());
        assert_eq!(share(&demand, 500, 20, soon.plus_millis(1)), Some(0.96));
        let raised = Demand::begin(START, false);
        assert_eq!(share(&raised, 500, 20, START), Some(0.96));
    }

    #[test]
    fn a_rollouts_own_part_is_its_live_attempts_among_all() {
        let mut demand = Demand::begin(START, false);
        let now = busy(&mut demand, 0, &[19], 4);
        assert_eq!(demand.headroom(rooms(500, 400), now).own, None);
        let now = busy(&mut demand, 1, &[21], 4);
        let own = demand.headroom(rooms(500, 400), now).own.unwrap();
        assert!((own - 11.0 / 40.0).abs() < 1e-9, "{own}");
    }
}
