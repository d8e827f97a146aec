//! Reports against naive figures, their intervals against many drawn worlds, and pages against hostile text.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use super::*;
use crate::arm::Arm;
use crate::sketch::Sketch;
use crate::store::Times;

mod pages;
mod standing;
mod stored;

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const MINUTE_MS: i64 = 60_000;
/// Of 400 worlds with 95% intervals, fewer than this many hits are worse luck than one in a thousand.
const WORLDS: usize = 400;
const HITS_MIN: usize = 365;

fn decision(
    id: i64,
    minute: i64,
    kind: &str,
    from: &str,
    to: &str,
    reason: &str,
) -> StoredDecision {
    StoredDecision {
        id,
        at: START.plus_millis(minute * MINUTE_MS),
        rollout: "default".to_owned(),
        rollout_id: "default-1".to_owned(),
        kind: kind.to_owned(),
        weight_from: Weight::parse(from).unwrap(),
        weight_to: Weight::parse(to).unwrap(),
        stage: 0,
        by: "controller".to_owned(),
        reason: reason.to_owned(),
        evidence: serde_json::json!({"guard": "error-rate", "evidence": 24.1, "needed": 20.0,
            "canary_requests": 10, "canary_errors": 1, "legacy_requests": 90, "legacy_errors": 2}),
    }
}

/// One minute of an arm: requests, errors, a cost per request, times with this median.
fn measured(requests: u64, errors: u64, cost_usd: f64, median_ms: f64) -> Measured {
    let mut times = Times::default();
    for place in 0..requests - errors {
        let spread = 0.5 + place as f64 / requests as f64;
        times.latency.record_ms(median_ms * spread);
    }
    Measured {
        totals: Totals {
            requests,
            errors,
            masked: errors / 2,
            cost_usd: Some(cost_usd * (requests - errors) as f64),
            ..Totals::default()
        },
        times,
    }
}

fn point(minute: i64, legacy: Measured, canary: Measured) -> SeriesPoint {
    SeriesPoint {
        at: START.plus_millis(minute * MINUTE_MS),
        arms: PerArm { legacy, canary },
    }
}

fn input(decisions: Vec<StoredDecision>, points: Vec<SeriesPoint>) -> Input {
    let last = points
        .last()
        .map_or(START, |point| point.at.plus_millis(MINUTE_MS));
    let totals = summed(&points);
    Input {
        rollout: "default".to_owned(),
        rollout_id: "default-1".to_owned(),
        to: decisions
            .last()
            .map_or(last, |it| it.at.plus_millis(1))
            .max(last),
        totals: PerArm {
            legacy: totals.legacy.totals,
            canary: totals.canary.totals,
        },
        decisions,
        points,
        ..Input::default()
    }
}

/// How often an interval holds the truth.
fn check_coverage(
    what: &str,
    seed: u64,
    truth: f64,
    mut draw: impl FnMut(&mut Xoshiro256PlusPlus) -> Estimate,
) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let holds = |estimate: Estimate| {
        estimate.ci95_low.is_none_or(|low| low <= truth)
            && estimate.ci95_high.is_none_or(|high| truth <= high)
    };
    let hits = (0..WORLDS).filter(|_| holds(draw(&mut rng))).count();
    assert!(
        hits >= HITS_MIN,
        "{what}: {hits} of {WORLDS} with seed {seed}"
    );
}

fn failures(rng: &mut Xoshiro256PlusPlus, requests: u64, rate: f64) -> f64 {
    (0..requests).filter(|_| rng.random::<f64>() < rate).count() as f64
}

fn times(rng: &mut Xoshiro256PlusPlus, count: usize, median_ms: f64) -> Sketch {
    let drawn = LogNormal::new(median_ms.ln(), 0.6).unwrap();
    let mut times = Sketch::default();
    for _ in 0..count {
        times.record_ms(drawn.sample(rng));
    }
    times
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    for (requests, rate) in [(400, 0.01), (2_000, 0.005), (60, 0.3)] {
        check_coverage("share", 1, rate, |rng| {
            interval::share(failures(rng, requests, rate), requests as f64).unwrap()
        });
    }
    check_coverage("difference of shares", 2, 0.004, |rng| {
        let legacy = interval::share(failures(rng, 3_000, 0.006), 3_000.0).unwrap();
        let canary = interval::share(failures(rng, 500, 0.010), 500.0).unwrap();
        interval::difference(&legacy, &canary)
    });
    let tail = (0.6f64 * 2.326_347_874).exp();
    for (q, truth) in [(0.5, 800.0), (0.99, 800.0 * tail)] {
        check_coverage("quantile", 3, truth, |rng| {
            interval::quantile(&times(rng, 700, 800.0), q, 700.0).unwrap()
        });
    }
    check_coverage("difference of medians", 4, -100.0, |rng| {
        let legacy = interval::quantile(&times(rng, 900, 800.0), 0.5, 900.0).unwrap();
        let canary = interval::quantile(&times(rng, 300, 700.0), 0.5, 300.0).unwrap();
        interval::difference(&legacy, &canary)
    });
    check_coverage("ratio", 5, 0.02, |rng| {
        let minutes: Vec<(f64, f64)> = (0..12)
            .map(|_| {
                let requests = rng.random_range(5..60u32);
                let cost = (0..requests).map(|_| rng.random::<f64>() * 0.04).sum();
                (cost, f64::from(requests))
            })
            .collect();
        interval::ratio(&minutes).unwrap()
    });
}

