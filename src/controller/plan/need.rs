//! What each guard needs for its proof of health at one weight, if the canary equals legacy.
//!
//! Pure. Growth and scatter of the evidence are those of the very bets that the ledgers make. What the
//! mixture of bets costs is one constant, set against simulated ledgers (the tests hold the table).
#![deny(clippy::disallowed_methods)]

use super::Traffic;
use super::passage::{Passage, normal};
use crate::arm::Weight;
use crate::controller::guard::{self, Rule};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::stats::{self, PROMOTE_ODDS};

/// Nats that the mixture costs on top of its best bet. Five equal bets cost ln 5 at most; that neighbours
/// help each other leaves this.
const MIXTURE_NATS: f64 = 0.7;
/// Scatter of the logarithm of times. It says how many of an equal canary's answers lie beyond a moved
/// threshold; real answers of one model scatter by 0.6 to 1.
const LOG_SIGMA: f64 = 0.8;
/// Rate at which answers are taken to be 429 or another 4xx. Plans ask for neither.
const REFUSED: f64 = 0.001;
/// Below this share of streams the guards on first tokens say nothing.
pub(super) const STREAMED_MIN: f64 = 0.01;

/// What one guard needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Need {
    /// About so many canary requests on average.
    Requests(f64),
    /// Nothing: it allows everything, or others give the proof.
    Nothing,
    /// It cannot say anything in this traffic, and blocks nothing.
    NotApplicable,
    /// An equal canary can never be proven healthy: the limit leaves no room above legacy.
    Never,
}

/// A guard with its need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardNeed {
    /// The guard.
    pub kind: GuardKind,
    /// What it needs at this weight.
    pub need: Need,
}

/// The needs at one weight, and the climbs of the guards whose proof is asked for.
pub(super) struct Needs {
    pub(super) guards: Vec<GuardNeed>,
    pub(super) climbs: Vec<Passage>,
}

pub(super) fn needs(policy: &Policy, traffic: &Traffic, weight: Weight) -> Needs {
    let rules = guard::rules(policy);
    let compare = weight > Weight::ZERO && weight < Weight::FULL;
    let speaks = |rule: &&Rule| is_applicable(rule, traffic) && !is_vacuous(rule, traffic);
    // As in `proof`: limits against legacy give the proof, ceilings only where there is none.
    let any_relative = rules
        .iter()
        .any(|rule| compare && !rule.is_ceiling && speaks(&rule));
    let mut climbs = Vec::new();
    let mut guards = Vec::new();
    for spec in &policy.guards {
        let mut of_kind = rules.iter().filter(|rule| rule.kind == spec.kind);
        // The rule that gives this guard's proof, if it has one of that sort.
        let prover = of_kind.clone().find(|rule| rule.is_ceiling != any_relative);
        let need = match prover.or_else(|| of_kind.next()) {
            Some(rule) if !is_applicable(rule, traffic) => Need::NotApplicable,
            Some(rule) if !rule.is_ceiling && !compare => Need::NotApplicable,
            Some(rule) if prover.is_some() && !is_vacuous(rule, traffic) => {
                let climb = climb(policy, rule, traffic, weight);
                climbs.extend(climb);
                climb.map_or(Need::Never, |climb| Need::Requests(climb.mean))
            }
            _ => Need::Nothing,
        };
        guards.push(GuardNeed {
            kind: spec.kind,
            need,
        });
    }
    Needs { guards, climbs }
}

fn is_applicable(rule: &Rule, traffic: &Traffic) -> bool {
    !guard::is_ttft(rule.kind)
        || traffic
            .streamed
            .is_some_and(|streamed| streamed >= STREAMED_MIN)
}

fn is_vacuous(rule: &Rule, traffic: &Traffic) -> bool {
    rule.line().allowed(rates(rule, traffic).1) >= 1.0
}

