//! What each arm did, by itself.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use super::{Estimate, interval};
use crate::arm::Arm;
use crate::sketch::Sketch;
use crate::store::{SeriesPoint, Times, Totals};

/// Live traffic of one arm. Times and speeds are those of answers that ended well.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmFigures {
    /// First attempts.
    pub requests: u64,
    /// Of these, failed by the arm's fault.
    pub errors: u64,
    /// Errors per request, a fraction.
    pub error_rate: Option<Estimate>,
    /// Answered with 429.
    pub rate_limited: u64,
    /// Answered with another 4xx that the client is blamed for.
    pub rejected: u64,
    /// Given up by the client.
    pub client_gone: u64,
    /// Median of the total time.
    pub latency_p50_ms: Option<Estimate>,
    /// Its 99th percentile.
    pub latency_p99_ms: Option<Estimate>,
    /// Median of the time to the first token; streams only.
    pub ttft_p50_ms: Option<Estimate>,
    /// Its 99th percentile.
    pub ttft_p99_ms: Option<Estimate>,
    /// Median speed after the first token; streams only.
    pub output_tokens_per_s: Option<Estimate>,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Input tokens read from a prompt cache.
    pub cached_input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What the requests of known cost did cost.
    pub cost_usd: Option<f64>,
    /// Cost of a thousand answered requests whose cost is known; failures are in neither number.
    pub cost_per_1k_requests_usd: Option<Estimate>,
    /// Requests with tokens but of unknown cost.
    pub unpriced: u64,
    /// Requests that were answered and stated no tokens.
    pub no_usage: u64,
    /// What the provider itself says.
    pub reported_cost_usd: Option<f64>,
}

impl ArmFigures {
    pub(super) fn new(totals: &Totals, times: &Times, points: &[SeriesPoint], arm: Arm) -> Self {
        let of = |sketch: &Sketch, q: f64| interval::quantile(sketch, q, sketch.count());
        Self {
            requests: totals.requests,
            errors: totals.errors,
            error_rate: interval::share(totals.errors as f64, totals.requests as f64),
            rate_limited: totals.rate_limited,
            rejected: totals.rejected,
            client_gone: totals.client_gone,
            latency_p50_ms: of(&times.latency, 0.5),
            latency_p99_ms: of(&times.latency, 0.99),
            ttft_p50_ms: of(&times.ttft, 0.5),
            ttft_p99_ms: of(&times.ttft, 0.99),
            output_tokens_per_s: of(&times.tpot, 0.5).and_then(speed),
            input_tokens: totals.input_tokens,
            cached_input_tokens: totals.cached_input_tokens,
            output_tokens: totals.output_tokens,
            cost_usd: totals.cost_usd,
            cost_per_1k_requests_usd: cost(points, arm).map(|it| scaled(it, 1_000.0)),
            unpriced: totals.unpriced,
            no_usage: totals.no_usage,
            reported_cost_usd: totals.reported_cost_usd,
        }
    }
}

/// Tokens per second, from the time per token.
pub(super) fn speed(tpot_ms: Estimate) -> Option<Estimate> {
    let per_s = |ms: f64| (ms > 0.0).then(|| 1_000.0 / ms);
    Some(Estimate {
        value: per_s(tpot_ms.value)?,
        ci95_low: tpot_ms.ci95_high.and_then(per_s),
        ci95_high: tpot_ms.ci95_low.and_then(per_s),
    })
}

pub(super) fn scaled(estimate: Estimate, factor: f64) -> Estimate {
    let bounds = [estimate.ci95_low, estimate.ci95_high].map(|it| it.map(|it| it * factor));
    let [low, high] = if factor < 0.0 {
        [bounds[1], bounds[0]]
    } else {
        bounds
    };
    Estimate {
        value: estimate.value * factor,
        ci95_low: low,
        ci95_high: high,
    }
}

/// Requests that the arm answered. What failed or was refused costs nothing and brings nothing: whoever takes
/// it over pays, so it must not make its arm look cheap.
pub(super) fn answered(totals: &Totals) -> u64 {
    let unanswered = totals.errors + totals.rate_limited + totals.rejected;
    totals.requests.saturating_sub(unanswered)
}

/// Answered requests whose cost is known.
pub(super) fn known(totals: &Totals) -> u64 {
    totals.known_answers()
}

/// [`known`], behind what they did cost.
pub(super) fn priced(totals: &Totals) -> Option<(f64, f64)> {
    let cost_usd = totals.cost_usd?;
    let known = known(totals);
    (known > 0).then_some((cost_usd, known as f64))
}

/// Cost per request by the scatter of minutes or hours.
fn cost(points: &[SeriesPoint], arm: Arm) -> Option<Estimate> {
    let stretches: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| priced(&point.arms.get(arm).totals))
        .collect();
    interval::ratio(&stretches)
}
