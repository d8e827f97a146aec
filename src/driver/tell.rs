//! What people are told: each transition once, with its end; nothing again after a restart.
//!
//! Lines of the log are written here and where the news arises; receivers get theirs through
//! [`Alerts`], which never waits. What was told of a rollout and goes on is stored with
//! its state.

use super::Driver;
use super::restore::Stored;
use super::rollout::{Rollout, Surroundings};
use crate::alert::kind::AlertKind;
use crate::alert::{Alert, Alerts};
use crate::arm::Arm;
use crate::clock::{UnixMillis, for_people};
use crate::controller::effect::{Decision, DecisionKind};
use crate::store::RolloutRow;

/// What was said of a decision before its number was known.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing: the decision speaks for itself, if people are told of it at all.
    Nothing,
    /// This, in the log; receivers are told when the number is known.
    Alert(AlertKind, String),
    /// All, to everybody.
    All,
}

/// The kind of a decision that no alert of the controller went with; `None` where people are not told.
pub(super) const fn kind_of(decision: DecisionKind) -> Option<AlertKind> {
    match decision {
        DecisionKind::Start => Some(AlertKind::Start),
        DecisionKind::Promote => Some(AlertKind::Promote),
        DecisionKind::Resume => Some(AlertKind::Resume),
        DecisionKind::Retry => Some(AlertKind::Retry),
        DecisionKind::SetWeight => Some(AlertKind::SetWeight),
        DecisionKind::Stop => Some(AlertKind::Stop),
        DecisionKind::Trip => Some(AlertKind::Trip),
        DecisionKind::Retreat => Some(AlertKind::Retreat),
        DecisionKind::RollBack => Some(AlertKind::RollBack),
        DecisionKind::Complete => Some(AlertKind::Complete),
        // A hold is told of when it lasts; rules only when they change the weight.
        DecisionKind::Hold | DecisionKind::ProbeFailed | DecisionKind::Config => None,
    }
}

impl Rollout {
    /// Notes what is told, if it is something that goes on. What is over already, as a step back without a
    /// cooldown, has its end with the next look: whoever opened an incident has to close it.
    pub(super) fn note(&mut self, kind: AlertKind) {
        if kind.lasts() {
            self.stored.open.0.insert(kind);
            self.is_dirty = true;
        }
    }

    /// What was told and no longer goes on, `but` for the alert that is being told. It is noted as ended.
    pub(super) fn settle(&mut self, but: Option<AlertKind>) -> Vec<AlertKind> {
        let state = &self.stored.state;
        let ended = |kind: &AlertKind| Some(*kind) != but && !state.stands(*kind);
        let ended: Vec<AlertKind> = self.stored.open.0.iter().copied().filter(ended).collect();
        for kind in &ended {
            self.stored.open.0.remove(kind);
            self.is_dirty = true;
            if *kind == AlertKind::Held {
                self.stored.held_since = None;
            }
        }
        ended
    }

    /// Since when it has been held, if that is long enough to be told and was not told yet.
    fn held_too_long(&mut self, after_ms: Option<i64>, now: UnixMillis) -> Option<i64> {
        if !self.stored.state.is_held() {
            self.is_dirty |= self.stored.held_since.take().is_some();
            return None;
        }
        let since = match self.stored.held_since {
            Some(since) if since <= now => since,
            _ => {
                self.is_dirty = true;
                now
            }
        };
        self.stored.held_since = Some(since);
        let held_ms = now.millis_since(since);
        let was_told = self.stored.open.0.contains(&AlertKind::Held);
        (!was_told && after_ms.is_some_and(|after_ms| held_ms >= after_ms)).then_some(held_ms)
    }
}

impl Driver {
    /// Writes the line of an alert of the controller, and notes what goes on.
    pub(super) fn log_alert(&mut self, place: usize, kind: AlertKind, text: &str) {
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        rollout.note(kind);
        let rollout = &*rollout.key.name;
        tracing::warn!(alert = kind.as_str(), rollout, text, "alert");
    }

    /// Tells receivers what no decision is behind.
    pub(super) fn tell(&mut self, place: usize, kind: AlertKind, text: String) {
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        let open = &mut rollout.stored.open.0;
        let is_end = kind == AlertKind::LegacyRecovered && open.remove(&AlertKind::LegacyFailing);
        let ends = if is_end {
            vec![AlertKind::LegacyFailing]
        } else {
            Vec::new()
        };
        let alert = Alert::new(kind, text).of_rollout(&rollout.key.name);
        self.alerts.hand(alert.ends(ends));
    }

