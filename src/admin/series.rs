//! `GET /api/v1/series`: a rollout over time, in steps.
//!
//! It chooses the steps and puts rows of the store into the shape of the API. It reads only.

use http::StatusCode;
use serde::Serialize;

use super::query::{Query, millis_of};
use super::{Admin, Answer, error, json};
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::driver::live::Percentiles;
use crate::sketch::Sketch;
use crate::store::{Measured, RolloutKey, SeriesPoint, StoreError, StoredDecision, finest_step_ms};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const POINTS_MAX: i64 = 1_000;
/// So many steps are about as many as a chart has room for.
const POINTS_WANTED: i64 = 120;
const DECISIONS_MAX: u32 = 500;

/// Steps that people can read an axis of, in minutes.
const STEPS_MIN: [i64; 16] = [
    1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440, 2_880, 10_080, 20_160, 43_200,
];

/// What part of time is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: UnixMillis,
    to: UnixMillis,
    step_ms: i64,
}

#[derive(Debug, Serialize)]
struct Series<'a> {
    rollout: &'a str,
    rollout_id: &'a str,
    from: String,
    to: String,
    step_s: i64,
    points: Vec<Point>,
    weight: Vec<WeightPoint>,
    decisions: Vec<DecisionPoint>,
}

#[derive(Debug, Serialize)]
struct Point {
    at: String,
    at_ms: i64,
    legacy: ArmPoint,
    canary: ArmPoint,
}

#[derive(Debug, Serialize)]
struct ArmPoint {
    requests: u64,
    errors: u64,
    error_rate: Option<f64>,
    rate_limited: u64,
    masked: u64,
    latency_ms: Percentiles,
    ttft_ms: Percentiles,
    tpot_ms: Percentiles,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: Option<f64>,
}

#[derive(Debug, Serialize)]
struct WeightPoint {
    at_ms: i64,
    weight: f64,
}

#[derive(Debug, Serialize)]
struct DecisionPoint {
    id: i64,
    at: String,
    at_ms: i64,
    kind: String,
    weight_from: f64,
    weight_to: f64,
    stage: i64,
    reason: String,
}

/// `GET /api/v1/series?rollout=&from=&to=&step=`
pub(super) async fn series(admin: &Admin, query: Option<&str>) -> Answer {
    let asked = Query::parse(query, &["rollout", "from", "to", "step"])
        .and_then(|query| Ok((Range::of(&query, UnixMillis::now())?, query)));
    let (range, query) = match asked {
        Ok(asked) => asked,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let rollout = match find(admin, query.text("rollout")).await {
        Ok(Some(rollout)) => rollout,
        Ok(None) => return error(StatusCode::NOT_FOUND, &no_such_rollout(admin)),
        Err(failed) => return error(StatusCode::SERVICE_UNAVAILABLE, &failed.to_string()),
    };
    match read(admin, &rollout, range).await {
        Ok(series) => json(StatusCode::OK, &series),
        Err(failed) => error(StatusCode::SERVICE_UNAVAILABLE, &failed.to_string()),
    }
}

fn no_such_rollout(admin: &Admin) -> String {
    let plane = admin.planes.borrow();
    let rollouts = plane.config.rollouts.iter();
    let names: Vec<_> = rollouts.map(|rollout| rollout.name.as_str()).collect();
    format!("no such rollout; there is {}", names.join(", "))
}

/// The rollout of this name as it runs now, else the latest one that the store knows by this name or id;
/// without a name the first of the configuration.
async fn find(admin: &Admin, asked: Option<&str>) -> Result<Option<RolloutKey>, StoreError> {
    let running = {
        let plane = admin.planes.borrow();
        let mut rollouts = plane.config.rollouts.iter().zip(&plane.rollouts);
        let found = rollouts.find(|(rollout, _)| asked.is_none_or(|name| rollout.name == name));
        found.map(|(rollout, plane)| RolloutKey {
            id: plane.rollout_id.as_str().into(),
            name: rollout.name.as_str().into(),
        })
    };
    match (running, asked) {
        (None, Some(asked)) => admin.store.find_rollout(asked).await,
        (running, _) => Ok(running),
    }
}

async fn read<'a>(
    admin: &Admin,
    rollout: &'a RolloutKey,
    range: Range,
) -> Result<Series<'a>, StoreError> {
    let Range { from, to, step_ms } = range;
    let store = &admin.store;
    let points = store.series(&rollout.id, from, to, step_ms).await?;
    let mut weight = store.weights_between(&rollout.id, from, to).await?;
    if weight.is_empty() {
        // Nothing was ever decided: it has always been what it is.
        weight.extend(running_weight(admin, &rollout.id).map(|now| (from, now)));
    }
    let decisions = store
        .decisions_between(&rollout.id, from, to, DECISIONS_MAX)
        .await?;
    Ok(Series {
        rollout: &rollout.name,
        rollout_id: &rollout.id,
        from: from.to_string(),
        to: to.to_string(),
        step_s: step_ms / 1_000,
        points: points.iter().map(point).collect(),
        weight: weight.into_iter().map(weight_point).collect(),
        decisions: decisions.into_iter().map(decision_point).collect(),
    })
}

fn running_weight(admin: &Admin, rollout_id: &str) -> Option<Weight> {
    let plane = admin.planes.borrow();
    let mut rollouts = plane.rollouts.iter();
    let found = rollouts.find(|rollout| rollout.rollout_id == rollout_id)?;
    Some(found.weights.snapshot().weight)
}

