//! STATISTICS section 8 on the whole controller, with fewer seeds than a nightly run would take.

use super::world::{Behaviour, DOWN, GOOD, World, defaults, one_stage, percent};
use crate::controller::{Action, DecisionKind, Phase};

const HOUR: i64 = 3_600_000;
const HARM: [DecisionKind; 2] = [DecisionKind::Trip, DecisionKind::RollBack];

/// A world at one weight whose ledgers have just begun.
fn started(weight: &str, seed: u64) -> World {
    let mut world = World::new(one_stage(weight), seed);
    assert!(world.run_to(&[DecisionKind::Start], 1_000, HOUR));
    assert_eq!(world.state().weight(), percent(weight));
    world
}

#[test]
fn a_dead_canary_trips_within_four_requests() {
    for seed in 0..10 {
        let mut world = started("5%", seed);
        world.canary = DOWN;
        assert!(world.run_to(&HARM, 1_000, 60_000), "seed {seed}");
        let failed = world.canary_seen.0;
        assert!((2..=5).contains(&failed), "seed {seed}: {failed} requests");
        assert_eq!(world.log.last().unwrap().kind, DecisionKind::Trip);
        assert_eq!(world.state().weight(), percent("0%"));
    }
}

/// STATISTICS 5.3: after half a good day an outage costs a handful of requests, at whatever second of a
/// minute it begins.
#[test]
fn good_days_do_not_bury_an_outage() {
    for (weight, most) in [("5%", 7.5), ("50%", 11.25), ("95%", 11.25)] {
        let mut world = started(weight, 1);
        world.run(10_000, 12 * HOUR);
        let (mut failed, twins) = (0, 24);
        for twin in 0..twins {
            world.run(1_000, 7_000);
            let mut twin = World::new(world.policy.clone(), 2 + twin);
            (twin.state, twin.now) = (world.state.clone(), world.now);
            twin.collector = world.collector.clone();
            twin.canary = DOWN;
            // The driver looks again within milliseconds of a failure.
            assert!(twin.run_to(&HARM, 50, HOUR));
            assert_eq!(twin.log.last().unwrap().kind, DecisionKind::Trip);
            failed += twin.canary_seen.0;
        }
        let mean = failed as f64 / twins as f64;
        assert!(mean <= most, "{weight}: {mean}");
    }
}

#[test]
fn without_the_fuse_the_capped_ledger_takes_its_minutes() {
    let mut world = started("50%", 1);
    world.policy.trip = None;
    world.rate_per_s = 2.0;
    world.run(60_000, 24 * HOUR);
    world.canary = DOWN;
    let outage = world.now;
    assert!(world.run_to(&HARM, 1_000, HOUR));
    let minutes = world.now.millis_since(outage) / 60_000;
    assert!((4..=8).contains(&minutes), "{minutes}");
    assert_eq!(world.log.last().unwrap().kind, DecisionKind::RollBack);
}

#[test]
fn two_percent_errors_roll_back_after_some_two_thousand_requests() {
    let seeds = 24;
    let mut total = 0;
    for seed in 0..seeds {
        let mut world = started("5%", 100 + seed);
        world.policy.trip = None;
        world.canary.error_rate = 0.02;
        assert!(world.run_to(&HARM, 10_000, 48 * HOUR), "seed {seed}");
        total += world.canary_seen.0;
    }
    let mean = total / seeds;
    assert!((1_300..=3_400).contains(&mean), "mean {mean}");
}

#[test]
fn a_slow_canary_rolls_back_and_a_slightly_slower_one_does_not() {
    let cases = [
        (
            Behaviour {
                latency_factor: 2.0,
                ..GOOD
            },
            true,
        ),
        (
            Behaviour {
                slow_tail: 0.05,
                ..GOOD
            },
            true,
        ),
        (
            Behaviour {
                latency_factor: 1.25,
                ..GOOD
            },
            false,
        ),
    ];
    for (behaviour, harmful) in cases {
        let mut world = started("5%", 5);
        world.canary = behaviour;
        let stopped = world.run_to(&HARM, 10_000, 8 * HOUR);
        assert_eq!(
            stopped,
            harmful && world.canary_seen.0 < 8_000,
            "{behaviour:?}"
        );
    }
}

