//! How seldom a canary is stopped that should not be, and one promoted that is no better than its limits.

use cutover::arm::{PerArm, Weight};
use cutover::clock::UnixMillis;
use cutover::controller::evidence::Cell;
use cutover::controller::headroom::Headroom;
use cutover::controller::split::Assigned;
use cutover::controller::{DecisionKind, Input, State, step};
use cutover::simulate::shipped;
use cutover::simulate::tally::Tally;
use cutover::sketch::GROWTH;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

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

/// Ten days of a canary that is exactly as bad as it may be. A look every other minute: nothing here is sudden,
/// and evidence is the same in cells of any length.
fn at_the_margin(weight: &str, guards: &str, what: &str) {
    // A limit of 1.5 is rounded up to whole buckets, and the canary is at that edge.
    let slower = GROWTH.powi(21);
    let course = format!(
        "duration = \"10d\"\ntick = \"2m\"\n[traffic]\nrate = \"300/min\"\n\
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
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn at_the_margin_of_its_errors_alone_neither() {
    for weight in ["5%", "50%"] {
        at_the_margin(weight, &alone("error-rate"), "error-rate");
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn at_the_margin_of_its_times_alone_neither() {
    for guard in ["latency-p99", "latency-p50"] {
        at_the_margin("5%", &alone(guard), guard);
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn what_befalls_both_arms_is_no_harm() {
    // Both arms 3% for an hour, both arms three times as slow, and a rate that swings by 1.8.
    let course = shipped::find("common-drift").unwrap();
    let course = course.replace("\"10d\"", "\"10d\"\ntick = \"30s\"");
    let ladder = runs(&course, &rules(""), 50);
    let done = ladder.iter().filter(|tally| tally.complete_at_end).count();
    println!(
        "9: {done}/50 complete after 10 days of drift, {}/50 stepped down meanwhile (seed {SEED})",
        with(&ladder, DecisionKind::Retreat)
    );
    // An hour in which both drift may step down, but it must not strand the rollout.
    assert!(done >= 48, "{done}");
    assert_eq!(
        (
            which(&ladder, DecisionKind::Trip),
            which(&ladder, DecisionKind::RollBack)
        ),
        (vec![], vec![])
    );
    for weight in ["5%", "25%", "50%"] {
        let course = course.replace("\"10d\"", "\"3d\"");
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

/// Incidents that hit each arm by itself, equally often, for ten days: few rollbacks. The fuse listens to the
/// ledger without a cap; where its first trip is made final, the same incidents are many.
fn incidents(incident: &str, what: &str, fuse: &str) {
    let course = format!(
        "duration = \"10d\"\ntick = \"20s\"\n[traffic]\nrate = \"1000/min\"\n[[incident]]\n{incident}\n"
    );
    let share = |fuse: &str| {
        let policy = format!("{}{fuse}\nmax-attempts = 1\n", stay_at("25%"));
        which(&runs(&course, &rules(&policy), 60), DecisionKind::RollBack)
    };
    let uncapped = share("trip = { max-per-day = 1 }").len();
    let capped = share(fuse);
    println!(
        "12: {what}: {}/60 rolled back {capped:?}, {uncapped}/60 without the cap (seed {SEED})",
        capped.len()
    );
    assert!(uncapped > 30, "{what}: too harmless to show anything");
    assert!(capped.len() <= 3, "{what}: {capped:?}");
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn independent_incidents_are_no_proof_and_would_be_without_the_cap() {
    incidents(
        "every = \"12h\"\nfor = \"2m\"\nerror-rate = \"20%\"",
        "2 min of 20% twice a day",
        "trip = \"off\"",
    );
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn five_minutes_of_an_incident_are_no_proof_where_the_fuse_takes_the_canary_out() {
    // Without the fuse they are: five minutes that begin within a minute touch six, and six caps of three nats
    // are proof (57 of 60 runs; the study's 4% holds for incidents that keep to the minute).
    incidents(
        "every = \"2d\"\nfor = \"5m\"\nerror-rate = \"50%\"",
        "5 min of 50% every other day",
        "trip = { max-per-day = 1000 }",
    );
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

/// The divisor of evidence as the stored state holds it.
fn phi(state: &State) -> f64 {
    let value = serde_json::to_value(state).unwrap();
    let numbers = value["tracks"][0]["fano"].as_str().unwrap().to_owned();
    let mut numbers = numbers
        .split(' ')
        .map(|number| number.parse::<f64>().unwrap());
    (numbers.next().unwrap() / numbers.next().unwrap()).clamp(1.0, 30.0)
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_day_of_legacy_tells_how_errors_cluster() {
    let policy = rules("warm-up = 1000000\n");
    let found = range((0..50).map(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut now = UnixMillis(0);
        let mut state = State::new(&policy, "r".into(), now);
        for _ in 0..1_440 {
            let mut cell = Cell::open(now, Weight::ZERO, 0);
            now = now.plus_millis(60_000);
            cell.closed_at = now;
            // 300 requests of which one in 200 fails, five failures at a time.
            cell.arms.legacy.requests = 300;
            cell.arms.legacy.errors = (0..300)
                .map(|_| 5 * u64::from(rng.random_bool(0.001)))
                .sum();
            let open = Cell::open(now, Weight::ZERO, 0);
            let closed = [cell];
            let input = Input {
                closed: &closed,
                open: &open,
                event: None,
                store_healthy: true,
                legacy_breaker_open: false,
                incident: None,
                canary_rate_per_s: 0.0,
                requests_per_s: 5.0,
                assigned: Assigned::default(),
                overdue: PerArm::default(),
                headroom: Headroom::default(),
            };
            state = step(&policy, state, &input, now).state;
        }
        phi(&state)
    }));
    println!("13: phi {found:?} after a day (seeds 0 to 49)");
    assert!((4.5..=5.5).contains(&found.mean), "{found:?}");
}
