//! What happened in one run, as far as the report needs it.
//!
//! Pure; decides nothing.
#![deny(clippy::disallowed_methods)]

use super::timeline::Timeline;
use super::traffic::Brought;
use crate::controller::{Decision, DecisionKind};

/// One run's story in numbers.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Every decision, in order.
    pub decisions: Vec<Decision>,
    /// When the rollout was complete for the first time, in milliseconds from the start.
    pub completed_ms: Option<i64>,
    /// The first trip or rollback after the moment that stops are counted from.
    pub stop: Option<Stop>,
    /// Trips while the canary kept every limit and had for an hour, and had no incident just then.
    pub false_trips: u64,
    /// Rollbacks of such a canary.
    pub false_rollbacks: u64,
    /// Requests to the canary.
    pub canary: u64,
    /// Of these, failed.
    pub canary_failed: u64,
    /// The run ended on hold.
    pub is_held: bool,
    /// The run ended with the rollout complete.
    pub complete_at_end: bool,
    /// Stops are counted from here.
    counted_from_ms: i64,
    /// Canary requests until then.
    canary_before: u64,
    /// Canary requests that failed until then.
    failed_before: u64,
}

/// The end of a bad canary, for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Milliseconds from the moment that stops are counted from.
    pub after_ms: i64,
    /// Canary requests in that time.
    pub canary_requests: u64,
    /// Of these, failed.
    pub canary_failed: u64,
}

impl Tally {
    pub(super) fn new(counted_from_ms: i64) -> Self {
        Self {
            counted_from_ms,
            ..Self::default()
        }
    }

    /// Counts requests that had ended at `at_ms`.
    pub(super) fn count(&mut self, at_ms: i64, brought: Brought) {
        self.canary += brought.canary;
        self.canary_failed += brought.canary_failed;
        if at_ms <= self.counted_from_ms {
            self.canary_before = self.canary;
            self.failed_before = self.canary_failed;
        }
    }

    /// Notes a decision. An incident excuses a trip, never a rollback: the other arm has as many.
    pub(super) fn decided(
        &mut self,
        timeline: &Timeline,
        had_incident: bool,
        at_ms: i64,
        decision: Decision,
    ) {
        let explained = timeline.explains_a_stop(at_ms);
        match decision.kind {
            DecisionKind::Complete => self.completed(at_ms),
            DecisionKind::Trip => {
                self.false_trips += u64::from(!explained && !had_incident);
                self.stopped(at_ms);
            }
            DecisionKind::RollBack => {
                self.false_rollbacks += u64::from(!explained);
                self.stopped(at_ms);
            }
            _ => {}
        }
        self.decisions.push(decision);
    }

    /// Notes that the rollout was complete.
    pub(super) fn completed(&mut self, at_ms: i64) {
        self.completed_ms.get_or_insert(at_ms);
    }

    fn stopped(&mut self, at_ms: i64) {
        if at_ms <= self.counted_from_ms && self.counted_from_ms > 0 {
            return;
        }
        self.stop.get_or_insert(Stop {
            after_ms: at_ms - self.counted_from_ms,
            canary_requests: self.canary - self.canary_before,
            canary_failed: self.canary_failed - self.failed_before,
        });
    }

    /// How many decisions of a kind there were.
    pub(super) fn count_of(&self, kind: DecisionKind) -> u64 {
        self.decisions
            .iter()
            .filter(|decision| decision.kind == kind)
            .count() as u64
    }
}
