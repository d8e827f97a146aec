//! The rollout as people see it: one word, one sentence why, and what each guard says.
//!
//! Pure and read-only; decides nothing.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use crate::arm::Weight;
use crate::clock::{UnixMillis, for_people};
use crate::controller::headroom;
use crate::controller::phase::{Phase, Wait};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::proof::{self, Standing};
use crate::controller::rise::STUCK_CANARY_MIN;
use crate::controller::state::State;
use crate::controller::step::Input;
use crate::controller::verdict::{GuardView, guard_view, more_words};
use crate::controller::words;

/// A rollout's standing for `status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// `warming-up`, `running`, `held`, `tripped`, `retreated`, `rolled-back`, `complete` or `stopped`.
    pub state: &'static str,
    /// The stage.
    pub stage: StageView,
    /// The effective weight.
    pub weight: Weight,
    /// How often it was tried, this time included.
    pub attempt: u32,
    /// When the controller will act by itself at the earliest; `None` when it waits for proof or a person.
    pub next_action_at: Option<UnixMillis>,
    /// One sentence: what it waits for, and for how long.
    pub reason: String,
    /// What each guard that is on says.
    pub guards: Vec<GuardView>,
    /// All that holds it, each one of [`HELD_BY`]: harm stays proven when an operator holds as well.
    pub held_by: Vec<&'static str>,
}

/// What can hold a rollout: a person, or one of the controller's own reasons.
pub const HELD_BY: [&str; 8] = [
    "operator",
    "approval",
    "not-converging",
    "evidence",
    "harm",
    "common-cause",
    "split",
    "headroom",
];

/// The stage of a [`View`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StageView {
    /// From 1, as in the decision log.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// The intended weight.
    pub weight: Weight,
    /// When it was entered.
    pub since: UnixMillis,
}

/// Shows a rollout; `input` is that of the latest look.
#[must_use]
pub fn view(policy: &Policy, state: &State, input: &Input<'_>, now: UnixMillis) -> View {
    View {
        state: word(state),
        stage: StageView {
            index: state.stage + 1,
            of: policy.stages.len(),
            weight: state.weight,
            since: state.stage_since,
        },
        weight: state.weight(),
        attempt: state.attempt,
        next_action_at: next_action_at(policy, state, now),
        reason: reason(policy, state, input, now),
        guards: policy
            .guards
            .iter()
            .map(|spec| guard_view(policy, state, input, spec.kind))
            .collect(),
        held_by: state.held_by(),
    }
}

/// The word for where a rollout stands.
#[must_use]
pub fn word(state: &State) -> &'static str {
    match state.phase {
        Phase::Tripped(_) => "tripped",
        Phase::RolledBack { .. } => "rolled-back",
        Phase::Stopped => "stopped",
        Phase::Retreated(_) => "retreated",
        Phase::WarmingUp | Phase::Running | Phase::Complete
            if state.hold.is_some() || state.wait.is_some() =>
        {
            "held"
        }
        Phase::WarmingUp => "warming-up",
        Phase::Running => "running",
        Phase::Complete => "complete",
    }
}

fn next_action_at(policy: &Policy, state: &State, now: UnixMillis) -> Option<UnixMillis> {
    if state.hold.is_some() {
        return None;
    }
    match &state.phase {
        Phase::Tripped(trip) => trip.until.map(|until| until.max(trip.next_probe_at)),
        Phase::RolledBack { until } => *until,
        Phase::Running => {
            let dwell_over = now.plus_millis(proof::dwell_left(policy, state, now));
            let next = dwell_over.max(state.propose_after);
            (next > now).then_some(next)
        }
        Phase::WarmingUp | Phase::Retreated(_) | Phase::Complete | Phase::Stopped => None,
    }
}

