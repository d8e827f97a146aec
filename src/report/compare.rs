//! Both arms at the same times.
//!
//! Pure. An arm's figures over all of a migration are those of the times in which it had traffic: legacy's of
//! quiet nights before, the canary's of the busy days after. So differences are taken hour by hour (minute by
//! minute in a short record), and each hour counts by how much both arms together can say in it: with n and m
//! requests, n m / (n + m).
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::arms::{priced, speed};
use super::{Estimate, interval};
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::sketch::Sketch;
use crate::store::{Measured, SeriesPoint, Times};

const HOUR_MS: i64 = 3_600_000;
/// Records shorter than this are compared by the minute.
const SHORT_MS: i64 = 6 * HOUR_MS;

/// One figure of both arms at the same times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The name of the figure in `arms`.
    pub metric: &'static str,
    /// Legacy's.
    pub legacy: Estimate,
    /// The canary's.
    pub canary: Estimate,
    /// The canary's minus legacy's.
    pub difference: Estimate,
    /// `lower`, `higher`, `no-measurable-difference`, or `unknown` when there is too little to tell.
    pub verdict: &'static str,
    /// Is the canary better? Null without a measurable difference.
    pub is_better: Option<bool>,
    /// Requests of both arms that took part.
    pub requests: f64,
}

/// A stretch of time that both arms are compared in.
pub(super) type Stretch = PerArm<Measured>;

/// The record in stretches.
pub(super) fn stretches(points: &[SeriesPoint], from: UnixMillis, to: UnixMillis) -> Vec<Stretch> {
    let is_short = to.millis_since(from) <= SHORT_MS;
    let width_ms = if is_short { 60_000 } else { HOUR_MS };
    let mut stretches: BTreeMap<i64, Stretch> = BTreeMap::new();
    for point in points {
        let stretch = stretches
            .entry(point.at.0.div_euclid(width_ms))
            .or_default();
        for arm in Arm::BOTH {
            stretch.get_mut(arm).merge(point.arms.get(arm));
        }
    }
    stretches.into_values().collect()
}

/// How much a stretch counts in which the arms have so many requests.
fn overlap(legacy: f64, canary: f64) -> f64 {
    if legacy > 0.0 && canary > 0.0 {
        legacy * canary / (legacy + canary)
    } else {
        0.0
    }
}

/// Which times of an arm.
type Of = fn(&Times) -> &Sketch;

