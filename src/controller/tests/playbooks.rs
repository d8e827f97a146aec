//! The playbooks keep what their names and comments promise, in virtual time.

use super::world::{DOWN, World};
use crate::config::Config;
use crate::config::parse::parse;
use crate::controller::DecisionKind;

const MIN: i64 = 60_000;
const DAY: i64 = 24 * 60 * MIN;
const HARM: [DecisionKind; 2] = [DecisionKind::Trip, DecisionKind::RollBack];

struct Playbook {
    name: &'static str,
    text: &'static str,
    ladder: &'static str,
    dwell_days: i64,
    /// The least traffic that its comment names, and the most days in all.
    per_min: f64,
    most_days: i64,
}

const PLAYBOOKS: [Playbook; 3] = [
    Playbook {
        name: "careful",
        text: include_str!("../../../config/playbooks/careful.toml"),
        ladder: "10% 25% 50% 75% 100%",
        dwell_days: 4,
        per_min: 20.0,
        most_days: 5,
    },
    Playbook {
        name: "fortnight",
        text: include_str!("../../../config/playbooks/fortnight.toml"),
        ladder: "1% 3% 8% 20% 40% 60% 80% 100%",
        dwell_days: 14,
        per_min: 150.0,
        most_days: 15,
    },
    Playbook {
        name: "parallel",
        text: include_str!("../../../config/playbooks/parallel.toml"),
        ladder: "5% 15% 30% 50% 75% 100%",
        dwell_days: 28,
        per_min: 30.0,
        most_days: 30,
    },
];

fn config(playbook: &Playbook) -> Config {
    let env = |name: &str| (name == "RELAY_API_KEY").then(|| "sk-relay".to_owned());
    let parsed = parse(playbook.text, &env).unwrap();
    assert_eq!(parsed.warnings, [], "{}", playbook.name);
    parsed.config
}

fn world(playbook: &Playbook) -> World {
    let policy = config(playbook).rollouts.remove(0).policy;
    let mut world = World::new(policy, 5);
    world.rate_per_s = playbook.per_min / 60.0;
    world
}

#[test]
fn each_reads_without_a_warning_and_has_the_ladder_of_its_name() {
    for playbook in &PLAYBOOKS {
        let config = config(playbook);
        let [rollout] = config.rollouts.as_slice() else {
            panic!("{}", playbook.name)
        };
        assert_eq!(rollout.name, playbook.name);
        let stages = &rollout.policy.stages;
        let ladder: Vec<String> = stages
            .iter()
            .map(|stage| stage.weight.to_string())
            .collect();
        assert_eq!(ladder.join(" "), playbook.ladder);
        let dwell_ms: i64 = stages.iter().map(|stage| stage.dwell_ms).sum();
        assert_eq!(dwell_ms, playbook.dwell_days * DAY, "{}", playbook.name);
        assert!(
            playbook
                .text
                .starts_with(&format!("# Playbook \"{}\"", playbook.name))
        );
    }
    let parallel = config(&PLAYBOOKS[2]);
    assert_eq!(parallel.rollouts[0].policy.stages[0].dwell_ms, 14 * DAY);
}

#[test]
fn an_equal_canary_completes_in_the_promised_time() {
    for playbook in &PLAYBOOKS {
        let mut world = world(playbook);
        let begun = world.now;
        let done = world.run_to(&[DecisionKind::Complete], MIN, playbook.most_days * DAY);
        assert!(done, "{}: {:?}", playbook.name, world.kinds());
        let took_ms = world.now.millis_since(begun);
        assert!(took_ms >= playbook.dwell_days * DAY, "{}", playbook.name);
        let promotions = playbook.ladder.split(' ').count() - 1;
        let mut expected = vec![DecisionKind::Start];
        expected.extend(vec![DecisionKind::Promote; promotions]);
        expected.push(DecisionKind::Complete);
        assert_eq!(world.kinds(), expected, "{}", playbook.name);
    }
}

#[test]
fn a_broken_canary_is_stopped_in_it() {
    for playbook in &PLAYBOOKS {
        // Five percent of errors from the start never leave the first stage.
        let mut world = self::world(playbook);
        world.canary.error_rate = 0.05;
        assert!(world.run_to(&HARM, MIN, 2 * DAY), "{}", playbook.name);
        assert_eq!(world.state().stage(), 0, "{}", playbook.name);
        assert!(!world.kinds().contains(&DecisionKind::Promote));
        // An outage halfway is over within minutes.
        let mut world = self::world(playbook);
        assert!(world.run_to(&[DecisionKind::Promote], MIN, 20 * DAY));
        world.canary = DOWN;
        assert!(world.run_to(&HARM, MIN, 10 * MIN), "{}", playbook.name);
        assert_eq!(world.state().weight().bps(), 0);
    }
}
