//! All that a rollout remembers between two looks: where it stands and its ledgers.
//!
//! Pure. Serialised it stays below 64 KiB and reads back to the same bits, so that a restart takes the
//! same next decision. Nothing here decides; [`mod@super::step`] does.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::controller::announce::Announced;
use crate::controller::effect::DecisionKind;
use crate::controller::evidence::Cell;
use crate::controller::exact;
use crate::controller::guard;
use crate::controller::histogram::Histogram;
use crate::controller::ledger::Track;
use crate::controller::phase::{Phase, Proposal, Raise, Wait};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::reference::Reference;
use crate::controller::stats::Counts;
use crate::weights::Snapshot;

/// Minutes over which the uniform part of the restart mass is spread; then a new epoch begins.
const HORIZON_MIN: i64 = 43_200;
/// Mass injected when an epoch of the ledgers begins.
const MASS_START: f64 = 0.4;
/// Mass shared by all stage starts of an epoch.
const MASS_STAGES: f64 = 0.2;
/// Mass spread over the horizon.
const MASS_UNIFORM: f64 = 0.4;

/// Starting mass that is left in this epoch of the harm ledgers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Mass {
    /// The minute in which the epoch began; `None` before the first stage.
    epoch: Option<i64>,
    /// Left for stage starts, left for the minutes.
    #[serde(with = "exact")]
    left: [f64; 2],
}

/// What one rollout remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of this layout; see [`State::FORMAT`].
    pub format: u32,
    /// The rollout's id: the salt of assignment and the key of its records.
    pub rollout_id: String,
    pub(super) phase: Phase,
    pub(super) phase_since: UnixMillis,
    /// An operator's freeze with its reason.
    pub(super) hold: Option<String>,
    pub(super) wait: Option<Wait>,
    /// From 0.
    pub(super) stage: usize,
    pub(super) stage_since: UnixMillis,
    /// The intended weight; the effective one is [`State::weight`].
    pub(super) weight: Weight,
    pub(super) attempt: u32,
    pub(super) trips: Vec<UnixMillis>,
    pub(super) cap_bit_at: Option<UnixMillis>,
    pub(super) warm_up_seen: u64,
    pub(super) stage_canary: u64,
    pub(super) promote_restarts: u32,
    pub(super) amber: bool,
    pub(super) stuck_minutes: u32,
    pub(super) mass: Mass,
    pub(super) minute: i64,
    pub(super) seen_at: UnixMillis,
    pub(super) next_proposal: u64,
    pub(super) propose_after: UnixMillis,
    pub(super) reference: Reference,
    pub(super) tracks: Vec<Track>,
    pub(super) stage_latency: PerArm<Histogram<2>>,
    pub(super) stage_ttft: PerArm<Histogram<2>>,
    #[serde(default)]
    pub(super) announced: Announced,
    /// Not stored: after a restart nobody would answer it.
    #[serde(skip)]
    pub(super) outstanding: Option<Proposal>,
}

const fn minute_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(60_000)
}

impl State {
    /// The layout that this program reads and writes.
    pub const FORMAT: u32 = 1;

    /// A rollout that has seen nothing yet.
    #[must_use]
    pub fn new(policy: &Policy, rollout_id: String, now: UnixMillis) -> Self {
        Self {
            format: Self::FORMAT,
            rollout_id,
            phase: Phase::WarmingUp,
            phase_since: now,
            hold: None,
            wait: None,
            stage: 0,
            stage_since: now,
            weight: policy
                .stages
                .first()
                .map_or(Weight::ZERO, |stage| stage.weight),
            attempt: 1,
            trips: Vec::new(),
            cap_bit_at: None,
            warm_up_seen: 0,
            stage_canary: 0,
            promote_restarts: 0,
            amber: false,
            stuck_minutes: 0,
            mass: Mass {
                epoch: None,
                left: [0.0; 2],
            },
            minute: minute_of(now),
            seen_at: now,
            next_proposal: 1,
            propose_after: now,
            reference: Reference::default(),
            tracks: guard::rules(policy).into_iter().map(Track::new).collect(),
            stage_latency: PerArm::default(),
            stage_ttft: PerArm::default(),
            announced: Announced::default(),
            outstanding: None,
        }
    }

    /// The effective weight.
    #[must_use]
    pub const fn weight(&self) -> Weight {
        match self.phase {
            Phase::Running | Phase::Complete => self.weight,
            Phase::WarmingUp | Phase::Tripped(_) | Phase::RolledBack { .. } | Phase::Stopped => {
                Weight::ZERO
            }
        }
    }

    /// Where the rollout stands.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The stage, from 0.
    #[must_use]
    pub const fn stage(&self) -> usize {
        self.stage
    }

