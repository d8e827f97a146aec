//! Which ids of provider-side state are the canary's: one table for all workers, as long as the canary stays.
//!
//! Lock-free and of a fixed size: [`CAPACITY`] words, taken from the system when the first id comes. A word
//! holds what of a hash its place does not say, and the hour in which it is forgotten, so no id is claimed
//! but by a collision of all 64 bits. Where eight ids share a place, a ninth takes that of the oldest. Only
//! requests that name state and answers that give out ids come here. It reads no clock.
#![deny(clippy::disallowed_methods)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixMillis;

/// Ids at most: 8 MiB.
pub const CAPACITY: usize = BUCKETS * WAYS;

const INDEX_BITS: u32 = 17;
const BUCKETS: usize = 1 << INDEX_BITS;
/// Words of one bucket: a line of the cache.
const WAYS: usize = 8;
/// The bits of a hash that say its bucket; in a word the hour of its end stands there.
const LOW: u64 = (1 << INDEX_BITS) - 1;
/// Places that are read in one go.
const PAGE: usize = 1_024;
/// Hours count in a circle. An end that lies further ahead than half of it, over seven years, is past.
const HALF: u64 = 1 << (INDEX_BITS - 1);
const HOUR_MS: i64 = 3_600_000;

/// An id that was learned, as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedId {
    /// Hash of the id.
    pub hash: u64,
    /// [`LearnedIds::canary`] of its table.
    pub canary: u64,
    /// When it was last seen in an answer.
    pub learned_at: UnixMillis,
    /// When it is forgotten.
    pub expires_at: UnixMillis,
}

/// The ids of one canary.
#[derive(Debug)]
pub struct LearnedIds {
    canary: u64,
    buckets: OnceLock<Box<[Bucket]>>,
    known: AtomicU64,
    learned: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

impl LearnedIds {
    /// An empty table. `canary` tells this canary from others.
    #[must_use]
    pub const fn new(canary: u64) -> Self {
        Self {
            canary,
            buckets: OnceLock::new(),
            known: AtomicU64::new(0),
            learned: AtomicU64::new(0),
        }
    }

    /// Tells this canary from others.
    #[must_use]
    pub const fn canary(&self) -> u64 {
        self.canary
    }

    /// Learns an id for `ttl_ms` from now. `None` if it is known for that long already, to the hour.
    pub fn learn(&self, hash: u64, now: UnixMillis, ttl_ms: i64) -> Option<LearnedId> {
        let expires_at = now.plus_millis(ttl_ms);
        if !self.remember(hash, expires_at, now) {
            return None;
        }
        self.learned.fetch_add(1, Ordering::Relaxed);
        Some(LearnedId {
            hash,
            canary: self.canary,
            learned_at: now,
            expires_at,
        })
    }

    /// Takes an id in until `expires_at`, to the hour after. False if nothing changed: it is known for that
    /// long, it is past, or its place is full of ids that end later.
    pub fn remember(&self, hash: u64, expires_at: UnixMillis, now: UnixMillis) -> bool {
        let this_hour = hour_of(now);
        let ends = hour_of(expires_at.plus_millis(HOUR_MS - 1)).min(this_hour + HALF - 1);
        if ends <= this_hour {
            return false;
        }
        let buckets = self.buckets.get_or_init(|| {
            let buckets = std::iter::repeat_with(Bucket::default);
            buckets.take(BUCKETS).collect()
        });
        let Some(bucket) = buckets.get(place_of(hash)) else {
            return false;
        };
        let word = (hash & !LOW) | (ends & LOW);
        loop {
            let Some((slot, old)) = bucket.slot_for(word, this_hour) else {
                return false;
            };
            // Whoever loses the race looks again: the winner may have brought the same id.
            let won = slot.compare_exchange(old, word, Ordering::AcqRel, Ordering::Acquire);
            if won.is_ok() {
                self.known.fetch_add(u64::from(old == 0), Ordering::Relaxed);
                return true;
            }
        }
    }

