//! Whether a failed attempt may be tried on the other arm.
//!
//! Pure. Only asked while no content has reached the client (invariant 6); the caller guarantees that by
//! holding back everything before the first content.
#![deny(clippy::disallowed_methods)]

use crate::arm::Arm;
use crate::outcome::Outcome;

/// What is known when a first attempt has failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// The arm that failed.
    pub arm: Arm,
    /// How it failed.
    pub outcome: Outcome,
    /// The rollout's `failover` setting.
    pub enabled: bool,
    /// The whole request body is at hand and can be sent again.
    pub replayable: bool,
}

/// True if the other arm may answer this request instead. Canary failures are rescued by legacy.
#[must_use]
pub const fn may_rescue(failed: Failed) -> bool {
    failed.enabled
        && failed.replayable
        && matches!(failed.arm, Arm::Canary)
        && failed.outcome.may_fail_over()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_canary_itself_are_rescued() {
        for outcome in Outcome::ALL {
            for arm in Arm::BOTH {
                for (enabled, replayable) in [(true, true), (true, false), (false, true)] {
                    let rescued = may_rescue(Failed {
                        arm,
                        outcome,
                        enabled,
                        replayable,
                    });
                    let expected = arm == Arm::Canary
                        && enabled
                        && replayable
                        && (outcome.is_error() || outcome == Outcome::RateLimited);
                    assert_eq!(rescued, expected, "{arm} {outcome} {enabled} {replayable}");
                }
            }
        }
    }
}
