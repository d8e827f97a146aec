//! Stories of the slower reflexes: retreat, on-harm, common cause, requests that hang.

use super::world::{Behaviour, DOWN, GOOD, World, defaults, one_stage, percent};
use crate::alert::kind::AlertKind;
use crate::arm::PerArm;
use crate::controller::policy::OnHarm;
use crate::controller::split::Assigned;
use crate::controller::{Action, DecisionKind, Phase, Reset, adopt};

const MIN: i64 = 60_000;
const HOUR: i64 = 60 * MIN;

fn at(weight: &str, seed: u64) -> World {
    let mut world = World::new(one_stage(weight), seed);
    assert!(world.run_to(&[DecisionKind::Start], 1_000, HOUR));
    world
}

fn failing(error_rate: f64) -> Behaviour {
    Behaviour { error_rate, ..GOOD }
}

/// A world at 95% that has just retreated, with the canary well again.
fn retreated(seed: u64) -> World {
    let mut world = at("95%", seed);
    world.run(10_000, 2 * HOUR);
    world.canary = failing(0.03);
    assert!(world.run_to(&[DecisionKind::Retreat], 10_000, 3 * HOUR));
    world.canary = GOOD;
    world
}

#[test]
fn a_retreat_keeps_the_stage_and_fresh_proof_leads_straight_back() {
    let mut world = retreated(11);
    let retreat = world.log.last().unwrap();
    assert_eq!(
        (retreat.weight_from, retreat.weight_to),
        (percent("95%"), percent("50%"))
    );
    let view = world.view();
    assert_eq!((view.state, view.weight), ("retreated", percent("50%")));
    assert_eq!((view.stage.index, view.stage.weight), (1, percent("95%")));
    assert!(
        view.reason.starts_with("retreated to 50% to find out; "),
        "{}",
        view.reason
    );
    world.restart();
    assert!(world.run_to(&[DecisionKind::Resume], 10_000, 72 * HOUR));
    let back = world.log.last().unwrap();
    assert_eq!(back.weight_to, percent("95%"));
    assert!(back.evidence.evidence >= back.evidence.needed && back.evidence.needed >= 20.0 - 1e-9);
    assert_eq!(world.view().state, "running");
}

#[test]
fn a_second_retreat_in_a_day_stays_until_an_operator_leads_back() {
    let mut world = retreated(12);
    world.operator(Action::Resume);
    assert_eq!(world.state().weight(), percent("95%"));
    world.canary = failing(0.03);
    assert!(world.run_to(&[DecisionKind::Retreat], 10_000, 3 * HOUR));
    world.canary = GOOD;
    assert!(!world.run_to(&[DecisionKind::Resume], 10_000, 48 * HOUR));
    assert!(world.view().reason.contains("second time"));
    let told = world.alerts.iter().filter(|&&kind| kind == "retreat");
    assert_eq!(told.count(), 2);
    world.operator(Action::Promote);
    assert_eq!(world.state().weight(), percent("95%"));
}

#[test]
fn a_trip_while_retreated_comes_back_retreated() {
    let mut world = retreated(13);
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::Trip], 200, MIN));
    assert_eq!(world.log.last().unwrap().weight_from, percent("50%"));
    world.canary = GOOD;
    assert!(world.run_to(&[DecisionKind::Resume], 1_000, 20 * MIN));
    assert_eq!(world.log.last().unwrap().weight_to, percent("50%"));
    assert_eq!(world.view().state, "retreated");
}

#[test]
fn an_outage_at_a_high_weight_is_for_the_fuse_not_for_the_retreat() {
    for seed in 0..5 {
        let mut world = at("75%", seed);
        world.run(10_000, 2 * HOUR);
        world.canary = DOWN;
        let downs = [
            DecisionKind::Trip,
            DecisionKind::Retreat,
            DecisionKind::RollBack,
        ];
        assert!(world.run_to(&downs, 200, MIN));
        assert_eq!(world.log.last().unwrap().kind, DecisionKind::Trip);
        world.run(1_000, 3 * MIN);
        world.canary = GOOD;
        assert!(world.run_to(&[DecisionKind::Resume], 1_000, 20 * MIN));
        assert_eq!(world.state().weight(), percent("75%"));
    }
}

