//! `GET /charts.json`: the dashboard's charts and the values behind them, made of the same data as
//! `/api/v1/series`.
//!
//! Reads the store, a few short statements per answer, and draws; keeps nothing.

use http::StatusCode;
use serde::Serialize;

use super::metrics::{self, METRICS};
use crate::admin::query::Query;
use crate::admin::{Admin, Answer, error, json};
use crate::arm::{Arm, PerArm};
use crate::chart::{self, Frame, Mark, Unit};
use crate::clock::UnixMillis;
use crate::store::{SeriesPoint, StoreError, StoredDecision, finest_step_ms};

const MINUTE: i64 = 60_000;
/// Widths of a step, in minutes.
const STEPS: [i64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440];
const POINTS_MAX: i64 = 180;
const DECISIONS_MAX: u32 = 500;
/// Shown when nothing is known of the beginning.
const RANGE_DEFAULT_MS: i64 = 60 * MINUTE;
/// No range reaches further back.
const RANGE_MAX_MS: i64 = 366 * 24 * 60 * MINUTE;
const WIDTH_DEFAULT: u32 = 1_000;
const WEIGHT_HEIGHT: u32 = 230;
const METRIC_HEIGHT: u32 = 160;
/// Below this width charts are flatter.
const PHONE: u32 = 480;

/// What was asked for.
#[derive(Debug, Default)]
struct Asked {
    rollout: String,
    /// `None`: since the first decision.
    from: Option<UnixMillis>,
    to: Option<UnixMillis>,
    /// Pixels of the chart of the weight.
    width: Option<u32>,
    /// Pixels of the others.
    small: Option<u32>,
    offset_min: i32,
}

#[derive(Debug, Serialize)]
struct Charts<'a> {
    rollout: &'a str,
    rollout_id: &'a str,
    from_ms: i64,
    to_ms: i64,
    step_ms: i64,
    /// Where the points are drawn.
    at_ms: Vec<i64>,
    weight: WeightChart,
    metrics: Vec<MetricChart>,
}

#[derive(Debug, Serialize)]
struct WeightChart {
    svg: String,
    steps: Vec<(i64, f64)>,
    decisions: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: i64,
    at_ms: i64,
    kind: String,
    weight_from: f64,
    weight_to: f64,
    reason: String,
}

#[derive(Debug, Serialize)]
struct MetricChart {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    svg: String,
    legacy: Vec<Option<f64>>,
    canary: Vec<Option<f64>>,
}

/// Answers `query`.
pub(in crate::admin) async fn answer(
    admin: &Admin,
    query: Option<&str>,
    now: UnixMillis,
) -> Answer {
    let asked = match asked(query, now) {
        Ok(asked) => asked,
        Err(message) => return error(StatusCode::BAD_REQUEST, &message),
    };
    match answered(admin, &asked, now).await {
        Ok(answer) => answer,
        Err(failed) => error(StatusCode::SERVICE_UNAVAILABLE, &failed.to_string()),
    }
}

async fn answered(admin: &Admin, asked: &Asked, now: UnixMillis) -> Result<Answer, StoreError> {
    let Some(key) = admin.store.find_rollout(&asked.rollout).await? else {
        return Ok(error(StatusCode::NOT_FOUND, "no such rollout"));
    };
    let to = asked.to.unwrap_or(now).min(now);
    let oldest = to.plus_millis(-RANGE_MAX_MS);
    let from = match asked.from {
        Some(from) => from,
        None => {
            let line = admin.store.weights_between(&key.id, oldest, to).await?;
            since_first(line.get(1).map(|(at, _)| *at), to)
        }
    };
    let from = UnixMillis(from.0.clamp(oldest.0, to.0 - MINUTE));
    let step_ms = step_of(from, to, now);
    let points = admin.store.series(&key.id, from, to, step_ms).await?;
    let mut line = admin.store.weights_between(&key.id, from, to).await?;
    if line.is_empty() {
        line.push((from, crate::arm::Weight::ZERO));
    }
    let steps: Vec<_> = line
        .into_iter()
        .map(|(at, weight)| (at, weight.fraction()))
        .collect();
    let decisions = admin
        .store
        .decisions_between(&key.id, from, to, DECISIONS_MAX)
        .await?;
    let sheet = Sheet {
        asked,
        from,
        to,
        step_ms,
    };
    let drawn = sheet.weight(&steps, &decisions).and_then(|weight| {
        let metrics: Result<Vec<_>, _> = METRICS.iter().map(|m| sheet.metric(m, &points)).collect();
        Ok((weight, metrics?))
    });
    Ok(match drawn {
        Err(message) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
        Ok((weight, metrics)) => {
            let charts = Charts {
                rollout: &key.name,
                rollout_id: &key.id,
                from_ms: from.0,
                to_ms: to.0,
                step_ms,
                at_ms: points.iter().map(|point| sheet.middle(point).0).collect(),
                weight,
                metrics,
            };
            json(StatusCode::OK, &charts)
        }
    })
}

/// From a little before the first decision on.
fn since_first(first: Option<UnixMillis>, to: UnixMillis) -> UnixMillis {
    let Some(first) = first else {
        return to.plus_millis(-RANGE_DEFAULT_MS);
    };
    let before = (to.millis_since(first) / 20).max(2 * MINUTE);
    first.plus_millis(-before)
}

fn step_of(from: UnixMillis, to: UnixMillis, now: UnixMillis) -> i64 {
    let finest = finest_step_ms(from, now);
    let span = to.millis_since(from);
    let fits = |step: &i64| *step >= finest && span / step <= POINTS_MAX;
    let mut steps = STEPS.into_iter().map(|minutes| minutes * MINUTE);
    steps.find(fits).unwrap_or(1_440 * MINUTE * 3)
}

