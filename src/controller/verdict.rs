//! What each guard says, for `status`: value, limit, evidence, what is missing and how long that takes.
//!
//! Pure and read-only; decides nothing.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use crate::arm::Arm;
use crate::clock::for_people;
use crate::controller::guard;
use crate::controller::ledger::Track;
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::proof::{self, Health};
use crate::controller::state::State;
use crate::controller::step::Input;
use crate::controller::words;

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
    /// About how long that will take at the present rate, in seconds.
    pub eta_s: Option<u64>,
    /// All of it in one sentence.
    pub explanation: String,
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

pub(super) fn guard_view(
    policy: &Policy,
    state: &State,
    input: &Input<'_>,
    kind: GuardKind,
) -> GuardView {
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
        eta_s: None,
        explanation: String::new(),
    };
    let Some(track) = track else { return view };
    view.verdict = match proof::health(policy, state, track) {
        _ if harm >= limit_of_harm => Verdict::Harm,
        Health::Proven | Health::Vacuous => Verdict::Healthy,
        Health::Undecided => Verdict::Undecided,
        Health::NoData => Verdict::NoData,
        Health::NotApplicable => Verdict::NotApplicable,
    };
    (view.value, view.limit) = values(state, track, input);
    view.evidence = track.log_promote().min(600.0).exp();
    match view.verdict {
        Verdict::Harm => {
            view.evidence = harm.min(600.0).exp();
            view.needed = limit_of_harm.exp();
        }
        Verdict::Undecided => {
            let more = track.requests_needed(view.needed.ln(), state.compared_at().fraction());
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "`as` stops at the ends"
            )]
            let whole = |number: f64| number.ceil() as u64;
            view.requests_needed = more.map(whole);
            view.eta_s = more
                .and_then(|more| eta_ms(more, input.canary_rate_per_s))
                .map(|ms| u64::try_from(ms / 1_000).unwrap_or(0));
        }
        Verdict::Healthy | Verdict::NoData | Verdict::NotApplicable => {}
    }
    view.explanation = explanation(&view, kind, input.canary_rate_per_s);
    view
}

/// `0.32% (limit 0.99%) · evidence 4.1 of 20 · needs about 1,900 more canary requests, ~9m at this rate`
fn explanation(view: &GuardView, kind: GuardKind, rate_per_s: f64) -> String {
    let said = |value: f64| {
        if kind.is_time() {
            words::time(value)
        } else {
            words::percent(value)
        }
    };
    let mut parts = Vec::new();
    if let (Some(value), Some(limit)) = (view.value, view.limit) {
        parts.push(format!("{} (limit {})", said(value), said(limit)));
    }
    let evidence = format!(
        "evidence {} of {}",
        words::evidence(view.evidence),
        words::evidence(view.needed)
    );
    match view.verdict {
        Verdict::Harm => parts.push(format!("harm is proven: {evidence}")),
        Verdict::Healthy => parts.push(format!("healthy: {evidence}")),
        Verdict::Undecided => {
            parts.push(evidence);
            parts.push(match view.requests_needed {
                #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
                Some(more) => format!("needs {}", more_words(more as f64, rate_per_s)),
                None => "not converging at these rates".to_owned(),
            });
        }
        Verdict::NoData => parts.push("no data in this stage yet".to_owned()),
        Verdict::NotApplicable => {
            parts.push("this traffic has nothing that it could compare".to_owned());
        }
    }
    parts.join(" · ")
}

/// The canary's value and the most that is allowed. The open cell counts too: what people see is live.
fn values(state: &State, track: &Track, input: &Input<'_>) -> (Option<f64>, Option<f64>) {
    let kind = track.rule.kind;
    let Some(quantile) = guard::quantile(kind) else {
        let mut seen = track.stage();
        if input.open.weight == state.weight()
            && let Some(open) = track.rule.counts(input.open, &state.reference)
        {
            seen.add(open);
        }
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

/// `about 1,900 more canary requests, ~9m at this rate`
pub(super) fn more_words(requests: f64, rate_per_s: f64) -> String {
    let text = format!("about {} more canary requests", words::about(requests));
    let Some(ms) = eta_ms(requests, rate_per_s) else {
        return text;
    };
    // Seconds of an estimate over minutes say nothing.
    let ms = if ms > 60_000 {
        ms - ms % 60_000
    } else {
        ms - ms % 1_000
    };
    format!("{text}, ~{} at this rate", for_people(ms.max(1_000)))
}

fn eta_ms(requests: f64, rate_per_s: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "`as` stops at the ends")]
    let ms = (requests / rate_per_s * 1_000.0) as i64;
    (rate_per_s > 0.0).then_some(ms)
}
