//! What passes of a rollout's traffic may enter its evidence, and what is counted beside it.
//!
//! Pure; owned by the driver. Nothing is left out for how it came out itself: whether a sample is evidence
//! depends on its key, and on what is known of earlier requests with its body.
#![deny(clippy::disallowed_methods)]

pub(super) mod keys;
pub(super) mod repeats;
pub(super) mod under_way;

use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::controller::split::Assigned;
use crate::sample::{Role, Routing, Sample};
use keys::Keys;
use repeats::Repeats;
use under_way::UnderWay;

/// One rollout's traffic.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Routed since the last look, under the weight and the configuration that are in force.
    pub(super) assigned: Assigned,
    /// Live first attempts that have not ended yet.
    pub(super) under_way: UnderWay,
    /// Bodies that nobody could answer.
    pub(super) repeats: Repeats,
    /// Keys that hold too much of the traffic.
    pub(super) keys: Keys,
}

impl Traffic {
    /// A traffic of which these constant keys are known already.
    pub(super) fn new(constant_keys: Vec<u64>) -> Self {
        Self {
            keys: Keys::new(constant_keys),
            ..Self::default()
        }
    }

    /// Counts `count` live first attempts that were routed alike. `is_current`: under the weight and the
    /// configuration that are in force.
    pub(super) fn count(&mut self, routing: &Routing, count: u32, is_current: bool) {
        self.under_way.began(routing.arm, routing.second, count);
        if !is_current {
            return;
        }
        let count = u64::from(count);
        match routing.arm {
            Arm::Canary => self.assigned.canary += count,
            Arm::Legacy => self.assigned.legacy += count,
        }
        if routing.arm != routing.assigned {
            self.assigned.strays += count;
        }
    }

    /// Takes a sample in; true if it may enter the evidence. Ask [`Keys::take_found`] afterwards.
    pub(super) fn record(&mut self, sample: &Sample, now: UnixMillis) -> bool {
        let is_repeat = self.repeats.record(sample);
        if sample.role != Role::Live {
            return false;
        }
        self.under_way.ended(sample.arm, sample.second());
        let is_dominant = self.keys.is_dominant(sample.key_hash);
        self.keys.record(sample.key_hash, sample.arm, now);
        sample.is_evidence() && !is_repeat && !is_dominant
    }
}
