//! How long a rollout will take at a given traffic, stage by stage, before it has begun.
//!
//! Pure, and not in the way of any decision. `cutover plan` shows it, and [`super::announce`] says it at
//! the start of a stage. Everything assumes a canary that equals legacy: a better one is proven sooner, one
//! near its limits later or never.
#![deny(clippy::disallowed_methods)]

use crate::arm::Weight;
use crate::clock::for_people;
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::words;

mod advice;
mod need;
mod passage;
mod sentence;

pub(super) use advice::better_weight;
pub use advice::{Advice, Better, advice};
pub use need::{GuardNeed, Need};

/// A stage whose proof takes longer than this, in milliseconds, is said to be slow: two days.
pub const SLOW_MS: i64 = 2 * 86_400_000;

const LONGEST_MS: f64 = 1e15;

/// What is known of the traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Requests per second of the rollout, both arms together; above 0.
    pub requests_per_s: f64,
    /// Legacy's error rate, 0 to 1.
    pub legacy_error_rate: f64,
    /// Share of requests that are streams; `None` when it is not known: the guards on first tokens are
    /// left out then.
    pub streamed: Option<f64>,
    /// Over-dispersion of legacy's errors, at least 1: how much longer clustered errors make every proof.
    pub phi: f64,
}

/// A usual value, and one that nine of ten stay below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean of a stage; the median of a whole migration.
    pub usual: f64,
    /// Nine of ten are below this.
    pub p90: f64,
}

/// A whole migration.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The time of the warm-up in milliseconds.
    pub warm_up_ms: i64,
    /// The stages in order.
    pub stages: Vec<StagePlan>,
    /// Milliseconds from the first request to `complete`, without the waits for approval; `None` if a
    /// stage never ends.
    pub total_ms: Option<Spread>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// The canary's share.
    pub weight: Weight,
    /// The least time on it, in milliseconds.
    pub dwell_ms: i64,
    /// An operator must say yes before the next one.
    pub approve: bool,
    /// What the proof takes.
    pub proof: Proof,
    /// The longer of dwell and proof in milliseconds; `None` if it never ends.
    pub time_ms: Option<Spread>,
    /// What each guard that is on needs.
    pub guards: Vec<GuardNeed>,
}

/// What the proof of a stage takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Proof {
    /// None: it is the last stage, or there is nothing to compare with.
    NotNeeded,
    /// So much.
    Takes {
        /// Canary requests until every guard has its proof.
        requests: Spread,
        /// The time for these at this rate, in milliseconds.
        ms: Spread,
        /// The guard that is the last to be proven, as a rule.
        slowest: GuardKind,
    },
    /// This guard can never be proven.
    Never(GuardKind),
    /// No guard that is on can prove anything.
    NoGuard,
}

/// What decides how long a stage lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dominates {
    /// Its dwell.
    Dwell,
    /// Its proof.
    Proof,
    /// It ends at once.
    Nothing,
}

impl Dominates {
    /// The word used in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dwell => "dwell",
            Self::Proof => "proof",
            Self::Nothing => "nothing",
        }
    }
}

impl StagePlan {
    /// What decides how long it lasts, as a rule.
    #[must_use]
    pub fn dominates(&self) -> Dominates {
        match self.proof {
            Proof::Takes { ms, .. } if ms.usual > self.dwell_ms as f64 => Dominates::Proof,
            Proof::Never(_) | Proof::NoGuard => Dominates::Proof,
            _ if self.dwell_ms > 0 => Dominates::Dwell,
            _ => Dominates::Nothing,
        }
    }

    /// True if waiting for the proof takes more than [`SLOW_MS`] and more than the dwell.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        let slow = |ms: f64| ms > SLOW_MS as f64;
        self.dominates() == Dominates::Proof
            && matches!(self.proof, Proof::Takes { ms, .. } if slow(ms.usual))
    }
}

/// Plans a whole migration.
#[must_use]
pub fn plan(policy: &Policy, traffic: &Traffic) -> Plan {
    let warm_up_ms = ms_of(policy.warm_up_requests as f64 / traffic.requests_per_s);
    let mut stages = Vec::new();
    let mut times = Vec::new();
    for index in 0..policy.stages.len() {
        if let Some((stage, points)) = stage(policy, index, traffic) {
            stages.push(stage);
            times.push(points);
        }
    }
    let total_ms = times
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .map(|times| total(warm_up_ms, &times));
    Plan {
        warm_up_ms: whole_ms(warm_up_ms),
        stages,
        total_ms,
    }
}

/// Plans one stage, from 0; `None` if there is no such stage.
#[must_use]
pub fn plan_stage(policy: &Policy, index: usize, traffic: &Traffic) -> Option<StagePlan> {
    stage(policy, index, traffic).map(|(stage, _)| stage)
}

