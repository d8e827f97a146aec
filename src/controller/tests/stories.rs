//! Short stories that data cannot tell: what is shown, what a commit settles, what a decision says.
//! The others are in `tests/scenarios`.

use super::world::{World, defaults, one_stage, percent};
use crate::controller::policy::GuardKind;
use crate::controller::{Action, Command, DecisionKind, Effect, Event, Reset, adopt};

const MIN: i64 = 60_000;
const HOUR: i64 = 60 * MIN;

fn started(weight: &str) -> World {
    let mut world = World::new(one_stage(weight), 9);
    assert!(world.run_to(&[DecisionKind::Start], 1_000, HOUR));
    world
}

#[test]
fn warm_up_counts_legacy_requests_and_says_so() {
    let mut world = World::new(defaults(), 1);
    world.run(1_000, MIN);
    let view = world.view();
    assert_eq!(view.state, "warming-up");
    assert!(view.reason.starts_with("warm-up: "), "{}", view.reason);
    assert!(world.run_to(&[DecisionKind::Start], 1_000, 5 * MIN));
    let start = &world.log[0];
    assert_eq!(
        (start.weight_from, start.weight_to),
        (percent("0%"), percent("1%"))
    );
    assert!(start.reason.starts_with("warm-up: 2"), "{}", start.reason);
}

#[test]
fn without_warm_up_the_first_stage_starts_at_once() {
    let mut policy = defaults();
    policy.warm_up_requests = 0;
    let mut world = World::new(policy, 1);
    world.look(None);
    assert_eq!(world.state().weight(), percent("1%"));
    let view = world.view();
    let p99 = view
        .guards
        .iter()
        .find(|guard| guard.name == "latency-p99")
        .unwrap();
    assert_eq!(p99.verdict.as_str(), "no-data");
}

#[test]
fn a_raise_holds_only_once_it_is_committed() {
    let mut world = World::new(defaults(), 4);
    let promote = || {
        Some(Event::Operator(Command {
            action: Action::Promote,
            reason: String::new(),
        }))
    };
    let proposed = |effects: &[Effect]| match effects {
        [
            Effect::Propose {
                proposal,
                state_after,
                ..
            },
        ] => {
            assert_eq!(state_after.weight(), percent("1%"));
            *proposal
        }
        other => panic!("{other:?}"),
    };
    let (effects, _) = world.raw_look(promote());
    let first = proposed(&effects);
    assert_eq!(world.state().weight(), percent("0%"));
    let (effects, refusal) = world.raw_look(promote());
    assert!(
        effects.is_empty() && refusal.is_some(),
        "one proposal at a time"
    );
    world.raw_look(Some(Event::CommitFailed {
        proposal: first,
        why: "disk full".into(),
    }));
    assert_eq!(world.state().outstanding(), None);
    world.raw_look(Some(Event::Committed { proposal: first }));
    assert_eq!(
        world.state().weight(),
        percent("0%"),
        "a failed proposal stays failed"
    );
    let (effects, _) = world.raw_look(promote());
    let second = proposed(&effects);
    world.raw_look(Some(Event::Operator(Command {
        action: Action::Hold,
        reason: String::new(),
    })));
    world.raw_look(Some(Event::Committed { proposal: second }));
    assert_eq!(world.state().weight(), percent("0%"), "a hold cancels it");
    let (effects, _) = world.raw_look(promote());
    let third = proposed(&effects);
    world.raw_look(Some(Event::Committed { proposal: third }));
    assert_eq!(world.state().weight(), percent("1%"));
}

#[test]
fn a_promotion_tells_its_evidence() {
    let mut policy = defaults();
    policy.stages.remove(0);
    let mut world = World::new(policy, 4);
    assert!(world.run_to(&[DecisionKind::Promote], 10_000, 48 * HOUR));
    let promote = world.log.last().unwrap();
    let line = promote.log_line("default", Some(7));
    let parts = [
        "promote rollout=default 5% -> 25% stage 1/6 after ",
        " · errors ",
        " (allowed ",
        " · p99 ",
        " (allowed x1.5) · evidence ",
        " (needs 20) · decision 7",
    ];
    let mut rest = line.as_str();
    for part in parts {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("`{part}` is missing in {line}"));
        rest = &rest[at + part.len()..];
    }
    assert!(promote.evidence.evidence >= promote.evidence.needed);
}

#[test]
fn a_changed_configuration_is_taken_over() {
    let world = started("25%");
    let old = world.policy.clone();
    let take = |new: &crate::controller::policy::Policy, reset: &Reset| {
        let result = adopt(&old, new, world.state().clone(), reset, world.now);
        let proposal = result.effects.iter().find_map(|effect| match effect {
            Effect::Propose {
                proposal, decision, ..
            } => Some((*proposal, decision.weight_to)),
            _ => None,
        });
        let reason = match result.effects.first() {
            Some(Effect::Decide(decision)) => decision.reason.clone(),
            _ => String::new(),
        };
        (result.state, proposal.map(|(_, weight)| weight), reason)
    };
    let (_, _, reason) = take(&old, &Reset::None);
    assert_eq!(reason, "", "no change, no decision");
    let mut new = old.clone();
    new.guards[0].ceiling = Some(0.1);
    let (state, raise, reason) = take(&new, &Reset::None);
    assert_eq!((state.weight(), raise), (percent("25%"), None));
    assert_eq!(reason, "error-rate x1.2 +0.4% max 5% -> x1.2 +0.4% max 10%");
    let mut new = old.clone();
    new.stages[0].weight = percent("40%");
    let (state, raise, reason) = take(&new, &Reset::None);
    assert_eq!(
        (state.weight(), raise),
        (percent("25%"), Some(percent("40%")))
    );
    assert_eq!(reason, "stages 25% 100% -> 40% 100%");
    let mut new = old.clone();
    new.stages.truncate(1);
    new.stages[0].weight = percent("10%");
    let (state, raise, _) = take(&new, &Reset::None);
    assert_eq!((state.weight(), raise), (percent("10%"), None));
    let (state, _, _) = take(&old, &Reset::Rollout { id: "r-2".into() });
    assert_eq!(
        (state.rollout_id.as_str(), state.weight()),
        ("r-2", percent("0%"))
    );
}

#[test]
fn guards_on_first_tokens_are_not_applicable_without_streams() {
    let world = started("25%");
    for guard in world.view().guards {
        let expected = guard.name.starts_with("ttft");
        assert_eq!(
            guard.verdict.as_str() == "not-applicable",
            expected,
            "{guard:?}"
        );
    }
}

#[test]
fn ceilings_alone_prove_health_when_no_other_limit_is_set() {
    let mut policy = defaults();
    policy.stages.remove(0);
    policy
        .guards
        .retain(|guard| guard.kind == GuardKind::ErrorRate);
    policy.guards[0].relative = None;
    let mut world = World::new(policy, 4);
    assert!(world.run_to(&[DecisionKind::Promote], 10_000, 8 * HOUR));
}

#[test]
fn a_failing_store_and_a_clock_that_went_back_are_seen_in_the_view() {
    let mut world = started("25%");
    world.store_healthy = false;
    world.tick(10_000);
    let reason = world.view().reason;
    assert_eq!(reason, "the store is failing; weights are frozen");
    world.store_healthy = true;
    world.run(10_000, HOUR);
    let before = world.now;
    world.now = world.now.plus_millis(-30 * MIN);
    world.look(None);
    assert_eq!(world.view().stage.since, world.now);
    assert!(world.now < before);
}
