//! Who may answer a request whose first attempt failed: the other arm, the same arm again, or nobody.
//!
//! Pure. Only asked while no content has reached the client (invariant 6); the caller guarantees that by
//! holding back what came before. Canary failures are rescued by legacy unless legacy's breaker is open;
//! legacy failures by a canary that takes part (its weight is above 0) and whose breaker is closed. A
//! request that no other arm may take is tried again on its own, if that is likely to help.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use crate::arm::{Arm, Weight};
use crate::outcome::Outcome;
use crate::upstream::breaker::Phase;

/// Tries on the same arm after the first, at most.
pub const RETRIES_MAX: u8 = 2;
/// A `Retry-After` up to here is waited for.
pub const SHORT_WAIT_MS: u64 = 2_000;
/// The first back-off is at most this long, the second twice as long.
const BACK_OFF_MS: f64 = 100.0;

/// What is known of the arm that could answer instead.
#[derive(Debug, Clone, Copy)]
pub struct Other {
    /// The rollout's `failover` setting.
    pub enabled: bool,
    /// The arm that the request was for.
    pub asked: Arm,
    /// The canary's effective weight.
    pub weight: Weight,
    /// The breaker of the arm that could answer instead.
    pub breaker: Phase,
}

impl Other {
    /// True if it may take over requests of the arm that was asked.
    #[must_use]
    pub fn may_answer(self) -> bool {
        self.enabled
            && match self.asked {
                Arm::Canary => self.breaker != Phase::Open,
                Arm::Legacy => self.weight > Weight::ZERO && self.breaker == Phase::Closed,
            }
    }
}

/// True if the other arm may make a failure good.
#[must_use]
pub const fn is_rescued(asked: Arm, outcome: Outcome) -> bool {
    match outcome {
        // Legacy is the measure of what a request may ask for.
        Outcome::Parity => matches!(asked, Arm::Canary),
        Outcome::OverLimit => true,
        _ => outcome.may_fail_over(),
    }
}

/// True if the same arm may do better at a second try: what never reached it, or what providers
/// themselves call temporary. After a timeout the client has waited enough.
#[must_use]
pub const fn is_retried(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Connect
            | Outcome::Tls
            | Outcome::TimeoutConnect
            | Outcome::Reset
            | Outcome::ServerError
    )
}

/// How long to wait before the next try on the same arm; `None` if there is to be none. `tries` were made;
/// `asked_ms` is the provider's `Retry-After`; `draw` lies between 0 and 1.
#[must_use]
pub fn wait_before_retry(
    outcome: Outcome,
    tries: u8,
    asked_ms: Option<u64>,
    draw: f64,
) -> Option<Duration> {
    if outcome == Outcome::RateLimited {
        // Only a provider that says when it has room again is asked again, and once.
        let wait_ms = asked_ms.filter(|ms| tries == 1 && *ms <= SHORT_WAIT_MS)?;
        return Some(Duration::from_millis(wait_ms));
    }
    if !is_retried(outcome) || tries > RETRIES_MAX || asked_ms.is_some_and(|ms| ms > SHORT_WAIT_MS)
    {
        return None;
    }
    let longest_ms = BACK_OFF_MS * f64::from(1u32 << (tries.clamp(1, RETRIES_MAX) - 1));
    let jittered = Duration::from_secs_f64(longest_ms * draw.clamp(0.0, 1.0) / 1_000.0);
    Some(jittered.max(Duration::from_millis(asked_ms.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_arm_itself_and_what_it_has_no_room_for_are_rescued() {
        for outcome in Outcome::ALL {
            let is_full = matches!(outcome, Outcome::RateLimited | Outcome::OverLimit);
            let expected = outcome.is_error() || is_full;
            assert_eq!(is_rescued(Arm::Canary, outcome), expected, "{outcome}");
            let by_canary = expected && outcome != Outcome::Parity;
            assert_eq!(is_rescued(Arm::Legacy, outcome), by_canary, "{outcome}");
            assert!(!is_retried(outcome) || expected, "{outcome}");
        }
    }

    #[test]
    fn legacy_rescues_unless_it_is_down_and_the_canary_only_while_it_takes_part() {
        let some = Weight::from_bps(1).unwrap();
        let cases = [
            (Arm::Canary, Weight::ZERO, Phase::Closed, true),
            (Arm::Canary, some, Phase::HalfOpen, true),
            (Arm::Canary, some, Phase::Open, false),
            (Arm::Legacy, some, Phase::Closed, true),
            (Arm::Legacy, Weight::FULL, Phase::Closed, true),
            (Arm::Legacy, some, Phase::HalfOpen, false),
            (Arm::Legacy, some, Phase::Open, false),
            (Arm::Legacy, Weight::ZERO, Phase::Closed, false),
        ];
        for (asked, weight, breaker, expected) in cases {
            let mut other = Other {
                enabled: true,
                asked,
                weight,
                breaker,
            };
            assert_eq!(other.may_answer(), expected, "{other:?}");
            other.enabled = false;
            assert!(!other.may_answer(), "{other:?}");
        }
    }

    #[test]
    fn waits_double_are_drawn_in_full_and_end_after_two() {
        let check = |outcome, tries, asked_ms, draw, expected: Option<u64>| {
            let wait = wait_before_retry(outcome, tries, asked_ms, draw);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(wait, expected, "{outcome} {tries} {asked_ms:?} {draw}");
        };
        check(Outcome::Connect, 1, None, 0.0, Some(0));
        check(Outcome::Connect, 1, None, 1.0, Some(100));
        check(Outcome::Connect, 2, None, 0.5, Some(100));
        check(Outcome::Connect, 3, None, 0.5, None);
        check(Outcome::TimeoutTotal, 1, None, 0.5, None);
        check(Outcome::ServerError, 1, Some(1_500), 0.5, Some(1_500));
        check(Outcome::ServerError, 1, Some(2_001), 0.5, None);
        check(Outcome::RateLimited, 1, Some(2_000), 0.5, Some(2_000));
        check(Outcome::RateLimited, 1, Some(2_001), 0.5, None);
        check(Outcome::RateLimited, 1, None, 0.5, None);
        check(Outcome::RateLimited, 2, Some(0), 0.5, None);
        check(Outcome::Auth, 1, Some(0), 0.5, None);
    }
}
