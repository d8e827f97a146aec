//! Keys that hold too much of the traffic: dominant ones leave the evidence, a constant one is no key.
//!
//! Pure. A space-saving counter with [`SLOTS`] slots over the last hour (each minute all counts fade by a
//! sixtieth of an hour) finds every key above the limits; what it reports is a lower bound, so that no key is
//! blamed for another's requests. Nothing here looks at how a request came out.
//!
//! *Dominant*: over 2% of at least 1,000 requests. One agent in a loop is one witness, not a thousand. Such
//! keys stay routed and leave the evidence, as long as half of the traffic of each arm remains; else none
//! does, because a service with twenty equal users must be able to migrate as well, and because a canary that
//! serves one busy key alone must still be seen to fail. *Constant*: more than half of at least
//! 200 requests, as when every client sends `user = "app"`. Hashing it would send all requests to one arm, so
//! the data plane is told to use the next candidate. That is for good: what is remembered costs nothing,
//! and forgetting it would swing the traffic back.
#![deny(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::fmt;

use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::weights::CONSTANT_KEYS;

/// Keys that are counted at a time. A key's count is off by a 256th of the traffic at most.
const SLOTS: usize = 256;
/// Counts fade with this time constant.
const FADE_MIN: f64 = 60.0;

const DOMINANT_REQUESTS: f64 = 1_000.0;
const DOMINANT_SHARE: f64 = 0.02;
/// A dominant key stays dominant down to this share, so that it does not come and go.
const DOMINANT_UNTIL: f64 = 0.01;
/// Dominant keys hold at most this share of each arm's traffic, or none is left out.
const LEFT_OUT_MAX: f64 = 0.5;
/// Once they are left out, up to this share, for the same reason.
const LEFT_OUT_UNTIL: f64 = 0.55;
/// Once they were too many, only below this share are they left out again.
const LEFT_OUT_AFTER_CROWD: f64 = 0.4;

const CONSTANT_REQUESTS: f64 = 200.0;
const CONSTANT_SHARE: f64 = 0.5;

/// The keys of one rollout's live requests.
#[derive(Debug, Default)]
pub(in crate::driver) struct Keys {
    slots: Vec<Slot>,
    /// Key -> its place in `slots`.
    places: HashMap<u64, usize>,
    /// Places whose counts were the lowest of all, the first place last. Counts only grow between two fadings.
    rarest: Vec<usize>,
    /// That count.
    lowest: f64,
    /// Requests of the last hour, with a key or without.
    total: f64,
    /// Of these, the canary's.
    canary: f64,
    faded_at: UnixMillis,
    dominant: Vec<u64>,
    /// Keys that are over the limit and their share, while too little would remain without them.
    crowd: Option<Crowd>,
    /// Oldest first.
    constant: Vec<u64>,
    found: Option<u64>,
}

/// Keys that are too many to leave out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::driver) struct Crowd {
    /// How many there are.
    pub(in crate::driver) keys: usize,
    /// Their share of the requests; of those of one arm, if that is more.
    pub(in crate::driver) share: f64,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys with over 2% each hold {:.0}% of the requests of an arm; too little would remain, so none is left out",
            self.keys,
            self.share * 100.0
        )
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: u64,
    count: f64,
    /// Of these, the canary's.
    canary: f64,
    /// So many of `count` may be another key's.
    error: f64,
}

impl Slot {
    const fn at_least(&self) -> f64 {
        self.count - self.error
    }
}

impl Keys {
    pub(super) fn new(constant: Vec<u64>) -> Self {
        Self {
            constant,
            ..Self::default()
        }
    }

    /// Counts a live request that went to `arm`; 0 is no key.
    pub(super) fn record(&mut self, key: u64, arm: Arm, now: UnixMillis) {
        self.fade(now);
        if self.constant.contains(&key) {
            // It was assigned before the data plane knew.
            return;
        }
        let canary = if arm == Arm::Canary { 1.0 } else { 0.0 };
        self.total += 1.0;
        self.canary += canary;
        if key == 0 {
            return;
        }
        let slot = self.slot_of(key);
        slot.count += 1.0;
        slot.canary += canary;
        let share = slot.at_least() / self.total.max(1.0);
        if self.total >= CONSTANT_REQUESTS && share > CONSTANT_SHARE {
            self.remember_constant(key);
        }
    }

    fn slot_of(&mut self, key: u64) -> &mut Slot {
        let at = match self.places.get(&key) {
            Some(at) => *at,
            None => self.make_slot(key),
        };
        #[expect(clippy::indexing_slicing, reason = "the place was just found or made")]
        &mut self.slots[at]
    }

    /// A place for a key that has none: the rarest one's, if all are taken.
    fn make_slot(&mut self, key: u64) -> usize {
        let mut slot = Slot {
            key,
            count: 0.0,
            canary: 0.0,
            error: 0.0,
        };
        let at = if self.slots.len() < SLOTS {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let at = self.rarest();
            if let Some(rarest) = self.slots.get_mut(at) {
                (slot.count, slot.error) = (rarest.count, rarest.count);
                self.places.remove(&rarest.key);
                *rarest = slot;
            }
            at
        };
        self.places.insert(key, at);
        at
    }