/// Runs until harm is proven by the capped ledgers, without the fuse.
fn proven_harm(on_harm: OnHarm) -> World {
    let mut policy = defaults();
    policy.on_harm = on_harm;
    policy.trip = None;
    policy.retreat = None;
    let mut world = World::new(policy, 21);
    world.operator(Action::SetWeight(percent("25%")));
    world.run(10_000, 40 * MIN);
    world.canary = failing(0.1);
    world
}

#[test]
fn on_harm_hold_stays_and_asks_once() {
    let mut world = proven_harm(OnHarm::Hold);
    assert!(world.run_to(&[DecisionKind::Hold], 10_000, 2 * HOUR));
    world.run(10_000, 2 * HOUR);
    assert_eq!(world.kinds(), [DecisionKind::SetWeight, DecisionKind::Hold]);
    assert_eq!(world.alerts, ["harm"]);
    let view = world.view();
    assert_eq!((view.state, view.weight), ("held", percent("25%")));
    assert!(view.reason.starts_with("harm is proven"), "{}", view.reason);
    // What the operator accepts has to be proven anew.
    world.operator(Action::Resume);
    assert_eq!(world.view().state, "running");
    assert!(world.run_to(&[DecisionKind::Hold], 10_000, 2 * HOUR));
    assert_eq!(world.view().held_by, ["harm"]);
    world.operator(Action::Hold);
    assert_eq!(world.view().held_by, ["operator", "harm"]);
    world.operator(Action::Rollback);
    assert_eq!(world.state().weight(), percent("0%"));
    assert!(world.state().hold.is_some());
    assert!(world.view().held_by.is_empty(), "it is not held any more");
}

#[test]
fn on_harm_hold_stays_a_hold_when_the_canary_trips_meanwhile() {
    let mut world = proven_harm(OnHarm::Hold);
    assert!(world.run_to(&[DecisionKind::Hold], 10_000, 2 * HOUR));
    world.policy.trip = defaults().trip;
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::Trip], 1_000, 10 * MIN));
    world.run(1_000, 30 * MIN);
    let rolled_back = world.kinds().contains(&DecisionKind::RollBack);
    assert!(!rolled_back, "{:?}", world.kinds());
    assert_eq!(world.view().state, "tripped");
}

#[test]
fn resume_lifts_a_hold_over_a_retreat_before_it_leads_back() {
    let mut world = retreated(14);
    world.operator(Action::Hold);
    world.operator(Action::Resume);
    assert_eq!(world.state().weight(), percent("50%"));
    world.operator(Action::Resume);
    assert_eq!(world.state().weight(), percent("95%"));
}

#[test]
fn on_harm_step_back_goes_down_one_stage_and_tries_again_later() {
    let mut world = proven_harm(OnHarm::StepBack);
    assert!(world.run_to(&[DecisionKind::RollBack], 10_000, 2 * HOUR));
    let down = world.log.last().unwrap();
    assert_eq!(
        (down.weight_from, down.weight_to),
        (percent("25%"), percent("5%"))
    );
    assert!(
        down.reason.contains("attempt 1/3 · steps back"),
        "{}",
        down.reason
    );
    world.canary = GOOD;
    assert_eq!(
        (world.view().state, world.state().attempt()),
        ("running", 2)
    );
    assert!(world.run_to(&[DecisionKind::Promote], 10_000, 72 * HOUR));
    // The attempts run out: then everything goes back to legacy.
    world.canary = failing(0.1);
    assert!(world.run_to(&[DecisionKind::RollBack], 10_000, 12 * HOUR));
    assert_eq!(world.state().weight(), percent("5%"));
    assert!(world.run_to(&[DecisionKind::RollBack], 10_000, 12 * HOUR));
    assert_eq!(world.state().weight(), percent("0%"));
    assert_eq!(*world.state().phase(), Phase::RolledBack { until: None });
}

#[test]
fn both_arms_failing_hold_and_alert_once_until_one_is_well() {
    let mut world = at("25%", 31);
    world.run(10_000, HOUR);
    (world.legacy, world.canary) = (failing(0.4), failing(0.4));
    assert!(world.run_to(&[DecisionKind::Hold], 1_000, 5 * MIN));
    assert_eq!(world.view().state, "held");
    assert!(world.view().reason.starts_with("common cause"));
    world.run(1_000, 10 * MIN);
    (world.legacy, world.canary) = (GOOD, GOOD);
    assert!(world.run_to(&[DecisionKind::Resume], 1_000, 15 * MIN));
    world.run(1_000, 10 * MIN);
    use DecisionKind::{Hold, Resume, Start};
    assert_eq!(world.kinds(), [Start, Hold, Resume]);
    assert_eq!(world.alerts, ["common-cause"]);
}

