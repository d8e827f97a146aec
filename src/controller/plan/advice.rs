//! What a plan suggests to the operator, as values; `sentence` puts them into words.
//!
//! Pure. Nothing acts upon advice; it is shown, and each piece names what to change.
#![deny(clippy::disallowed_methods)]

use super::need::{self, Need};
use super::passage;
use super::{Dominates, Plan, Proof, SLOW_MS, StagePlan, Traffic, ms_of};
use crate::arm::Weight;
use crate::controller::guard;
use crate::controller::policy::{GuardKind, Policy};

/// First weights that people choose, in percent.
const CANDIDATES: [u16; 11] = [1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50];
/// A guard that needs so many times what the next one needs is the one to look at.
const TIGHT: f64 = 5.0;

/// A weight that would take less time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Better {
    /// The weight.
    pub weight: Weight,
    /// The time of its proof in milliseconds.
    pub ms: f64,
}

/// One suggestion.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// The first stage takes days at this rate.
    SlowFirstStage {
        /// Its weight.
        weight: Weight,
        /// The time of its proof in milliseconds.
        ms: f64,
        /// Requests per second, both arms together.
        requests_per_s: f64,
        /// A first weight that takes less; `None` when none does.
        better: Option<Better>,
    },
    /// Later stages that take days each: weight and milliseconds.
    SlowStages(Vec<(Weight, f64)>),
    /// A limit without room above legacy: an equal canary can never be proven.
    NeverProven(GuardKind),
    /// At this stage no guard that is on can prove health, so it never ends by itself.
    NoGuardProves(Weight),
    /// One guard needs many times what the next one needs.
    TightLimit {
        /// Which.
        guard: GuardKind,
        /// How many times.
        times: f64,
    },
    /// A guard on the slowest 1% takes longer than the error guard.
    TailSlowerThanErrors {
        /// Which.
        guard: GuardKind,
        /// Where.
        weight: Weight,
    },
    /// The proof is there before the dwell is over, at every stage.
    DwellDominates,
    /// A guard that allows everything at this traffic, or whose proof no promotion asks for.
    AllowsEverything(GuardKind),
    /// The share of streams is not known, so the guards on first tokens are left out.
    StreamsUnknown,
    /// Hardly anything is streamed, so the guards on first tokens do not apply.
    NoStreams,
    /// Stages that wait for an operator.
    Approvals(usize),
}

impl Advice {
    /// The word used in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SlowFirstStage { .. } => "slow-first-stage",
            Self::SlowStages(_) => "slow-stages",
            Self::NeverProven(_) => "never-proven",
            Self::NoGuardProves(_) => "no-guard-proves",
            Self::TightLimit { .. } => "tight-limit",
            Self::TailSlowerThanErrors { .. } => "tail-slower-than-errors",
            Self::DwellDominates => "dwell-dominates",
            Self::AllowsEverything(_) => "allows-everything",
            Self::StreamsUnknown => "streams-unknown",
            Self::NoStreams => "no-streams",
            Self::Approvals(_) => "approvals",
        }
    }

    /// The weight that it suggests, if it does.
    #[must_use]
    pub const fn better_weight(&self) -> Option<Weight> {
        match self {
            Self::SlowFirstStage {
                better: Some(better),
                ..
            } => Some(better.weight),
            _ => None,
        }
    }
}

/// What to change, most important first.
#[must_use]
pub fn advice(policy: &Policy, traffic: &Traffic) -> Vec<Advice> {
    advice_on(policy, traffic, &super::plan(policy, traffic))
}

fn advice_on(policy: &Policy, traffic: &Traffic, plan: &Plan) -> Vec<Advice> {
    let mut all = stuck(plan);
    let first = slow_first(policy, traffic, plan);
    // A better first weight leaves out the stages up to it.
    let from = first.as_ref().and_then(Advice::better_weight);
    all.extend(first);
    let later: Vec<(Weight, f64)> = plan
        .stages
        .iter()
        .skip(1)
        .filter(|stage| stage.is_slow() && Some(stage.weight) > from)
        .filter_map(|stage| Some((stage.weight, proof_ms(stage)?)))
        .collect();
    if !later.is_empty() {
        all.push(Advice::SlowStages(later));
    }
    all.extend(slow_guard(plan));
    let mut proven = plan
        .stages
        .iter()
        .filter(|stage| matches!(stage.proof, Proof::Takes { .. }))
        .peekable();
    let in_its_dwell = |stage: &StagePlan| matches!(stage.proof, Proof::Takes { ms, .. } if ms.p90 <= stage.dwell_ms as f64);
    if proven.peek().is_some() && proven.all(in_its_dwell) {
        all.push(Advice::DwellDominates);
    }
    if let Some(first) = plan.stages.first() {
        let vacuous = first.guards.iter().filter(|g| g.need == Need::Nothing);
        all.extend(vacuous.map(|guard| Advice::AllowsEverything(guard.kind)));
    }
    if policy.guards.iter().any(|spec| guard::is_ttft(spec.kind)) {
        match traffic.streamed {
            None => all.push(Advice::StreamsUnknown),
            Some(streamed) if streamed < need::STREAMED_MIN => all.push(Advice::NoStreams),
            Some(_) => {}
        }
    }
    let gates = plan.stages.iter().filter(|stage| stage.approve).count();
    if gates > 0 {
        all.push(Advice::Approvals(gates));
    }
    all
}