/// All differences that the record can tell.
pub(super) fn differences(
    points: &[SeriesPoint],
    from: UnixMillis,
    to: UnixMillis,
) -> Vec<Difference> {
    let stretches = stretches(points, from, to);
    let latency: Of = |times| &times.latency;
    let ttft: Of = |times| &times.ttft;
    let tpot: Of = |times| &times.tpot;
    let quantiles: [(&'static str, Of, f64); 5] = [
        ("latency_p50_ms", latency, 0.5),
        ("latency_p99_ms", latency, 0.99),
        ("ttft_p50_ms", ttft, 0.5),
        ("ttft_p99_ms", ttft, 0.99),
        ("output_tokens_per_s", tpot, 0.5),
    ];
    let mut found: Vec<Difference> = errors(&stretches).into_iter().collect();
    for (metric, of, q) in quantiles {
        found.extend(times(&stretches, metric, of, q));
    }
    found.extend(cost(&stretches));
    found
}

/// Weighted sums of both arms over the stretches in which both have something to say.
#[derive(Debug, Default)]
struct Sums {
    weight: f64,
    requests: f64,
    /// Sum of squared weights over requests, from which the effective number of requests follows.
    squares: PerArm<f64>,
}

impl Sums {
    /// Takes a stretch in; gives the weight of a request of each arm in it.
    fn add(&mut self, counts: PerArm<f64>) -> Option<PerArm<f64>> {
        let weight = overlap(counts.legacy, counts.canary);
        if weight <= 0.0 {
            return None;
        }
        self.weight += weight;
        self.requests += counts.legacy + counts.canary;
        for arm in Arm::BOTH {
            *self.squares.get_mut(arm) += weight * weight / counts.get(arm);
        }
        Some(PerArm::from_fn(|arm| weight / counts.get(arm)))
    }

    fn effective(&self, arm: Arm) -> f64 {
        self.weight * self.weight / self.squares.get(arm)
    }
}

fn errors(stretches: &[Stretch]) -> Option<Difference> {
    let mut sums = Sums::default();
    let mut failed = PerArm::<f64>::default();
    for stretch in stretches {
        let counts = PerArm::from_fn(|arm| stretch.get(arm).totals.requests as f64);
        let Some(weights) = sums.add(counts) else {
            continue;
        };
        for arm in Arm::BOTH {
            *failed.get_mut(arm) += weights.get(arm) * stretch.get(arm).totals.errors as f64;
        }
    }
    let of = |arm| {
        let all = sums.effective(arm);
        interval::share(failed.get(arm) / sums.weight * all, all)
    };
    if sums.weight <= 0.0 {
        return None;
    }
    let (legacy, canary) = (of(Arm::Legacy)?, of(Arm::Canary)?);
    let difference = interval::difference(&legacy, &canary);
    Some(told(
        "error_rate",
        legacy,
        canary,
        difference,
        sums.requests,
    ))
}

fn times(stretches: &[Stretch], metric: &'static str, of: Of, q: f64) -> Option<Difference> {
    let mut sums = Sums::default();
    let mut mixed = PerArm::<Sketch>::default();
    for stretch in stretches {
        let sketches = PerArm::from_fn(|arm| of(&stretch.get(arm).times));
        let counts = PerArm::from_fn(|arm| sketches.get(arm).count());
        let Some(weights) = sums.add(counts) else {
            continue;
        };
        for arm in Arm::BOTH {
            for (bucket, count) in sketches.get(arm).iter() {
                mixed.get_mut(arm).add(bucket, count * weights.get(arm));
            }
        }
    }
    let is_speed = metric == "output_tokens_per_s";
    let of = |arm| {
        let times = interval::quantile(mixed.get(arm), q, sums.effective(arm))?;
        if is_speed { speed(times) } else { Some(times) }
    };
    let (legacy, canary) = (of(Arm::Legacy)?, of(Arm::Canary)?);
    let difference = interval::difference(&legacy, &canary);
    Some(told(metric, legacy, canary, difference, sums.requests))
}

/// Cost of a request, canary minus legacy, over the stretches in which both are known, with their weights.
pub(super) fn costs(stretches: &[Stretch]) -> Vec<(PerArm<f64>, f64, f64)> {
    let both = stretches.iter().filter_map(|stretch| {
        let (legacy_usd, legacy) = priced(&stretch.legacy.totals)?;
        let (canary_usd, canary) = priced(&stretch.canary.totals)?;
        let each = PerArm {
            legacy: legacy_usd / legacy,
            canary: canary_usd / canary,
        };
        Some((each, overlap(legacy, canary), legacy + canary))
    });
    both.collect()
}

fn cost(stretches: &[Stretch]) -> Option<Difference> {
    let costs = costs(stretches);
    let of = |arm: Arm| {
        let each = costs
            .iter()
            .map(|(each, weight, _)| (each.get(arm) * 1e3, *weight));
        let each: Vec<(f64, f64)> = each.collect();
        interval::weighted_mean(&each)
    };
    let differences: Vec<(f64, f64)> = costs
        .iter()
        .map(|(each, weight, _)| ((each.canary - each.legacy) * 1e3, *weight))
        .collect();
    Some(told(
        "cost_per_1k_requests_usd",
        of(Arm::Legacy)?,
        of(Arm::Canary)?,
        interval::weighted_mean(&differences)?,
        costs.iter().map(|(.., requests)| requests).sum(),
    ))
}

fn told(
    metric: &'static str,
    legacy: Estimate,
    canary: Estimate,
    difference: Estimate,
    requests: f64,
) -> Difference {
    let (verdict, is_lower) = match (difference.ci95_low, difference.ci95_high) {
        (Some(low), _) if low > 0.0 => ("higher", Some(false)),
        (_, Some(high)) if high < 0.0 => ("lower", Some(true)),
        (Some(_), Some(_)) => ("no-measurable-difference", None),
        _ => ("unknown", None),
    };
    let more_is_better = metric == "output_tokens_per_s";
    Difference {
        metric,
        legacy,
        canary,
        difference,
        verdict,
        is_better: is_lower.map(|is_lower| is_lower != more_is_better),
        requests,
    }
}