#[test]
fn legacy_failing_alone_is_told_and_changes_no_weight() {
    let mut world = at("25%", 32);
    world.run(10_000, HOUR);
    world.legacy = DOWN;
    world.run(1_000, 10 * MIN);
    world.legacy = GOOD;
    world.run(1_000, 20 * MIN);
    assert_eq!(world.kinds(), [DecisionKind::Start]);
    assert_eq!(world.alerts, ["legacy-failing", "legacy-recovered"]);
    assert_eq!(world.state().weight(), percent("25%"));
}

#[test]
fn requests_that_hang_stop_a_promotion_but_not_when_legacys_hang_too() {
    let mut policy = defaults();
    policy.stages.remove(0);
    let mut world = World::new(policy, 33);
    world.run(10_000, 5 * MIN);
    world.overdue = PerArm {
        legacy: 2,
        canary: 9,
    };
    assert!(!world.run_to(&[DecisionKind::Promote], 10_000, 24 * HOUR));
    let reason = world.view().reason;
    assert!(
        reason.contains("9 canary requests have been under way"),
        "{reason}"
    );
    world.overdue.legacy = 90;
    assert!(world.run_to(&[DecisionKind::Promote], 10_000, 10 * MIN));
}

#[test]
fn a_split_that_is_off_holds_until_an_operator_has_looked() {
    let mut world = at("25%", 35);
    world.run(10_000, HOUR);
    world.assigned = Assigned {
        canary: 40,
        legacy: 120,
        strays: 3,
    };
    assert!(world.run_to(&[DecisionKind::Hold], 10_000, 5 * MIN));
    assert_eq!(world.alerts, ["split"]);
    assert_eq!(
        (world.view().state, world.state().weight()),
        ("held", percent("25%"))
    );
    world.run(10_000, 10 * MIN);
    assert_eq!(world.kinds().len(), 2, "told once: {:?}", world.log);
    world.assigned.strays = 0;
    world.operator(Action::Resume);
    world.run(10_000, 10 * MIN);
    assert_eq!(world.view().state, "running");
}

#[test]
fn every_changed_rule_is_told_with_its_old_and_new_value() {
    let world = at("25%", 34);
    let mut new = world.policy.clone();
    new.warm_up_requests = 300;
    new.on_harm = OnHarm::Hold;
    new.trip = None;
    new.retreat = None;
    new.cooldown_ms = 60_000;
    new.max_attempts = 5;
    new.stages[0].dwell_ms = HOUR;
    new.stages[0].approve = true;
    let old = crate::controller::policy::Policy {
        stages: {
            let mut stages = world.policy.stages.clone();
            stages[0].dwell_ms = 2 * HOUR;
            stages
        },
        ..world.policy.clone()
    };
    let step = adopt(&old, &new, world.state().clone(), &Reset::None, world.now);
    let Some(crate::controller::Effect::Decide(decision)) = step.effects.first() else {
        panic!("no decision");
    };
    assert_eq!(
        decision.reason,
        "dwell at 25% 2h -> 1h · approve at 25% no -> yes · warm-up 2000 -> 300 · on-harm roll-back -> hold · \
         trip 5m 3/day -> off · retreat 50% -> off · cooldown 15m -> 1m · max-attempts 3 -> 5"
    );
}

#[test]
fn what_was_told_stands_until_it_ends_whatever_ends_it() {
    let mut world = at("25%", 41);
    let check = |world: &World, standing: &[AlertKind]| {
        let stands = |kind: &AlertKind| world.state().stands(*kind);
        let found: Vec<AlertKind> = AlertKind::ALL.into_iter().filter(stands).collect();
        assert_eq!(found, standing);
    };
    let tripped = [AlertKind::Trip, AlertKind::Credentials];
    check(&world, &[]);
    world.operator(Action::Hold);
    check(&world, &[AlertKind::Held]);
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::Trip], 1_000, HOUR));
    // Which of the two it was, is known to who told it.
    check(&world, &tripped);
    world.restart();
    check(&world, &tripped);
    world.canary = GOOD;
    world.operator(Action::Resume);
    check(&world, &[]);
    world.operator(Action::Rollback);
    check(&world, &[AlertKind::RollBack]);
    world.operator(Action::SetWeight(percent("10%")));
    check(&world, &[]);
}
