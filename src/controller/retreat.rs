//! The soft alarm above the retreat weight: are the canary's errors above what legacy's last day allows?
//!
//! Pure. At a high weight hardly any legacy traffic is left to compare with, so a guard against legacy needs
//! many requests (STATISTICS section 6.4). This alarm compares with legacy's rate of the last 24 hours
//! instead. It is not robust against drift of both arms, so it may only step down to where the arms compare
//! fast; what is final is decided there by the guards. It is heard only when it stays
//! loud for some seconds: what is sudden belongs to the fuse, which keeps the stage.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::clock::{UnixMillis, for_people};
use crate::controller::effect::DecisionKind;
use crate::controller::evidence::Cell;
use crate::controller::exact;
use crate::controller::guard::Rule;
use crate::controller::ledger::Track;
use crate::controller::phase::{Phase, Retreat};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::reference::Reference;
use crate::controller::state::State;
use crate::controller::stats::Counts;
use crate::controller::step::{Input, Turn, Why};
use crate::controller::words;

/// P(false retreat) for each stay above the retreat weight.
const ALPHA: f64 = 0.05;
/// Starting mass when such a stay begins; as much again is spread over 30 days.
const MASS: f64 = 0.5;
const HORIZON_MIN: f64 = 43_200.0;
/// Legacy's rate is averaged over about a day.
const MEMORY_MIN: f64 = 1_440.0;
/// Legacy requests of the last day without which its rate is no yardstick.
const LEGACY_MIN: f64 = 500.0;
/// The fuse goes first: it takes a second for what is sudden.
const LOUD_MS: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;
const COMPARED_HALF_LIFE_MIN: f64 = 240.0;

/// What the soft alarm remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SoftAlarm {
    track: Track,
    /// Legacy's errors and requests with a memory of a day; then those of this minute.
    #[serde(with = "exact")]
    legacy: [f64; 4],
    /// The rate that legacy had while the arms were compared after the last retreat. It fades.
    #[serde(with = "exact")]
    compared: [f64; 1],
    /// Since when it has been loud.
    loud_since: Option<UnixMillis>,
    /// Retreats of the last 24 hours.
    at: Vec<UnixMillis>,
}

impl Default for SoftAlarm {
    fn default() -> Self {
        Self {
            track: Track::new(Rule::soft_alarm(1.0)),
            legacy: [0.0; 4],
            compared: [0.0],
            loud_since: None,
            at: Vec::new(),
        }
    }
}

impl SoftAlarm {
    /// What is known of legacy, for another canary.
    pub(super) fn heir_of(old: &Self) -> Self {
        let mut fresh = Self::default();
        fresh.track.inherit(&old.track);
        fresh.legacy = old.legacy;
        fresh
    }

    /// A stay above the retreat weight begins.
    pub(super) fn begin(&mut self) {
        self.track.reset_harm();
        self.track.reset_stage();
        self.track.inject(MASS);
        self.loud_since = None;
    }

    /// A retreat ends with proof that the canary is no worse than legacy, which had this rate meanwhile. If
    /// that is more than its last day tells, both arms drift, and going down again would prove the same.
    pub(super) fn learn_from(&mut self, seen: Counts) {
        if seen.legacy >= 100.0 {
            self.compared = [seen.legacy_events / seen.legacy];
        }
    }

    /// Takes a cell; as evidence only if it `counts`.
    pub(super) fn feed(&mut self, cell: &Cell, reference: &Reference, counts: bool) {
        let Some(seen) = self.track.rule.counts(cell, reference) else {
            return;
        };
        let [.., minute_k, minute_n] = &mut self.legacy;
        *minute_k += seen.legacy_events;
        *minute_n += seen.legacy;
        let increment = if counts {
            self.track.increment(seen, false)
        } else {
            None
        };
        self.track.book(seen, increment, counts, cell.opened_at);
    }

