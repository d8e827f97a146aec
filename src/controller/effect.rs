//! What the controller wants done: decisions, proposals, probes, alerts. Data only; the driver performs it.
//!
//! Pure. Whatever can raise the effective weight is a [`Effect::Propose`]: it counts only once the driver
//! has committed it. Whatever keeps or lowers the weight is a [`Effect::Decide`] and already holds.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::policy::GuardKind;
use crate::controller::state::State;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionKind {
    /// The first stage begins.
    Start,
    /// Up to the next stage.
    Promote,
    /// No increase for now.
    Hold,
    /// The fuse: effective weight 0, the stage is kept.
    Trip,
    /// The end of a hold or a trip.
    Resume,
    /// A tripped canary failed a probe; the cooldown doubles.
    ProbeFailed,
    /// Down to where the arms compare faster.
    Retreat,
    /// Back to 0%, final for this attempt.
    RollBack,
    /// A new attempt from the first stage.
    Retry,
    /// The last stage's dwell is over.
    Complete,
    /// An operator chose a weight.
    SetWeight,
    /// The configuration changed the rollout's rules.
    Config,
    /// The rollout is no longer configured.
    Stop,
}

impl DecisionKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Start,
        Self::Promote,
        Self::Hold,
        Self::Trip,
        Self::Resume,
        Self::ProbeFailed,
        Self::Retreat,
        Self::RollBack,
        Self::Retry,
        Self::Complete,
        Self::SetWeight,
        Self::Config,
        Self::Stop,
    ];

    /// The word used in logs, the store and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::Trip => "trip",
            Self::Resume => "resume",
            Self::ProbeFailed => "probe-failed",
            Self::Retreat => "retreat",
            Self::RollBack => "roll-back",
            Self::Retry => "retry",
            Self::Complete => "complete",
            Self::SetWeight => "set-weight",
            Self::Config => "config",
            Self::Stop => "stop",
        }
    }

    /// The inverse of [`DecisionKind::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for DecisionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The controller, by evidence or by the clock.
    Controller,
    /// A person, through the API.
    Operator,
    /// A change of the configuration file.
    Config,
}

impl By {
    /// The word used in the store and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Operator => "operator",
            Self::Config => "config",
        }
    }

    /// The inverse of [`By::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Controller, Self::Operator, Self::Config]
            .into_iter()
            .find(|by| by.as_str() == word)
    }
}

/// The numbers behind a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionEvidence {
    /// The guard that weighed most, if one did.
    pub guard: Option<GuardKind>,
    /// The evidence (an e-value) that the decision rests on: of health for a promotion, of harm for a
    /// trip or a rollback. 0 where none was needed.
    pub evidence: f64,
    /// What it had to reach; 0 where none was needed.
    pub needed: f64,
    /// Canary requests of the stage that entered evidence.
    pub canary_requests: u64,
    /// Of these, failed.
    pub canary_errors: u64,
    /// Legacy requests of the stage that entered evidence.
    pub legacy_requests: u64,
    /// Of these, failed.
    pub legacy_errors: u64,
}

/// One transition, as it is stored, logged and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    pub kind: DecisionKind,
    /// When.
    pub at: UnixMillis,
    /// Effective weight before.
    pub weight_from: Weight,
    /// Effective weight after.
    pub weight_to: Weight,
    /// The stage in which it was decided, from 0.
    pub stage: usize,
    /// How many stages there are.
    pub stages_total: usize,
    /// Who decided.
    pub by: By,
    /// Why, with numbers, limits and times: parts joined by ` · `.
    pub reason: String,
    /// The numbers.
    pub evidence: DecisionEvidence,
}

impl Decision {
    /// The line of the decision log.
    #[must_use]
    pub fn log_line(&self, rollout: &str, id: Option<i64>) -> String {
        let weights = if self.weight_from == self.weight_to {
            self.weight_to.to_string()
        } else {
            format!("{} -> {}", self.weight_from, self.weight_to)
        };
        let stage = format!("stage {}/{}", self.stage + 1, self.stages_total);
        let place = match self.kind {
            DecisionKind::Trip => "(stage kept) ·".to_owned(),
            DecisionKind::Promote if self.by == By::Controller => stage,
            _ => format!("{stage} ·"),
        };
        let mut line = format!(
            "{} rollout={rollout} {weights} {place} {}",
            self.kind, self.reason
        );
        if let Some(id) = id {
            line.push_str(&format!(" · decision {id}"));
        }
        line
    }
}

/// One thing that the driver is to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Publish the state's snapshot and record the decision as soon as the store can.
    Decide(Decision),
    /// Commit decision and state in one transaction, then report
    /// [`Event::Committed`](super::step::Event::Committed) or its failure. Nothing holds before that.
    Propose {
        /// Names the proposal in the answer.
        proposal: u64,
        /// What is to be recorded.
        decision: Decision,
        /// What is to be stored with it.
        state_after: Box<State>,
    },
    /// Let one live request probe the canary.
    PermitProbe,
    /// Tell people.
    Alert {
        /// Which transition it is about. Where a decision is behind it, the decision follows at once.
        kind: AlertKind,
        /// One sentence.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(kind: DecisionKind, from: u16, to: u16, reason: &str) -> Decision {
        Decision {
            kind,
            at: UnixMillis(0),
            weight_from: Weight::from_bps(from).unwrap(),
            weight_to: Weight::from_bps(to).unwrap(),
            stage: 1,
            stages_total: 7,
            by: By::Controller,
            reason: reason.to_owned(),
            evidence: DecisionEvidence::default(),
        }
    }

    #[test]
    fn log_lines_have_the_shape_of_the_design() {
        let promote = decision(
            DecisionKind::Promote,
            500,
            2500,
            "after 31m · evidence 24.1 (needs 20)",
        );
        assert_eq!(
            promote.log_line("default", Some(4711)),
            "promote rollout=default 5% -> 25% stage 2/7 after 31m · evidence 24.1 (needs 20) · decision 4711"
        );
        let trip = decision(
            DecisionKind::Trip,
            2500,
            0,
            "errors 4/4 in 0.8s · legacy 0.1%",
        );
        assert_eq!(
            trip.log_line("default", None),
            "trip rollout=default 25% -> 0% (stage kept) · errors 4/4 in 0.8s · legacy 0.1%"
        );
        let hold = decision(DecisionKind::Hold, 500, 500, "lunch");
        assert_eq!(
            hold.log_line("a", None),
            "hold rollout=a 5% stage 2/7 · lunch"
        );
    }

    #[test]
    fn every_kind_has_one_word_that_reads_back() {
        for kind in DecisionKind::ALL {
            assert_eq!(DecisionKind::from_word(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
