//! What the simulator promises: the same seed the same answer, and scenarios that do what they are named for.

use super::report::Report;
use super::*;
use crate::config::parse::{default_policy, render_all};
use crate::config::scenario;

fn shipped_scenario(name: &str) -> Scenario {
    let text = shipped::find(name).unwrap();
    scenario::parse(text).unwrap_or_else(|faults| panic!("{}", render_all(&faults, name)))
}

fn report_of(scenario: &Scenario, judge: Judge, runs: u64, threads: usize) -> Report {
    let policy = default_policy();
    let settings = Settings {
        scenario,
        policy: &policy,
        judge,
        runs,
        seed: 7,
        threads,
    };
    let tallies = simulate(&settings, &|_| ());
    Report::of(&settings, &tallies, 0.0)
}

/// A shipped scenario with coarse ticks, so that tests in debug builds are quick.
fn quick(name: &str, days: i64, tick_s: i64) -> Scenario {
    let mut scenario = shipped_scenario(name);
    scenario.duration_ms = scenario.duration_ms.min(days * 86_400_000);
    scenario.tick_ms = tick_s * 1_000;
    scenario
}

#[test]
fn the_same_seed_gives_the_same_answer_on_any_number_of_threads() {
    let mut scenario = quick("two-percent", 1, 60);
    scenario.daily_swing = 0.5;
    for judge in [Judge::Controller, Judge::Naive(Naive::B)] {
        let json = |threads| {
            let report = report_of(&scenario, judge, 5, threads);
            serde_json::to_string(&report).unwrap()
        };
        let one = json(1);
        assert_eq!(one, json(3));
        assert_eq!(one, json(1));
    }
}

#[test]
fn the_answer_has_the_fields_of_the_design() {
    let report = report_of(&quick("healthy", 1, 600), Judge::Controller, 2, 1);
    let json = serde_json::to_value(&report).unwrap();
    for pointer in [
        "/runs",
        "/completed",
        "/rolled_back",
        "/rolled_back_share",
        "/ci95/0",
        "/ci95/1",
        "/held",
        "/stopped",
        "/false_trips",
        "/decisions_per_run",
        "/elapsed_s",
        "/failed_canary_requests/p50",
        "/canary_requests/mean",
    ] {
        let value = json.pointer(pointer).unwrap();
        assert!(value.is_number(), "{pointer}: {value}");
    }
    // Nothing was complete or stopped on the first day: there are no percentiles.
    for name in [
        "time_to_complete_s",
        "first_stop_s",
        "canary_requests_to_stop",
    ] {
        for part in ["p10", "p50", "p90"] {
            assert!(json[name][part].is_null(), "{name}.{part}");
        }
    }
}

#[test]
fn every_shipped_scenario_can_be_read_and_is_found_by_its_name() {
    for (name, text) in shipped::SCENARIOS {
        let found = shipped_scenario(name);
        assert_eq!(Some(&found), scenario::parse(text).as_ref().ok());
        assert!(text.starts_with("# "), "{name} says what it is for");
    }
    assert_eq!(shipped::find("nothing"), None);
}

#[test]
fn a_healthy_canary_is_completed_and_never_stopped() {
    let report = report_of(&quick("healthy", 6, 30), Judge::Controller, 4, 2);
    assert_eq!(
        (report.completed, report.rolled_back, report.false_trips),
        (4, 0, 0)
    );
    let days = report.time_to_complete_s.p50.unwrap() / 86_400.0;
    assert!((1.0..4.0).contains(&days), "{days}");
}

#[test]
fn what_both_arms_share_stops_nobody() {
    let report = report_of(&quick("common-drift", 3, 30), Judge::Controller, 3, 2);
    assert_eq!((report.trips, report.rollbacks, report.stopped), (0, 0, 0));
}