    /// The first place of those with the lowest count. To look at all of them each time would cost more than
    /// everything else that is done with a sample.
    fn rarest(&mut self) -> usize {
        while let Some(at) = self.rarest.pop() {
            let count = self.slots.get(at).map(|slot| slot.count);
            if count.is_some_and(|count| count <= self.lowest) {
                return at;
            }
        }
        let counts = self.slots.iter().map(|slot| slot.count);
        self.lowest = counts.fold(f64::INFINITY, f64::min);
        let lowest = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.count <= self.lowest);
        self.rarest.extend(lowest.map(|(at, _)| at));
        self.rarest.reverse();
        self.rarest.pop().unwrap_or(0)
    }

    fn remember_constant(&mut self, key: u64) {
        if let Some(held) = self.slots.iter().find(|slot| slot.key == key) {
            // What is left is judged by itself: the next candidate may be constant as well.
            self.total = (self.total - held.at_least()).max(0.0);
            self.canary = (self.canary - held.canary).max(0.0);
        }
        self.slots.retain(|slot| slot.key != key);
        self.places = self.slots.iter().map(|slot| slot.key).zip(0..).collect();
        self.rarest.clear();
        self.dominant.retain(|dominant| *dominant != key);
        if self.constant.len() >= CONSTANT_KEYS {
            self.constant.remove(0);
        }
        self.constant.push(key);
        self.found = Some(key);
    }

    fn fade(&mut self, now: UnixMillis) {
        let minutes = now.millis_since(self.faded_at).div_euclid(60_000);
        if minutes == 0 {
            return;
        }
        self.faded_at = now;
        if minutes < 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "minutes are few")]
        let factor = (-(minutes as f64) / FADE_MIN).exp();
        self.rarest.clear();
        self.total *= factor;
        self.canary *= factor;
        for slot in &mut self.slots {
            slot.count *= factor;
            slot.canary *= factor;
            slot.error *= factor;
        }
    }

    /// Judges anew which keys are dominant; gives those that became so just now.
    pub(in crate::driver) fn refresh(&mut self, now: UnixMillis) -> Vec<u64> {
        self.fade(now);
        let were = !self.dominant.is_empty();
        let seen_min = DOMINANT_REQUESTS * if were { 0.5 } else { 1.0 };
        if self.total < seen_min {
            self.dominant.clear();
            self.crowd = None;
            return Vec::new();
        }
        let is_heavy = |slot: &&Slot| {
            let limit = if self.dominant.contains(&slot.key) {
                DOMINANT_UNTIL
            } else {
                DOMINANT_SHARE
            };
            slot.at_least() > limit * self.total
        };
        let heavy: Vec<Slot> = self.slots.iter().filter(is_heavy).copied().collect();
        let share = self.share_of(&heavy);
        let share_max = match self.crowd {
            Some(_) => LEFT_OUT_AFTER_CROWD,
            None if were => LEFT_OUT_UNTIL,
            None => LEFT_OUT_MAX,
        };
        if share > share_max {
            self.dominant.clear();
            self.crowd = Some(Crowd {
                keys: heavy.len(),
                share,
            });
            return Vec::new();
        }
        self.crowd = None;
        let keys: Vec<u64> = heavy.iter().map(|slot| slot.key).collect();
        let before = std::mem::replace(&mut self.dominant, keys);
        let is_new = |key: &&u64| !before.contains(key);
        self.dominant.iter().filter(is_new).copied().collect()
    }

    /// The share of these keys in the traffic of the arm that they hold more of.
    fn share_of(&self, slots: &[Slot]) -> f64 {
        let count: f64 = slots.iter().map(|slot| slot.count).sum();
        let canary: f64 = slots.iter().map(|slot| slot.canary).sum();
        let of = |part: f64, whole: f64| {
            if whole < 1.0 {
                0.0
            } else {
                (part / whole).min(1.0)
            }
        };
        of(canary, self.canary).max(of(count - canary, self.total - self.canary))
    }

    /// True if requests with this key are no evidence.
    pub(super) fn is_dominant(&self, key: u64) -> bool {
        self.dominant.contains(&key)
    }

    /// The keys that are left out of the evidence.
    pub(in crate::driver) fn dominant(&self) -> &[u64] {
        &self.dominant
    }

    /// The keys that should be left out, but are too many for that.
    pub(in crate::driver) const fn crowd(&self) -> Option<Crowd> {
        self.crowd
    }

    /// The keys that are none, oldest first.
    pub(in crate::driver) fn constant(&self) -> &[u64] {
        &self.constant
    }

    /// The constant key that was found since the last call.
    pub(in crate::driver) const fn take_found(&mut self) -> Option<u64> {
        self.found.take()
    }
}

/// A hash as `status`, the log and the store's column `key_hash` show it.
pub(in crate::driver) fn name_of(key: u64) -> String {
    format!("{key:016x}")
}

#[cfg(test)]
mod tests;
