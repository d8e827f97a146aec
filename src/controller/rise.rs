//! What may go up by itself, and when: the start, promotions, the end of a trip, the next attempt.
//!
//! Pure. Every raise is a proposal. Waiting for dwell or proof is `running` and makes no decision; a
//! hold of the controller's own makes one when it begins and one when it ends.
#![deny(clippy::disallowed_methods)]

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::clock::for_people;
use crate::controller::effect::{DecisionKind, Effect};
use crate::controller::phase::{Landing, Phase, Raise, Trip, Wait};
use crate::controller::policy::Stage;
use crate::controller::proof::{self, Standing};
use crate::controller::step::{Input, Turn, Why};
use crate::controller::sums::Harm;
use crate::controller::words;

/// What is still needed of what seems over.
const AFTERWARDS: &str = "keep legacy's credentials and this daemon for 30 days: until then \
    `cutover rollback` gives everything back to legacy within a second";
const PROBE_EVERY_MS: i64 = 10_000;
const PROBES_NEEDED: u32 = 5;
/// Minutes without convergence before the rollout is said to be held.
const STUCK_MIN: u32 = 10;
/// Canary requests of a stage before "will not converge" is more than noise.
pub(super) const STUCK_CANARY_MIN: u64 = 200;

impl Turn<'_> {
    /// Once a minute: does the proof still grow? Ten minutes without are a hold, ten with end it.
    pub(super) fn judge_convergence(&mut self, harm: &Harm, input: &Input<'_>) {
        let waits_itself = matches!(self.state.wait, None | Some(Wait::NotConverging));
        if self.state.phase != Phase::Running || !waits_itself {
            return;
        }
        let standing = proof::standing(
            self.policy,
            &self.state,
            harm.log_roll,
            input.overdue,
            self.now,
        );
        let stuck = match standing {
            Standing::Needs(kind, None) if self.state.stage_canary >= STUCK_CANARY_MIN => {
                Some(kind)
            }
            _ => None,
        };
        let minutes = &mut self.state.stuck_minutes;
        *minutes = match stuck {
            Some(_) => (*minutes + 1).min(STUCK_MIN),
            None => minutes.saturating_sub(1),
        };
        match (self.state.wait, stuck, *minutes) {
            (None, Some(kind), STUCK_MIN) => {
                let reason = format!(
                    "will not converge: canary is at its margin ({})",
                    kind.as_str()
                );
                let why = Why {
                    guard: Some(kind),
                    ..Why::controller(reason)
                };
                self.decide(DecisionKind::Hold, why, |state| {
                    state.wait = Some(Wait::NotConverging);
                });
            }
            (Some(_), _, 0) => {
                let why = Why::controller("the proof grows again".to_owned());
                self.decide(DecisionKind::Resume, why, |state| state.wait = None);
            }
            _ => {}
        }
    }

    pub(super) fn may_propose(&self, store_healthy: bool) -> bool {
        store_healthy
            && self.state.hold.is_none()
            && self.state.outstanding.is_none()
            && self.now >= self.state.propose_after
            && !self.state.wait.is_some_and(Wait::blocks)
    }

    pub(super) fn go_on(&mut self, harm: &Harm, input: &Input<'_>) {
        let may = self.may_propose(input.store_healthy);
        let measured = self.state.warm_up_measured(input.open);
        match &self.state.phase {
            Phase::WarmingUp if may && measured >= self.policy.warm_up_requests => {
                let reason = format!(
                    "warm-up: {measured} legacy requests in {}",
                    for_people(self.now.millis_since(self.state.phase_since))
                );
                if let Some(raise) = self.raise_to_stage(DecisionKind::Start, 0) {
                    self.propose(raise, Why::controller(reason));
                }
            }
            Phase::Running => self.go_on_running(harm, may, input),
            Phase::Retreated(retreat) if may && proof::is_proven(self.policy, &self.state) => {
                let retreat = *retreat;
                if let Standing::Ready(log_evidence) =
                    proof::evidence(self.policy, &self.state, harm.log_roll, input.overdue)
                {
                    self.go_on_retreated(retreat, log_evidence);
                }
            }
            Phase::Tripped(trip) if self.state.hold.is_none() => {
                let trip = trip.clone();
                self.go_on_tripped(&trip, may);
            }
            Phase::RolledBack { until: Some(until) } if may && self.now >= *until => {
                let attempt = self.state.attempt + 1;
                let reason = format!("attempt {attempt}/{}", self.policy.max_attempts);
                if let Some(raise) = self.raise_to_stage(DecisionKind::Retry, 0) {
                    self.propose(raise, Why::controller(reason));
                }
            }
            _ => {}
        }
    }

    pub(super) fn go_on_tripped(&mut self, trip: &Trip, may: bool) {
        let Some(until) = trip.until else { return };
        if self.now < until {
            return;
        }
        if trip.probes_ok >= PROBES_NEEDED {
            if may {
                let reason = format!("{} probes in a row succeeded", trip.probes_ok);
                let raise = self.raise_back(DecisionKind::Resume, trip.back_to);
                self.propose(raise, Why::controller(reason));
            }
        } else if self.now >= trip.next_probe_at {
            if let Phase::Tripped(trip) = &mut self.state.phase {
                trip.next_probe_at = self.now.plus_millis(PROBE_EVERY_MS);
            }
            self.effects.push(Effect::PermitProbe);
        }
    }

    pub(super) fn go_on_running(&mut self, harm: &Harm, may: bool, input: &Input<'_>) {
        // Cheapest test first: a stage spends most of its looks in its dwell.
        if self.state.hold.is_some()
            || self.state.wait.is_some_and(Wait::blocks)
            || proof::dwell_left(self.policy, &self.state, self.now) > 0
        {
            return;
        }
        let Some(next) = self.next_stage() else {
            if self.state.wait.is_none() && harm.log_roll < 10.0f64.ln() {
                let stayed_ms = self.now.millis_since(self.state.stage_since);
                let reason = match stayed_ms {
                    ..1_000 => format!("at {}", self.state.weight),
                    _ => format!("after {} at {}", for_people(stayed_ms), self.state.weight),
                };
                self.complete(Why::controller(reason));
            }
            return;
        };
        // At 0% only an operator can have put it there.
        if self.state.weight == Weight::ZERO || !proof::is_proven(self.policy, &self.state) {
            return;
        }
        let Standing::Ready(log_evidence) =
            proof::evidence(self.policy, &self.state, harm.log_roll, input.overdue)
        else {
            return;
        };
        let gated = self
            .policy
            .stages
            .get(self.state.stage)
            .is_some_and(|stage| stage.approve);
        let why = Why {
            log_evidence: Some(log_evidence),
            log_needed: Some(self.state.promote_nats(self.policy)),
            ..Why::controller(words::promotion(
                self.policy,
                &self.state,
                log_evidence,
                self.now,
            ))
        };
        if gated {
            self.ask_for_approval(why);
        } else if may {
            self.promote(next, why, input);
        }
    }

    pub(super) fn ask_for_approval(&mut self, mut why: Why) {
        if self.state.wait == Some(Wait::Approval) {
            return;
        }
        why.reason
            .push_str(" · waits for approval: `cutover promote`");
        self.alert(AlertKind::Approval, why.reason.clone());
        self.decide(DecisionKind::Hold, why, |state| {
            state.wait = Some(Wait::Approval);
        });
    }

    pub(super) fn complete(&mut self, why: Why) {
        self.alert(
            AlertKind::Complete,
            format!("{} · {AFTERWARDS}", why.reason),
        );
        let now = self.now;
        self.decide(DecisionKind::Complete, why, |state| {
            state.set_phase(Phase::Complete, now);
        });
    }

    /// The next stage up: the first whose weight is above the intended one.
    pub(super) fn next_stage(&self) -> Option<usize> {
        let above = |stage: &Stage| stage.weight > self.state.weight;
        self.policy.stages.iter().position(above)
    }

    pub(super) fn raise_to_stage(&self, kind: DecisionKind, stage: usize) -> Option<Raise> {
        Some(Raise {
            kind,
            stage,
            weight: self.policy.stages.get(stage)?.weight,
            new_attempt: matches!(self.state.phase, Phase::RolledBack { .. } | Phase::Stopped),
            lands: Landing::Running,
        })
    }

    /// Back to where the rollout stood.
    pub(super) fn raise_back(&self, kind: DecisionKind, lands: Landing) -> Raise {
        Raise {
            kind,
            stage: self.state.stage,
            weight: self.state.weight,
            new_attempt: false,
            lands,
        }
    }
}