fn reason(policy: &Policy, state: &State, input: &Input<'_>, now: UnixMillis) -> String {
    if let Some(hold) = &state.hold {
        return format!("held by an operator: {hold}");
    }
    if !input.store_healthy && !matches!(state.phase, Phase::Complete | Phase::Stopped) {
        return "the store is failing; weights are frozen".to_owned();
    }
    if let Some(proposal) = &state.outstanding {
        return format!(
            "the decision to go to {} is being recorded",
            proposal.raise.weight
        );
    }
    if let Some(wait) = state.wait {
        return wait_words(wait, || headroom::reason(policy, state, input.headroom));
    }
    match &state.phase {
        Phase::WarmingUp => format!(
            "warm-up: {} of {} legacy requests measured",
            state
                .warm_up_measured(input.open)
                .min(policy.warm_up_requests),
            policy.warm_up_requests
        ),
        Phase::Running => running_reason(policy, state, input, now),
        Phase::Retreated(retreat) if retreat.stays => format!(
            "retreated to {} for the second time within 24h; `cutover resume` leads back to {}",
            retreat.weight, state.weight
        ),
        Phase::Retreated(retreat) => {
            let proof = proof_words(policy, state, input);
            format!(
                "retreated to {} to find out; {}",
                retreat.weight,
                proof.as_deref().unwrap_or("all is proven")
            )
        }
        Phase::Tripped(trip) => match trip.until {
            None => "the canary refuses its key; a new key or `cutover resume` ends it".to_owned(),
            Some(until) if now < until => format!(
                "tripped; probes begin in {}",
                for_people(until.millis_since(now))
            ),
            Some(_) => format!(
                "probing the canary: {} of 5 in a row succeeded",
                trip.probes_ok
            ),
        },
        Phase::RolledBack { until: None } => {
            "rolled back; `cutover retry` starts a new attempt".to_owned()
        }
        Phase::RolledBack { until: Some(until) } => format!(
            "rolled back; attempt {} of {} begins in {}",
            state.attempt + 1,
            policy.max_attempts,
            for_people(until.millis_since(now))
        ),
        Phase::Complete => format!("complete at {}", state.weight),
        Phase::Stopped => "no longer configured".to_owned(),
    }
}

fn wait_words(wait: Wait, headroom: impl FnOnce() -> String) -> String {
    let words = match wait {
        Wait::Headroom => return headroom(),
        Wait::Approval => "all is proven; waits for approval: `cutover promote`",
        Wait::NotConverging => "will not converge: canary is at its margin",
        Wait::Evidence => "a ledger held no number; look into it, then `cutover resume`",
        Wait::Harm => {
            "harm is proven and on-harm is \"hold\": `cutover rollback`, or `cutover resume` to accept it"
        }
        Wait::CommonCause => "common cause: both arms fail; goes on when one of them is well",
        Wait::Split => {
            "the measured split does not match the weight; look into it, then `cutover resume`"
        }
    };
    words.to_owned()
}

fn running_reason(policy: &Policy, state: &State, input: &Input<'_>, now: UnixMillis) -> String {
    if state.weight == Weight::ZERO {
        return "an operator set 0%; it goes up only by an operator".to_owned();
    }
    let left_ms = proof::dwell_left(policy, state, now);
    let dwell = (left_ms > 0).then(|| format!("dwell: {} left", for_people(left_ms)));
    let last = policy
        .stages
        .iter()
        .all(|stage| stage.weight <= state.weight);
    if last {
        return dwell.unwrap_or_else(|| "about to complete".to_owned());
    }
    let proof = proof_words(policy, state, input);
    let stepped_back = state.propose_after.millis_since(now);
    let cooldown = (stepped_back > 60_000)
        .then(|| format!("stepped back; goes on in {}", for_people(stepped_back)));
    let proof = proof.into_iter().chain(state.low_traffic());
    let parts: Vec<String> = cooldown.into_iter().chain(dwell).chain(proof).collect();
    if parts.is_empty() {
        "all is proven".to_owned()
    } else {
        parts.join(" · ")
    }
}

/// What the proof of this stage still lacks; `None` if nothing.
fn proof_words(policy: &Policy, state: &State, input: &Input<'_>) -> Option<String> {
    match proof::evidence(policy, state, log_roll(state), input.overdue) {
        Standing::Ready(_) => None,
        Standing::Dwell(_) => None,
        Standing::Amber => Some("there is some evidence of harm; waits for it to fade".to_owned()),
        Standing::NoData(Some(kind)) => Some(format!("no data yet for {}", kind.as_str())),
        Standing::NoData(None) => Some("too few canary requests in this stage yet".to_owned()),
        Standing::Nothing => Some("no guard that is on can prove health now".to_owned()),
        Standing::Needs(kind, None) if state.stage_canary >= STUCK_CANARY_MIN => Some(format!(
            "will not converge: canary is at its margin ({})",
            kind.as_str()
        )),
        Standing::Needs(kind, None) => Some(format!("too early to tell for {}", kind.as_str())),
        Standing::Needs(kind, Some(more)) => Some(needs(kind, more, input.canary_rate_per_s)),
        Standing::Overdue(requests) => Some(format!(
            "{requests} canary requests have been under way for more than {}",
            words::time(state.overdue_after_ms() as f64)
        )),
    }
}

fn needs(kind: GuardKind, requests: f64, rate_per_s: f64) -> String {
    format!(
        "needs {} for {}",
        more_words(requests, rate_per_s),
        kind.as_str()
    )
}

fn log_roll(state: &State) -> f64 {
    let terms = state.tracks.iter();
    crate::controller::stats::logsumexp(
        terms.map(|track| track.rule.share().ln() + track.log_roll(None)),
    )
}