    /// Tells receivers of a decision, and of all that has ended with it.
    pub(super) fn tell_decision(
        &mut self,
        name: &str,
        decision: &Decision,
        said: Said,
        id: Option<i64>,
    ) {
        let own = match &said {
            Said::Nothing => kind_of(decision.kind),
            Said::Alert(kind, _) => Some(*kind),
            Said::All => return,
        };
        let mut rollouts = self.rollouts.iter_mut();
        let rollout = rollouts.find(|known| &*known.key.name == name);
        let ended = rollout.map(|known| known.settle(own)).unwrap_or_default();
        let changes_weight = decision.weight_from != decision.weight_to;
        let (kind, text) = match (said, own) {
            (Said::Alert(kind, text), _) => (kind, text),
            (_, Some(kind)) => (kind, decision.reason.clone()),
            (_, None) if changes_weight || !ended.is_empty() => {
                (AlertKind::Config, decision.reason.clone())
            }
            (_, None) => return,
        };
        self.alerts.hand(Alert {
            at: decision.at,
            weight: Some((decision.weight_from, decision.weight_to)),
            decision: id,
            resolves: ended,
            ..Alert::new(kind, text).of_rollout(name)
        });
    }

    /// Tells of rollouts that have been held for long, and of what ended without a decision of its own: the
    /// wait after a step back, or what a kill kept from being told.
    pub(super) fn tell_of_time(&mut self, around: Surroundings) {
        let after = self.config.alerts.held_after;
        let after_ms = after.map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
        // A decision under way tells what it ends.
        let may_settle = self.commits.is_empty();
        for place in 0..self.rollouts.len() {
            let Some(rollout) = self.rollouts.get_mut(place) else {
                return;
            };
            let held_ms = rollout.held_too_long(after_ms, around.now);
            let ended = if may_settle {
                rollout.settle(None)
            } else {
                Vec::new()
            };
            if let Some(held_ms) = held_ms {
                let why = rollout.view(around).reason;
                let text = format!("held for {} · {why}", for_people(held_ms));
                self.log_alert(place, AlertKind::Held, &text);
                self.tell(place, AlertKind::Held, text);
            }
            if !ended.is_empty() {
                self.tell_ended(place, ended);
            }
        }
    }

    /// Ends what was told of rollouts that the configuration lost while nothing ran: nobody looks at them.
    pub(super) fn tell_gone(&self, rows: &[RolloutRow], now: UnixMillis) {
        let configured = |row: &RolloutRow| self.rollouts.iter().any(|it| *it.key.name == row.name);
        for row in rows.iter().filter(|row| !configured(row)) {
            let Ok(mut stored) = Stored::from_json(&row.state) else {
                continue;
            };
            let open = std::mem::take(&mut stored.open).0;
            if open.is_empty() {
                continue;
            }
            let alert = Alert::new(AlertKind::Stop, String::new()).of_rollout(&row.name);
            self.alerts.hand(Alert {
                quiet: true,
                ..alert.ends(open.into_iter().collect())
            });
            self.store.save_state(RolloutRow {
                state: stored.to_json(),
                updated_at: now,
                ..row.clone()
            });
        }
    }

    /// Tells of arms that cannot be reached, or can be again.
    pub(super) fn tell_arms(&mut self) {
        for alert in self.shared.tell() {
            self.alerts.hand(alert);
        }
    }

    /// Tells of budgets and of models without a price, and records what was told of budgets.
    pub(super) fn tell_money(&mut self) {
        self.store.record_told(self.money.take_told());
        for alert in self.money.take_alerts() {
            self.alerts.hand(alert);
        }
    }

    fn tell_ended(&self, place: usize, ended: Vec<AlertKind>) {
        let Some(rollout) = self.rollouts.get(place) else {
            return;
        };
        let words: Vec<&str> = ended.iter().map(|kind| kind.as_str()).collect();
        let text = format!("this is over: {}", words.join(", "));
        let (name, kind) = (&*rollout.key.name, AlertKind::Resume);
        tracing::info!(alert = kind.as_str(), rollout = name, text, "alert");
        let alert = Alert::new(kind, text).of_rollout(name);
        self.alerts.hand(alert.ends(ended));
    }
}

/// What a start proves: the configuration is right, the store works, and no arm is known to be unreachable.
/// People hear nothing of it; incidents that the run before left open end.
pub(super) fn tell_begun(alerts: &Alerts) {
    let quiet = |kind, ends| Alert {
        quiet: true,
        ..Alert::new(kind, String::new()).ends(vec![ends])
    };
    alerts.hand(quiet(AlertKind::StoreRecovered, AlertKind::StoreFailing));
    alerts.hand(quiet(AlertKind::ConfigAccepted, AlertKind::ConfigRejected));
    for arm in Arm::BOTH {
        let reachable = quiet(AlertKind::ArmReachable, AlertKind::ArmUnreachable);
        alerts.hand(reachable.about(arm.to_string()));
    }
}
