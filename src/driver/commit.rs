//! Effects on their way out and back: decisions recorded, proposals confirmed, lines logged; and how the
//! store that records them is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use super::Driver;
use super::operate::{self, Operated, Refusal, Reply};
use super::restore::Stored;
use super::rollout::Rollout;
use super::tell::{Said, kind_of};
use crate::alert::Alert;
use crate::alert::kind::AlertKind;
use crate::clock::UnixMillis;
use crate::controller::effect::{Decision, DecisionKind, Effect};
use crate::controller::step::Event;
use crate::store::{Committed, RolloutKey, StoreError};
use crate::telemetry;

/// The decision's line and the operator's answer wait this long for the decision's number.
const NUMBER_WITHIN: Duration = Duration::from_secs(2);

/// A commit that came back from the store.
#[derive(Debug)]
pub(super) struct Done {
    rollout: RolloutKey,
    decision: Decision,
    /// What people have heard of it.
    said: Said,
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
        // An alert that waits for the decision behind it, which comes next.
        let mut said = Said::Nothing;
        for effect in effects {
            match effect {
                Effect::Decide(decision) => {
                    self.count(place, &decision);
                    let said = std::mem::replace(&mut said, Said::Nothing);
                    self.record(place, decision, said, reply.take());
                }
                Effect::Propose {
                    proposal,
                    decision,
                    state_after,
                } => {
                    self.propose(place, proposal, decision, *state_after, reply.take());
                }
                Effect::Alert { kind, text } => {
                    self.log_alert(place, kind, &text);
                    if kind.has_decision() {
                        said = Said::Alert(kind, text);
                    } else {
                        self.tell(place, kind, text);
                    }
                }
                // The rollout handed the permit out when it looked.
                Effect::PermitProbe => {}
            }
        }
        if let Said::Alert(kind, text) = said {
            self.tell(place, kind, text);
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
        self.tell_set_aside(health.set_aside.clone());
        if health.healthy == self.store_was_healthy {
            return;
        }
        self.store_was_healthy = health.healthy;
        if health.healthy {
            let kind = AlertKind::StoreRecovered;
            tracing::info!(alert = kind.as_str(), "the store works again");
            let alert = Alert::new(kind, "decisions and samples are recorded again".to_owned());
            self.alerts.hand(alert.ends(vec![AlertKind::StoreFailing]));
        } else {
            let kind = AlertKind::StoreFailing;
            let error = health.error.unwrap_or_default();
            tracing::error!(
                alert = kind.as_str(),
                error,
                "the store is failing; traffic flows, weights do not rise"
            );
            let text = format!("traffic flows, weights do not rise · {error}");
            self.alerts.hand(Alert::new(kind, text));
        }
    }

    /// A file that became corrupt in use. Its successor gets all states from memory.
    fn tell_set_aside(&mut self, set_aside: Option<PathBuf>) {
        if set_aside == self.set_aside {
            return;
        }
        self.set_aside = set_aside;
        let Some(aside) = &self.set_aside else { return };
        let kind = AlertKind::StoreCorrupt;
        tracing::error!(
            alert = kind.as_str(),
            set_aside = %aside.display(),
            "the database became corrupt: it is set aside, and a new one takes over the states; weights go on"
        );
        let text = format!(
            "set aside as {}; a new one takes over the states, weights go on; decisions, samples and costs \
             of before are in the file that was set aside",
            aside.display()
        );
        self.alerts.hand(Alert::new(kind, text));
    }

    /// Counts a decision that holds.
    fn count(&mut self, place: usize, decision: &Decision) {
        if let Some(rollout) = self.rollouts.get_mut(place) {
            rollout.counts.decided(decision.kind);
        }
    }