    /// True if the id is the canary's.
    #[must_use]
    pub fn knows(&self, hash: u64, now: UnixMillis) -> bool {
        let Some(bucket) = self.buckets.get().and_then(|all| all.get(place_of(hash))) else {
            return false;
        };
        bucket.0.iter().any(|slot| {
            let word = slot.load(Ordering::Acquire);
            word & !LOW == hash & !LOW && hours_left(word, hour_of(now)) > 0
        })
    }

    /// Empties the places of ids that are past. At least once in seven years, or they come back.
    pub fn sweep(&self, now: UnixMillis) {
        let this_hour = hour_of(now);
        for slot in self.buckets.get().into_iter().flatten().flat_map(|b| &b.0) {
            let word = slot.load(Ordering::Acquire);
            if word != 0 && hours_left(word, this_hour) == 0 {
                let emptied = slot.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
                self.known
                    .fetch_sub(u64::from(emptied.is_ok()), Ordering::Relaxed);
            }
        }
    }

    /// Some ids that are not past, from place `from` on, as if learned now, and the place to go on from; `None`
    /// after the last.
    #[must_use]
    pub fn page(&self, from: usize, now: UnixMillis) -> (Vec<LearnedId>, Option<usize>) {
        let this_hour = hour_of(now);
        let buckets = self.buckets.get().map_or(&[][..], |all| all);
        let places = buckets.iter().zip(0_u64..).skip(from).take(PAGE);
        let mut ids = Vec::new();
        for (bucket, place) in places {
            for slot in &bucket.0 {
                let word = slot.load(Ordering::Acquire);
                let left = hours_left(word, this_hour);
                if left > 0 {
                    let end = i64::try_from(this_hour + left).unwrap_or(0);
                    ids.push(LearnedId {
                        hash: word & !LOW | place,
                        canary: self.canary,
                        learned_at: now,
                        expires_at: UnixMillis(end.saturating_mul(HOUR_MS)),
                    });
                }
            }
        }
        let next = from.saturating_add(PAGE);
        (ids, (next < buckets.len()).then_some(next))
    }

    /// How many ids it holds; those that are past count until the next sweep.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// How many ids were learned from answers since the table was made.
    #[must_use]
    pub fn learned(&self) -> u64 {
        self.learned.load(Ordering::Relaxed)
    }
}

impl Bucket {
    /// Where a word goes, with what is there now: its own old place, else an empty one, else that of the id
    /// that ends first. `None` if it is there already, or if all others end later.
    fn slot_for(&self, word: u64, this_hour: u64) -> Option<(&AtomicU64, u64)> {
        let left = hours_left(word, this_hour);
        let mut first: Option<(&AtomicU64, u64, u64)> = None;
        for slot in &self.0 {
            let old = slot.load(Ordering::Acquire);
            let old_left = hours_left(old, this_hour);
            if old != 0 && old & !LOW == word & !LOW {
                return (old_left < left).then_some((slot, old));
            }
            if first.is_none_or(|(_, _, least)| old_left < least) {
                first = Some((slot, old, old_left));
            }
        }
        let (slot, old, _) = first.filter(|(_, _, least)| *least <= left)?;
        Some((slot, old))
    }
}

fn place_of(hash: u64) -> usize {
    usize::try_from(hash & LOW).unwrap_or(0)
}

fn hour_of(at: UnixMillis) -> u64 {
    u64::try_from(at.0.div_euclid(HOUR_MS)).unwrap_or(0)
}

/// Hours until a word's id is forgotten; 0 if it is past, or if there is none.
const fn hours_left(word: u64, this_hour: u64) -> u64 {
    let left = (word & LOW).wrapping_sub(this_hour) & LOW;
    if word == 0 || left >= HALF { 0 } else { left }
}

#[cfg(test)]
mod tests;
