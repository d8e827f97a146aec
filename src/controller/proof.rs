//! May the rollout go up, and if not, why not: one answer for the decision and for the status page.
//!
//! Pure and read-only.
#![deny(clippy::disallowed_methods)]

use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::controller::guard;
use crate::controller::ledger::Track;
use crate::controller::phase::Phase;
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::state::State;
use crate::controller::stats::{self, PROMOTE_ODDS};

/// Canary requests that a stage must have seen at least, whatever its guards say.
const CANARY_MIN: u64 = 20;

/// What a guard of the stage says about health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Proven in this stage.
    Proven,
    /// It allows everything.
    Vacuous,
    /// Not proven yet.
    Undecided,
    /// Nothing to go by.
    NoData,
    /// It cannot say anything in this traffic.
    NotApplicable,
}

/// What stands between the rollout and its next stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Standing {
    /// Nothing: the evidence in nats of the least proven guard.
    Ready(f64),
    /// The dwell has this many milliseconds to go.
    Dwell(i64),
    /// So many canary requests are under way for longer than they should be.
    Overdue(u64),
    /// Evidence of harm is above what it was at the start.
    Amber,
    /// Too few canary requests in this stage, or none that a guard could use.
    NoData(Option<GuardKind>),
    /// This guard needs about so many more canary requests; `None`: it will not converge.
    Needs(GuardKind, Option<f64>),
    /// No guard that is on can prove health.
    Nothing,
}

/// What one track says.
pub(super) fn health(policy: &Policy, state: &State, track: &Track) -> Health {
    let one_armed = state.weight >= crate::arm::Weight::FULL
        && matches!(state.phase, Phase::Running | Phase::Complete);
    if (one_armed && !track.rule.is_ceiling)
        || (guard::is_ttft(track.rule.kind) && !state.reference.has_streams())
    {
        return Health::NotApplicable;
    }
    if track.is_vacuous() {
        return Health::Vacuous;
    }
    let seen = track.stage();
    if seen.canary <= 0.0 || (!track.rule.is_ceiling && seen.legacy <= 0.0) {
        return Health::NoData;
    }
    if track.log_promote() >= state.promote_nats(policy) {
        Health::Proven
    } else {
        Health::Undecided
    }
}

/// The tracks whose proof a promotion needs: all limits against legacy; the ceilings if there is none.
pub(super) fn provers<'a>(
    policy: &'a Policy,
    state: &'a State,
) -> impl Iterator<Item = (&'a Track, Health)> {
    let of = move |ceilings: bool| {
        state
            .tracks
            .iter()
            .filter(move |track| track.rule.is_ceiling == ceilings)
            .map(move |track| (track, health(policy, state, track)))
            .filter(|(_, health)| !matches!(health, Health::NotApplicable | Health::Vacuous))
    };
    let any = of(false).next().is_some();
    of(!any)
}

/// What stands between the rollout and its next stage, the dwell first.
pub(super) fn standing(
    policy: &Policy,
    state: &State,
    log_roll: f64,
    overdue: PerArm<u64>,
    now: UnixMillis,
) -> Standing {
    let left = dwell_left(policy, state, now);
    if left > 0 {
        return Standing::Dwell(left);
    }
    evidence(policy, state, log_roll, overdue)
}

/// Milliseconds until the dwell of this stage is over.
pub(super) fn dwell_left(policy: &Policy, state: &State, now: UnixMillis) -> i64 {
    let dwell_ms = policy
        .stages
        .get(state.stage)
        .map_or(0, |stage| stage.dwell_ms);
    dwell_ms - now.millis_since(state.stage_since)
}

/// The same without the dwell.
pub(super) fn evidence(
    policy: &Policy,
    state: &State,
    log_roll: f64,
    overdue: PerArm<u64>,
) -> Standing {
    let needed = state.promote_nats(policy);
    let mut least = f64::INFINITY;
    let mut slowest: Option<(GuardKind, Option<f64>)> = None;
    for (track, health) in provers(policy, state) {
        let kind = track.rule.kind;
        match health {
            Health::NoData => return Standing::NoData(Some(kind)),
            Health::Proven => least = least.min(track.log_promote()),
            _ => {
                let more = track.requests_needed(needed, state.compared_at().fraction());
                let slower = match (slowest.and_then(|(_, slowest)| slowest), more) {
                    (Some(slowest), Some(more)) => more > slowest,
                    (Some(_), None) => true,
                    (None, _) => slowest.is_none(),
                };
                if slower {
                    slowest = Some((kind, more));
                }
            }
        }
    }
    if let Some((kind, more)) = slowest {
        return Standing::Needs(kind, more);
    }
    if least == f64::INFINITY {
        return Standing::Nothing;
    }
    if state.stage_canary < CANARY_MIN {
        return Standing::NoData(None);
    }
    if hangs(state, overdue) {
        return Standing::Overdue(overdue.canary);
    }
    // Not `>= 0`: a ledger that is no number must not pass.
    if log_roll < 0.0 {
        Standing::Ready(least)
    } else {
        Standing::Amber
    }
}

/// A slow failure is no evidence before it ends, so a canary that hangs looks silent. True if more of its
/// requests are overdue than legacy's and chance would explain.
fn hangs(state: &State, overdue: PerArm<u64>) -> bool {
    let share = state.weight().fraction();
    if share <= 0.0 || share >= 1.0 {
        return false;
    }
    let expected = overdue.legacy as f64 * share / (1.0 - share);
    overdue.canary as f64 > 3.0 + 3.0 * expected
}

impl Track {
    /// Canary requests still needed for a proof of `nats` at the rates seen; `None`: no convergence.
    #[must_use]
    pub fn requests_needed(&self, nats: f64, share: f64) -> Option<f64> {
        let base = self.legacy_rate();
        let shrunk = |events: f64, requests: f64| (events + 1.0) / (requests + 1.0 / base);
        let seen = self.stage();
        let share = if seen.canary > 0.0 && seen.legacy > 0.0 {
            seen.share()
        } else {
            share
        };
        let rates = (
            shrunk(seen.canary_events, seen.canary),
            shrunk(seen.legacy_events, seen.legacy),
        );
        let missing = nats - self.log_promote();
        stats::requests_needed(
            &PROMOTE_ODDS,
            self.rule.line(),
            share,
            rates,
            missing * self.phi(),
        )
    }
}

/// Cheap: true if every prover has its proof, so that [`evidence`] is worth asking.
pub(super) fn is_proven(policy: &Policy, state: &State) -> bool {
    provers(policy, state).all(|(_, health)| health == Health::Proven)
}
