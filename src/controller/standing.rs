//! Whether what people were told of still stands.
//!
//! Pure. The state itself is asked, not what was decided: whatever way a trip ends, it has ended.
#![deny(clippy::disallowed_methods)]

use crate::alert::kind::AlertKind;
use crate::controller::phase::{Landing, Phase, Wait};
use crate::controller::state::State;

impl State {
    /// True while what this alert told of goes on. Alerts that tell of a moment never stand.
    #[must_use]
    pub fn stands(&self, kind: AlertKind) -> bool {
        match kind {
            AlertKind::Trip | AlertKind::Credentials => matches!(self.phase, Phase::Tripped(_)),
            AlertKind::RollBack => match self.phase {
                Phase::RolledBack { .. } => true,
                // One stage down, and not going on yet.
                Phase::Running => self.seen_at < self.propose_after,
                _ => false,
            },
            AlertKind::Retreat => match &self.phase {
                Phase::Retreated(_) => true,
                Phase::Tripped(trip) => matches!(trip.back_to, Landing::Retreated(_)),
                _ => false,
            },
            AlertKind::Held => self.is_held(),
            AlertKind::Harm => self.wait == Some(Wait::Harm),
            AlertKind::Approval => self.wait == Some(Wait::Approval),
            AlertKind::Evidence => self.wait == Some(Wait::Evidence),
            AlertKind::CommonCause => self.wait == Some(Wait::CommonCause),
            AlertKind::Split => self.wait == Some(Wait::Split),
            AlertKind::Headroom => self.wait == Some(Wait::Headroom),
            AlertKind::LegacyFailing => {
                self.phase != Phase::Stopped && self.recent.is_legacy_failing()
            }
            _ => false,
        }
    }

    /// True while somebody, or the controller itself, keeps the weight from rising.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.held_by().is_empty()
    }

    /// All that keeps the weight from rising: the operator, and the controller's own reason.
    pub(super) fn held_by(&self) -> Vec<&'static str> {
        let (operator, wait) = match self.phase {
            Phase::WarmingUp | Phase::Running | Phase::Retreated(_) => {
                (self.hold.is_some(), self.wait)
            }
            // Nothing is above it that a person could be holding it from.
            Phase::Complete => (false, self.wait),
            Phase::Tripped(_) | Phase::RolledBack { .. } | Phase::Stopped => (false, None),
        };
        let operator = operator.then_some("operator");
        operator.into_iter().chain(wait.map(Wait::as_str)).collect()
    }
}
