//! How both arms fared in the last minutes: is it the canary, is it legacy, or is it both?
//!
//! Pure. Plain rates with a short memory, for the alarms that need no proof because they only hold or tell:
//! nothing here lowers a weight.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::arm::{Arm, PerArm};
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
/// Requests that a rate must rest on.
const REQUESTS_MIN: f64 = 10.0;

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

    /// The recent error rate of each arm; `None` when too few requests tell.
    fn rates(&self) -> PerArm<Option<f64>> {
        let rate = |k: f64, n: f64| (n >= REQUESTS_MIN).then(|| k / n);
        let [legacy_k, legacy_n, canary_k, canary_n] = self.errors_and_requests;
        PerArm {
            legacy: rate(legacy_k, legacy_n),
            canary: rate(canary_k, canary_n),
        }
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
        let rates = self.state.recent.rates();
        let above = |rate: Option<f64>, limit: f64| rate.is_some_and(|rate| rate >= limit);
        let split = matches!(
            self.state.phase,
            Phase::Running | Phase::Complete | Phase::Retreated(_)
        );
        let said = |rate: Option<f64>| words::percent(rate.unwrap_or_default());
        match self.state.wait {
            None | Some(Wait::NotConverging | Wait::Approval)
                if split && above(rates.legacy, limit) && above(rates.canary, limit) =>
            {
                let reason = format!(
                    "common cause: both arms fail, canary {} and legacy {} of their latest requests",
                    said(rates.canary),
                    said(rates.legacy)
                );
                self.alert("common-cause", reason.clone());
                self.decide(DecisionKind::Hold, Why::controller(reason), |state| {
                    state.wait = Some(Wait::CommonCause);
                });
            }
            Some(Wait::CommonCause)
                if !above(rates.legacy, limit / 2.0) || !above(rates.canary, limit / 2.0) =>
            {
                let why = Why::controller("the arms no longer fail together".to_owned());
                self.decide(DecisionKind::Resume, why, |state| state.wait = None);
            }
            _ => {}
        }
        self.tell_of_legacy(rates.legacy, limit);
    }

    fn tell_of_legacy(&mut self, rate: Option<f64>, limit: f64) {
        let failing = &mut self.state.recent.legacy_failing;
        let Some(rate) = rate else { return };
        if !*failing && rate >= limit && self.state.wait != Some(Wait::CommonCause) {
            *failing = true;
            let text = format!(
                "legacy fails {} of its latest requests; the weight does not change",
                words::percent(rate)
            );
            self.alert("legacy-failing", text);
        } else if *failing && rate < limit / 2.0 {
            *failing = false;
            self.alert("legacy-recovered", "legacy answers again".to_owned());
        }
    }
}
