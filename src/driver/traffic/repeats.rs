//! Repeats of requests that nobody could answer: one poisoned prompt in a loop must not look like an outage.
//!
//! Pure. A sample is a repeat if all of this holds, and how it comes out itself plays no part:
//! - when it began, its body had failed visibly within the last [`FAILED_MS`], by the fault, the capacity or
//!   the account of an arm;
//! - no other attempt with that body is known to have succeeded within [`ANSWERED_MS`];
//! - its arm has answered some other request that it was sent after the first of those failures. While an
//!   arm answers nothing at all, its failures are its own and every one of them counts.
//!
//! A body that succeeds now and then is common traffic (health checks, load tests) and never left out, so an
//! outage under one constant body is seen as fast as any other. Bounded: [`BODIES_MAX`] bodies per map and
//! generation; what a flood of other bodies pushes out makes fewer repeats, never more failures unseen.
#![deny(clippy::disallowed_methods)]

use std::collections::HashMap;

use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::outcome::{Blame, Outcome};
use crate::sample::Sample;

/// A failure makes repeats for so long, and each repeat that fails for so long again.
const FAILED_MS: i64 = 60_000;
/// A success makes a body common traffic for so long.
const ANSWERED_MS: i64 = 3_600_000;
/// Bodies remembered per generation; there are two of each map.
const BODIES_MAX: usize = 65_536;

/// What is known of bodies that were sent lately.
#[derive(Debug)]
pub(in crate::driver) struct Repeats {
    failed: Recent<Row>,
    answered: Recent<UnixMillis>,
    /// When the latest attempt began that each arm answered well.
    arm_answered: PerArm<Option<UnixMillis>>,
    left_out: u64,
}

/// Failures of one body in a row.
#[derive(Debug, Clone, Copy)]
struct Row {
    first: UnixMillis,
    last: UnixMillis,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            failed: Recent::new(FAILED_MS),
            answered: Recent::new(ANSWERED_MS),
            arm_answered: PerArm::default(),
            left_out: 0,
        }
    }
}

impl Repeats {
    /// Takes a sample of any role in; true if it would be evidence, but is such a repeat.
    pub(super) fn record(&mut self, sample: &Sample) -> bool {
        let is_repeat = sample.is_evidence() && self.is_repeat(sample);
        self.left_out += u64::from(is_repeat);
        self.learn(sample);
        is_repeat
    }

    /// Samples that were left out.
    pub(in crate::driver) const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn is_repeat(&self, sample: &Sample) -> bool {
        let began = sample.started_at;
        let Some(row) = self.failed.get(sample.body_hash) else {
            return false;
        };
        let after_ms = began.millis_since(row.last);
        if !(0..=FAILED_MS).contains(&after_ms) {
            return false;
        }
        let answered = self.answered.get(sample.body_hash);
        if answered.is_some_and(|at| began.millis_since(at) <= ANSWERED_MS) {
            return false;
        }
        let arm_answered = *self.arm_answered.get(sample.arm);
        arm_answered.is_some_and(|at| at >= row.first)
    }

    fn learn(&mut self, sample: &Sample) {
        let at = sample.ended_at();
        if sample.outcome == Outcome::Ok {
            let latest = self.arm_answered.get_mut(sample.arm);
            *latest = (*latest).max(Some(sample.started_at));
        }
        if sample.body_hash == 0 {
            return;
        }
        match sample.outcome.blame() {
            Blame::None => self.answered.insert(sample.body_hash, at, at),
            Blame::Arm | Blame::Capacity | Blame::Account => {
                let before = self.failed.get(sample.body_hash);
                let row = match before {
                    Some(row) if at.millis_since(row.last) <= FAILED_MS => Row {
                        first: row.first,
                        last: row.last.max(at),
                    },
                    _ => Row {
                        first: at,
                        last: at,
                    },
                };
                self.failed.insert(sample.body_hash, row, at);
            }
            Blame::Parity | Blame::Client | Blame::Cutover => {}
        }
    }
}

/// A map that forgets in two generations: an entry lives for one to two times `keep_ms`, less in a flood.
#[derive(Debug)]
struct Recent<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
    young_since: UnixMillis,
    keep_ms: i64,
}

impl<V: Copy> Recent<V> {
    fn new(keep_ms: i64) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_since: UnixMillis(0),
            keep_ms,
        }
    }

    fn get(&self, key: u64) -> Option<V> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn insert(&mut self, key: u64, value: V, now: UnixMillis) {
        let age_ms = now.millis_since(self.young_since);
        let is_full = self.young.len() >= BODIES_MAX && !self.young.contains_key(&key);
        // A clock that was set back begins a generation, too, or the present one would last for ever.
        if is_full || age_ms >= self.keep_ms || age_ms < -self.keep_ms {
            self.old = std::mem::take(&mut self.young);
            self.young_since = now;
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests;
