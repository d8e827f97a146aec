//! What a person may ask of a rollout at any time, and what it then does.
//!
//! Pure. A command that raises the weight is proposed like any raise; one that lowers or keeps it acts at
//! once. `hold` stops increases only; a command that names a weight still acts under it.
#![deny(clippy::disallowed_methods)]

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::controller::effect::{By, DecisionKind};
use crate::controller::phase::{Landing, Phase, Raise, Wait};
use crate::controller::policy::{Policy, Stage};
use crate::controller::step::{Action, Command, Turn, Why};

impl Turn<'_> {
    pub(super) fn operator(&mut self, command: &Command, store_healthy: bool) {
        let reason = if command.reason.is_empty() {
            "no reason given".to_owned()
        } else {
            command.reason.clone()
        };
        let why = Why::new(By::Operator, reason);
        match command.action {
            Action::Hold => self.operator_hold(why),
            Action::Rollback => self.operator_rollback(why),
            Action::Resume => self.operator_resume(why, store_healthy),
            Action::Promote => self.operator_promote(why, store_healthy),
            Action::Retry => match self.state.phase {
                Phase::RolledBack { .. } | Phase::Stopped => {
                    let raise = self.raise_to_stage(DecisionKind::Retry, 0);
                    self.operator_raise(raise, why, store_healthy);
                }
                _ => self.refuse("the rollout is not rolled back; there is nothing to retry"),
            },
            Action::SetWeight(weight) => self.operator_set_weight(weight, why, store_healthy),
        }
    }

    fn refuse(&mut self, why: &str) {
        self.refusal = Some(why.to_owned());
    }

    fn operator_hold(&mut self, why: Why) {
        if self.state.hold.is_some() {
            self.refuse("the rollout is held already; `cutover resume` lifts the hold");
            return;
        }
        let reason = why.reason.clone();
        self.decide(DecisionKind::Hold, why, |state| state.hold = Some(reason));
    }

    fn operator_rollback(&mut self, why: Why) {
        if matches!(self.state.phase, Phase::RolledBack { until: None }) {
            self.refuse("the rollout is rolled back already; `cutover retry` starts a new attempt");
            return;
        }
        let now = self.now;
        self.alert(
            AlertKind::RollBack,
            format!("by an operator: {}", why.reason),
        );
        self.decide(DecisionKind::RollBack, why, |state| {
            state.set_phase(Phase::RolledBack { until: None }, now);
        });
    }

    fn operator_resume(&mut self, why: Why, store_healthy: bool) {
        let held = self.state.hold.is_some() || self.state.wait.is_some();
        match &self.state.phase {
            Phase::Tripped(trip) => {
                let raise = self.raise_back(DecisionKind::Resume, trip.back_to);
                self.operator_raise(Some(raise), why, store_healthy);
            }
            // A hold over a retreat is lifted first: what was held is the return, not its proof.
            Phase::Retreated(retreat) if !held => {
                let raise = self.raise_back(DecisionKind::Resume, retreat.lands());
                self.operator_raise(Some(raise), why, store_healthy);
            }
            _ if held => self.decide(DecisionKind::Resume, why, |state| {
                state.hold = None;
                state.stuck_minutes = 0;
                state.split.reset();
                if state.wait.take() == Some(Wait::Harm) {
                    // The operator accepts what was proven: from here on it takes a new proof.
                    state.begin_epoch();
                    state.restart_proof();
                }
            }),
            Phase::WarmingUp | Phase::RolledBack { .. } | Phase::Stopped => {
                let raise = self.raise_to_stage(DecisionKind::Resume, 0);
                self.operator_raise(raise, why, store_healthy);
            }
            Phase::Running | Phase::Complete | Phase::Retreated(_) => {
                self.refuse("the rollout is neither held nor tripped; there is nothing to resume");
            }
        }
    }

    fn operator_promote(&mut self, why: Why, store_healthy: bool) {
        match self.state.phase {
            Phase::Complete => self.refuse("the rollout is complete; there is no stage above"),
            Phase::WarmingUp | Phase::RolledBack { .. } | Phase::Stopped => {
                let raise = self.raise_to_stage(DecisionKind::Promote, 0);
                self.operator_raise(raise, why, store_healthy);
            }
            Phase::Retreated(retreat) => {
                let raise = self.raise_back(DecisionKind::Promote, retreat.lands());
                self.operator_raise(Some(raise), why, store_healthy);
            }
            Phase::Running | Phase::Tripped(_) => match self.next_stage() {
                Some(next) => {
                    let raise = self.raise_to_stage(DecisionKind::Promote, next);
                    self.operator_raise(raise, why, store_healthy);
                }
                None if self.state.phase == Phase::Running => self.complete(why),
                None => {
                    let raise = self.raise_back(DecisionKind::Promote, Landing::Running);
                    self.operator_raise(Some(raise), why, store_healthy);
                }
            },
        }
    }

    fn operator_set_weight(&mut self, weight: Weight, why: Why, store_healthy: bool) {
        let stage = stage_of(self.policy, weight);
        let raise = Raise {
            kind: DecisionKind::SetWeight,
            stage,
            weight,
            new_attempt: matches!(self.state.phase, Phase::RolledBack { .. } | Phase::Stopped),
            lands: Landing::Running,
        };
        if weight > self.state.weight() {
            self.operator_raise(Some(raise), why, store_healthy);
            return;
        }
        let (policy, now) = (self.policy, self.now);
        self.decide(DecisionKind::SetWeight, why, |state| {
            state.apply(policy, &raise, now);
        });
    }

    /// Proposes a raise, unless one is being committed already.
    fn operator_raise(&mut self, raise: Option<Raise>, why: Why, store_healthy: bool) {
        if !store_healthy {
            self.refuse("the store is failing, so nothing can go up; mend it and ask again");
        } else if self.state.outstanding.is_some() {
            self.refuse("another decision is just being recorded; ask again");
        } else if let Some(raise) = raise {
            self.propose(raise, why);
        }
    }
}

/// The last stage that is not above a weight, else the first.
pub(super) fn stage_of(policy: &Policy, weight: Weight) -> usize {
    let above = |stage: &Stage| stage.weight <= weight;
    policy.stages.iter().rposition(above).unwrap_or(0)
}
