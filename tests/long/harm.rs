//! How much a bad canary costs before it is stopped.

use cutover::controller::DecisionKind;
use cutover::controller::policy::GuardKind;
use cutover::simulate::tally::Tally;

use crate::course::{SEED, first, range, rules, runs, stay_at, until_stop, which, with};

const NO_FUSE: &str = "trip = \"off\"\nretreat = \"off\"\nmax-attempts = 1\n";

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_dead_canary_trips_within_four_requests() {
    let course = "duration = \"5m\"\ntick = \"100ms\"\n[traffic]\nrate = \"1000/min\"\n\
                  [canary]\nerror-rate = \"100%\"\n";
    let fused = runs(course, &rules(&stay_at("5%")), 200);
    let failed = until_stop(&fused);
    println!("4: trip after {failed:?} canary requests (200 runs, seed {SEED})");
    assert!(fused.iter().all(|tally| {
        let downs = [DecisionKind::Trip, DecisionKind::RollBack];
        let down = tally
            .decisions
            .iter()
            .find(|decision| downs.contains(&decision.kind));
        down.is_some_and(|decision| decision.kind == DecisionKind::Trip)
    }));
    let within = |tally: &&Tally| tally.stop.is_some_and(|stop| stop.canary_requests <= 4);
    let four = fused.iter().filter(within).count();
    println!("4: {four}/200 within four");
    assert!(
        failed.least >= 2.0 && failed.most <= 5.0 && four >= 195,
        "{failed:?}"
    );
    // Two blocks of a minute: the one that it began in is not whole.
    let capped = runs(course, &rules(&format!("{}{NO_FUSE}", stay_at("5%"))), 200);
    let minutes = range(capped.iter().map(|tally| {
        let began = first(tally, DecisionKind::Start).unwrap().at;
        let over = first(tally, DecisionKind::RollBack).unwrap().at;
        over.millis_since(began) as f64 / 60_000.0
    }));
    println!("4: without the fuse rolled back after {minutes:?} minutes");
    assert!(minutes.most <= 3.0, "{minutes:?}");
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn five_good_days_do_not_bury_an_outage() {
    for (weight, limit) in [("5%", 12.0), ("50%", 12.0), ("95%", 12.0)] {
        // At whatever second of a minute it begins.
        let (mut requests, mut minutes) = (Vec::new(), Vec::new());
        for second in [0i32, 7, 23, 41, 52] {
            let course = format!(
                "duration = \"7260m\"\ntick = \"1m\"\n[traffic]\nrate = \"1000/min\"\n\
                 [[change]]\nat = \"{}s\"\nerror-rate = \"100%\"\n",
                5 * 86_400 + i64::from(second)
            );
            let fused = runs(&course, &rules(&stay_at(weight)), 20);
            assert_eq!(which(&fused, DecisionKind::RollBack), [0usize; 0]);
            for tally in &fused {
                assert_eq!(tally.false_trips, 0, "a trip in the good days");
                requests.push(tally.stop.unwrap().canary_requests as f64);
            }
            if weight == "50%" {
                let capped = runs(
                    &course,
                    &rules(&format!("{}{NO_FUSE}", stay_at(weight))),
                    10,
                );
                // A minute that has begun counts whole.
                minutes.extend(capped.iter().map(|tally| {
                    let over_s = tally.stop.unwrap().after_ms as f64 / 1_000.0;
                    ((f64::from(second) + over_s) / 60.0).ceil()
                }));
            }
        }
        let requests = range(requests.into_iter());
        println!("5: {weight}: trip after {requests:?} canary requests (100 runs, seed {SEED})");
        assert!(requests.most <= limit, "{weight}: {requests:?}");
        if !minutes.is_empty() {
            let minutes = range(minutes.into_iter());
            println!("5: {weight}: without the fuse rolled back in bad minute {minutes:?}");
            assert!(minutes.least >= 5.0 && minutes.most <= 7.0, "{minutes:?}");
        }
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn two_percent_errors_roll_back_after_some_two_thousand_requests() {
    // The study knew legacy's scatter; a day of warm-up does, two minutes of it must guess.
    let (two_minutes, a_day) = (2_000, 1_440_000);
    let cases = [
        ("5%", two_minutes, 1_700.0..=2_800.0),
        ("5%", a_day, 1_700.0..=2_800.0),
        ("50%", two_minutes, 3_300.0..=6_000.0),
        ("50%", a_day, 3_300.0..=5_000.0),
    ];
    let mut wrong = Vec::new();
    for (weight, warm_up, expected) in cases {
        let course = "duration = \"4d\"\ntick = \"10s\"\n[traffic]\nrate = \"1000/min\"\n\
                      [canary]\nerror-rate = \"2%\"\n";
        let policy = format!("{}{NO_FUSE}warm-up = {warm_up}\n", stay_at(weight));
        let tallies = runs(course, &rules(&policy), 100);
        let requests = until_stop(&tallies);
        let failed = range(tallies.iter().map(|tally| tally.canary_failed as f64));
        println!(
            "6: {weight} after {warm_up} legacy requests: rolled back after {requests:?} canary requests, \
             {failed:?} failed (100 runs, seed {SEED})"
        );
        if !expected.contains(&requests.mean) {
            wrong.push((weight, warm_up, requests));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_slow_canary_is_rolled_back_by_the_guard_that_sees_it() {
    let cases = [
        (
            "twice as slow",
            "latency = { median = \"1600ms\" }",
            GuardKind::LatencyP50,
            150.0,
            600.0,
        ),
        (
            "one in twenty eight times as slow",
            "slow-tail = { share = \"5%\", factor = 8 }",
            GuardKind::LatencyP99,
            1_000.0,
            4_000.0,
        ),
    ];
    for (name, canary, guard, least, most) in cases {
        let course = format!(
            "duration = \"2d\"\ntick = \"10s\"\n[traffic]\nrate = \"1000/min\"\n[canary]\n{canary}\n"
        );
        let tallies = runs(&course, &rules(&stay_at("5%")), 50);
        let requests = until_stop(&tallies);
        println!(
            "10: {name}: rolled back after {requests:?} canary requests (50 runs, seed {SEED})"
        );
        assert!(
            (least..=most).contains(&requests.mean),
            "{name}: {requests:?}"
        );
        for (run, tally) in tallies.iter().enumerate() {
            let down = first(tally, DecisionKind::RollBack).map(|down| down.evidence.guard);
            assert_eq!(down, Some(Some(guard)), "{name}: seed {SEED} run {run}");
        }
    }
    let slower = "duration = \"1d\"\ntick = \"30s\"\n[traffic]\nrate = \"1000/min\"\n\
                  [canary]\nlatency = { median = \"1s\" }\n";
    let tallies = runs(slower, &rules("stages = [\"5%\", \"25%\", \"50%\"]\n"), 50);
    let promoted = with(&tallies, DecisionKind::Promote);
    println!("10: a quarter slower: {promoted}/50 promoted (seed {SEED})");
    assert_eq!(promoted, 50);
    assert_eq!(which(&tallies, DecisionKind::RollBack), [0usize; 0]);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_faster_median_hides_no_heavy_tail() {
    let course = "duration = \"2d\"\ntick = \"10s\"\n[traffic]\nrate = \"1000/min\"\n\
                  [canary]\nlatency = { median = \"560ms\" }\nslow-tail = { share = \"3%\", factor = 12 }\n";
    let tallies = runs(
        course,
        &rules("stages = [\"5%\", \"25%\", \"100%\"]\nmax-attempts = 1\n"),
        50,
    );
    let requests = until_stop(&tallies);
    println!("11: rolled back after {requests:?} canary requests (50 runs, seed {SEED})");
    assert_eq!(which(&tallies, DecisionKind::Promote), [0usize; 0]);
    for (run, tally) in tallies.iter().enumerate() {
        let down = first(tally, DecisionKind::RollBack).map(|down| down.evidence.guard);
        assert_eq!(
            down,
            Some(Some(GuardKind::LatencyP99)),
            "seed {SEED} run {run}"
        );
    }
}
