//! What others do on the same traffic, and what the planner says against what happens.

use cutover::controller::DecisionKind;
use cutover::controller::plan::{Proof, Traffic, plan_stage};
use cutover::simulate::{Judge, Naive, shipped};

use crate::course::{DAY_MS, SEED, first, judged, range, rules, runs, with};

fn course(per_min: u32, error_rate: &str) -> String {
    format!(
        "duration = \"30d\"\ntick = \"1m\"\n[traffic]\nrate = \"{per_min}/min\"\n[legacy]\nerror-rate = \"{error_rate}\"\n"
    )
}

/// Table 6.1: what a perfect canary gets.
#[test]
#[ignore = "takes minutes: make test-long"]
fn the_naive_rules_fail_as_published() {
    let policy = rules("");
    let rows = [
        (Naive::A, 10, "0.5%", 200, 0.97..=1.0),
        (Naive::A, 100, "0.5%", 100, 0.26..=0.54),
        (Naive::A, 1_000, "0.5%", 10, 0.0..=0.03),
        (Naive::A, 10, "0.1%", 200, 0.37..=0.61),
        (Naive::A, 100, "0.1%", 100, 0.0..=0.03),
        (Naive::B, 10, "0.5%", 400, 1.0..=1.0),
        (Naive::B, 100, "0.5%", 400, 1.0..=1.0),
        (Naive::B, 1_000, "0.5%", 400, 1.0..=1.0),
        (Naive::B, 100, "0.1%", 400, 1.0..=1.0),
        (Naive::C, 10, "0.5%", 200, 0.05..=0.22),
        (Naive::C, 100, "0.5%", 100, 0.64..=0.86),
        (Naive::C, 1_000, "0.5%", 100, 1.0..=1.0),
        (Naive::C, 1_000, "0.1%", 10, 0.0..=0.06),
    ];
    let mut wrong = Vec::new();
    for (rule, per_min, error_rate, count, expected) in rows {
        let tallies = judged(
            Judge::Naive(rule),
            &course(per_min, error_rate),
            &policy,
            count,
        );
        let down = if rule == Naive::A {
            DecisionKind::Trip
        } else {
            DecisionKind::RollBack
        };
        let share = with(&tallies, down) as f64 / count as f64;
        let times = tallies
            .iter()
            .flat_map(|tally| &tally.decisions)
            .filter(|decision| decision.kind == down);
        let up = tallies
            .iter()
            .filter(|tally| tally.completed_ms.is_some())
            .count();
        println!(
            "19: {rule:?} at {per_min}/min, {error_rate}: {share:.3} stopped, {:.1} times each, {:.3} ever at 95% (expected {expected:?}, seed {SEED})",
            times.count() as f64 / count as f64,
            up as f64 / count as f64,
        );
        if !expected.contains(&share) {
            wrong.push((rule, per_min, error_rate, share));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Ten requests a minute at 1%: some 18 days, as the planner says before.
#[test]
#[ignore = "takes minutes: make test-long"]
fn low_traffic_takes_the_days_that_were_planned() {
    let policy = rules("");
    let traffic = Traffic {
        requests_per_s: 10.0 / 60.0,
        legacy_error_rate: 0.005,
        streamed: None,
        phi: 1.0,
    };
    let Proof::Takes { ms, .. } = plan_stage(&policy, 0, &traffic).unwrap().proof else {
        panic!("no proof is planned")
    };
    let planned = ms.usual / DAY_MS as f64;
    let tallies = runs(shipped::find("low-traffic").unwrap(), &policy, 30);
    // Who is not done after 60 days counts as 60.
    let days = range(tallies.iter().map(|tally| {
        let end = first(tally, DecisionKind::Promote).map(|promote| promote.at);
        let start = first(tally, DecisionKind::Start).unwrap().at;
        end.map_or(60.0, |end| end.millis_since(start) as f64 / DAY_MS as f64)
    }));
    println!("18: planned {planned:.1} days, took {days:?} (30 runs, seed {SEED})");
    assert!((15.0..22.0).contains(&planned), "{planned}");
    assert!((0.7..1.4).contains(&(days.mean / planned)), "{days:?}");
}