#[test]
fn an_equal_canary_completes_every_stage() {
    for seed in 0..3 {
        let mut world = World::new(defaults(), 1_000 + seed);
        world.streamed = seed == 0;
        assert!(
            world.run_to(&[DecisionKind::Complete], 10_000, 96 * HOUR),
            "seed {seed}: {:?}",
            world.view()
        );
        let mut expected = vec![DecisionKind::Start];
        expected.extend([DecisionKind::Promote; 6]);
        expected.push(DecisionKind::Complete);
        assert_eq!(world.kinds(), expected, "seed {seed}");
        assert_eq!(world.state().weight(), percent("100%"));
        assert_eq!(*world.state().phase(), Phase::Complete);
        world.restart();
        // Complete is not blind: ceilings and the fuse stay on, and a rollback always works.
        world.canary = DOWN;
        assert!(world.run_to(&HARM, 1_000, 60_000));
        assert_eq!(world.state().weight(), percent("0%"));
        world.operator(Action::Rollback);
        assert_eq!(*world.state().phase(), Phase::RolledBack { until: None });
    }
}

#[test]
fn what_befalls_both_arms_is_no_harm() {
    for seed in 0..3 {
        let mut world = started("25%", 40 + seed);
        world.run(10_000, 2 * HOUR);
        for bad in [
            Behaviour {
                error_rate: 0.03,
                ..GOOD
            },
            Behaviour {
                latency_factor: 3.0,
                ..GOOD
            },
            Behaviour {
                error_rate: 0.5,
                ..GOOD
            },
        ] {
            (world.legacy, world.canary) = (bad, bad);
            world.run(10_000, HOUR);
            (world.legacy, world.canary) = (GOOD, GOOD);
            world.run(10_000, HOUR);
        }
        let kinds = world.kinds();
        let only = |kind: &DecisionKind| {
            matches!(
                kind,
                DecisionKind::Start | DecisionKind::Hold | DecisionKind::Resume
            )
        };
        assert!(kinds.iter().all(only), "seed {seed}: {kinds:?}");
        // Only the incident in which both were dead is a common cause.
        assert_eq!(kinds.len(), 3, "seed {seed}: {kinds:?}");
        assert!(world.alerts.contains(&"common-cause"));
    }
}

#[test]
fn at_the_margin_it_says_that_it_will_not_converge() {
    let mut policy = defaults();
    policy.stages.remove(0);
    let mut world = World::new(policy, 3);
    world.canary.error_rate = 0.010_5;
    let held = world.run_to(&[DecisionKind::Hold], 10_000, 72 * HOUR);
    assert!(held, "{:?}", world.log);
    assert_eq!(world.view().state, "held");
    assert!(world.view().reason.contains("will not converge"));
}

/// STATISTICS 6.4: at 95%, a soft alarm steps down long before the arms could be compared there.
#[test]
fn a_retreat_finds_a_small_regression_at_a_high_weight() {
    for (rate, most_hours, most_failed) in [(0.03, 0.3, 200)] {
        let (mut hours, mut failed) = (0.0, 0);
        let seeds = 3;
        for seed in 0..seeds {
            let mut world = started("95%", 70 + seed);
            world.run(10_000, 12 * HOUR);
            assert_eq!(world.kinds(), [DecisionKind::Start], "seed {seed}");
            world.canary.error_rate = rate;
            let (since, before) = (world.now, world.canary_seen.1);
            let ended = [
                DecisionKind::Retreat,
                DecisionKind::Trip,
                DecisionKind::RollBack,
            ];
            assert!(world.run_to(&ended, 10_000, 12 * HOUR), "seed {seed}");
            let first = world.log.last().unwrap();
            assert_eq!(first.kind, DecisionKind::Retreat, "{}", first.reason);
            let downs = [DecisionKind::RollBack, DecisionKind::Trip];
            assert!(world.run_to(&downs, 10_000, 24 * HOUR), "seed {seed}");
            hours += world.now.millis_since(since) as f64 / HOUR as f64 / seeds as f64;
            failed += (world.canary_seen.1 - before) / seeds;
        }
        assert!(
            hours < most_hours && failed < most_failed,
            "{rate}: {hours:.2} h, {failed} failed"
        );
    }
}