/// Rates of the guard's event: canary's and legacy's, if the canary equals legacy.
fn rates(rule: &Rule, traffic: &Traffic) -> (f64, f64) {
    match guard::quantile(rule.kind) {
        None if rule.kind == GuardKind::ErrorRate => {
            (traffic.legacy_error_rate, traffic.legacy_error_rate)
        }
        None => (REFUSED, REFUSED),
        Some(quantile) => {
            // A ceiling in milliseconds is taken to be as far from legacy as the usual ratio.
            let ratio = if rule.is_ceiling { 1.5 } else { rule.limit() };
            let beyond = 1.0 - quantile;
            let moved = normal_quantile(quantile) + ratio.ln() / LOG_SIGMA;
            (normal(-moved), beyond)
        }
    }
}

/// The normal law's quantile for the two quantiles that guards are named after, by bisection.
fn normal_quantile(quantile: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal(middle) < quantile {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The climb of a rule's evidence in canary requests of the rollout.
fn climb(policy: &Policy, rule: &Rule, traffic: &Traffic, weight: Weight) -> Option<Passage> {
    let (canary, legacy) = rates(rule, traffic);
    let (canary, legacy) = (canary.clamp(1e-6, 0.999), legacy.clamp(1e-5, 0.95));
    let line = rule.line();
    let used = if rule.is_ceiling {
        Used {
            share: weight.fraction(),
            canary: 1.0,
        }
    } else {
        Used::of(traffic.requests_per_s, weight)
    };
    let level = (1.0 / policy.alpha_promote).ln() + MIXTURE_NATS;
    let counted = if guard::is_ttft(rule.kind) {
        traffic.streamed.unwrap_or(1.0)
    } else {
        1.0
    };
    let bets = PROMOTE_ODDS.iter().map(|&odds| {
        let f = stats::lr_factors(stats::target(odds, legacy, line), legacy, line, used.share);
        let others = if rule.is_ceiling {
            0.0
        } else {
            (1.0 - used.share) / used.share
        };
        let mean = |rate: f64, event: f64, none: f64| rate * event + (1.0 - rate) * none;
        let scatter = |rate: f64, by: f64| rate * (1.0 - rate) * by * by;
        let drift = mean(canary, f.canary_event, f.canary_none)
            + others * mean(legacy, f.legacy_event, f.legacy_none);
        let variance = scatter(canary, f.canary_event - f.canary_none)
            + others * scatter(legacy, f.legacy_event - f.legacy_none);
        (drift, variance)
    });
    let (drift, variance) = bets.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let climb = Passage::new(level, drift, variance)?;
    Some(climb.stretched(traffic.phi.max(1.0) / used.canary / counted))
}

/// What cells make of sparse traffic. A cell that has only one arm when its minute ends compares nothing,
/// so the plentiful arm's requests in it are lost and the share in the others is nearer to one half.
struct Used {
    /// Share of the canary among the requests that are compared.
    share: f64,
    /// Part of the canary's requests that are compared.
    canary: f64,
}

impl Used {
    const CELL_S: f64 = 60.0;

    fn of(requests_per_s: f64, weight: Weight) -> Self {
        let share = weight.fraction();
        let (canary, legacy) = (share * requests_per_s, (1.0 - share) * requests_per_s);
        let (scarce, plenty) = (canary.min(legacy), canary.max(legacy));
        let silent = (-Self::CELL_S * scarce).exp();
        let spoken = -(-Self::CELL_S * scarce).exp_m1();
        let wait_s = (1.0 / scarce - Self::CELL_S * silent / spoken).max(1.0);
        let of_plenty = spoken * wait_s / (spoken * wait_s + silent * Self::CELL_S);
        let of_scarce = -(-Self::CELL_S * plenty).exp_m1();
        let (of_canary, of_legacy) = if canary <= legacy {
            (of_scarce, of_plenty)
        } else {
            (of_plenty, of_scarce)
        };
        let compared = canary * of_canary;
        Self {
            share: compared / (compared + legacy * of_legacy),
            canary: of_canary,
        }
    }
}