    /// Ends `minutes` minutes: the limit follows legacy's last day, never the minute that it judges.
    pub(super) fn roll(&mut self, policy: &Policy, minutes: i64) {
        let length = minutes.max(0) as f64;
        let keep = (-length / MEMORY_MIN).exp();
        let [k, n, minute_k, minute_n] = self.legacy;
        let (k, n) = (k * keep + minute_k, n * keep + minute_n);
        self.legacy = [k, n, 0.0, 0.0];
        self.track.commit_minute();
        let margin = policy
            .guards
            .iter()
            .find(|guard| guard.kind == GuardKind::ErrorRate)
            .and_then(|guard| guard.relative);
        // A limit of 1 is vacuous: the alarm is silent.
        let limit = match margin {
            Some(margin) if n >= LEGACY_MIN => {
                let [compared] = self.compared;
                margin.ratio * (k / n).max(compared) + margin.increase
            }
            _ => 1.0,
        };
        self.compared = self
            .compared
            .map(|rate| rate * 0.5f64.powf(length / COMPARED_HALF_LIFE_MIN));
        self.track.rule = Rule::soft_alarm(limit.clamp(1e-4, 1.0));
        self.track.learn(minutes);
        self.track.inject(MASS / HORIZON_MIN * length);
    }

    pub(super) fn rebase(&mut self, jump_ms: i64) {
        self.loud_since = None;
        for at in &mut self.at {
            *at = at.plus_millis(jump_ms);
        }
    }

    pub(super) fn has_nan(&self) -> bool {
        self.track.has_nan()
    }

    /// Uncapped: it decides nothing that is final.
    fn log_evidence(&self) -> f64 {
        self.track.log_trip(None)
    }

    /// True once it has been loud for long enough.
    fn is_heard(&mut self, now: UnixMillis) -> bool {
        if self.log_evidence() < -ALPHA.ln() {
            self.loud_since = None;
            return false;
        }
        let since = *self.loud_since.get_or_insert(now);
        now.millis_since(since) >= LOUD_MS
    }
}

/// The weight that the policy retreats to from `weight`, if it does. Not from 100%: no legacy traffic is
/// left there whose last day could be a yardstick.
pub(super) fn retreats_from(policy: &Policy, weight: Weight) -> Option<Weight> {
    policy
        .retreat
        .filter(|&to| to > Weight::ZERO && weight > to && weight < Weight::FULL)
}

impl State {
    /// True while the soft alarm listens.
    pub(super) fn may_retreat(&self, policy: &Policy) -> Option<Weight> {
        let running = matches!(self.phase, Phase::Running | Phase::Complete);
        retreats_from(policy, self.weight).filter(|_| running)
    }
}

impl Turn<'_> {
    /// Steps down when the soft alarm is loud, unless legacy itself is above the limit: then it is the
    /// common cause that is loud, and going back to legacy helps nobody.
    pub(super) fn judge_retreat(&mut self, input: &Input<'_>) {
        let Some(weight) = self.state.may_retreat(self.policy) else {
            return;
        };
        let now = self.now;
        let soft = &mut self.state.soft;
        let limit = soft.track.rule.limit();
        if !soft.is_heard(now)
            || input.legacy_breaker_open
            || self.state.recent.legacy_exceeds(limit)
        {
            return;
        }
        let seen = self.state.soft.track.stage();
        self.state
            .soft
            .at
            .retain(|&at| now.millis_since(at) < DAY_MS);
        let stays = !self.state.soft.at.is_empty();
        let mut parts = vec![
            format!(
                "errors {:.0}/{:.0} after {} (legacy's last day allows {})",
                seen.canary_events,
                seen.canary,
                for_people(now.millis_since(self.state.stage_since)),
                words::percent(limit)
            ),
            format!("compares at {weight}, where proof is fast"),
        ];
        if stays {
            parts.push("the second within 24h: stays until `cutover resume`".to_owned());
        }
        let why = Why {
            guard: Some(GuardKind::ErrorRate),
            log_evidence: Some(self.state.soft.log_evidence()),
            log_needed: Some(-ALPHA.ln()),
            ..Why::controller(parts.join(" · "))
        };
        self.alert(AlertKind::Retreat, why.reason.clone());
        self.decide(DecisionKind::Retreat, why, |state| {
            let retreat = Retreat {
                weight,
                was_complete: state.phase == Phase::Complete,
                stays,
            };
            state.soft.at.push(now);
            state.set_phase(Phase::Retreated(retreat), now);
            state.forget_stage();
        });
    }

    /// Fresh proof at the retreat weight leads straight back to the stage that was left.
    pub(super) fn go_on_retreated(&mut self, retreat: Retreat, log_evidence: f64) {
        if retreat.stays {
            return;
        }
        let why = Why {
            log_evidence: Some(log_evidence),
            log_needed: Some(self.state.promote_nats(self.policy)),
            ..Why::controller(words::promotion(
                self.policy,
                &self.state,
                log_evidence,
                self.now,
            ))
        };
        let raise = self.raise_back(DecisionKind::Resume, retreat.lands());
        self.propose(raise, why);
    }
}