/// A stage, and its time in milliseconds at points of equal probability; `None` if it never ends.
fn stage(
    policy: &Policy,
    index: usize,
    traffic: &Traffic,
) -> Option<(StagePlan, Option<Vec<f64>>)> {
    let stage = policy.stages.get(index)?;
    let is_last = index + 1 == policy.stages.len();
    let needs = need::needs(policy, traffic, stage.weight);
    let canary_per_s = traffic.requests_per_s * stage.weight.fraction();
    let dwell_ms = stage.dwell_ms as f64;
    let requests = passage::slowest(&needs.climbs);
    let proof = match verdict(&needs.guards) {
        _ if is_last || stage.weight == Weight::FULL => Proof::NotNeeded,
        Err(stuck) => stuck,
        Ok(slowest) => {
            let requests = spread(&requests);
            Proof::Takes {
                requests,
                ms: Spread {
                    usual: ms_of(requests.usual / canary_per_s),
                    p90: ms_of(requests.p90 / canary_per_s),
                },
                slowest,
            }
        }
    };
    let points: Option<Vec<f64>> = match proof {
        Proof::NotNeeded => Some(vec![dwell_ms; passage::POINTS]),
        Proof::Takes { .. } => {
            let time = |requests: &f64| ms_of(requests / canary_per_s).max(dwell_ms);
            Some(requests.iter().map(time).collect())
        }
        Proof::Never(_) | Proof::NoGuard => None,
    };
    let stage = StagePlan {
        weight: stage.weight,
        dwell_ms: stage.dwell_ms,
        approve: stage.approve,
        proof,
        time_ms: points.as_deref().map(spread),
        guards: needs.guards,
    };
    Some((stage, points))
}

/// The slowest guard, or why the proof never comes.
fn verdict(guards: &[GuardNeed]) -> Result<GuardKind, Proof> {
    let mut slowest: Option<(GuardKind, f64)> = None;
    for guard in guards {
        match guard.need {
            Need::Never => return Err(Proof::Never(guard.kind)),
            Need::Requests(requests) if slowest.is_none_or(|(_, most)| requests > most) => {
                slowest = Some((guard.kind, requests));
            }
            Need::Requests(_) | Need::Nothing | Need::NotApplicable => {}
        }
    }
    slowest.map(|(kind, _)| kind).ok_or(Proof::NoGuard)
}

fn spread(points: &[f64]) -> Spread {
    let mean = points.iter().sum::<f64>() / points.len().max(1) as f64;
    let p90 = points.get(points.len() * 9 / 10).copied().unwrap_or(mean);
    Spread { usual: mean, p90 }
}

/// Median and p90 of the sum of all stages. The stages are independent; a lattice walks through all of
/// their distributions at once, which needs no chance and is as even as chance is not.
fn total(warm_up_ms: f64, stages: &[Vec<f64>]) -> Spread {
    // Next to the golden section of the number of points.
    const STRIDE: usize = 159;
    let mut sums: Vec<f64> = (0..passage::POINTS)
        .map(|point| {
            let mut place = point;
            let mut sum = warm_up_ms;
            for stage in stages {
                sum += stage.get(place).copied().unwrap_or_default();
                place = place * STRIDE % passage::POINTS;
            }
            sum
        })
        .collect();
    sums.sort_by(f64::total_cmp);
    let at = |place: usize| sums.get(place).copied().unwrap_or_default();
    Spread {
        usual: at(passage::POINTS / 2),
        p90: at(passage::POINTS * 9 / 10),
    }
}

fn ms_of(seconds: f64) -> f64 {
    (seconds * 1_000.0).min(LONGEST_MS)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "bounded by LONGEST_MS, far inside the range"
)]
fn whole_ms(ms: f64) -> i64 {
    ms.round() as i64
}

/// An estimate of time for people: `18d`, `3d 20h`, `6h 38m`, `25m`; no finer than it is known.
#[must_use]
pub fn roughly(ms: f64) -> String {
    const MINUTE: f64 = 60_000.0;
    let unit = match ms {
        _ if ms >= 10.0 * 1_440.0 * MINUTE => 1_440.0 * MINUTE,
        _ if ms >= 1_440.0 * MINUTE => 60.0 * MINUTE,
        _ if ms >= 10.0 * MINUTE => MINUTE,
        _ => 1_000.0,
    };
    for_people(whole_ms((ms / unit).round() * unit))
}

/// A rate for people, in the unit that gives it digits: `16/s`, `10/min`, `5/h`.
#[must_use]
pub fn rate_words(requests_per_s: f64) -> String {
    let (rate, unit) = match requests_per_s {
        // Up to 1,000 a minute people think in minutes.
        rate if rate * 60.0 >= 1_000.0 => (rate, "s"),
        rate if rate * 60.0 >= 1.0 => (rate * 60.0, "min"),
        rate => (rate * 3_600.0, "h"),
    };
    if rate >= 10.0 {
        format!("{rate:.0}/{unit}")
    } else {
        format!("{}/{unit}", words::factor(rate))
    }
}

#[cfg(test)]
mod tests;