#[test]
fn what_the_data_cannot_bound_is_said_to_be_unknown() {
    assert_eq!(interval::share(0.0, 0.0), None);
    assert_eq!(interval::quantile(&Sketch::default(), 0.5, 0.0), None);
    let few: Sketch = [(100, 50.0)].into_iter().collect();
    let p99 = interval::quantile(&few, 0.99, 50.0).unwrap();
    assert_eq!((p99.ci95_high, p99.ci95_low.is_some()), (None, true));
    let short = interval::ratio(&[(1.0, 10.0), (2.0, 10.0)]).unwrap();
    assert!((short.value - 0.15).abs() < 1e-12);
    assert_eq!((short.ci95_low, short.ci95_high), (None, None));
    let unknown = interval::difference(&short, &p99);
    assert_eq!((unknown.ci95_low, unknown.ci95_high), (None, None));
}

/// Legacy had a bad night alone, then both run alike: over all, legacy looks worse; at the same times it is not.
#[test]
fn arms_are_compared_at_the_same_times_only() {
    let mut points = Vec::new();
    for minute in 0..60 {
        let night = measured(200, 20, 0.002, 900.0);
        points.push(point(minute, night, Measured::default()));
    }
    for minute in 60..120 {
        let day = || measured(100, 1, 0.002, 300.0);
        points.push(point(minute, day(), day()));
    }
    let decisions = vec![decision(1, 60, "start", "0%", "50%", "go")];
    let report = Report::new(input(decisions, points));
    let all = report.arms.legacy.error_rate.unwrap().value;
    assert!((all - (60.0 * 21.0) / (60.0 * 300.0)).abs() < 1e-12);
    for metric in ["error_rate", "latency_p50_ms", "latency_p99_ms"] {
        let found = report
            .differences
            .iter()
            .find(|it| it.metric == metric)
            .unwrap();
        assert_eq!(found.verdict, "no-measurable-difference", "{found:?}");
        assert!(
            (found.legacy.value - found.canary.value).abs() < 1e-9,
            "{found:?}"
        );
        assert_eq!(found.is_better, None);
    }
    assert!(report.story.join(" ").contains("no measurable difference"));
}

#[test]
fn savings_are_the_same_requests_at_legacys_cost() {
    let points: Vec<_> = (0i64..)
        .zip((0..60u64).map(|minute| 50 + 10 * (minute % 5)))
        .map(|(minute, count)| {
            point(
                minute,
                measured(count, 0, 0.010, 500.0),
                measured(count, 0, 0.006, 500.0),
            )
        })
        .collect();
    let requests: u64 = points.iter().map(|it| it.arms.canary.totals.requests).sum();
    let report = Report::new(input(
        vec![decision(1, 0, "start", "0%", "50%", "go")],
        points,
    ));
    let savings = report.savings.unwrap();
    assert!(savings.is_same_time);
    assert_eq!(savings.canary_requests, requests);
    assert!((savings.so_far_usd.value - 0.004 * requests as f64).abs() < 1e-6);
    let month = 2.0 * requests as f64 * 30.0 * 24.0;
    assert!((savings.per_month_usd.unwrap().value - 0.004 * month).abs() < 1e-3);
    let low = savings.so_far_usd.ci95_low.unwrap();
    assert!(low <= savings.so_far_usd.value);
    let cost = report
        .differences
        .iter()
        .find(|it| it.metric == "cost_per_1k_requests_usd");
    assert_eq!(cost.unwrap().verdict, "lower");
    assert_eq!(cost.unwrap().is_better, Some(true));
}

/// A third of the canary's requests fails at no cost; what it answers costs the same.
#[test]
fn a_canary_that_fails_does_not_look_cheaper() {
    let points: Vec<_> = (0..60)
        .map(|minute| {
            point(
                minute,
                measured(100, 0, 0.010, 500.0),
                measured(100, 30, 0.010, 500.0),
            )
        })
        .collect();
    let start = decision(1, 0, "start", "0%", "50%", "go");
    let report = Report::new(input(vec![start], points));
    let savings = report.savings.unwrap();
    assert!(savings.so_far_usd.value.abs() < 1e-9, "{savings:?}");
    assert_eq!(savings.canary_requests, 60 * 70);
    assert_eq!(savings.requests_per_month, Some(170.0 * 60.0 * 24.0 * 30.0));
    let cost = report.arms.canary.cost_per_1k_requests_usd.unwrap();
    assert!((cost.value - 10.0).abs() < 1e-9, "{cost:?}");
}