    /// How often it was tried, this time included.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What the data plane is to be told.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            weight: self.weight(),
            stage: u16::try_from(self.stage).unwrap_or(u16::MAX),
            probing: matches!(self.phase, Phase::Tripped(_)),
        }
    }

    /// From this age on a request that is still under way speaks against a promotion, in milliseconds:
    /// legacy's 99th percentile times the allowed ratio; a minute while that is unknown.
    #[must_use]
    pub fn overdue_after_ms(&self) -> i64 {
        60_000
    }

    /// The proposal that the driver has not answered yet.
    #[must_use]
    pub fn outstanding(&self) -> Option<u64> {
        self.outstanding.as_ref().map(|proposal| proposal.id)
    }

    pub(super) fn set_phase(&mut self, phase: Phase, now: UnixMillis) {
        self.phase = phase;
        self.phase_since = now;
        self.wait = None;
        self.stuck_minutes = 0;
    }

    /// Ends the minutes up to the one that `at` lies in.
    pub(super) fn roll_to(&mut self, at: UnixMillis) -> bool {
        let minute = minute_of(at);
        let minutes = minute - self.minute;
        if minutes <= 0 {
            return false;
        }
        self.minute = minute;
        for track in &mut self.tracks {
            track.commit_minute();
            track.learn(minutes);
        }
        self.reference.roll(minutes);
        match self.mass.epoch {
            Some(epoch) if minute - epoch >= HORIZON_MIN => self.begin_epoch(),
            Some(_) => {
                let [_, uniform] = &mut self.mass.left;
                let mass = (MASS_UNIFORM / HORIZON_MIN as f64 * minutes as f64).min(*uniform);
                *uniform -= mass;
                self.inject(mass);
            }
            None => {}
        }
        true
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
        }
        self.mass = Mass {
            epoch: Some(self.minute),
            left: [MASS_STAGES, MASS_UNIFORM],
        };
        self.amber = false;
        self.cap_bit_at = None;
        self.inject(MASS_START);
    }

    /// Applies a committed raise.
    pub(super) fn apply(&mut self, policy: &Policy, raise: &Raise, now: UnixMillis) {
        let was_tripped = matches!(self.phase, Phase::Tripped(_));
        if raise.new_attempt {
            self.attempt += 1;
            self.trips.clear();
        }
        if raise.new_attempt || self.mass.epoch.is_none() {
            self.begin_epoch();
        } else if was_tripped {
            for track in &mut self.tracks {
                track.reset_trip(MASS_START);
            }
            self.cap_bit_at = None;
        }
        let phase = if raise.complete {
            Phase::Complete
        } else {
            Phase::Running
        };
        if raise.kind == DecisionKind::Resume {
            self.hold = None;
        }
        let fresh = raise.new_attempt || matches!(self.phase, Phase::WarmingUp);
        self.set_phase(phase, now);
        self.enter(policy, raise.stage, raise.weight, fresh, now);
    }

    /// Enters a stage, or the same stage again: evidence of health starts afresh. Coming back to a stage
    /// costs confidence for each time, or trying again and again would prove anything.
    pub(super) fn enter(
        &mut self,
        policy: &Policy,
        stage: usize,
        weight: Weight,
        fresh: bool,
        now: UnixMillis,
    ) {
        let same = stage == self.stage && !fresh;
        if same {
            self.promote_restarts = self.promote_restarts.saturating_add(1);
        } else {
            self.promote_restarts = 0;
        }
        if !same || weight != self.weight {
            self.stage_since = now;
        }
        (self.stage, self.weight) = (stage, weight);
        self.forget_stage();
        if !same && !fresh {
            let starts = policy.stages.len().saturating_sub(1).max(1);
            let [stages, _] = &mut self.mass.left;
            let mass = (MASS_STAGES / starts as f64).min(*stages);
            *stages -= mass;
            for track in &mut self.tracks {
                track.commit_minute();
            }
            self.inject(mass);
        }
    }

    /// Evidence of health and the counts of the stage start afresh.
    pub(super) fn forget_stage(&mut self) {
        for track in &mut self.tracks {
            track.reset_stage();
        }
        self.stage_canary = 0;
        self.stage_latency = PerArm::default();
        self.stage_ttft = PerArm::default();
        self.stuck_minutes = 0;
    }

    /// Evidence of health needed in this stage, in nats.
    pub(super) fn promote_nats(&self, policy: &Policy) -> f64 {
        let restarts = f64::from(self.promote_restarts) + 1.0;
        (restarts * restarts / policy.alpha_promote).ln()
    }

    /// Counts of the stage for one kind of guard.
    pub(super) fn stage_counts(&self, kind: GuardKind) -> Option<Counts> {
        let track = self.tracks.iter().find(|track| track.rule.kind == kind)?;
        Some(track.stage())
    }

    /// Legacy requests measured for the warm-up, those of the open cell included.
    pub(super) const fn warm_up_measured(&self, open: &Cell) -> u64 {
        self.warm_up_seen + open.arms.legacy.requests
    }

    /// True if any ledger holds no number.
    pub(super) fn has_nan(&self) -> bool {
        self.tracks.iter().any(Track::has_nan)
    }

    /// Every ledger starts afresh with a whole budget; what was learned about legacy stays if it is sound.
    pub(super) fn renew_ledgers(&mut self) {
        for track in &mut self.tracks {
            if track.has_nan() {
                *track = Track::new(track.rule);
            }
        }
        if self.mass.epoch.is_some() {
            self.begin_epoch();
        }
        self.forget_stage();
    }

    /// Moves every remembered time by the jump of a clock that was set back, and restarts the dwell.
    pub(super) fn rebase(&mut self, now: UnixMillis) {
        let jump_ms = now.millis_since(self.seen_at);
        let moved = |at: UnixMillis| at.plus_millis(jump_ms);
        let elapsed = self.mass.epoch.map(|epoch| self.minute - epoch);
        self.minute = minute_of(now);
        self.mass.epoch = elapsed.map(|elapsed| self.minute - elapsed);
        self.seen_at = now;
        self.stage_since = now;
        self.phase_since = moved(self.phase_since);
        self.propose_after = moved(self.propose_after);
        self.cap_bit_at = self.cap_bit_at.map(moved);
        for at in &mut self.trips {
            *at = moved(*at);
        }
        match &mut self.phase {
            Phase::Tripped(trip) => {
                trip.until = trip.until.map(moved);
                trip.next_probe_at = moved(trip.next_probe_at);
            }
            Phase::RolledBack { until } => *until = until.map(moved),
            Phase::WarmingUp | Phase::Running | Phase::Complete | Phase::Stopped => {}
        }
        self.outstanding = None;
    }
}
