//! Gauges of what is left of an arm's rate limits, as its answers tell.
//!
//! One set per arm, shared by all workers: a few relaxed atomic words, written only by answers that speak of
//! limits. What is left goes up and down within the provider's period, so the lowest share of this minute
//! and the last is kept beside the latest value. It decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::llm::{Headroom, Left};

/// What was said longer ago is not known any more.
const KNOWN_FOR_MS: u64 = 300_000;
/// A share is kept in parts per million.
const WHOLE: u64 = 1_000_000;

/// The gauges of one arm.
#[derive(Debug, Default)]
pub struct Gauges {
    requests: Gauge,
    tokens: Gauge,
}

/// What is left of one arm's limits; `None` where nothing was said lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rooms {
    /// Of the limit of requests.
    pub requests: Option<Room>,
    /// Of the limit of tokens.
    pub tokens: Option<Room>,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// The limit, in the provider's period.
    pub limit: u32,
    /// What was left by the latest answer.
    pub remaining: u32,
    /// The lowest share that was left in this minute and the last, else the latest; a fraction.
    pub lowest_share: f64,
}

#[derive(Debug, Default)]
struct Gauge {
    /// Limit and remaining, 32 bits each; 0 before the first answer.
    latest: AtomicU64,
    seen_ms: AtomicU64,
    /// The highest shares used in the even and in the odd minute: the minute, from 1, above 32 bits of share.
    most_used: [AtomicU64; 2],
}

impl Gauges {
    /// Takes in what an answer said. The clock is read only if it said something.
    pub fn note(&self, said: Headroom, now_ms: impl Fn() -> u64) {
        if said == Headroom::default() {
            return;
        }
        let now_ms = now_ms();
        for (gauge, left) in [(&self.requests, said.requests), (&self.tokens, said.tokens)] {
            if let Some(left) = left {
                gauge.note(left, now_ms);
            }
        }
    }

    /// What is left at this time, on the clock of [`Gauges::note`].
    #[must_use]
    pub fn rooms(&self, now_ms: u64) -> Rooms {
        Rooms {
            requests: self.requests.room(now_ms),
            tokens: self.tokens.room(now_ms),
        }
    }
}

impl Gauge {
    fn note(&self, left: Left, now_ms: u64) {
        let order = Ordering::Relaxed;
        let limit = u64::from(left.limit.max(1));
        let used = WHOLE - u64::from(left.remaining).min(limit) * WHOLE / limit;
        let minute = minute_of(now_ms);
        if let Some(slot) = self.most_used.get(usize::from(minute % 2 == 1)) {
            // A later minute outweighs any share of an earlier one.
            slot.fetch_max(minute << 32 | used, order);
        }
        self.latest
            .store(limit << 32 | u64::from(left.remaining), order);
        self.seen_ms.store(now_ms, order);
    }

    fn room(&self, now_ms: u64) -> Option<Room> {
        let order = Ordering::Relaxed;
        let latest = self.latest.load(order);
        let age_ms = now_ms.saturating_sub(self.seen_ms.load(order));
        if latest == 0 || age_ms > KNOWN_FOR_MS {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the fields of the word are 32 bits wide"
        )]
        let (limit, remaining) = ((latest >> 32) as u32, latest as u32);
        let minute = minute_of(now_ms);
        let words = self.most_used.iter().map(|slot| slot.load(order));
        let recent = words.filter(|word| (word >> 32) + 1 >= minute);
        let most_used = recent.map(|word| word & u64::from(u32::MAX)).max();
        #[expect(clippy::cast_precision_loss, reason = "at most a million")]
        let lowest = most_used.map(|used| (WHOLE - used.min(WHOLE)) as f64 / WHOLE as f64);
        Some(Room {
            limit,
            remaining,
            lowest_share: lowest.unwrap_or(f64::from(remaining) / f64::from(limit)),
        })
    }
}

/// From 1, so that 0 is no minute; 32 bits of minutes last for eight thousand years.
const fn minute_of(now_ms: u64) -> u64 {
    (now_ms / 60_000 + 1) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = 60_000;

    fn say(gauges: &Gauges, limit: u32, remaining: u32, now_ms: u64) {
        let said = Headroom {
            requests: Some(Left { limit, remaining }),
            tokens: None,
        };
        gauges.note(said, || now_ms);
    }

    /// Limit, remaining and the lowest share in percent.
    fn requests(gauges: &Gauges, now_ms: u64) -> Option<(u32, u32, f64)> {
        let rooms = gauges.rooms(now_ms);
        assert_eq!(rooms.tokens, None);
        let room = rooms.requests?;
        Some((room.limit, room.remaining, room.lowest_share * 100.0))
    }

    #[test]
    fn the_lowest_share_of_this_minute_and_the_last_counts() {
        let gauges = Gauges::default();
        assert_eq!(requests(&gauges, 0), None);
        for (remaining, at_ms, lowest) in [
            (400, 1_000, 80.0),
            (300, 2_000, 60.0),
            (450, 50_000, 60.0),
            (350, MIN + 1_000, 60.0),
            (450, 2 * MIN + 1_000, 70.0),
            (475, 3 * MIN + 1_000, 90.0),
            (0, 3 * MIN + 2_000, 0.0),
        ] {
            say(&gauges, 500, remaining, at_ms);
            assert_eq!(requests(&gauges, at_ms), Some((500, remaining, lowest)));
        }
    }

    #[test]
    fn without_news_the_latest_word_holds_for_five_minutes() {
        let gauges = Gauges::default();
        say(&gauges, 500, 100, MIN);
        say(&gauges, 500, 250, MIN + 1);
        assert_eq!(requests(&gauges, 2 * MIN), Some((500, 250, 20.0)));
        assert_eq!(requests(&gauges, 4 * MIN), Some((500, 250, 50.0)));
        assert_eq!(requests(&gauges, 6 * MIN + 1), Some((500, 250, 50.0)));
        assert_eq!(requests(&gauges, 6 * MIN + 2), None);
        say(&gauges, u32::MAX, u32::MAX, 90 * MIN);
        let all = Some((u32::MAX, u32::MAX, 100.0));
        assert_eq!(requests(&gauges, 90 * MIN), all);
    }

    #[test]
    fn many_threads_leave_the_lowest_share() {
        let gauges = Gauges::default();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let gauges = &gauges;
                scope.spawn(move || {
                    for step in 0..500 {
                        say(gauges, 10_000, 5_000 + 4 * step + worker, 1_000);
                    }
                });
            }
        });
        let (_, _, lowest) = requests(&gauges, 1_000).unwrap();
        assert!((lowest - 50.0).abs() < 1e-9, "{lowest}");
    }
}