/// Counts that are a little ahead of the minutes are the daemon's, which goes on; a record that begins late
/// has lost something.
#[test]
fn only_a_record_that_begins_late_has_lost_something() {
    let check = |first: i64, expected: u64| {
        let points = (first..first + 30).map(|minute| {
            let arm = || measured(100, 0, 0.010, 500.0);
            point(minute, arm(), arm())
        });
        let start = decision(1, 0, "start", "0%", "50%", "go");
        let mut input = input(vec![start], points.collect());
        input.totals.canary.requests += 7;
        let report = Report::new(input);
        let tells = report.notes.iter().any(|note| note.contains("kept since"));
        assert_eq!(tells, expected > 3_000, "{first}: {:?}", report.notes);
        assert_eq!(report.arms.canary.requests, expected);
    };
    check(0, 3_000);
    check(1, 3_000);
    check(2, 3_007);
}

#[test]
fn failures_do_not_make_an_arm_look_cheap() {
    // Each answer costs a cent on both arms; four of ten requests fail on the canary, and cost nothing.
    let points = (0..60).map(|minute| {
        let (legacy, canary) = (
            measured(100, 0, 0.010, 500.0),
            measured(100, 40, 0.010, 500.0),
        );
        point(minute, legacy, canary)
    });
    let start = decision(1, 0, "start", "0%", "50%", "go");
    let report = Report::new(input(vec![start], points.collect()));
    let savings = report.savings.unwrap();
    assert_eq!(savings.canary_requests, 60 * 60);
    assert!(savings.so_far_usd.value.abs() < 1e-6, "{savings:?}");
}

#[test]
fn without_prices_there_are_no_savings_and_a_note_says_why() {
    let mut unpriced = measured(100, 0, 0.0, 500.0);
    unpriced.totals.cost_usd = None;
    let points = (0..20).map(|minute| point(minute, unpriced.clone(), unpriced.clone()));
    let report = Report::new(input(Vec::new(), points.collect()));
    assert_eq!(report.savings, None);
    assert!(
        report.notes.iter().any(|note| note.contains("prices")),
        "{:?}",
        report.notes
    );
}

#[test]
fn an_incident_lasts_until_the_canary_is_led_back() {
    let decisions = vec![
        decision(1, 0, "start", "0%", "50%", "go"),
        decision(2, 10, "trip", "50%", "0%", "errors 4/4 in 0.8s"),
        decision(3, 11, "probe-failed", "0%", "0%", "a probe failed"),
        decision(4, 13, "resume", "0%", "50%", "5 probes in a row succeeded"),
        decision(5, 20, "trip", "50%", "0%", "errors 9/9 in 1s"),
        decision(6, 21, "roll-back", "0%", "0%", "evidence 120 (limit 100)"),
    ];
    let mut points: Vec<_> = (0..30)
        .map(|minute| {
            point(
                minute,
                measured(50, 0, 0.01, 500.0),
                measured(50, 0, 0.01, 500.0),
            )
        })
        .collect();
    points[10].arms.canary = measured(50, 10, 0.01, 500.0);
    let report = Report::new(input(decisions, points));
    let found: Vec<_> = report
        .incidents
        .iter()
        .map(|it| {
            (
                it.kind.as_str(),
                it.duration_s,
                it.is_open,
                it.canary.failed,
            )
        })
        .collect();
    assert_eq!(
        found,
        [("trip", 180.0, false, 10), ("roll-back", 600.0, true, 0)]
    );
    assert_eq!(report.incidents[0].canary.reached_clients, 5);
    assert!(report.incidents[1].reason.contains("then: evidence 120"));
    assert_eq!((report.state, report.weight), ("rolled-back", 0.0));
    assert_eq!(report.masked.canary.failed, 10);
}

/// In the record of a week the first hours are merged; where hours and minutes meet, the last hour is still one.
#[test]
fn the_last_merged_hour_counts_as_an_hour() {
    let first = UnixMillis(START.0.div_euclid(3_600_000) * 3_600_000);
    let at = |minute: i64, errors| SeriesPoint {
        at: first.plus_millis(minute * MINUTE_MS),
        ..point(0, Measured::default(), measured(50, errors, 0.01, 500.0))
    };
    let mut trip = decision(1, 0, "trip", "50%", "0%", "errors 9/9 in 1s");
    trip.at = first.plus_millis(30 * MINUTE_MS);
    let mut resume = decision(2, 0, "resume", "0%", "50%", "5 probes in a row succeeded");
    resume.at = first.plus_millis(40 * MINUTE_MS);
    let mut input = input(vec![trip, resume], vec![at(0, 9), at(61, 0)]);
    input.to = first.plus_millis(3 * 86_400_000);
    let report = Report::new(input);
    assert_eq!(report.incidents[0].canary.failed, 9);
}