/// Why the rollout would never end, once per cause.
fn stuck(plan: &Plan) -> Vec<Advice> {
    let mut found = Vec::new();
    for stage in &plan.stages {
        if stage.proof == Proof::NoGuard {
            found.push(Advice::NoGuardProves(stage.weight));
        }
        for guard in &stage.guards {
            let never = Advice::NeverProven(guard.kind);
            if guard.need == Need::Never && !found.contains(&never) {
                found.push(never);
            }
        }
    }
    found
}

fn slow_first(policy: &Policy, traffic: &Traffic, plan: &Plan) -> Option<Advice> {
    let first = plan.stages.first().filter(|stage| stage.is_slow())?;
    let ms = proof_ms(first)?;
    Some(Advice::SlowFirstStage {
        weight: first.weight,
        ms,
        requests_per_s: traffic.requests_per_s,
        better: better_weight(policy, traffic, first.weight, ms),
    })
}

/// The guard to look at in the stage whose proof takes longest, if the proof decides there.
fn slow_guard(plan: &Plan) -> Option<Advice> {
    let stage = plan
        .stages
        .iter()
        .filter(|stage| stage.dominates() == Dominates::Proof)
        .max_by(|a, b| {
            let ms = |stage: &StagePlan| proof_ms(stage).unwrap_or(0.0);
            ms(a).total_cmp(&ms(b))
        })?;
    let Proof::Takes { slowest, .. } = stage.proof else {
        return None;
    };
    let need_of = |kind: GuardKind| {
        stage
            .guards
            .iter()
            .find_map(|guard| match guard.need {
                Need::Requests(requests) if guard.kind == kind => Some(requests),
                _ => None,
            })
            .unwrap_or(0.0)
    };
    let next = GuardKind::ALL
        .into_iter()
        .filter(|&kind| kind != slowest)
        .map(need_of)
        .fold(0.0, f64::max);
    let times = need_of(slowest) / next;
    if next > 0.0 && times >= TIGHT {
        return Some(Advice::TightLimit {
            guard: slowest,
            times,
        });
    }
    let is_tail = matches!(slowest, GuardKind::LatencyP99 | GuardKind::TtftP99);
    (is_tail && need_of(GuardKind::ErrorRate) > 0.0).then_some(Advice::TailSlowerThanErrors {
        guard: slowest,
        weight: stage.weight,
    })
}

fn proof_ms(stage: &StagePlan) -> Option<f64> {
    match stage.proof {
        Proof::Takes { ms, .. } => Some(ms.usual),
        _ => None,
    }
}

/// The first weight above `weight` whose proof takes less than two days, else the fastest, if it is
/// clearly faster than `ms`.
pub(in crate::controller) fn better_weight(
    policy: &Policy,
    traffic: &Traffic,
    weight: Weight,
    ms: f64,
) -> Option<Better> {
    let mut fastest: Option<Better> = None;
    for percent in CANDIDATES {
        let Some(candidate) = Weight::from_bps(percent * 100).filter(|&other| other > weight)
        else {
            continue;
        };
        let climbs = need::needs(policy, traffic, candidate).climbs;
        let requests = super::spread(&passage::slowest(&climbs)).usual;
        let taken = ms_of(requests / (traffic.requests_per_s * candidate.fraction()));
        if fastest.is_none_or(|fastest| taken < fastest.ms) {
            fastest = Some(Better {
                weight: candidate,
                ms: taken,
            });
        }
        if taken < SLOW_MS as f64 {
            break;
        }
    }
    fastest.filter(|fastest| fastest.ms < 0.8 * ms)
}
