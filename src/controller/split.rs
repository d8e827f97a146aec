//! Does the measured split match the weight? A split that is off voids every comparison.
//!
//! Pure. Counts are taken when requests are routed, never when they end: a canary that hangs must not look
//! like a small share. What follows from an alarm is decided in [`mod@super::step`].
//!
//! Two questions, two tests. *Strays* (always on): did a request's first attempt go to another arm than its
//! bucket names? A sound router never does that, so a handful is proof enough. *Share* (independent draws
//! only): is the canary's share the weight? Hashed keys are no independent draws: one busy user moves the
//! share of a small traffic far from the weight without anything being wrong.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::controller::effect::DecisionKind;
use crate::controller::exact;
use crate::controller::phase::{Phase, Wait};
use crate::controller::stats::logsumexp;
use crate::controller::step::{Turn, Why};

/// First live attempts that were routed under the present weight since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// Routed to the canary.
    pub canary: u64,
    /// Routed to legacy.
    pub legacy: u64,
    /// Of both, those that went to another arm than their bucket names.
    pub strays: u64,
}

/// The experts of the share's ledger: the canary's odds are this many times those of the weight.
const ODDS: [f64; 6] = [0.5, 0.8, 0.93, 1.07, 1.25, 2.0];
/// The ledger's mean that is an alarm: one false alarm in a thousand rollouts, however long they take.
const ALARM_MEAN: f64 = 1_000.0;
/// Fewer strays may be an accident of one connection or one reload, and spoil no comparison.
const STRAYS_MIN: u64 = 20;
/// Strays spoil a comparison once they are more than one in this many of the smaller arm's requests. The
/// smaller arm, because that is where they weigh: at a weight of 1%, a hundredth of all traffic gone astray
/// would be half of what the canary gets.
const STRAYS_ONE_IN: u64 = 100;

/// What is known of the split since the last reset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitCheck {
    /// Log likelihood ratio of each expert against the weight.
    #[serde(with = "exact")]
    share: [f64; ODDS.len()],
    /// Independent draws, and those of them that were routed to the canary.
    drawn: u64,
    drawn_canary: u64,
    /// The weight in basis points, summed over the draws.
    drawn_bps: u64,
    /// Everything that was routed.
    routed: Assigned,
}

/// What is wrong with the split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SplitAlarm {
    /// The canary's share is not the weight. Both are fractions.
    Share {
        /// The share of the canary that was measured.
        measured: f64,
        /// The weight, averaged over the requests.
        weight: f64,
    },
    /// Requests went to another arm than their bucket names.
    Strays {
        /// How many.
        strays: u64,
        /// Of so many in both arms.
        routed: u64,
    },
}

impl Default for SplitCheck {
    fn default() -> Self {
        Self {
            share: [0.0; ODDS.len()],
            drawn: 0,
            drawn_canary: 0,
            drawn_bps: 0,
            routed: Assigned::default(),
        }
    }
}

impl SplitCheck {
    /// Counts what was routed under `weight`. `independent`: each request's arm was drawn by itself. Another
    /// weight than before needs no reset: each request is weighed against the weight that it was drawn under.
    pub fn add(&mut self, assigned: Assigned, weight: Weight, independent: bool) {
        let routed = &mut self.routed;
        routed.canary = routed.canary.saturating_add(assigned.canary);
        routed.legacy = routed.legacy.saturating_add(assigned.legacy);
        routed.strays = routed.strays.saturating_add(assigned.strays);
        if !independent || weight == Weight::ZERO || weight == Weight::FULL {
            return;
        }
        let count = assigned.canary.saturating_add(assigned.legacy);
        let bps = count.saturating_mul(u64::from(weight.bps()));
        self.drawn = self.drawn.saturating_add(count);
        self.drawn_canary = self.drawn_canary.saturating_add(assigned.canary);
        self.drawn_bps = self.drawn_bps.saturating_add(bps);
        let w = weight.fraction();
        #[expect(clippy::cast_precision_loss, reason = "counts of one look are small")]
        let (canary, legacy) = (assigned.canary as f64, assigned.legacy as f64);
        for (log, odds) in self.share.iter_mut().zip(ODDS) {
            // theta / w and (1 - theta) / (1 - w), with theta = m w / (m w + 1 - w).
            let scale = (odds * w + 1.0 - w).ln();
            *log += canary * (odds.ln() - scale) - legacy * scale;
        }
    }

    /// What is wrong, if anything. A ledger that holds no number is wrong, too.
    #[must_use]
    pub fn alarm(&self) -> Option<SplitAlarm> {
        let Assigned {
            canary,
            legacy,
            strays,
        } = self.routed;
        if strays >= STRAYS_MIN && strays > canary.min(legacy) / STRAYS_ONE_IN {
            return Some(SplitAlarm::Strays {
                strays,
                routed: canary.saturating_add(legacy),
            });
        }
        let log_mean = logsumexp(self.share.into_iter()) - (ODDS.len() as f64).ln();
        if log_mean < ALARM_MEAN.ln() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "shares for people")]
        let of_drawn = |count: u64| count as f64 / self.drawn.max(1) as f64;
        Some(SplitAlarm::Share {
            measured: of_drawn(self.drawn_canary),
            weight: of_drawn(self.drawn_bps) / 10_000.0,
        })
    }

    /// Forgets everything, so that an alarm ends: a new stage or attempt begins, or an operator resumes.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Turn<'_> {
    /// A split that is off is held and told once; it takes an operator to go on.
    pub(super) fn judge_split(&mut self) {
        let running = matches!(
            self.state.phase,
            Phase::Running | Phase::Complete | Phase::Retreated(_)
        );
        let waits_less = matches!(
            self.state.wait,
            None | Some(Wait::NotConverging | Wait::Approval | Wait::Headroom)
        );
        let Some(alarm) = self.state.split.alarm().filter(|_| running && waits_less) else {
            return;
        };
        let reason = alarm.to_string();
        self.alert(AlertKind::Split, reason.clone());
        self.decide(DecisionKind::Hold, Why::controller(reason), |state| {
            state.wait = Some(Wait::Split);
        });
    }
}

impl fmt::Display for SplitAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { measured, weight } => write!(
                f,
                "the canary gets {:.2}% of the requests where {:.2}% are meant",
                measured * 100.0,
                weight * 100.0
            ),
            Self::Strays { strays, routed } => write!(
                f,
                "{strays} of {routed} requests went to another arm than their bucket names"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
