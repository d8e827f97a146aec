//! Effects on their way out and back: decisions recorded, proposals confirmed, lines logged; and how the
//! store that records them is.

use std::time::Duration;

use tokio::task::JoinError;

use super::Driver;
use super::operate::{self, Operated, Refusal, Reply};
use super::restore::Stored;
use super::rollout::Rollout;
use crate::clock::UnixMillis;
use crate::controller::effect::{Decision, Effect};
use crate::controller::step::Event;
use crate::store::{Committed, StoreError};
use crate::telemetry;

/// The decision's line and the operator's answer wait this long for the decision's number.
const NUMBER_WITHIN: Duration = Duration::from_secs(2);

/// A commit that came back from the store.
#[derive(Debug)]
pub(super) struct Done {
    rollout_id: String,
    decision: Decision,
    /// The raise that waits for it.
    proposal: Option<u64>,
    /// `None`: the store has not answered in time; it keeps trying.
    result: Option<Result<Committed, StoreError>>,
    reply: Option<Reply>,
}

impl Driver {
    /// Performs what a look led to. `reply` goes with the first decision; without one, the command
    /// changed nothing.
    pub(super) fn perform(&mut self, place: usize, effects: Vec<Effect>, mut reply: Option<Reply>) {
        for effect in effects {
            match effect {
                Effect::Decide(decision) => {
                    self.count(place, &decision);
                    self.record(place, decision, reply.take());
                }
                Effect::Propose {
                    proposal,
                    decision,
                    state_after,
                } => {
                    self.propose(place, proposal, decision, *state_after, reply.take());
                }
                Effect::Alert { kind, text } => {
                    let rollout = self.rollouts.get(place).map_or("", |known| &known.key.name);
                    tracing::warn!(alert = kind, rollout, text, "alert");
                }
                // The rollout handed the permit out when it looked.
                Effect::PermitProbe => {}
            }
        }
        if let (Some(reply), Some(rollout)) = (reply, self.rollouts.get(place)) {
            operate::accept(reply, unchanged(rollout));
        }
    }

    /// One line when the store fails, one when it is back; never one per tick.
    pub(super) fn tell_health(&mut self) {
        let health = self.health.borrow_and_update().clone();
        if health.healthy && health.files_replaced != self.files_replaced {
            self.files_replaced = health.files_replaced;
            self.shared.tell_learned_anew();
        }
        if health.healthy == self.store_was_healthy {
            return;
        }
        self.store_was_healthy = health.healthy;
        if health.healthy {
            tracing::info!(alert = "store-recovered", "the store works again");
        } else {
            let error = health.error.unwrap_or_default();
            tracing::error!(
                alert = "store-failing",
                error,
                "the store is failing; traffic flows, weights do not rise"
            );
        }
    }

    /// Counts a decision that holds.
    fn count(&mut self, place: usize, decision: &Decision) {
        if let Some(rollout) = self.rollouts.get_mut(place) {
            rollout.counts.decided(decision.kind);
        }
    }

    /// What holds already is recorded as soon as the store can.
    fn record(&mut self, place: usize, decision: Decision, reply: Option<Reply>) {
        let now = UnixMillis::now();
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        let row = rollout.row(&rollout.stored, now);
        let receipt = self
            .store
            .submit(row, Some(rollout.decision_row(&decision)));
        rollout.version += 1;
        rollout.is_dirty = false;
        let rollout_id = rollout.key.id.to_string();
        self.commits.spawn(async move {
            let result = tokio::time::timeout(NUMBER_WITHIN, receipt).await;
            let result = result
                .ok()
                .map(|stored| stored.unwrap_or(Err(StoreError::Closed)));
            Done {
                rollout_id,
                decision,
                proposal: None,
                result,
                reply,
            }
        });
    }

