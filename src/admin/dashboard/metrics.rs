//! The metrics that the dashboard draws: what each one is, and its values per arm and step.
//!
//! Pure numbers.
#![deny(clippy::disallowed_methods)]

use crate::arm::Arm;
use crate::chart::{Point, Unit};
use crate::clock::UnixMillis;
use crate::sketch::Sketch;
use crate::store::{Measured, SeriesPoint};

/// One chart of both arms.
pub(super) struct Metric {
    /// Its name in the answer.
    pub(super) name: &'static str,
    /// What stands above it.
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    /// Its value in a step that had traffic and was looked at for so many seconds.
    value: fn(&Measured, f64) -> Option<f64>,
}

/// In the order of the page.
pub(super) const METRICS: [Metric; 8] = [
    Metric {
        name: "error-rate",
        title: "Error rate",
        unit: Unit::Share,
        value: |seen, _| per(count(seen.totals.errors), seen.totals.requests),
    },
    Metric {
        name: "requests",
        title: "Requests/s",
        unit: Unit::PerSecond,
        value: |seen, seconds| (seconds > 0.0).then(|| count(seen.totals.requests) / seconds),
    },
    Metric {
        name: "latency-p50",
        title: "Latency p50",
        unit: Unit::Millis,
        value: |seen, _| seen.times.latency.quantile_ms(0.5),
    },
    Metric {
        name: "latency-p99",
        title: "Latency p99",
        unit: Unit::Millis,
        value: |seen, _| seen.times.latency.quantile_ms(0.99),
    },
    Metric {
        name: "ttft-p50",
        title: "First token p50",
        unit: Unit::Millis,
        value: |seen, _| seen.times.ttft.quantile_ms(0.5),
    },
    Metric {
        name: "ttft-p99",
        title: "First token p99",
        unit: Unit::Millis,
        value: |seen, _| seen.times.ttft.quantile_ms(0.99),
    },
    Metric {
        name: "tokens-per-s",
        title: "Stream tokens/s p50",
        unit: Unit::PerSecond,
        value: |seen, _| speed(&seen.times.tpot),
    },
    Metric {
        name: "cost",
        title: "Cost per 1,000 answers",
        unit: Unit::Usd,
        value: |seen, _| cost_per_1000(seen),
    },
];

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn count(number: u64) -> f64 {
    number as f64
}

fn per(part: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| part / count(of))
}

fn speed(times: &Sketch) -> Option<f64> {
    let ms = times.quantile_ms(0.5)?;
    (ms > 0.0).then(|| 1_000.0 / ms)
}

/// Of the answers whose cost is known: what is unknown is not free, and what failed is not cheap.
fn cost_per_1000(seen: &Measured) -> Option<f64> {
    let known = seen.totals.known_answers();
    per(seen.totals.cost_usd? * 1_000.0, known)
}

/// The course of a metric: one point per step, in its middle. Steps that were seen for less than a quarter
/// have none, and nobody knows when in its first step the traffic began, so that this one has no rate.
pub(super) fn course(
    metric: &Metric,
    arm: Arm,
    steps: &[SeriesPoint],
    (from, to): (UnixMillis, UnixMillis),
    step_ms: i64,
) -> Vec<Point> {
    // The store gives the whole first step, however late in it `from` is.
    let seen_ms = |at: UnixMillis| at.plus_millis(step_ms).0.min(to.0) - at.0;
    let began = steps.first().map(|step| step.at).filter(|at| *at > from);
    steps
        .iter()
        .map(|step| {
            let seen = step.arms.get(arm);
            let is_rate = metric.name == "requests";
            let ms = if is_rate && began == Some(step.at) {
                0
            } else {
                seen_ms(step.at)
            };
            #[expect(clippy::cast_precision_loss, reason = "a step of time")]
            let seconds = ms as f64 / 1_000.0;
            let counts = ms * 4 >= step_ms && seen.totals.requests > 0;
            Point {
                at: middle(step.at, step_ms, (from, to)),
                value: counts.then(|| (metric.value)(seen, seconds)).flatten(),
                band: None,
            }
        })
        .collect()
}

/// Where a step is drawn.
pub(super) fn middle(
    at: UnixMillis,
    step_ms: i64,
    (from, to): (UnixMillis, UnixMillis),
) -> UnixMillis {
    let middle = at.plus_millis(step_ms / 2);
    UnixMillis(middle.0.clamp(from.0, to.0.max(from.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::PerArm;
    use crate::store::Totals;

    const MINUTE: i64 = 60_000;

    fn step(minute: i64, requests: u64, cost_usd: Option<f64>) -> SeriesPoint {
        let totals = Totals {
            requests,
            errors: requests / 10,
            cost_usd,
            unpriced: 20,
            ..Totals::default()
        };
        let legacy = Measured {
            totals,
            ..Measured::default()
        };
        SeriesPoint {
            at: UnixMillis(minute * MINUTE),
            arms: PerArm {
                legacy,
                canary: Measured::default(),
            },
        }
    }

    fn values(name: &str, steps: &[SeriesPoint], from: i64, to: i64) -> Vec<Option<f64>> {
        let metric = METRICS.iter().find(|m| m.name == name).unwrap();
        let range = (UnixMillis(from), UnixMillis(to));
        let course = course(metric, Arm::Legacy, steps, range, MINUTE);
        course.iter().map(|point| point.value).collect()
    }

    #[test]
    fn rates_are_those_of_the_time_that_was_seen() {
        let steps = [step(0, 120, None), step(1, 60, None), step(2, 9, None)];
        let end = 2 * MINUTE + 10_000;
        assert_eq!(
            values("requests", &steps, 0, end),
            [Some(2.0), Some(1.0), None],
            "ten seconds of a minute say nothing"
        );
        assert_eq!(
            values("requests", &steps, 0, end + 20_000),
            [Some(2.0), Some(1.0), Some(0.3)]
        );
        assert_eq!(
            values("requests", &steps, -1, end)[0],
            None,
            "the traffic began somewhere in this minute"
        );
        assert_eq!(
            values("requests", &steps, 45_000, end)[0],
            Some(2.0),
            "the first step is whole"
        );
        assert_eq!(values("error-rate", &steps, 0, end)[0], Some(0.1));
    }

    #[test]
    fn what_costs_an_unknown_sum_is_not_free() {
        let steps = [
            step(0, 120, Some(0.5)),
            step(1, 120, None),
            step(2, 20, Some(0.1)),
        ];
        let end = 10 * MINUTE;
        // Of 120 requests 20 are unpriced and 12 failed, at no cost.
        let answers = 88.0;
        let cost = values("cost", &steps, 0, end);
        assert_eq!(cost, [Some(500.0 / answers), None, None]);
        assert_eq!(values("latency-p99", &steps, 0, end), [None, None, None]);
    }
}
