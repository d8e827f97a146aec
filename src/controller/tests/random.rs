//! A seeded simulation: anything may happen at any time, and some things must never.

use rand::RngExt;

use super::world::{Behaviour, DOWN, GOOD, World, defaults, percent};
use crate::arm::Weight;
use crate::controller::policy::OnHarm;
use crate::controller::{Action, By, Decision, DecisionKind, Effect, Event, Phase, Reset, adopt};

const STEPS: usize = 1_500;

/// What one run decided, as text.
fn run(seed: u64, restarts: bool) -> Vec<String> {
    let mut policy = defaults();
    policy.warm_up_requests = 200;
    for stage in &mut policy.stages {
        stage.dwell_ms /= 60;
    }
    policy.on_harm = [OnHarm::RollBack, OnHarm::StepBack, OnHarm::Hold][(seed % 3) as usize];
    let mut world = World::new(policy, seed);
    let mut pending: Option<u64> = None;
    let mut trace = Vec::new();
    for at in 0..STEPS {
        let event = act(&mut world, &mut pending);
        let seconds = [1, 1, 10, 60][world.rng.random_range(0..4usize)];
        for _ in 0..world.rng.random_range(0..40u32) {
            if world.rate_per_s > 0.0 {
                world.request();
            }
        }
        world.now = world.now.plus_millis(seconds * 1_000);
        if restarts && world.state().outstanding().is_none() && at % 7 == 0 {
            world.restart();
        }
        if world.rng.random_range(0..150u32) == 0 {
            reconfigure(&mut world, &mut pending, &mut trace);
        }
        world.overdue.canary = if world.rng.random_range(0..9u32) == 0 {
            50
        } else {
            0
        };
        let before = (world.state().weight(), world.state().hold.is_some());
        let by_operator = matches!(event, Some(Event::Operator(_)));
        let committed = matches!(event, Some(Event::Committed { .. }));
        let (effects, _) = world.raw_look(event);
        let after = world.state().weight();
        assert!(after <= Weight::FULL);
        assert!(
            after <= before.0 || committed,
            "seed {seed} step {at}: up without a commit"
        );
        let proposals = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Propose { .. }))
            .count();
        assert!(
            proposals <= 1
                && (proposals == 0 || pending.is_none() || world.state().outstanding() != pending)
        );
        for effect in effects {
            check(seed, at, &world, &effect, before.1 && !by_operator);
            match effect {
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    pending = Some(proposal);
                    trace.push(decision.log_line("r", None));
                }
                Effect::Decide(decision) => trace.push(decision.log_line("r", None)),
                Effect::PermitProbe => trace.push("probe".into()),
                Effect::Alert { kind, text } => trace.push(format!("{kind} {text}")),
            }
        }
    }
    trace
}

/// The file was edited: limits, ladder or reflexes are others now. By itself that never raises a weight.
fn reconfigure(world: &mut World, pending: &mut Option<u64>, trace: &mut Vec<String>) {
    let old = world.policy.clone();
    let mut new = old.clone();
    match world.rng.random_range(0..5u32) {
        0 => {
            new.guards[0].ceiling = Some(f64::from(world.rng.random_range(2..20u32)) / 100.0);
        }
        1 => new.stages.truncate(world.rng.random_range(2..8usize)),
        2 => new.stages = defaults().stages,
        3 => {
            new.retreat = if old.retreat.is_some() {
                None
            } else {
                Some(percent("50%"))
            }
        }
        _ => new.max_attempts = world.rng.random_range(1..6u32),
    }
    let state = world.state.take().unwrap();
    let before = state.weight();
    let step = adopt(&old, &new, state, &Reset::None, world.now);
    assert!(step.state.weight() <= before, "a raise is a proposal");
    for effect in step.effects {
        match effect {
            Effect::Decide(decision) => trace.push(decision.log_line("r", None)),
            Effect::Propose {
                proposal, decision, ..
            } => {
                *pending = Some(proposal);
                trace.push(decision.log_line("r", None));
            }
            Effect::PermitProbe | Effect::Alert { .. } => {}
        }
    }
    world.policy = new;
    world.state = Some(step.state);
}

