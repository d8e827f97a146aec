//! How seldom a canary is stopped that should not be, and one promoted that is no better than its limits.

use cutover::clock::UnixMillis;
use cutover::controller::DecisionKind;
use cutover::simulate::shipped;
use cutover::simulate::tally::Tally;
use cutover::sketch::GROWTH;

use crate::course::{DAY_MS, HOUR_MS, SEED, first, range, rules, runs, stay_at, which, with};

const NONE: [usize; 0] = [];

fn to_95(tally: &Tally, begin: UnixMillis) -> Option<f64> {
    let reached = tally
        .decisions
        .iter()
        .find(|decision| decision.weight_to.bps() == 9_500)?;
    Some(reached.at.millis_since(begin) as f64 / HOUR_MS as f64)
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn an_equal_canary_climbs_every_stage_within_a_day() {
    let stages = "stages = [\"1%\", \"5%\", \"25%\", \"50%\", \"75%\", { weight = \"95%\", dwell = \"1h\" }]\n";
    for rate in ["0.5%", "0.1%"] {
        let course = format!(
            "duration = \"1d\"\ntick = \"20s\"\n[traffic]\nrate = \"1000/min\"\n[legacy]\nerror-rate = \"{rate}\"\n"
        );
        let tallies = runs(&course, &rules(stages), 200);
        let begin = tallies[0].decisions[0].at;
        let reached: Vec<f64> = tallies
            .iter()
            .filter_map(|tally| to_95(tally, begin))
            .collect();
        let late: Vec<usize> = (0..tallies.len())
            .filter(|&run| to_95(&tallies[run], begin).is_none())
            .collect();
        let hours = range(reached.iter().copied());
        println!(
            "7: {rate}: {}/200 at 95% after {hours:?} hours, late {late:?} (seed {SEED})",
            reached.len()
        );
        assert_eq!(which(&tallies, DecisionKind::RollBack), NONE);
        assert_eq!(which(&tallies, DecisionKind::Trip), NONE);
        assert_eq!(late, NONE, "{rate}: seed {SEED}");
    }
}

const OFF: [&str; 5] = [
    "error-rate",
    "latency-p99",
    "latency-p50",
    "ttft-p99",
    "ttft-p50",
];

/// The guards with only this one on.
fn alone(on: &str) -> String {
    let mut text = "[rollout.guards]\nrate-limited = \"off\"\nrejected = \"off\"\n".to_owned();
    for name in OFF {
        if name != on {
            text.push_str(&format!("{name} = \"off\"\n"));
        } else if name == "error-rate" {
            text.push_str("error-rate = { max-ratio = 1.2, max-increase = \"0.4%\" }\n");
        }
    }
    text
}

/// Ten days of a canary that is exactly as bad as it may be.
fn at_the_margin(weight: &str, guards: &str, what: &str) {
    // A limit of 1.5 is rounded up to whole buckets, and the canary is at that edge.
    let slower = GROWTH.powi(21);
    let course = format!(
        "duration = \"10d\"\ntick = \"1m\"\n[traffic]\nrate = \"1000/min\"\n\
         [legacy]\nerror-rate = \"0.5%\"\nttft = {{ median = \"200ms\", sigma = 0.5 }}\nstreamed = \"30%\"\n\
         [canary]\nerror-rate = \"1%\"\n[[change]]\nlatency-factor = {slower:?}\nttft-factor = {slower:?}\n"
    );
    let policy = format!(
        "stages = [{{ weight = \"{weight}\", dwell = \"1h\" }}, \"100%\"]\ntrip = \"off\"\nretreat = \"off\"\n\
         max-attempts = 1\n{guards}"
    );
    let tallies = runs(&course, &rules(&policy), 500);
    let (down, up) = (
        with(&tallies, DecisionKind::RollBack),
        with(&tallies, DecisionKind::Promote),
    );
    let held = tallies.iter().filter(|tally| tally.is_held).count();
    println!(
        "8: {what} at {weight}: {down} rolled back {:?}, {up} promoted, {held} held in 500 runs of 10 days (seed {SEED})",
        which(&tallies, DecisionKind::RollBack)
    );
    assert!(down <= 9, "{what}: {down} rolled back");
    assert!(up <= 34, "{what}: {up} promoted");
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn at_its_margin_a_canary_is_neither_rolled_back_nor_promoted() {
    at_the_margin("5%", "", "every guard");
    for weight in ["5%", "50%"] {
        for guard in ["error-rate", "latency-p99", "latency-p50"] {
            at_the_margin(weight, &alone(guard), guard);
        }
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn what_befalls_both_arms_is_no_harm() {
    // Both arms 3% for an hour, both arms three times as slow, and a rate that swings by 1.8.
    let course = shipped::find("common-drift").unwrap();
    let ladder = runs(course, &rules(""), 50);
    let done = ladder.iter().filter(|tally| tally.complete_at_end).count();
    println!("9: {done}/50 complete after 10 days of drift (seed {SEED})");
    assert_eq!(
        (
            which(&ladder, DecisionKind::Trip),
            which(&ladder, DecisionKind::RollBack)
        ),
        (vec![], vec![])
    );
    for weight in ["5%", "25%", "50%"] {
        let course = course.replace("\"10d\"", "\"3d\"\ntick = \"30s\"");
        let tallies = runs(&course, &rules(&stay_at(weight)), 50);
        println!(
            "9: {weight}: {} trips, {} rollbacks (50 runs)",
            with(&tallies, DecisionKind::Trip),
            with(&tallies, DecisionKind::RollBack)
        );
        assert_eq!(which(&tallies, DecisionKind::Trip), NONE, "{weight}");
        assert_eq!(which(&tallies, DecisionKind::RollBack), NONE, "{weight}");
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn independent_incidents_are_no_proof_and_would_be_without_the_cap() {
    let cases = [
        (
            "2 min of 20% twice a day",
            "every = \"12h\"\nfor = \"2m\"\nerror-rate = \"20%\"",
        ),
        (
            "5 min of 50% every other day",
            "every = \"2d\"\nfor = \"5m\"\nerror-rate = \"50%\"",
        ),
    ];
    for (name, incident) in cases {
        let course = format!(
            "duration = \"10d\"\ntick = \"1m\"\n[traffic]\nrate = \"1000/min\"\n[[incident]]\n{incident}\n"
        );
        let capped = runs(
            &course,
            &rules(&format!(
                "{}trip = \"off\"\nmax-attempts = 1\n",
                stay_at("25%")
            )),
            100,
        );
        // The fuse listens to the ledger without a cap, and its first trip is made final here.
        let fuse = "trip = { max-per-day = 1 }\nmax-attempts = 1\n";
        let uncapped = runs(&course, &rules(&format!("{}{fuse}", stay_at("25%"))), 100);
        let (few, many) = (
            with(&capped, DecisionKind::RollBack),
            with(&uncapped, DecisionKind::RollBack),
        );
        println!(
            "12: {name}: {few}/100 rolled back {:?}, {many}/100 without the cap (seed {SEED})",
            which(&capped, DecisionKind::RollBack)
        );
        assert!(
            many > 50,
            "{name}: the incidents are too harmless to show anything: {many}"
        );
        assert!(few <= 5, "{name}: {few}");
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn clustered_errors_are_worth_less() {
    // A day of legacy alone comes first.
    let course = "duration = \"11d\"\ntick = \"1m\"\n[traffic]\nrate = \"300/min\"\n[legacy]\nclusters = 5\n";
    for fuse in ["trip = \"off\"\n", ""] {
        let policy = format!("{}warm-up = 432000\n{fuse}", stay_at("25%"));
        let tallies = runs(course, &rules(&policy), 100);
        let began = range(tallies.iter().map(|tally| {
            let start = first(tally, DecisionKind::Start).unwrap();
            start.at.0.rem_euclid(DAY_MS) as f64 / HOUR_MS as f64
        }));
        let (down, trips) = (
            with(&tallies, DecisionKind::RollBack),
            with(&tallies, DecisionKind::Trip),
        );
        println!(
            "13: {fuse:?}: {down}/100 rolled back, {trips}/100 tripped in ten days (seed {SEED}, {began:?})"
        );
        assert!(down <= 4, "{:?}", which(&tallies, DecisionKind::RollBack));
    }
}
