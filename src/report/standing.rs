//! Where a rollout stood after its decisions.
//!
//! Pure. For a report that ends where the record does, the stored state says it; for one that ends earlier,
//! the decisions up to then have to tell, and this file reads them as the controller acts.
#![deny(clippy::disallowed_methods)]

use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::DecisionKind;
use crate::store::StoredDecision;

/// What the stored state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    /// The word of `cutover status`.
    pub state: &'static str,
    /// The stage, from 0.
    pub stage: usize,
    /// The effective weight.
    pub weight: Weight,
}

/// Where the rollout stands, and since when.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) state: &'static str,
    pub(super) weight: Weight,
    /// From 0; `None` before the first decision.
    pub(super) stage: Option<usize>,
    pub(super) started_at: Option<UnixMillis>,
    pub(super) completed_at: Option<UnixMillis>,
}

impl Standing {
    /// `stands`: what the state says in the end, where that is what is asked for.
    pub(super) fn of(
        decisions: &[StoredDecision],
        stages: &[Weight],
        stands: Option<Stands>,
    ) -> Self {
        let mut course = Course::new(stages);
        let mut started_at = None;
        for decision in decisions {
            if decision.weight_to > Weight::ZERO {
                started_at = started_at.or(Some(decision.at));
            }
            course.take(decision);
        }
        let state = stands.map_or_else(|| course.word(), |it| it.state);
        let last = decisions.last();
        let completed = |it: &&StoredDecision| it.kind == DecisionKind::Complete.as_str();
        let completed = decisions.iter().rev().find(completed).map(|it| it.at);
        let weight = last.map_or(Weight::ZERO, |it| it.weight_to);
        Self {
            state,
            weight: stands.map_or(weight, |it| it.weight),
            stage: stands.map(|it| it.stage).or(course.stage),
            started_at,
            completed_at: course
                .completed_at
                .or(completed)
                .filter(|_| state == "complete"),
        }
    }

    pub(super) fn duration_s(&self, to: UnixMillis) -> Option<f64> {
        let until = self.completed_at.unwrap_or(to);
        let from = self.started_at?;
        Some(until.millis_since(from).max(0) as f64 / 1_000.0)
    }
}

/// The decisions so far.
#[derive(Debug)]
struct Course<'a> {
    stages: &'a [Weight],
    phase: &'static str,
    /// Where the end of a trip leads.
    below_trip: &'static str,
    /// Where the end of a retreat leads.
    below_retreat: &'static str,
    /// An operator's hold, which lies over any phase.
    is_held: bool,
    /// The controller itself waits.
    waits: bool,
    stage: Option<usize>,
    completed_at: Option<UnixMillis>,
}

impl<'a> Course<'a> {
    const fn new(stages: &'a [Weight]) -> Self {
        Self {
            stages,
            phase: "warming-up",
            below_trip: "running",
            below_retreat: "running",
            is_held: false,
            waits: false,
            stage: None,
            completed_at: None,
        }
    }

    fn word(&self) -> &'static str {
        let is_frozen = self.is_held || self.waits;
        match self.phase {
            "warming-up" | "running" | "complete" if is_frozen => "held",
            phase => phase,
        }
    }

    fn take(&mut self, decision: &StoredDecision) {
        // The stage in which it was decided.
        self.stage = usize::try_from(decision.stage).ok();
        let Some(kind) = DecisionKind::from_word(&decision.kind) else {
            return;
        };
        let raises = decision.weight_to > decision.weight_from;
        match kind {
            DecisionKind::Start | DecisionKind::Retry => self.go("running", Some(0)),
            DecisionKind::Promote if self.phase == "retreated" => self.go(self.below_retreat, None),
            DecisionKind::Promote | DecisionKind::SetWeight => {
                let one_up = kind == DecisionKind::Promote && self.stages.is_empty();
                let guess = self.stage.map(|stage| stage + usize::from(one_up));
                self.go("running", self.stage_of(decision.weight_to).or(guess));
            }
            DecisionKind::Hold if decision.by == "operator" => self.is_held = true,
            DecisionKind::Hold => self.waits = true,
            DecisionKind::Trip => {
                if self.phase != "tripped" {
                    self.below_trip = self.phase;
                }
                self.go("tripped", None);
            }
            DecisionKind::ProbeFailed => self.go("tripped", None),
            DecisionKind::Resume => self.resume(decision, raises),
            DecisionKind::Retreat => {
                self.below_retreat = self.phase;
                self.go("retreated", None);
            }
            // One stage down is a rollback that goes on.
            DecisionKind::RollBack if decision.weight_to > Weight::ZERO => {
                self.go("running", self.stage_of(decision.weight_to));
            }
            DecisionKind::RollBack => self.go("rolled-back", None),
            DecisionKind::Complete => {
                self.go("complete", None);
                self.completed_at = Some(decision.at);
            }
            DecisionKind::Stop => self.go("stopped", None),
            DecisionKind::Config => self.adopt(decision, raises),
        }
        if matches!(
            self.phase,
            "warming-up" | "running" | "rolled-back" | "stopped"
        ) {
            self.completed_at = None;
        }
    }

    /// Enters a phase, which ends what the controller waited for.
    const fn go(&mut self, phase: &'static str, stage: Option<usize>) {
        self.phase = phase;
        self.waits = false;
        if stage.is_some() {
            self.stage = stage;
        }
    }

    fn resume(&mut self, decision: &StoredDecision, raises: bool) {
        let is_operator = decision.by == "operator";
        match self.phase {
            "tripped" => self.go(self.below_trip, None),
            "retreated" if raises => self.go(self.below_retreat, None),
            _ if raises => self.go("running", Some(0)),
            // The end of a wait leaves an operator's hold as it is.
            _ => {
                self.is_held &= !is_operator;
                self.waits = false;
                return;
            }
        }
        self.is_held = false;
    }

    fn adopt(&mut self, decision: &StoredDecision, raises: bool) {
        if decision.reason.contains("another canary") {
            self.go("warming-up", Some(0));
        } else if raises {
            self.go("running", self.stage_of(decision.weight_to));
        } else if self.phase == "complete" && has_stage_above(decision) {
            self.go("running", None);
        }
    }

    /// The last stage that is not above a weight, if the stages are known.
    fn stage_of(&self, weight: Weight) -> Option<usize> {
        let not_above = |stage: &Weight| *stage <= weight;
        let found = self.stages.iter().rposition(not_above).unwrap_or(0);
        (!self.stages.is_empty()).then_some(found)
    }
}

/// The new stages, as the decision tells them (`stages 5% 50% -> 5% 50% 100%`), go beyond the weight.
fn has_stage_above(decision: &StoredDecision) -> bool {
    let mut parts = decision.reason.split(" · ");
    let stages = parts.find_map(|part| part.strip_prefix("stages ")?.split_once(" -> "));
    let Some((_, stages)) = stages else {
        return false;
    };
    let mut stages = stages.split(' ').filter_map(|it| Weight::parse(it).ok());
    stages.any(|stage| stage > decision.weight_to)
}
