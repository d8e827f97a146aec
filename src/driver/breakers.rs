//! The arms' breakers as the driver sees them: phases for status and controller, a line when one changes.

use std::sync::Arc;

use super::Driver;
use crate::arm::{Arm, PerArm};
use crate::clock::monotonic_ms;
use crate::config::Config;
use crate::proxy::plane::same_place;
use crate::upstream::breaker::{Breaker, Phase};

impl Driver {
    pub(super) fn breaker_phases(&self) -> PerArm<Phase> {
        PerArm::from_fn(|arm| self.breakers.get(arm).phase(monotonic_ms()))
    }

    /// One line when an arm cannot be reached any more, one when it can again.
    pub(super) fn tell_breakers(&mut self) {
        let phases = self.breaker_phases();
        for arm in Arm::BOTH {
            let was_closed = *self.breakers_told.get(arm) == Phase::Closed;
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
        self.breakers_told = phases;
    }

    /// An arm that moved begins with a closed breaker. Workers keep their pools by the same rule.
    pub(super) fn renew_breakers(&mut self, next: &Config) {
        for arm in Arm::BOTH {
            if !same_place(self.config.arms.get(arm), next.arms.get(arm)) {
                *self.breakers.get_mut(arm) = Arc::new(Breaker::default());
            }
        }
    }
}