struct Sheet<'a> {
    asked: &'a Asked,
    from: UnixMillis,
    to: UnixMillis,
    step_ms: i64,
}

impl Sheet<'_> {
    fn frame(&self, width: u32, height: u32) -> Frame {
        Frame {
            width,
            height: if width < PHONE {
                height * 9 / 10
            } else {
                height
            },
            from: self.from,
            to: self.to,
            utc_offset_min: self.asked.offset_min,
        }
    }

    fn middle(&self, point: &SeriesPoint) -> UnixMillis {
        metrics::middle(point.at, self.step_ms, (self.from, self.to))
    }

    fn weight(
        &self,
        steps: &[(UnixMillis, f64)],
        decisions: &[StoredDecision],
    ) -> Result<WeightChart, String> {
        let marks: Vec<_> = decisions
            .iter()
            .map(|decision| Mark {
                at: decision.at,
                kind: &decision.kind,
                weight: decision.weight_to.fraction(),
            })
            .collect();
        let frame = self.frame(self.asked.width.unwrap_or(WIDTH_DEFAULT), WEIGHT_HEIGHT);
        Ok(WeightChart {
            svg: chart::weight(&frame, "Share of the canary over time", steps, &marks)?,
            steps: steps.iter().map(|(at, weight)| (at.0, *weight)).collect(),
            decisions: decisions.iter().map(shown).collect(),
        })
    }

    fn metric(
        &self,
        metric: &metrics::Metric,
        points: &[SeriesPoint],
    ) -> Result<MetricChart, String> {
        let range = (self.from, self.to);
        let courses =
            PerArm::from_fn(|arm: Arm| metrics::course(metric, arm, points, range, self.step_ms));
        let width = self.asked.small.unwrap_or(WIDTH_DEFAULT / 2);
        let lines = PerArm {
            legacy: &courses.legacy[..],
            canary: &courses.canary[..],
        };
        // A step without traffic is a gap, but for one that may be the beginning of an hour.
        let gap_ms = self.step_ms * 3 / 2;
        let frame = self.frame(width, METRIC_HEIGHT);
        let values = |arm| courses.get(arm).iter().map(|point| point.value).collect();
        Ok(MetricChart {
            name: metric.name,
            title: metric.title,
            unit: word(metric.unit),
            svg: chart::metric(&frame, metric.title, metric.unit, lines, gap_ms)?,
            legacy: values(Arm::Legacy),
            canary: values(Arm::Canary),
        })
    }
}

fn shown(decision: &StoredDecision) -> Shown {
    Shown {
        id: decision.id,
        at_ms: decision.at.0,
        kind: decision.kind.clone(),
        weight_from: decision.weight_from.fraction(),
        weight_to: decision.weight_to.fraction(),
        reason: decision.reason.clone(),
    }
}

const fn word(unit: Unit) -> &'static str {
    match unit {
        Unit::Share => "share",
        Unit::Millis => "ms",
        Unit::Usd => "usd",
        Unit::PerSecond => "per-s",
    }
}

fn asked(query: Option<&str>, now: UnixMillis) -> Result<Asked, String> {
    let query = Query::parse(
        query,
        &["rollout", "from", "to", "width", "small", "offset"],
    )?;
    let pixels = |key| query.value::<u32>(key, "is a number of pixels");
    let offset = query.value::<i32>("offset", "is a number of minutes")?;
    Ok(Asked {
        rollout: query.text("rollout").unwrap_or_default().to_owned(),
        from: query.time("from", now)?,
        to: query.time("to", now)?,
        width: pixels("width")?,
        small: pixels("small")?,
        offset_min: offset.unwrap_or(0).clamp(-1_440, 1_440),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let now = UnixMillis(1_795_266_000_000);
        let query = "rollout=a%26b%20%C3%A9&from=-1h&to=7&width=999&small=&offset=-120";
        let read = asked(Some(query), now).unwrap();
        assert_eq!(read.rollout, "a&b \u{e9}");
        assert_eq!(read.from, Some(now.plus_millis(-60 * MINUTE)));
        assert_eq!(read.to, Some(UnixMillis(7)));
        assert_eq!(
            (read.width, read.small, read.offset_min),
            (Some(999), None, -120)
        );
        for bad in ["rolout=x", "from=yesterday", "width=wide", "rollout=%ff"] {
            assert!(asked(Some(bad), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_fit_the_range_and_what_is_known() {
        let now = UnixMillis(1_795_266_000_000);
        let check = |minutes: i64, expected: i64| {
            let from = now.plus_millis(-minutes * MINUTE);
            assert_eq!(step_of(from, now, now), expected * MINUTE, "{minutes} min");
        };
        check(60, 1);
        check(6 * 60, 2);
        check(24 * 60, 10);
        check(7 * 24 * 60, 60);
        check(30 * 24 * 60, 360);
        check(366 * 24 * 60, 3 * 1_440);
    }

    #[test]
    fn all_begins_a_little_before_the_first_decision() {
        let to = UnixMillis(1_795_266_000_000);
        let check = |first: Option<i64>, minutes: i64| {
            let from = since_first(first.map(|m| to.plus_millis(-m * MINUTE)), to);
            assert_eq!(to.millis_since(from), minutes * MINUTE);
        };
        check(None, 60);
        check(Some(10), 12);
        check(Some(1_000), 1_050);
    }
}
