//! Starting mass: how the confidence of a rollout is spent over all the times at which harm may begin.
//!
//! Pure. The rollback ledger's masses sum to 1 in each epoch of 30 days, so that the probability of a false
//! rollback is bounded by alpha over all of them (STATISTICS section 4). They enter at the start of a minute,
//! because its minutes are capped whole. The trip ledger takes the same and as much again, spread over the
//! seconds: what goes well in the first half of a minute must not bury what begins in the second. So its
//! bound is 2 alpha, on a false pause of some minutes that costs no progress; the rollback's is untouched,
//! and the trip ledger is never behind it.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::controller::exact;
use crate::controller::ledger::Track;
use crate::controller::policy::Policy;
use crate::controller::state::State;

/// Minutes over which the uniform part of the restart mass is spread; then a new epoch begins.
const HORIZON_MIN: i64 = 43_200;
/// Mass injected when an epoch of the ledgers begins.
pub(super) const START: f64 = 0.4;
/// Mass shared by all stage starts of an epoch.
const STAGES: f64 = 0.2;
/// Mass spread over the horizon, given to both harm ledgers at the start of each minute.
const MINUTES: f64 = 0.4;
/// Mass spread over the horizon second by second, given to the trip ledger alone.
const SECONDS: f64 = 1.0;

/// Starting mass that is left in this epoch of the harm ledgers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Mass {
    /// The minute in which the epoch began; `None` before the first stage.
    epoch: Option<i64>,
    /// Left for stage starts, left for the minutes.
    #[serde(with = "exact")]
    left: [f64; 2],
}

impl Mass {
    /// Before the first stage.
    pub(super) const fn unspent() -> Self {
        Self {
            epoch: None,
            left: [0.0; 2],
        }
    }

    /// True from the first stage on.
    pub(super) const fn has_begun(&self) -> bool {
        self.epoch.is_some()
    }

    /// The clock was set back: the epoch is as old as before.
    pub(super) fn rebase(&mut self, jump_min: i64) {
        self.epoch = self.epoch.map(|epoch| epoch + jump_min);
    }
}

impl Track {
    /// Gives the trip ledger the mass of the seconds up to `at`, before any data of later ones. No more
    /// than [`SECONDS`] can be spent, because an epoch ends with the horizon.
    pub(super) fn inject_seconds(&mut self, at: UnixMillis, begun: bool) {
        let seconds = at.millis_since(self.seconds_to) as f64 / 1_000.0;
        if seconds > 0.0 {
            self.seconds_to = at;
            if begun {
                self.inject_trip(SECONDS / (HORIZON_MIN as f64 * 60.0) * seconds);
            }
        }
    }
}

impl State {
    /// Gives both ledgers the mass of `minutes` minutes, or begins a new epoch.
    pub(super) fn inject_minutes(&mut self, minutes: i64) {
        match self.mass.epoch {
            Some(epoch) if self.minute - epoch >= HORIZON_MIN => self.begin_epoch(),
            Some(_) => {
                let [_, uniform] = &mut self.mass.left;
                let mass = (MINUTES / HORIZON_MIN as f64 * minutes as f64).min(*uniform);
                *uniform -= mass;
                self.inject(mass);
            }
            None => {}
        }
    }

    /// Gives both ledgers the mass of a stage that begins.
    pub(super) fn inject_stage_start(&mut self, policy: &Policy) {
        let starts = policy.stages.len().saturating_sub(1).max(1);
        let [stages, _] = &mut self.mass.left;
        let mass = (STAGES / starts as f64).min(*stages);
        *stages -= mass;
        self.inject(mass);
    }

    fn inject(&mut self, mass: f64) {
        for track in &mut self.tracks {
            track.inject(mass);
        }
    }

    /// Harm ledgers start afresh, with a whole budget of confidence.
    pub(super) fn begin_epoch(&mut self) {
        for track in &mut self.tracks {
            track.reset_harm();
            track.seconds_to = self.seen_at;
        }
        self.mass = Mass {
            epoch: Some(self.minute),
            left: [STAGES, MINUTES],
        };
        self.amber = false;
        self.cap_bit_at = None;
        self.inject(START);
    }
}
