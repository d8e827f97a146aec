//! Low traffic is said once, when the stage begins, and shown for as long as it lasts.

use super::world::{World, defaults, percent};
use crate::controller::{Action, Effect, Event};

const MIN: i64 = 60_000;
const HOUR: i64 = 60 * MIN;

fn sparse() -> World {
    let mut policy = defaults();
    policy.warm_up_requests = 20;
    let mut world = World::new(policy, 11);
    world.rate_per_s = 10.0 / 60.0;
    world
}

/// How often it was said.
fn announced(world: &World) -> usize {
    let said = |kind: &&&str| **kind == "low-traffic";
    world.alerts.iter().filter(said).count()
}

#[test]
fn a_stage_of_days_is_announced_once_with_a_better_weight() {
    let mut world = sparse();
    world.policy.warm_up_requests = 0;
    let (effects, _) = world.raw_look(None);
    let Some(Effect::Propose { proposal, .. }) = effects.first() else {
        panic!("{effects:?}")
    };
    let committed = Event::Committed {
        proposal: *proposal,
    };
    let (effects, _) = world.raw_look(Some(committed));
    let [Effect::Alert { kind, text }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(kind.as_str(), "low-traffic");
    let parts = [
        "stage 1/7 at 1% takes about ",
        "d for its proof at 10/min; a better first weight is ",
        "%, which takes about 1d ",
        ": change `stages`, or `cutover set-weight ",
    ];
    let mut rest = text.as_str();
    for part in parts {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("`{part}` is missing in {text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn it_is_said_once_for_each_entry_and_not_again_after_a_restart() {
    let mut world = sparse();
    world.run(MIN, 3 * HOUR);
    assert_eq!(world.state().weight(), percent("1%"));
    assert_eq!(announced(&world), 1);
    let reason = world.view().reason;
    assert!(
        reason.contains(" · low traffic: this stage takes about "),
        "{reason}"
    );
    world.restart();
    world.run(MIN, HOUR);
    assert_eq!(announced(&world), 1);
    assert_eq!(world.view().reason.matches("low traffic").count(), 1);
    world.operator(Action::SetWeight(percent("20%")));
    assert!(!world.view().reason.contains("low traffic"));
    world.run(MIN, HOUR);
    assert!(!world.view().reason.contains("low traffic"));
    world.operator(Action::SetWeight(percent("1%")));
    assert_eq!(announced(&world), 2, "another entry");
}

#[test]
fn enough_traffic_is_not_spoken_of() {
    let mut world = World::new(defaults(), 11);
    world.run(10_000, HOUR);
    assert_eq!(world.state().weight(), percent("1%"));
    assert_eq!(announced(&world), 0);
    assert!(!world.view().reason.contains("low traffic"));
}

#[test]
fn it_waits_until_the_rate_is_known() {
    let mut world = sparse();
    world.policy.warm_up_requests = 0;
    world.rate_per_s = 0.0;
    world.run(MIN, HOUR);
    assert_eq!(announced(&world), 0);
    world.rate_per_s = 10.0 / 60.0;
    world.run(MIN, HOUR);
    assert_eq!(announced(&world), 1);
}

#[test]
fn a_state_of_before_reads_as_one_that_announced_nothing() {
    let world = sparse();
    let mut value = serde_json::to_value(world.state()).unwrap();
    assert!(value.as_object_mut().unwrap().remove("announced").is_some());
    let text = value.to_string();
    assert!(serde_json::from_str::<crate::controller::State>(&text).is_ok());
}
