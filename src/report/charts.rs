//! The charts of a report: the weight with its decisions, and what both arms did.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use super::arms::priced;
use super::{Estimate, Report, interval};
use crate::arm::{Arm, PerArm};
use crate::chart::{self, Frame, Mark, Point, Unit};
use crate::clock::UnixMillis;
use crate::sketch::Sketch;
use crate::store::{Measured, SeriesPoint};

const MINUTE_MS: i64 = 60_000;
/// Widths of a bin; the first is taken that makes no more than [`BINS_MAX`] of the time.
const WIDTHS_MIN: [i64; 9] = [1, 2, 5, 10, 30, 60, 180, 360, 1_440];
const BINS_MAX: i64 = 160;
const WIDTH: u32 = 840;
const WEIGHT_HEIGHT: u32 = 220;
const HEIGHT: u32 = 190;
/// Marks on the line of the weight; more cannot be told apart.
const MARKS_MAX: usize = 400;

/// A chart with what stands above it.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) svg: String,
}

/// The width of a bin.
pub(super) fn bin_ms(from: UnixMillis, to: UnixMillis) -> i64 {
    let fits = |width: &&i64| to.millis_since(from) / (**width * MINUTE_MS) <= BINS_MAX;
    let width = WIDTHS_MIN.iter().find(fits).copied();
    width.unwrap_or(7 * 1_440) * MINUTE_MS
}

/// The record in bins.
pub(super) fn binned(points: &[SeriesPoint], bin_ms: i64) -> Vec<SeriesPoint> {
    let mut bins: BTreeMap<i64, SeriesPoint> = BTreeMap::new();
    for point in points {
        let at = point.at.0.div_euclid(bin_ms) * bin_ms;
        let bin = bins.entry(at).or_default();
        bin.at = UnixMillis(at);
        for arm in Arm::BOTH {
            bin.arms.get_mut(arm).merge(point.arms.get(arm));
        }
    }
    bins.into_values().collect()
}

/// What a chart shows of an arm in a bin.
type Metric = fn(&Measured) -> Option<Estimate>;

fn quantile(of: &Sketch, q: f64) -> Option<Estimate> {
    interval::quantile(of, q, of.count())
}

/// All charts that have anything to show.
pub(super) fn charts(report: &Report) -> Vec<Chart> {
    let frame = |height| Frame {
        width: WIDTH,
        height,
        from: report.from,
        to: UnixMillis(report.to.0.max(report.from.0 + 1)),
        utc_offset_min: 0,
    };
    let mut charts: Vec<Chart> = weight(report, &frame(WEIGHT_HEIGHT)).into_iter().collect();
    let metrics: [(&'static str, Unit, Metric); 6] = [
        ("Error rate", Unit::Share, |it| {
            interval::share(it.totals.errors as f64, it.totals.requests as f64)
        }),
        ("Latency, median", Unit::Millis, |it| {
            quantile(&it.times.latency, 0.5)
        }),
        ("Latency, 99th percentile", Unit::Millis, |it| {
            quantile(&it.times.latency, 0.99)
        }),
        ("Time to the first token, median", Unit::Millis, |it| {
            quantile(&it.times.ttft, 0.5)
        }),
        (
            "Time to the first token, 99th percentile",
            Unit::Millis,
            |it| quantile(&it.times.ttft, 0.99),
        ),
        ("Cost of 1,000 answers", Unit::Usd, |it| {
            let (cost_usd, requests) = priced(&it.totals)?;
            Some(Estimate {
                value: 1_000.0 * cost_usd / requests,
                ci95_low: None,
                ci95_high: None,
            })
        }),
    ];
    for (title, unit, metric) in metrics {
        charts.extend(arms(report, &frame(HEIGHT), title, unit, metric));
    }
    charts
}

fn weight(report: &Report, frame: &Frame) -> Option<Chart> {
    let steps: Vec<_> = report
        .weights
        .iter()
        .map(|step| (step.at, step.weight))
        .collect();
    let late = report.decisions.len().saturating_sub(MARKS_MAX);
    let marks: Vec<Mark<'_>> = report
        .decisions
        .iter()
        .skip(late)
        .map(|decision| Mark {
            at: decision.at,
            kind: &decision.kind,
            weight: decision.weight_to.fraction(),
        })
        .collect();
    let title = "Share of the traffic on the canary";
    let svg = chart::weight(frame, title, &steps, &marks).ok()?;
    Some(Chart { title, svg })
}

fn arms(
    report: &Report,
    frame: &Frame,
    title: &'static str,
    unit: Unit,
    metric: Metric,
) -> Option<Chart> {
    let points = PerArm::from_fn(|arm| -> Vec<Point> {
        let point = |bin: &SeriesPoint| {
            let estimate = metric(bin.arms.get(arm));
            let (from, to) = (bin.at.0, bin.at.0 + report.bin_ms);
            let middle = (from.max(report.from.0) + to.min(report.to.0)) / 2;
            Point {
                at: UnixMillis(middle.clamp(report.from.0, report.to.0)),
                value: estimate.map(|it| it.value),
                band: estimate.and_then(|it| it.ci95_low.zip(it.ci95_high)),
            }
        };
        report.bins.iter().map(point).collect()
    });
    let has_any = |points: &Vec<Point>| points.iter().any(|point| point.value.is_some());
    if !has_any(&points.legacy) && !has_any(&points.canary) {
        return None;
    }
    let slices = PerArm {
        legacy: &points.legacy[..],
        canary: &points.canary[..],
    };
    let svg = chart::metric(frame, title, unit, slices, report.bin_ms * 2).ok()?;
    Some(Chart { title, svg })
}
