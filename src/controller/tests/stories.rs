//! Short stories: what happens, and what the controller does about it.

use super::world::{DOWN, GOOD, World, defaults, one_stage, percent};
use crate::controller::policy::GuardKind;
use crate::controller::{Action, Command, DecisionKind, Effect, Event, Phase, Reset, State, adopt};

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
fn a_trip_keeps_the_stage_probes_and_resumes_it() {
    let mut world = started("25%");
    world.run(1_000, 10 * MIN);
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::Trip], 200, MIN));
    let trip = world.log.last().unwrap();
    assert_eq!(
        (trip.weight_from, trip.weight_to),
        (percent("25%"), percent("0%"))
    );
    let line = trip.log_line("default", Some(4712));
    assert!(
        line.starts_with("trip rollout=default 25% -> 0% (stage kept) · errors "),
        "{line}"
    );
    assert!(line.contains(" · retry "), "{line}");
    assert_eq!(world.view().state, "tripped");
    // The first probe fails and doubles the cooldown, then the canary is back.
    assert!(world.run_to(&[DecisionKind::ProbeFailed], 1_000, 6 * MIN));
    world.canary = GOOD;
    assert!(!world.run_to(&[DecisionKind::Resume], 1_000, 9 * MIN));
    assert!(
        world.run_to(&[DecisionKind::Resume], 1_000, 3 * MIN),
        "{:?}",
        world.log
    );
    assert_eq!(world.state().weight(), percent("25%"));
    assert!(!world.run_to(&[DecisionKind::Trip, DecisionKind::RollBack], 1_000, HOUR));
}

#[test]
fn the_third_trip_in_a_day_is_a_rollback_and_attempts_run_out() {
    let mut world = started("25%");
    world.policy.max_attempts = 2;
    for round in 1..=3 {
        world.run(1_000, 2 * MIN);
        world.canary = DOWN;
        assert!(world.run_to(&[DecisionKind::Trip, DecisionKind::RollBack], 200, MIN));
        world.canary = GOOD;
        if round < 3 {
            assert_eq!(
                world.log.last().unwrap().kind,
                DecisionKind::Trip,
                "round {round}"
            );
            assert!(world.run_to(&[DecisionKind::Resume], 1_000, 10 * MIN));
        }
    }
    assert_eq!(world.log.last().unwrap().kind, DecisionKind::RollBack);
    assert_eq!(world.view().state, "rolled-back");
    assert!(!world.run_to(&[DecisionKind::Retry], 1_000, 14 * MIN));
    assert!(world.run_to(&[DecisionKind::Retry], 1_000, 2 * MIN));
    assert_eq!(world.state().attempt(), 2);
    world.policy.trip = None;
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::RollBack], 1_000, 10 * MIN));
    world.canary = GOOD;
    assert!(!world.run_to(&[DecisionKind::Retry], 10_000, 24 * HOUR));
    world.operator(Action::Retry);
    assert_eq!(world.state().weight(), percent("25%"));
}

#[test]
fn an_operators_hold_stops_increases_but_not_the_fuse() {
    let mut policy = defaults();
    policy.stages.remove(0);
    let mut world = World::new(policy, 4);
    world.run(10_000, 10 * MIN);
    world.operator(Action::Hold);
    assert_eq!(world.view().state, "held");
    assert!(!world.run_to(&[DecisionKind::Promote], 10_000, 8 * HOUR));
    world.operator(Action::Hold);
    assert!(world.refusal.is_some());
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::Trip], 1_000, MIN));
    world.canary = GOOD;
    assert!(
        !world.run_to(&[DecisionKind::Resume], 10_000, HOUR),
        "held, so it stays at 0%"
    );
    world.operator(Action::Resume);
    assert_eq!(world.state().weight(), percent("5%"));
    assert!(world.run_to(&[DecisionKind::Promote], 10_000, 48 * HOUR));
}