    /// What holds already is recorded as soon as the store can.
    fn record(&mut self, place: usize, decision: Decision, mut said: Said, reply: Option<Reply>) {
        let now = UnixMillis::now();
        if decision.kind == DecisionKind::Stop
            && let Some(rollout) = self.rollouts.get(place)
        {
            // The rollout is gone when its number is known.
            let name = Arc::clone(&rollout.key.name);
            self.tell_decision(&name, &decision, said, None);
            said = Said::All;
        }
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        let row = rollout.row(&rollout.stored, now);
        let receipt = self
            .store
            .submit(row, Some(rollout.decision_row(&decision)));
        rollout.version += 1;
        rollout.is_dirty = false;
        let rollout = rollout.key.clone();
        self.commits.spawn(async move {
            let result = tokio::time::timeout(NUMBER_WITHIN, receipt).await;
            let result = result
                .ok()
                .map(|stored| stored.unwrap_or(Err(StoreError::Closed)));
            Done {
                rollout,
                decision,
                said,
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
        let rollout = rollout.key.clone();
        let store = self.store.clone();
        self.commits.spawn(async move {
            let result = Some(store.commit(row, Some(decision_row)).await);
            Done {
                rollout,
                decision,
                said: Said::Nothing,
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
        let name = Arc::clone(&done.rollout.name);
        let Some(place) = self.place_of(&done.rollout.id) else {
            return self.committed_of_gone(done);
        };
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        match (done.proposal, &done.result) {
            (Some(proposal), Some(Ok(committed))) => {
                let id = committed.decision_id;
                rollout.version = committed.version;
                rollout.counts.decided(done.decision.kind);
                log_decision(&name, &done.decision, &done.said, id);
                self.look_at(place, Some(Event::Committed { proposal }), None);
                self.tell_decision(&name, &done.decision, Said::Nothing, id);
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
                self.record(place, done.decision, done.said, done.reply);
            }
            (_, result) => {
                if let Some(Err(error)) = result {
                    tracing::error!(%error, "a decision was not recorded");
                }
                let id = decision_id(result.as_ref());
                log_decision(&name, &done.decision, &done.said, id);
                let mut done = done;
                let said = std::mem::replace(&mut done.said, Said::All);
                self.tell_decision(&name, &done.decision, said, id);
                self.tell_operator(place, done);
            }
        }
    }

    /// A commit of a rollout whose place another one has by now, or none.
    fn committed_of_gone(&mut self, done: Done) {
        let name = Arc::clone(&done.rollout.name);
        if done.proposal.is_some() {
            // Nobody was there to carry it out, and it may not even be stored: there was no raise.
            let why = "the rollout was stopped or begun anew meanwhile".to_owned();
            return operate::refuse(done.reply, Refusal::NotNow(why));
        }
        let id = decision_id(done.result.as_ref());
        log_decision(&name, &done.decision, &done.said, id);
        let kind = match &done.said {
            Said::Alert(kind, _) => Some(*kind),
            Said::Nothing | Said::All => kind_of(done.decision.kind),
        };
        let is_gone = !self.rollouts.iter().any(|known| known.key.name == name);
        // Its end was told with the rollout's: what opens now would stay open.
        if !(is_gone && kind.is_some_and(AlertKind::lasts)) {
            self.tell_decision(&name, &done.decision, done.said, id);
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

/// The number that the store gave a decision.
fn decision_id(result: Option<&Result<Committed, StoreError>>) -> Option<i64> {
    result?.as_ref().ok()?.decision_id
}

/// The promotion log: one line per transition, in the shape that people read and scripts parse. The text
/// log takes the line alone, the JSON log the line with its fields; see [`telemetry`]. It is its own alert
/// where none was logged before it.
fn log_decision(rollout: &str, decision: &Decision, said: &Said, id: Option<i64>) {
    let line = decision.log_line(rollout, id);
    let alert = match said {
        Said::Nothing | Said::All => kind_of(decision.kind).map(AlertKind::as_str),
        Said::Alert(..) => None,
    };
    tracing::info!(target: telemetry::DECISION_LINE, "{line}");
    tracing::info!(
        target: telemetry::DECISION_FIELDS,
        decision = id,
        kind = decision.kind.as_str(),
        alert,
        rollout,
        weight_from = decision.weight_from.fraction(),
        weight_to = decision.weight_to.fraction(),
        stage = decision.stage + 1,
        by = decision.by.as_str(),
        "{line}"
    );
}
