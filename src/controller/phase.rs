//! Where a rollout can stand, and the moves between: plain values.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::effect::DecisionKind;

/// Where a rollout stands. An operator's hold is no phase: it can be laid over any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Measuring legacy before the first stage.
    WarmingUp,
    /// On a stage.
    Running,
    /// The last stage's dwell is over; the ledgers go on.
    Complete,
    /// Stepped down to where the arms compare faster; the stage is kept.
    Retreated(Retreat),
    /// The fuse has blown; the stage is kept.
    Tripped(Trip),
    /// Back at 0%. `until` is when the next attempt begins by itself; never, if `None`.
    RolledBack {
        /// When the next attempt begins by itself.
        until: Option<UnixMillis>,
    },
    /// No longer configured.
    Stopped,
}

/// A step down to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retreat {
    /// The effective weight meanwhile.
    pub weight: Weight,
    /// The rollout was complete before, and will be again.
    pub was_complete: bool,
    /// The second one within a day: an operator has to lead it back.
    pub stays: bool,
}

impl Retreat {
    /// Where its end leads.
    pub(super) const fn lands(self) -> Landing {
        if self.was_complete {
            Landing::Complete
        } else {
            Landing::Running
        }
    }
}

/// Where a raise, or the end of a trip, leaves the rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Landing {
    /// On a stage.
    Running,
    /// Complete again.
    Complete,
    /// Still retreated.
    Retreated(Retreat),
}

impl Landing {
    /// The phase that it is.
    pub(super) const fn phase(self) -> Phase {
        match self {
            Self::Running => Phase::Running,
            Self::Complete => Phase::Complete,
            Self::Retreated(retreat) => Phase::Retreated(retreat),
        }
    }
}

/// A blown fuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// When probing begins; `None` waits for a change of the configuration or an operator.
    pub until: Option<UnixMillis>,
    /// The wait that led to `until`, doubled by each failed probe.
    pub cooldown_ms: i64,
    /// Probes that succeeded in a row.
    pub probes_ok: u32,
    /// When the next probe may go.
    pub next_probe_at: UnixMillis,
    /// Where its end leads.
    pub back_to: Landing,
}

impl Wait {
    /// The word used in the API.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::NotConverging => "not-converging",
            Self::Evidence => "evidence",
            Self::Harm => "harm",
            Self::CommonCause => "common-cause",
            Self::Split => "split",
            Self::Headroom => "headroom",
        }
    }

    /// True while nothing may go up, whatever is proven.
    pub(super) const fn blocks(self) -> bool {
        match self {
            Self::Evidence | Self::Harm | Self::CommonCause | Self::Split => true,
            Self::Approval | Self::NotConverging | Self::Headroom => false,
        }
    }
}

/// Why the controller itself holds (`held` rather than `running`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// All is proven; an operator must say yes.
    Approval,
    /// The proof does not grow: the canary is at its margin.
    NotConverging,
    /// A ledger held no number; an operator must look.
    Evidence,
    /// Harm is proven, and `on-harm = "hold"` leaves it to an operator.
    Harm,
    /// Both arms fail at once.
    CommonCause,
    /// The measured split does not match the weight.
    Split,
    /// The canary's rate limits do not carry the next stage.
    Headroom,
}

/// Where a raise leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raise {
    pub(super) kind: DecisionKind,
    pub(super) stage: usize,
    /// The intended weight; the effective one unless it lands retreated.
    pub(super) weight: Weight,
    pub(super) new_attempt: bool,
    pub(super) lands: Landing,
}

impl Raise {
    /// The effective weight that it leads to.
    pub(super) const fn effective(&self) -> Weight {
        match self.lands {
            Landing::Retreated(retreat) => retreat.weight,
            Landing::Running | Landing::Complete => self.weight,
        }
    }
}

/// A raise that the driver was asked to commit.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) id: u64,
    pub(super) raise: Raise,
}
