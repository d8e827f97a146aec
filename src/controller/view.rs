//! The rollout as people see it: one word, one sentence why, and what each guard says.
//!
//! Pure and read-only; decides nothing.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use crate::arm::{Arm, Weight};
use crate::clock::{UnixMillis, for_people};
use crate::controller::guard;
use crate::controller::ledger::Track;
use crate::controller::phase::{Phase, Wait};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::proof::{self, Health, Standing};
use crate::controller::rise::STUCK_CANARY_MIN;
use crate::controller::state::State;
use crate::controller::step::Input;
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
}

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

/// What one guard says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuardView {
    /// Its key in the configuration.
    pub name: &'static str,
    /// `harm`, `healthy`, `undecided`, `no-data` or `not-applicable`.
    pub verdict: Verdict,
    /// The canary's value in this stage: a share for rates, milliseconds for times.
    pub value: Option<f64>,
    /// The most that is allowed at legacy's present value, in the same unit.
    pub limit: Option<f64>,
    /// Evidence of health gathered in this stage; of harm, if that is the verdict.
    pub evidence: f64,
    /// What the evidence has to reach.
    pub needed: f64,
    /// About how many more canary requests that will take; `None` if none or if it does not converge.
    pub requests_needed: Option<u64>,
}

/// What a guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Proof that the canary is worse than allowed.
    Harm,
    /// Proof that it is not, in this stage.
    Healthy,
    /// Neither yet.
    Undecided,
    /// Nothing to go by.
    NoData,
    /// It cannot say anything in this traffic.
    NotApplicable,
}

impl Verdict {
    /// The word used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Harm => "harm",
            Self::Healthy => "healthy",
            Self::Undecided => "undecided",
            Self::NoData => "no-data",
            Self::NotApplicable => "not-applicable",
        }
    }
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
            .map(|spec| guard_view(policy, state, spec.kind))
            .collect(),
    }
}

/// The word for where a rollout stands.
#[must_use]
pub fn word(state: &State) -> &'static str {
    match state.phase {
        Phase::Tripped(_) => "tripped",
        Phase::RolledBack { .. } => "rolled-back",
        Phase::Stopped => "stopped",
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
            let left_ms = proof::dwell_left(policy, state, now);
            (left_ms > 0).then(|| now.plus_millis(left_ms))
        }
        Phase::WarmingUp | Phase::Complete | Phase::Stopped => None,
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
    match &state.phase {
        Phase::WarmingUp => format!(
            "warm-up: {} of {} legacy requests measured",
            state
                .warm_up_measured(input.open)
                .min(policy.warm_up_requests),
            policy.warm_up_requests
        ),
        Phase::Running => running_reason(policy, state, input, now),
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

fn running_reason(policy: &Policy, state: &State, input: &Input<'_>, now: UnixMillis) -> String {
    match state.wait {
        Some(Wait::Approval) => {
            return "all is proven; waits for approval: `cutover promote`".to_owned();
        }
        Some(Wait::NotConverging) => {
            return "will not converge: canary is at its margin".to_owned();
        }
        Some(Wait::Evidence) => {
            return "a ledger held no number; look into it, then `cutover resume`".to_owned();
        }
        None => {}
    }
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
    let proof = match proof::evidence(policy, state, log_roll(state)) {
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
    };
    let proof = proof.into_iter().chain(state.low_traffic());
    let parts: Vec<String> = dwell.into_iter().chain(proof).collect();
    if parts.is_empty() {
        "all is proven".to_owned()
    } else {
        parts.join(" · ")
    }
}

fn needs(kind: GuardKind, requests: f64, rate_per_s: f64) -> String {
    let text = format!(
        "needs about {} more canary requests for {}",
        words::about(requests),
        kind.as_str()
    );
    if rate_per_s <= 0.0 {
        return text;
    }
    #[expect(clippy::cast_possible_truncation, reason = "`as` stops at the ends")]
    let ms = (requests / rate_per_s * 1_000.0) as i64;
    // Seconds of an estimate over minutes say nothing.
    let ms = if ms > 60_000 {
        ms - ms % 60_000
    } else {
        ms - ms % 1_000
    };
    format!("{text}, ~{} at this rate", for_people(ms.max(1_000)))
}

fn log_roll(state: &State) -> f64 {
    let terms = state.tracks.iter();
    crate::controller::stats::logsumexp(
        terms.map(|track| track.rule.share().ln() + track.log_roll(None)),
    )
}

fn guard_view(policy: &Policy, state: &State, kind: GuardKind) -> GuardView {
    let tracks = || state.tracks.iter().filter(|track| track.rule.kind == kind);
    // The limit against legacy speaks for the guard; a ceiling does where there is none.
    let speaker = |track: &&Track| proof::health(policy, state, track) != Health::NotApplicable;
    let track = tracks().find(speaker).or_else(|| tracks().next());
    let limit_of_harm = -policy.alpha_rollback.ln();
    let harm = tracks()
        .map(|track| track.rule.share().ln() + track.log_roll(None))
        .fold(f64::NEG_INFINITY, f64::max);
    let mut view = GuardView {
        name: kind.as_str(),
        verdict: Verdict::NoData,
        value: None,
        limit: None,
        evidence: 0.0,
        needed: state.promote_nats(policy).exp(),
        requests_needed: None,
    };
    let Some(track) = track else { return view };
    view.verdict = match proof::health(policy, state, track) {
        _ if harm >= limit_of_harm => Verdict::Harm,
        Health::Proven | Health::Vacuous => Verdict::Healthy,
        Health::Undecided => Verdict::Undecided,
        Health::NoData => Verdict::NoData,
        Health::NotApplicable => Verdict::NotApplicable,
    };
    (view.value, view.limit) = values(state, track);
    view.evidence = track.log_promote().min(600.0).exp();
    match view.verdict {
        Verdict::Harm => {
            view.evidence = harm.min(600.0).exp();
            view.needed = limit_of_harm.exp();
        }
        Verdict::Undecided => {
            let more = track.requests_needed(view.needed.ln(), state.weight.fraction());
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "`as` stops at the ends"
            )]
            let whole = |requests: f64| requests.ceil() as u64;
            view.requests_needed = more.map(whole);
        }
        Verdict::Healthy | Verdict::NoData | Verdict::NotApplicable => {}
    }
    view
}

/// The canary's value and the most that is allowed.
fn values(state: &State, track: &Track) -> (Option<f64>, Option<f64>) {
    let kind = track.rule.kind;
    let Some(quantile) = guard::quantile(kind) else {
        let seen = track.stage();
        let legacy = if seen.legacy > 0.0 {
            seen.legacy_events / seen.legacy
        } else {
            track.legacy_rate()
        };
        let value = (seen.canary > 0.0).then(|| seen.canary_events / seen.canary);
        return (value, Some(track.rule.line().allowed(legacy).min(1.0)));
    };
    let times = if guard::is_ttft(kind) {
        &state.stage_ttft
    } else {
        &state.stage_latency
    };
    let of = |arm| times.get(arm).quantile_ms(quantile);
    let limit = if track.rule.is_ceiling {
        Some(track.rule.limit())
    } else {
        of(Arm::Legacy).map(|legacy| legacy * track.rule.limit())
    };
    (of(Arm::Canary), limit)
}
