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
use crate::controller::guard;
use crate::controller::histogram::Histogram;
use crate::controller::ledger::Track;
use crate::controller::mass::{self, Mass};
use crate::controller::phase::{Landing, Phase, Proposal, Raise, Wait};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::recent::Recent;
use crate::controller::reference::Reference;
use crate::controller::retreat::{SoftAlarm, retreats_from};
use crate::controller::split::SplitCheck;
use crate::controller::stats::Counts;
use crate::sketch;
use crate::weights::Snapshot;

/// Overdue is what takes longer than legacy's 99th percentile times this, if no guard says otherwise.
const OVERDUE_RATIO: f64 = 1.5;

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
    pub(super) soft: SoftAlarm,
    pub(super) recent: Recent,
    pub(super) split: SplitCheck,
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
            mass: Mass::unspent(),
            minute: minute_of(now),
            seen_at: now,
            next_proposal: 1,
            propose_after: now,
            reference: Reference::default(),
            tracks: guard::rules(policy).into_iter().map(Track::new).collect(),
            soft: SoftAlarm::default(),
            recent: Recent::default(),
            split: SplitCheck::default(),
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
            Phase::Retreated(retreat) => retreat.weight,
            Phase::WarmingUp | Phase::Tripped(_) | Phase::RolledBack { .. } | Phase::Stopped => {
                Weight::ZERO
            }
        }
    }

    /// The weight at which this stage's proof is gathered, now or once a trip is over.
    pub(super) const fn compared_at(&self) -> Weight {
        match self.phase {
            Phase::Retreated(retreat) => retreat.weight,
            _ => self.weight,
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

    /// True while the canary may get requests without an operator or a cooldown in between.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::RolledBack { .. } | Phase::Stopped)
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
        let kind = GuardKind::LatencyP99;
        let of_kind = |track: &&Track| track.rule.kind == kind && !track.rule.is_ceiling;
        let ratio = self.tracks.iter().find(of_kind);
        let ratio = ratio.map_or(OVERDUE_RATIO, |track| track.rule.limit());
        let Some(edge) = self.reference.edge(kind) else {
            return 60_000;
        };
        #[expect(clippy::cast_possible_truncation, reason = "at most some days")]
        let ms = (sketch::upper_ms(edge) * ratio) as i64;
        ms.max(1_000)
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
    pub(super) fn roll_to(&mut self, policy: &Policy, at: UnixMillis) -> bool {
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
        self.soft.roll(policy, minutes);
        self.recent.roll(minutes);
        self.reference.roll(minutes);
        self.inject_minutes(minutes);
        true
    }

    /// Applies a committed raise.
    pub(super) fn apply(&mut self, policy: &Policy, raise: &Raise, now: UnixMillis) {
        let was_tripped = matches!(self.phase, Phase::Tripped(_));
        let renew = raise.new_attempt || self.wait == Some(Wait::Harm);
        if raise.new_attempt {
            self.attempt += 1;
            self.trips.clear();
        }
        if renew || !self.mass.has_begun() {
            self.begin_epoch();
        } else if was_tripped {
            for track in &mut self.tracks {
                track.reset_trip(mass::START);
            }
            self.cap_bit_at = None;
        }
        if raise.kind == DecisionKind::Resume {
            self.hold = None;
        }
        let fresh = raise.new_attempt || matches!(self.phase, Phase::WarmingUp);
        let led_back = matches!(self.phase, Phase::Retreated(_))
            && !matches!(raise.lands, Landing::Retreated(_));
        let compared = self.stage_counts(GuardKind::ErrorRate);
        if let Some(compared) = compared.filter(|_| led_back) {
            self.soft.learn_from(compared);
        }
        self.set_phase(raise.lands.phase(), now);
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
        self.split.reset();
        if retreats_from(policy, weight).is_some() {
            self.soft.begin();
        }
        if !same && !fresh {
            for track in &mut self.tracks {
                track.commit_minute();
            }
            self.inject_stage_start(policy);
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

    /// Evidence of health starts afresh and costs more: trying again and again must not prove anything.
    pub(super) fn restart_proof(&mut self) {
        self.promote_restarts = self.promote_restarts.saturating_add(1);
        self.forget_stage();
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
        self.tracks.iter().any(Track::has_nan) || self.soft.has_nan()
    }

    /// Every ledger starts afresh with a whole budget; what was learned about legacy stays if it is sound.
    pub(super) fn renew_ledgers(&mut self) {
        for track in &mut self.tracks {
            if track.has_nan() {
                *track = Track::new(track.rule);
            }
        }
        if self.soft.has_nan() {
            self.soft = SoftAlarm::default();
        }
        if self.mass.has_begun() {
            self.begin_epoch();
        }
        self.forget_stage();
    }

    /// Moves every remembered time by the jump of a clock that was set back, and restarts the dwell.
    pub(super) fn rebase(&mut self, now: UnixMillis) {
        let jump_ms = now.millis_since(self.seen_at);
        let moved = |at: UnixMillis| at.plus_millis(jump_ms);
        let minute = minute_of(now);
        self.mass.rebase(minute - self.minute);
        for track in &mut self.tracks {
            track.seconds_to = now;
        }
        self.minute = minute;
        self.seen_at = now;
        self.soft.rebase(jump_ms);
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
            Phase::WarmingUp
            | Phase::Running
            | Phase::Complete
            | Phase::Retreated(_)
            | Phase::Stopped => {}
        }
        self.outstanding = None;
    }
}