#[test]
fn operators_may_set_promote_and_roll_back_at_any_time() {
    let mut world = World::new(defaults(), 4);
    world.operator(Action::Retry);
    assert!(world.refusal.is_some());
    world.operator(Action::SetWeight(percent("30%")));
    assert_eq!(
        (world.state().weight(), world.state().stage()),
        (percent("30%"), 2)
    );
    world.operator(Action::Promote);
    assert_eq!(
        (world.state().weight(), world.state().stage()),
        (percent("50%"), 3)
    );
    world.operator(Action::SetWeight(percent("0%")));
    assert!(!world.run_to(&[DecisionKind::Promote], 10_000, 3 * HOUR));
    world.operator(Action::Rollback);
    assert_eq!(*world.state().phase(), Phase::RolledBack { until: None });
    assert!(!world.run_to(&[DecisionKind::Retry], 10_000, 3 * HOUR));
    world.operator(Action::Resume);
    assert_eq!(
        (world.state().weight(), world.state().attempt()),
        (percent("1%"), 2)
    );
    use DecisionKind::{Promote, Resume, RollBack, SetWeight};
    assert_eq!(
        world.kinds(),
        [SetWeight, Promote, SetWeight, RollBack, Resume]
    );
}

#[test]
fn nothing_goes_up_while_the_store_fails_but_harm_still_acts() {
    let mut world = World::new(defaults(), 4);
    world.store_healthy = false;
    world.run(10_000, HOUR);
    assert!(world.log.is_empty());
    assert_eq!(
        world.view().reason,
        "the store is failing; weights are frozen"
    );
    world.operator(Action::Promote);
    assert!(world.refusal.is_some());
    world.store_healthy = true;
    world.tick(10_000);
    assert_eq!(world.kinds(), [DecisionKind::Start]);
    world.operator(Action::SetWeight(percent("25%")));
    world.store_healthy = false;
    world.canary = DOWN;
    assert!(world.run_to(&[DecisionKind::Trip], 200, MIN));
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
fn a_gate_waits_for_the_operator() {
    let mut policy = defaults();
    policy.stages.remove(0);
    policy.stages[0].approve = true;
    let mut world = World::new(policy, 4);
    assert!(world.run_to(&[DecisionKind::Hold], 10_000, 48 * HOUR));
    assert_eq!(world.view().state, "held");
    world.run(10_000, 2 * HOUR);
    assert_eq!(world.kinds(), [DecisionKind::Start, DecisionKind::Hold]);
    world.operator(Action::Promote);
    assert_eq!(world.state().weight(), percent("25%"));
    assert_eq!(world.view().state, "running");
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
fn a_clock_that_went_back_restarts_the_dwell() {
    let mut world = started("25%");
    world.run(10_000, HOUR);
    let before = world.now;
    world.now = world.now.plus_millis(-30 * MIN);
    world.look(None);
    assert_eq!(world.alerts, ["clock"]);
    world.tick(10_000);
    assert_eq!(world.alerts, ["clock"], "told once");
    assert!(world.view().stage.since < before);
    world.canary = DOWN;
    assert!(
        world.run_to(&[DecisionKind::Trip], 200, MIN),
        "the fuse still works"
    );
}

#[test]
fn a_ledger_without_a_number_holds_and_alerts() {
    let mut world = started("25%");
    let text = serde_json::to_string(world.state()).unwrap();
    let broken = text.replacen("\"promote\":\"-", "\"promote\":\"NaN -", 1);
    let broken = {
        // Five numbers stay five: the first became two, so the last goes.
        let at = broken.find("NaN -").unwrap();
        let end = at + broken[at..].find('"').unwrap();
        let last = broken[..end].rfind(' ').unwrap();
        format!("{}{}", &broken[..last], &broken[end..])
    };
    world.state = Some(serde_json::from_str::<State>(&broken).unwrap());
    world.look(None);
    assert_eq!(world.log.last().unwrap().kind, DecisionKind::Hold);
    assert_eq!(world.alerts, ["evidence"]);
    world.tick(10_000);
    assert_eq!(world.alerts, ["evidence"]);
    assert_eq!(world.view().state, "held");
}

#[test]
fn a_refused_key_waits_for_a_new_one() {
    let mut world = started("25%");
    world.look(Some(Event::AccountFailure { why: "401".into() }));
    assert_eq!(world.log.last().unwrap().kind, DecisionKind::Trip);
    world.run(10_000, 3 * HOUR);
    assert_eq!(world.view().state, "tripped");
    let policy = world.policy.clone();
    let state = world.state.take().unwrap();
    let adopted = adopt(&policy, &policy, state, &Reset::Ledgers, world.now);
    world.state = Some(adopted.state);
    assert!(world.run_to(&[DecisionKind::Resume], 1_000, 2 * MIN));
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