#[test]
fn an_outage_is_tripped_within_seconds() {
    let report = report_of(&quick("outage", 6, 30), Judge::Controller, 3, 2);
    assert_eq!((report.stopped, report.false_trips), (3, 0));
    assert!(report.first_stop_s.p90.unwrap() <= 20.0, "{report:?}");
    assert!(report.failures_to_stop.p90.unwrap() <= 150.0, "{report:?}");
}

#[test]
fn two_percent_of_failures_are_rolled_back_after_some_thousand_requests() {
    let report = report_of(&quick("two-percent", 3, 30), Judge::Controller, 6, 2);
    assert_eq!((report.rolled_back, report.completed), (6, 0));
    let requests = report.canary_requests_to_stop.mean.unwrap();
    assert!((800.0..5_000.0).contains(&requests), "{requests}");
}

#[test]
fn a_slow_tail_is_rolled_back_and_never_promoted_to_the_end() {
    let report = report_of(&quick("slow-tail", 3, 30), Judge::Controller, 3, 2);
    assert_eq!((report.rolled_back, report.completed), (3, 0));
}

#[test]
fn clusters_of_failures_roll_nobody_back() {
    let clustered = report_of(&quick("clustered-errors", 4, 30), Judge::Controller, 3, 2);
    assert_eq!(clustered.rolled_back, 0, "{clustered:?}");
}

#[test]
fn incidents_of_equal_arms_trip_but_are_no_proof_of_harm() {
    let scenario = quick("independent-incidents", 4, 30);
    // Else the third trip of a day is a rollback, whatever the evidence.
    let mut policy = default_policy();
    policy.trip.as_mut().unwrap().max_per_day = 1_000;
    let settings = Settings {
        scenario: &scenario,
        policy: &policy,
        judge: Judge::Controller,
        runs: 3,
        seed: 7,
        threads: 2,
    };
    let report = Report::of(&settings, &simulate(&settings, &|_| ()), 0.0);
    assert_eq!((report.false_trips, report.rollbacks), (0, 0), "{report:?}");
    assert!(report.trips > 0, "{report:?}");
}

#[test]
fn low_traffic_takes_weeks_at_one_percent() {
    let report = report_of(&quick("low-traffic", 8, 60), Judge::Controller, 2, 2);
    assert_eq!((report.completed, report.rolled_back), (0, 0), "{report:?}");
}

#[test]
fn rule_b_rolls_a_perfect_canary_back_within_a_day() {
    let scenario = quick("healthy", 5, 30);
    let report = report_of(&scenario, Judge::Naive(Naive::B), 20, 2);
    assert_eq!((report.rolled_back, report.false_rollbacks), (20, 20));
    assert!(report.first_stop_s.p50.unwrap() < 4.0 * 3_600.0);
}

#[test]
fn rule_a_serves_a_dead_canary_for_ever_and_rule_c_opens_at_once() {
    let mut scenario = quick("two-percent", 2, 60);
    scenario.arms.canary.error_rate = 1.0;
    let hourly = report_of(&scenario, Judge::Naive(Naive::A), 3, 2);
    // 5% of all traffic for two days.
    let failed = hourly.failed_canary_requests.mean.unwrap();
    let expected = 0.05 * 10.0 * 2.0 * 86_400.0;
    assert!((failed / expected - 1.0).abs() < 0.1, "{failed}");
    let breaker = report_of(&scenario, Judge::Naive(Naive::C), 3, 2);
    assert_eq!(breaker.rolled_back, 3);
    assert!(breaker.failed_canary_requests.mean.unwrap() < 120.0);
}

#[test]
fn a_picture_shows_both_arms_and_the_weight() {
    let scenario = quick("outage", 6, 60);
    let policy = default_policy();
    let settings = Settings {
        scenario: &scenario,
        policy: &policy,
        judge: Judge::Controller,
        runs: 1,
        seed: 7,
        threads: 1,
    };
    let svg = picture(&settings, "a title").unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    for part in [
        "a title",
        "canary",
        "legacy",
        "failed (%)",
        "p99 (ms)",
        "<polygon",
    ] {
        assert!(svg.contains(part), "{part} is missing");
    }
}
