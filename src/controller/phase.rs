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
    /// The rollout was complete when it tripped, and will be again.
    pub was_complete: bool,
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
}

/// Where a raise leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raise {
    pub(super) kind: DecisionKind,
    pub(super) stage: usize,
    pub(super) weight: Weight,
    pub(super) new_attempt: bool,
    pub(super) complete: bool,
}

/// A raise that the driver was asked to commit.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) id: u64,
    pub(super) raise: Raise,
}