    /// A raise is recorded first; it holds when the store has said so.
    fn propose(
        &mut self,
        place: usize,
        proposal: u64,
        decision: Decision,
        state_after: crate::controller::state::State,
        reply: Option<Reply>,
    ) {
        let now = UnixMillis::now();
        let Some(rollout) = self.rollouts.get(place) else {
            return;
        };
        let after = Stored {
            state: state_after,
            ..rollout.stored.clone()
        };
        let row = rollout.row(&after, now);
        let decision_row = rollout.decision_row(&decision);
        let rollout_id = rollout.key.id.to_string();
        let store = self.store.clone();
        self.commits.spawn(async move {
            let result = Some(store.commit(row, Some(decision_row)).await);
            Done {
                rollout_id,
                decision,
                proposal: Some(proposal),
                result,
                reply,
            }
        });
    }

    /// A commit came back.
    pub(super) fn committed(&mut self, done: Result<Done, JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => return tracing::error!(%error, "a commit was lost"),
        };
        let Some(place) = self.place_of(&done.rollout_id) else {
            return;
        };
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        match (done.proposal, &done.result) {
            (Some(proposal), Some(Ok(committed))) => {
                rollout.version = committed.version;
                rollout.counts.decided(done.decision.kind);
                log_decision(rollout, &done.decision, committed.decision_id);
                self.look_at(place, Some(Event::Committed { proposal }), None);
                self.tell_operator(place, done);
            }
            (Some(proposal), Some(Err(error))) => {
                let why = error.to_string();
                if let StoreError::Conflict { stored, .. } = error {
                    rollout.version = *stored;
                }
                let failed = Event::CommitFailed {
                    proposal,
                    why: why.clone(),
                };
                self.look_at(place, Some(failed), None);
                operate::refuse(done.reply, Refusal::StoreFailing(why));
            }
            (None, Some(Err(StoreError::Conflict { stored, .. }))) => {
                // A raise before it was not stored after all: build on what is there.
                rollout.version = *stored;
                self.record(place, done.decision, done.reply);
            }
            (_, result) => {
                let id = match result {
                    Some(Ok(committed)) => committed.decision_id,
                    Some(Err(error)) => {
                        tracing::error!(%error, "a decision was not recorded");
                        None
                    }
                    None => None,
                };
                log_decision(rollout, &done.decision, id);
                self.tell_operator(place, done);
            }
        }
    }

    fn tell_operator(&self, place: usize, done: Done) {
        let Some(rollout) = self.rollouts.get(place) else {
            return;
        };
        let Some(reply) = done.reply else { return };
        let id = done
            .result
            .and_then(Result::ok)
            .and_then(|committed| committed.decision_id);
        operate::accept(
            reply,
            Operated {
                rollout: rollout.key.name.to_string(),
                kind: Some(done.decision.kind.as_str()),
                decision: id,
                weight: rollout.stored.state.snapshot().weight.fraction(),
                message: done.decision.log_line(&rollout.key.name, id),
            },
        );
    }
}

fn unchanged(rollout: &Rollout) -> Operated {
    Operated {
        rollout: rollout.key.name.to_string(),
        kind: None,
        decision: None,
        weight: rollout.stored.state.snapshot().weight.fraction(),
        message: "nothing to change".to_owned(),
    }
}

/// The promotion log: one line per transition, in the shape that people read and scripts parse. The text
/// log takes the line alone, the JSON log the line with its fields; see [`telemetry`].
fn log_decision(rollout: &Rollout, decision: &Decision, id: Option<i64>) {
    let line = decision.log_line(&rollout.key.name, id);
    tracing::info!(target: telemetry::DECISION_LINE, "{line}");
    tracing::info!(
        target: telemetry::DECISION_FIELDS,
        decision = id,
        kind = decision.kind.as_str(),
        rollout = &*rollout.key.name,
        weight_from = decision.weight_from.fraction(),
        weight_to = decision.weight_to.fraction(),
        stage = decision.stage + 1,
        by = decision.by.as_str(),
        "{line}"
    );
}
