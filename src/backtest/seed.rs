//! What was in force when a replay begins in the middle of a record.
//!
//! Pure. What a person had asked for is asked for again. What the controller itself had stopped rests on
//! evidence that the replay does not have, so a replay rather begins where that was over.
#![deny(clippy::disallowed_methods)]

use super::recorded::{Fact, Recorded, Taken};
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::step::{Action, Command};
use crate::controller::{By, DecisionKind};

/// What was asked for or stopped, and was not over yet.
#[derive(Debug, Clone, Copy, Default)]
struct InForce<'a> {
    /// An operator's hold.
    hold: Option<&'a Taken>,
    /// A trip, a rollback to 0%, a chosen weight of 0%, or the end of the rollout.
    stop: Option<&'a Taken>,
    retreat: Option<&'a Taken>,
}

impl<'a> InForce<'a> {
    /// Just before `at`.
    fn before(recorded: &'a Recorded, at: UnixMillis) -> Self {
        let mut in_force = Self::default();
        let until = recorded.decisions.partition_point(|it| it.at < at);
        for decision in recorded.decisions.iter().take(until) {
            in_force.take(decision);
        }
        in_force
    }

    fn take(&mut self, taken: &'a Taken) {
        let raises = taken.weight_to > taken.weight_from;
        match (taken.kind, taken.by) {
            (DecisionKind::Hold, By::Operator) => self.hold = Some(taken),
            (DecisionKind::Resume, By::Operator) => self.hold = None,
            // The end of a trip lifts a hold; that of a wait does not.
            (DecisionKind::Resume, _) if raises => self.hold = None,
            _ => {}
        }
        let is_zero = taken.weight_to == Weight::ZERO;
        match taken.kind {
            DecisionKind::Trip | DecisionKind::Stop => self.stop = Some(taken),
            DecisionKind::RollBack | DecisionKind::SetWeight => {
                (self.stop, self.retreat) = (is_zero.then_some(taken), None);
            }
            DecisionKind::Retreat => self.retreat = Some(taken),
            _ if raises => {
                self.stop = None;
                let stays = |it: &&Taken| taken.weight_to <= it.weight_to;
                self.retreat = self.retreat.filter(stays);
            }
            _ => {}
        }
    }

    /// What the controller had stopped by itself.
    fn by_controller(&self) -> Option<&'a Taken> {
        self.stop
            .or(self.retreat)
            .filter(|it| it.by == By::Controller)
    }
}

/// What leads a new replay to where the record stood: the recorded weight, and what operators had asked for.
pub(super) fn facts(recorded: &Recorded, from: UnixMillis) -> Vec<Fact> {
    let in_force = InForce::before(recorded, from);
    let weight = recorded.weight_at(from.plus_millis(-1));
    let ask = |action, because: Option<&Taken>| {
        let reason = because.map(|it| it.reason.clone()).unwrap_or_default();
        Fact::Command(Command { action, reason })
    };
    let mut facts = Vec::new();
    if weight > Weight::ZERO {
        facts.push(ask(Action::SetWeight(weight), None));
    }
    let stop = in_force.stop;
    facts.extend(stop.and_then(|it| match (it.kind, it.by) {
        (DecisionKind::SetWeight, _) => Some(ask(Action::SetWeight(Weight::ZERO), stop)),
        (DecisionKind::RollBack, By::Operator) => Some(ask(Action::Rollback, stop)),
        (DecisionKind::Stop, _) => Some(Fact::Stop(it.reason.clone())),
        _ => None,
    }));
    facts.extend(in_force.hold.map(|it| ask(Action::Hold, Some(it))));
    facts
}

/// The stop by the controller that was in force when a replay should have begun.
#[derive(Debug, Clone, Copy)]
pub struct Postponed<'a> {
    /// What was in force.
    pub stop: &'a Taken,
    /// Just after it was over; `None` if it never was.
    pub until: Option<UnixMillis>,
}

impl Recorded {
    /// The controller's own stop that was in force at `at`, if there was one.
    #[must_use]
    pub fn postponed(&self, at: UnixMillis) -> Option<Postponed<'_>> {
        let mut in_force = InForce::before(self, at);
        let stop = in_force.by_controller()?;
        let since = self.decisions.partition_point(|it| it.at < at);
        let later = self.decisions.iter().skip(since);
        let mut over_at = None;
        for decision in later {
            in_force.take(decision);
            if in_force.by_controller().is_none() {
                over_at = Some(decision.at.plus_millis(1));
                break;
            }
        }
        Some(Postponed {
            stop,
            until: over_at,
        })
    }
}