fn act(world: &mut World, pending: &mut Option<u64>) -> Option<Event> {
    if let Some(proposal) = pending.take() {
        return match world.rng.random_range(0..10u32) {
            0 => Some(Event::CommitFailed {
                proposal,
                why: "locked".into(),
            }),
            1 => {
                *pending = Some(proposal);
                None
            }
            _ => Some(Event::Committed { proposal }),
        };
    }
    match world.rng.random_range(0..60u32) {
        0 => world.canary = DOWN,
        1 => {
            world.canary = Behaviour {
                latency_factor: 3.0,
                ..GOOD
            }
        }
        2..=5 => world.canary = GOOD,
        6 => world.legacy = DOWN,
        7 | 8 => world.legacy = GOOD,
        9 => world.rate_per_s = 0.0,
        10..=12 => world.rate_per_s = 1.0,
        13 => world.store_healthy = false,
        14..=16 => world.store_healthy = true,
        17..=22 => {
            let weight = ["0%", "3%", "25%", "60%", "100%"][world.rng.random_range(0..5usize)];
            let actions = [
                Action::Hold,
                Action::Resume,
                Action::Promote,
                Action::Rollback,
                Action::Retry,
                Action::SetWeight(percent(weight)),
            ];
            let action = actions[world.rng.random_range(0..6usize)];
            return Some(Event::Operator(crate::controller::Command {
                action,
                reason: String::new(),
            }));
        }
        23..=28 => {
            let ok = world.rng.random::<f64>() >= world.canary.error_rate;
            return Some(Event::Probe { ok });
        }
        29 => return Some(Event::Committed { proposal: 1 }),
        _ => {}
    }
    None
}

/// What a controller's own decision must respect.
fn check(seed: u64, at: usize, world: &World, effect: &Effect, held: bool) {
    let place = format!("seed {seed} step {at}: {effect:?}");
    match effect {
        Effect::Propose {
            decision,
            state_after,
            ..
        } => {
            assert!(world.store_healthy, "{place}");
            assert!(!(held && decision.by == By::Controller), "{place}");
            assert_eq!(state_after.weight(), decision.weight_to, "{place}");
            assert!(
                decision.weight_to > decision.weight_from || decision.by == By::Operator,
                "{place}"
            );
            if decision.kind == DecisionKind::Promote && decision.by == By::Controller {
                assert_eq!(world.overdue.canary, 0, "{place}");
                let evidence = &decision.evidence;
                assert!(
                    evidence.evidence >= evidence.needed && evidence.needed >= 20.0 - 1e-9,
                    "{place}"
                );
                assert!(evidence.canary_requests >= 20, "{place}");
            }
        }
        Effect::Decide(Decision {
            weight_from,
            weight_to,
            kind,
            ..
        }) => {
            assert!(weight_to <= weight_from, "{place}");
            let to_zero = match kind {
                DecisionKind::Trip => true,
                DecisionKind::RollBack => world.policy.on_harm != OnHarm::StepBack,
                _ => false,
            };
            assert!(!to_zero || *weight_to == Weight::ZERO, "{place}");
        }
        Effect::PermitProbe => assert!(
            matches!(world.state().phase(), Phase::Tripped(_)),
            "{place}"
        ),
        Effect::Alert { .. } => {}
    }
}

#[test]
fn whatever_happens_the_rules_hold_and_a_restart_changes_nothing() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let plain = run(seed, false);
        assert_eq!(
            plain,
            run(seed, true),
            "seed {seed}: a restart changed a decision"
        );
        kinds.extend(
            plain
                .iter()
                .filter_map(|line| line.split(' ').next().map(str::to_owned)),
        );
    }
    // A simulation that never gets anywhere tests nothing.
    for kind in [
        "start",
        "promote",
        "hold",
        "resume",
        "trip",
        "roll-back",
        "retry",
        "set-weight",
        "probe",
        "retreat",
        "config",
    ] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
}
