//! What all workers share of the arms, as the driver sees it: breakers, limits of concurrency, and gauges
//! of the providers' rate limits.
//!
//! It makes them, hands them to the data plane, and reads breakers and gauges. It must never open or close
//! a breaker.

use std::sync::Arc;

use crate::arm::{Arm, PerArm};
use crate::clock::monotonic_ms;
use crate::config::Config;
use crate::proxy::plane::same_place;
use crate::upstream::breaker::{Breaker, Phase};
use crate::upstream::headroom::{Gauges, Rooms};
use crate::upstream::limit::Limit;

/// Breakers, limits and gauges of both arms.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) breakers: PerArm<Arc<Breaker>>,
    pub(super) limits: PerArm<Option<Arc<Limit>>>,
    pub(super) headroom: PerArm<Arc<Gauges>>,
    /// What was last told of the breakers.
    told: PerArm<Phase>,
}

impl Shared {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limits: limits_of(config, &PerArm::default()),
            ..Self::default()
        }
    }

    /// How the breakers stand.
    pub(super) fn phases(&self) -> PerArm<Phase> {
        PerArm::from_fn(|arm| self.breakers.get(arm).phase(monotonic_ms()))
    }

    /// What is left of the rate limits.
    pub(super) fn rooms(&self) -> PerArm<Rooms> {
        PerArm::from_fn(|arm| self.headroom.get(arm).rooms(monotonic_ms()))
    }

    /// One line when an arm cannot be reached any more, one when it can again.
    pub(super) fn tell(&mut self) {
        let phases = self.phases();
        for arm in Arm::BOTH {
            let was_closed = *self.told.get(arm) == Phase::Closed;
            let is_closed = *phases.get(arm) == Phase::Closed;
            if was_closed && !is_closed {
                tracing::error!(
                    alert = "arm-unreachable",
                    %arm,
                    "connections to this arm fail; it is dialled only for single probes until one succeeds"
                );
            } else if is_closed && !was_closed {
                tracing::info!(alert = "arm-reachable", %arm, "this arm can be reached again");
            }
        }
        self.told = phases;
    }

    /// An arm that moved begins with a closed breaker; workers keep their pools by the same rule. One that
    /// moved or has another key has other rate limits. Limits that did not change live on with their slots
    /// taken.
    pub(super) fn renew(&mut self, old: &Config, next: &Config) {
        for arm in Arm::BOTH {
            let (old, next) = (old.arms.get(arm), next.arms.get(arm));
            let moved = !same_place(old, next);
            if moved {
                *self.breakers.get_mut(arm) = Arc::default();
            }
            if moved || old.credential != next.credential {
                *self.headroom.get_mut(arm) = Arc::default();
            }
        }
        self.limits = limits_of(next, &self.limits);
    }
}

fn limits_of(config: &Config, before: &PerArm<Option<Arc<Limit>>>) -> PerArm<Option<Arc<Limit>>> {
    PerArm::from_fn(|arm| {
        let rule = config.arms.get(arm).concurrency?;
        let before = before.get(arm).as_ref();
        let same = before.filter(|limit| limit.rule() == rule);
        Some(same.map_or_else(|| Arc::new(Limit::new(rule)), Arc::clone))
    })
}