impl Range {
    fn of(query: &Query, now: UnixMillis) -> Result<Self, String> {
        let to = query.time("to", now)?.unwrap_or(now);
        let from = query.time("from", now)?;
        let from = from.unwrap_or(to.plus_millis(-DAY_MS));
        let length_ms = to.millis_since(from);
        if length_ms <= 0 {
            return Err("from is a time before to".to_owned());
        }
        let finest_ms = finest_step_ms(from, now);
        let step_ms = match query.value::<humantime::Duration>("step", STEP_WANTED)? {
            None => nice_step_ms(length_ms, finest_ms),
            Some(step) => {
                let step_ms = millis_of(*step).unwrap_or(0);
                if step_ms < MINUTE_MS || step_ms % MINUTE_MS != 0 {
                    return Err(format!("step {STEP_WANTED}"));
                }
                // What is kept by the hour fits no other steps.
                step_ms.div_euclid(finest_ms).max(1) * finest_ms
            }
        };
        if length_ms / step_ms > POINTS_MAX {
            return Err(format!(
                "more than {POINTS_MAX} steps lie between from and to: ask for a longer step"
            ));
        }
        let from = UnixMillis(from.0.div_euclid(step_ms) * step_ms);
        Ok(Self { from, to, step_ms })
    }
}

const STEP_WANTED: &str = "is a whole number of minutes like 5m";

fn nice_step_ms(length_ms: i64, finest_ms: i64) -> i64 {
    let least = (length_ms / POINTS_WANTED).max(finest_ms);
    let mut steps = STEPS_MIN.iter().map(|minutes| minutes * MINUTE_MS);
    let months = (least / (30 * DAY_MS) + 1) * 30 * DAY_MS;
    steps.find(|step| *step >= least).unwrap_or(months)
}

fn point(point: &SeriesPoint) -> Point {
    Point {
        at: point.at.to_string(),
        at_ms: point.at.0,
        legacy: arm_point(&point.arms.legacy),
        canary: arm_point(&point.arms.canary),
    }
}

fn arm_point(measured: &Measured) -> ArmPoint {
    let Measured { totals, times } = measured;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let error_rate =
        (totals.requests > 0).then(|| rounded(totals.errors as f64 / totals.requests as f64));
    ArmPoint {
        requests: totals.requests,
        errors: totals.errors,
        error_rate,
        rate_limited: totals.rate_limited,
        masked: totals.masked,
        latency_ms: percentiles(&times.latency),
        ttft_ms: percentiles(&times.ttft),
        tpot_ms: percentiles(&times.tpot),
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        cost_usd: totals.cost_usd.map(rounded),
    }
}

fn percentiles(sketch: &Sketch) -> Percentiles {
    let of = |q| sketch.quantile_ms(q).map(|ms| (ms * 1e3).round() / 1e3);
    Percentiles {
        p50: of(0.5),
        p90: of(0.9),
        p99: of(0.99),
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

fn weight_point((at, weight): (UnixMillis, Weight)) -> WeightPoint {
    WeightPoint {
        at_ms: at.0,
        weight: weight.fraction(),
    }
}

fn decision_point(decision: StoredDecision) -> DecisionPoint {
    DecisionPoint {
        id: decision.id,
        at: decision.at.to_string(),
        at_ms: decision.at.0,
        kind: decision.kind,
        weight_from: decision.weight_from.fraction(),
        weight_to: decision.weight_to.fraction(),
        stage: decision.stage.saturating_add(1),
        reason: decision.reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn range(raw: &str) -> Result<Range, String> {
        let query = Query::parse(Some(raw), &["from", "to", "step"]).unwrap();
        Range::of(&query, NOW)
    }

    #[test]
    fn the_step_follows_from_the_range_unless_it_is_asked_for() {
        let check = |raw: &str, minutes: i64, from_hours: f64| {
            let range = range(raw).unwrap();
            assert_eq!(range.step_ms, minutes * MINUTE_MS, "{raw}");
            #[expect(clippy::cast_precision_loss, reason = "hours")]
            let before = NOW.millis_since(range.from) as f64 / HOUR_MS as f64;
            assert!((before - from_hours).abs() < 1e-6, "{raw}: {before}");
        };
        // NOW is eight in the morning.
        check("", 15, 24.0);
        check("from=-1h", 1, 1.0);
        check("from=-30m&step=1h", 60, 1.0);
        check("from=-6h", 5, 6.0);
        check("from=-47h", 30, 47.0);
        check("from=-7d", 120, 168.0);
        check("from=-30d", 360, 722.0);
        check("from=-7d&step=1h", 60, 168.0);
        check("from=-7d&step=5m&to=-6d", 60, 168.0);
        check("from=-7d&step=90m", 60, 168.0);
        check("from=0", 259_200, 500_000.0);
    }

    #[test]
    fn a_range_that_cannot_be_shown_is_refused_with_a_reason() {
        let check = |raw: &str, expected: &str| {
            let wrong = range(raw).unwrap_err();
            assert!(wrong.contains(expected), "{raw}: {wrong}");
        };
        check("from=now", "from is a time before to");
        check("to=-25h&from=-24h", "from is a time before to");
        check("from=x", "from is a time like");
        check("step=x", "step is a whole number of minutes like 5m");
        check("step=90s", "step is a whole number of minutes like 5m");
        check("step=0m", "step is a whole number of minutes like 5m");
        check("step=1m", "more than 1000 steps");
        check("from=-365d&step=1h", "more than 1000 steps");
    }
}
