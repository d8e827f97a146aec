//! What the canary saves.
//!
//! Pure. The same requests at legacy's cost: what a request costs on each arm is compared at the same times,
//! where chance alone gave it to one or the other, and that difference is taken for every request of the
//! canary. Where the arms never ran at the same time with known costs, their means over all of it are compared,
//! and the method says so.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use super::arms::{answered, known, scaled};
use super::compare::{costs, stretches};
use super::{ArmFigures, Estimate, interval};
use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::store::{SeriesPoint, Totals};

const MONTH_MS: f64 = 30.0 * 86_400_000.0;
/// The present traffic is that of the last week.
const PRESENT_MS: i64 = 7 * 86_400_000;
/// Shorter records say nothing about a month.
const PRESENT_MIN_MS: i64 = 600_000;

/// Money saved; negative where the canary costs more.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Savings {
    /// Legacy's cost of a request minus the canary's.
    pub per_request_usd: Estimate,
    /// So far, by the canary's answered requests of known cost.
    pub so_far_usd: Estimate,
    /// The canary's requests that were counted for it.
    pub canary_requests: u64,
    /// Per 30 days, with all of the present traffic on the canary.
    pub per_month_usd: Option<Estimate>,
    /// The present answered requests of both arms per 30 days.
    pub requests_per_month: Option<f64>,
    /// How that was found, in words.
    pub method: String,
    /// True if the arms were compared at the same times.
    pub is_same_time: bool,
}

pub(super) fn savings(
    points: &[SeriesPoint],
    arms: &PerArm<ArmFigures>,
    canary: &Totals,
    from: UnixMillis,
    to: UnixMillis,
) -> Option<Savings> {
    let stretches = stretches(points, from, to);
    let less: Vec<(f64, f64)> = costs(&stretches)
        .iter()
        .map(|(each, weight, _)| (each.legacy - each.canary, *weight))
        .collect();
    let (per_request, is_same_time) = match interval::weighted_mean(&less) {
        Some(less) => (less, true),
        None => {
            let of = |arm: &ArmFigures| arm.cost_per_1k_requests_usd;
            let (legacy, canary) = (of(&arms.legacy)?, of(&arms.canary)?);
            (scaled(interval::difference(&canary, &legacy), 1e-3), false)
        }
    };
    let priced = known(canary);
    let per_month = per_month(points, to);
    Some(Savings {
        per_request_usd: per_request,
        so_far_usd: scaled(per_request, priced as f64),
        canary_requests: priced,
        per_month_usd: per_month.map(|requests| scaled(per_request, requests)),
        requests_per_month: per_month,
        method: method(is_same_time).to_owned(),
        is_same_time,
    })
}

const fn method(is_same_time: bool) -> &'static str {
    if is_same_time {
        "Legacy's cost per answered request minus the canary's in the same stretches of time, each weighted by \
         how much both arms can say in it, times the requests of known cost that the canary answered; per month: \
         times the requests that both arms answered, in 30 days at the rate of the last seven days, all of them \
         on the canary. What failed is in none of these."
    } else {
        "The arms never ran at the same time with known costs, so this is the mean cost of legacy's answered \
         requests minus that of the canary's over different times: a change of the traffic in between is in it. \
         Times the requests of known cost that the canary answered; per month: times the requests that both arms \
         answered, in 30 days at the rate of the last seven days."
    }
}

/// Answered requests of both arms in 30 days at the rate of the last week.
fn per_month(points: &[SeriesPoint], to: UnixMillis) -> Option<f64> {
    let since = to.plus_millis(-PRESENT_MS);
    let lately = points.iter().filter(|point| point.at >= since);
    let first = lately.clone().next()?.at;
    let length_ms = to.millis_since(first);
    if length_ms < PRESENT_MIN_MS {
        return None;
    }
    let requests: u64 = lately
        .map(|point| answered(&point.arms.legacy.totals) + answered(&point.arms.canary.totals))
        .sum();
    Some(requests as f64 * MONTH_MS / length_ms as f64)
}
