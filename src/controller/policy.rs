//! What a rollout has been asked to do: stages, guards, confidence. Plain values, complete and checked.
//!
//! Pure. The configuration builds a [`Policy`]; the controller only reads it.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::arm::Weight;

/// One rollout's rules, valid by construction of the configuration parser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Legacy requests to measure before the first stage; 0 starts at once.
    pub warm_up_requests: u64,
    /// The weight ladder; never empty, weights strictly rising.
    pub stages: Vec<Stage>,
    /// What proof of harm does.
    pub on_harm: OnHarm,
    /// Bound on the probability of a false rollback over the whole rollout (1 - `confidence`).
    pub alpha_rollback: f64,
    /// Bound on the probability of a false promotion, per stage (1 - `promote-confidence`).
    pub alpha_promote: f64,
    /// The fuse; `None` when switched off.
    pub trip: Option<TripPolicy>,
    /// Where a soft alarm above it steps back to; `None` when switched off.
    pub retreat: Option<Weight>,
    /// Wait after a rollback before the next attempt, doubled for each further one.
    pub cooldown_ms: i64,
    /// How often the rollout is tried in all, at least 1.
    pub max_attempts: u32,
    /// True if each request's arm is drawn by itself (`sticky = "none"`), so that the measured share can be
    /// tested against the weight; hashed keys are no independent draws.
    pub independent_split: bool,
    /// The guards that are on, at most one per [`GuardKind`], never empty.
    pub guards: Vec<GuardSpec>,
}

/// One rung of the weight ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The intended share of the canary.
    pub weight: Weight,
    /// The least time on this rung.
    pub dwell_ms: i64,
    /// An operator must say yes before the rollout leaves this rung upwards.
    pub approve: bool,
}

/// What proof of harm does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHarm {
    /// Back to 0%.
    RollBack,
    /// Back to the previous stage.
    StepBack,
    /// Stay and ask an operator.
    Hold,
}

/// The fuse's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripPolicy {
    /// The first wait before probing; doubled by each failed probe.
    pub cooldown_ms: i64,
    /// The trip of this number within 24 hours is a rollback instead.
    pub max_per_day: u32,
}

/// The events that a guard can watch. A further guard is one more row here and in `guard.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardKind {
    /// Attempts that failed by the arm's fault.
    ErrorRate,
    /// Successful answers slower than legacy's 99th percentile.
    LatencyP99,
    /// Successful answers slower than legacy's median.
    LatencyP50,
    /// Streams whose first token came later than legacy's 99th percentile.
    TtftP99,
    /// Streams whose first token came later than legacy's median.
    TtftP50,
    /// Attempts answered with 429.
    RateLimited,
    /// Attempts answered with another 4xx that the client is blamed for.
    Rejected,
}

impl GuardKind {
    /// Every kind, in the order of the configuration.
    pub const ALL: [Self; 7] = [
        Self::ErrorRate,
        Self::LatencyP99,
        Self::LatencyP50,
        Self::TtftP99,
        Self::TtftP50,
        Self::RateLimited,
        Self::Rejected,
    ];

    /// Its key in `[rollout.guards]`, and its name everywhere else.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "error-rate",
            Self::LatencyP99 => "latency-p99",
            Self::LatencyP50 => "latency-p50",
            Self::TtftP99 => "ttft-p99",
            Self::TtftP50 => "ttft-p50",
            Self::RateLimited => "rate-limited",
            Self::Rejected => "rejected",
        }
    }

    /// True for guards on times, whose limits are factors and milliseconds; false for guards on rates.
    #[must_use]
    pub const fn is_time(self) -> bool {
        matches!(
            self,
            Self::LatencyP99 | Self::LatencyP50 | Self::TtftP99 | Self::TtftP50
        )
    }
}

/// One guard that is on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GuardSpec {
    /// What it watches.
    pub kind: GuardKind,
    /// The limit against legacy, if any.
    pub relative: Option<Margin>,
    /// The limit that holds whatever legacy does, if any: a share (0.05 is 5%) for rates,
    /// milliseconds for times. At least one of the two limits is set.
    pub ceiling: Option<f64>,
}

/// Allowed canary value = `ratio` x legacy + `increase`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// Factor on legacy's rate or time; above 0.
    pub ratio: f64,
    /// Share added on top (0.004 is 0.4 points); always 0 for times.
    pub increase: f64,
}

/// What a change of the configuration takes away from a rollout; the greater includes the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reset {
    /// Nothing: evidence goes on.
    None,
    /// The evidence ledgers start anew; stage and weight stay.
    Ledgers,
    /// A new rollout: evidence gone, first stage, new id.
    Rollout,
}
