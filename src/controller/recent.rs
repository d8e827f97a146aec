//! How both arms fared in the last minutes: is it the canary, is it legacy, or is it both?
//!
//! Pure. Plain rates with a short memory, for the alarms that need no proof because they only hold or tell:
//! nothing here lowers a weight.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::alert::kind::AlertKind;
use crate::arm::Arm;
use crate::controller::effect::DecisionKind;
use crate::controller::evidence::Cell;
use crate::controller::exact;
use crate::controller::phase::{Phase, Wait};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::step::{Turn, Why};
use crate::controller::words;

const HALF_LIFE_MIN: f64 = 2.0;
/// An arm is failing above this rate when no ceiling is configured.
const FAILING: f64 = 0.05;
/// Requests that a rate must rest on, and errors that are more than an accident.
const REQUESTS_MIN: f64 = 10.0;
const ERRORS_MIN: f64 = 5.0;

/// Errors and requests of both arms with a half-life of two minutes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    #[serde(with = "exact")]
    errors_and_requests: [f64; 4],
    /// "Legacy failing" has been told.
    legacy_failing: bool,
}

impl Recent {
    pub(super) fn add(&mut self, cell: &Cell) {
        let of = |arm: Arm| {
            let counts = cell.arms.get(arm);
            (counts.errors as f64, counts.requests as f64)
        };
        let ((lk, ln), (ck, cn)) = (of(Arm::Legacy), of(Arm::Canary));
        let [legacy_k, legacy_n, canary_k, canary_n] = self.errors_and_requests;
        self.errors_and_requests = [legacy_k + lk, legacy_n + ln, canary_k + ck, canary_n + cn];
    }

    pub(super) fn roll(&mut self, minutes: i64) {
        let keep = 0.5f64.powf(minutes.max(0) as f64 / HALF_LIFE_MIN);
        self.errors_and_requests = self.errors_and_requests.map(|count| count * keep);
    }

    fn of(&self, arm: Arm) -> (f64, f64) {
        let [legacy_k, legacy_n, canary_k, canary_n] = self.errors_and_requests;
        match arm {
            Arm::Legacy => (legacy_k, legacy_n),
            Arm::Canary => (canary_k, canary_n),
        }
    }

    fn rate(&self, arm: Arm) -> f64 {
        let (k, n) = self.of(arm);
        if n > 0.0 { k / n } else { 0.0 }
    }

    fn is_failing(&self, arm: Arm, limit: f64) -> bool {
        let (k, n) = self.of(arm);
        n >= REQUESTS_MIN && k >= ERRORS_MIN && k >= limit * n
    }

    /// True if its rate is below half the limit; not if it had no requests to tell.
    fn is_well(&self, arm: Arm, limit: f64) -> bool {
        let (k, n) = self.of(arm);
        n >= REQUESTS_MIN && k < limit / 2.0 * n
    }

    /// True from the word that legacy fails to the word that it is well again.
    pub(super) const fn is_legacy_failing(self) -> bool {
        self.legacy_failing
    }

    /// True if legacy is above `limit` by more than chance would put it there.
    pub(super) fn legacy_exceeds(&self, limit: f64) -> bool {
        let [k, n, ..] = self.errors_and_requests;
        k > limit * n + 2.0 * (limit * n).sqrt()
    }
}

/// From this rate on an arm is failing: the ceiling on errors, if there is one.
fn failing_rate(policy: &Policy) -> f64 {
    let ceiling = policy
        .guards
        .iter()
        .find(|guard| guard.kind == GuardKind::ErrorRate)
        .and_then(|guard| guard.ceiling);
    ceiling.unwrap_or(FAILING)
}

impl Turn<'_> {
    /// Both arms failing is held and told; legacy failing alone is only told. Each ends at half the limit.
    pub(super) fn judge_common_cause(&mut self) {
        let limit = failing_rate(self.policy);
        let recent = self.state.recent;
        let split = matches!(
            self.state.phase,
            Phase::Running | Phase::Complete | Phase::Retreated(_)
        );
        match self.state.wait {
            None | Some(Wait::NotConverging | Wait::Approval | Wait::Headroom)
                if split && Arm::BOTH.iter().all(|&arm| recent.is_failing(arm, limit)) =>
            {
                let reason = format!(
                    "common cause: both arms fail, canary {} and legacy {} of their latest requests",
                    words::percent(recent.rate(Arm::Canary)),
                    words::percent(recent.rate(Arm::Legacy))
                );
                self.alert(AlertKind::CommonCause, reason.clone());
                self.decide(DecisionKind::Hold, Why::controller(reason), |state| {
                    state.wait = Some(Wait::CommonCause);
                });
            }
            Some(Wait::CommonCause) if Arm::BOTH.iter().any(|&arm| recent.is_well(arm, limit)) => {
                let why = Why::controller("the arms no longer fail together".to_owned());
                self.decide(DecisionKind::Resume, why, |state| state.wait = None);
            }
            _ => {}
        }
        self.tell_of_legacy(limit);
    }

    fn tell_of_legacy(&mut self, limit: f64) {
        let recent = &mut self.state.recent;
        if !recent.legacy_failing {
            if recent.is_failing(Arm::Legacy, limit) && self.state.wait != Some(Wait::CommonCause) {
                recent.legacy_failing = true;
                let text = format!(
                    "legacy fails {} of its latest requests; the weight does not change",
                    words::percent(recent.rate(Arm::Legacy))
                );
                self.alert(AlertKind::LegacyFailing, text);
            }
        } else if recent.is_well(Arm::Legacy, limit) {
            recent.legacy_failing = false;
            self.alert(
                AlertKind::LegacyRecovered,
                "legacy answers again".to_owned(),
            );
        }
    }
}
