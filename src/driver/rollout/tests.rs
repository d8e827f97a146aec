use super::*;
use crate::arm::Weight;
use crate::config::parse::parse;
use crate::controller::effect::DecisionKind;
use crate::controller::step::{Action, Command};
use crate::upstream::headroom::Room;

const START: UnixMillis = UnixMillis(1_700_000_000_000);

const CONFIG: &str = r#"
[arms.legacy]
base-url = "http://127.0.0.1:1/v1"
[arms.canary]
base-url = "http://127.0.0.1:2/v1"
api-key = "env:KEY"
[[rollout]]
name = "default"
warm-up = 0
"#;

/// A rollout under way, with requests made up for it.
struct Scene {
    rollout: Rollout,
    now: UnixMillis,
    failover: bool,
    requests: u64,
    decided: Vec<DecisionKind>,
}

impl Scene {
    fn at(bps: u16, failover: bool) -> Self {
        let config = parse(CONFIG, &|_| Some("k".to_owned())).unwrap().config;
        let rollout = config.rollouts.first().unwrap();
        let stored = Stored::begin(&config, rollout, "default-1", START);
        let key = RolloutKey {
            id: "default-1".into(),
            name: "default".into(),
        };
        let mut scene = Self {
            rollout: Rollout::new(key, stored, 0, Live::default(), 1, START),
            now: START,
            failover,
            requests: 0,
            decided: Vec::new(),
        };
        scene.rollout.begin_epoch(1, 600_000, START);
        let weight = Weight::from_bps(bps).unwrap();
        let command = Command {
            action: Action::SetWeight(weight),
            reason: String::new(),
        };
        scene.look(Some(Event::Operator(command)));
        assert_eq!(scene.rollout.reader.snapshot().weight, weight);
        scene.decided.clear();
        scene
    }

    fn look(&mut self, event: Option<Event>) {
        let around = Surroundings {
            now: self.now,
            store_healthy: true,
            rooms: PerArm::default(),
            is_one_account: true,
            breakers: PerArm::default(),
        };
        let mut proposals = Vec::new();
        for effect in self.rollout.look(event, around).effects {
            match effect {
                Effect::Decide(decision) => self.decided.push(decision.kind),
                Effect::Propose { proposal, .. } => proposals.push(proposal),
                Effect::Alert { .. } | Effect::PermitProbe => {}
            }
        }
        for proposal in proposals {
            self.look(Some(Event::Committed { proposal }));
        }
    }

    /// One attempt of 20 ms, counted and ended.
    fn attempt(&mut self, arm: Arm, role: Role, outcome: Outcome, key: u64, body: u64) {
        let snapshot = self.rollout.reader.snapshot();
        let sample = Sample {
            started_at: self.now,
            rollout: Some(0),
            config_epoch: 1,
            arm,
            assigned: arm,
            weight: snapshot.weight,
            stage: snapshot.stage,
            role,
            attempt: if role == Role::Rescue { 2 } else { 1 },
            outcome,
            status: 0,
            latency_us: 20_000,
            ttft_us: None,
            streamed: false,
            complete: true,
            conn_reused: true,
            client_retry: false,
            dialect: Some(crate::llm::Dialect::OpenAiChat),
            model: None,
            usage: None,
            upstream_request_id: None,
            key_hash: key,
            body_hash: body,
            reported_cost_usd: None,
            tag: None,
            first_role: Role::Live,
        };
        if role == Role::Live {
            let routing = Routing {
                rollout: 0,
                config_epoch: 1,
                weight: snapshot.weight,
                assigned: arm,
                arm,
                second: sample.second(),
            };
            self.rollout.count(&routing, 1);
        }
        self.now = self.now.plus_millis(20);
        assert_eq!(self.rollout.record(&sample, None, self.now), None);
    }

    /// A request with `body`; the canary gets each `nth`. Gives the arm.
    fn request(&mut self, nth: u64, body: u64, canary: Outcome) -> Arm {
        self.requests += 1;
        let arm = if self.requests.is_multiple_of(nth) {
            Arm::Canary
        } else {
            Arm::Legacy
        };
        let outcome = if arm == Arm::Canary {
            canary
        } else {
            Outcome::Ok
        };
        self.attempt(arm, Role::Live, outcome, self.requests, body);
        if arm == Arm::Canary && outcome.is_error() && self.failover {
            self.attempt(Arm::Legacy, Role::Rescue, Outcome::Ok, 0, body);
        }
        self.now = self.now.plus_millis(80);
        self.look(None);
        arm
    }

    /// Fails every canary request from now on; gives how many it took until the weight was taken away.
    fn failures_to_stop(&mut self, nth: u64, body: impl Fn(u64) -> u64) -> u64 {
        let mut failures = 0;
        while self.decided.is_empty() {
            assert!(failures < 100, "the outage is not seen");
            let body = body(self.requests);
            let arm = self.request(nth, body, Outcome::Connect);
            failures += u64::from(arm == Arm::Canary);
        }
        let last = self.decided.last();
        assert!(
            matches!(last, Some(DecisionKind::Trip | DecisionKind::RollBack)),
            "{last:?}"
        );
        failures
    }
}

#[test]
fn an_outage_under_one_constant_body_is_seen_as_fast_as_any_other() {
    for (bps, nth) in [(500, 20), (5_000, 2), (10_000, 1)] {
        for failover in [true, false] {
            for good in [0, 2_000] {
                let run = |body: fn(u64) -> u64| {
                    let mut scene = Scene::at(bps, failover);
                    for _ in 0..good {
                        scene.request(nth, body(scene.requests), Outcome::Ok);
                    }
                    scene.decided.clear();
                    let failures = scene.failures_to_stop(nth, body);
                    (failures, scene.rollout.traffic.repeats.left_out())
                };
                let place = format!("{bps} failover {failover} after {good}");
                let (failures, left_out) = run(|_| 7);
                assert_eq!(left_out, 0, "{place}");
                assert_eq!(failures, run(|request| 1 + request).0, "{place}");
                if good == 0 {
                    assert!(failures <= 4, "{place}: {failures}");
                }
            }
        }
    }
}

#[test]
fn an_outage_that_one_busy_key_alone_meets_is_seen() {
    let mut scene = Scene::at(500, false);
    let mut failures = 0;
    for request in 0..4_000u64 {
        let (arm, key) = match request % 10 {
            0 => (Arm::Canary, 42),
            _ => (Arm::Legacy, 1_000 + request),
        };
        let is_bad = arm == Arm::Canary && request > 3_000;
        let outcome = if is_bad {
            Outcome::Connect
        } else {
            Outcome::Ok
        };
        scene.attempt(arm, Role::Live, outcome, key, request);
        scene.look(None);
        failures += u64::from(is_bad);
        if !scene.decided.is_empty() {
            break;
        }
    }
    assert!(
        (1..=12).contains(&failures),
        "{failures}: {:?}",
        scene.decided
    );
}

#[test]
fn a_poisoned_prompt_in_a_loop_leaves_the_evidence() {
    let mut scene = Scene::at(5_000, false);
    for request in 0..2_000 {
        scene.request(2, 1_000 + request, Outcome::Ok);
        if request % 10 == 0 {
            scene.attempt(Arm::Canary, Role::Live, Outcome::ServerError, 1, 7);
        }
    }
    assert_eq!(scene.decided, []);
    assert_eq!(scene.rollout.traffic.repeats.left_out(), 199);
    assert_eq!(
        scene.rollout.live.totals.canary.errors, 200,
        "all are shown"
    );
}

#[test]
fn what_was_routed_under_the_weight_in_force_reaches_the_next_look() {
    let mut scene = Scene::at(5_000, false);
    let routing = |weight: u16, epoch, assigned, arm| Routing {
        rollout: 0,
        config_epoch: epoch,
        weight: Weight::from_bps(weight).unwrap(),
        assigned,
        arm,
        second: 0,
    };
    use Arm::{Canary, Legacy};
    scene.rollout.count(&routing(5_000, 1, Legacy, Legacy), 10);
    scene.rollout.count(&routing(5_000, 1, Canary, Canary), 7);
    scene.rollout.count(&routing(5_000, 1, Canary, Legacy), 2);
    scene.rollout.count(&routing(2_500, 1, Legacy, Legacy), 100);
    scene.rollout.count(&routing(5_000, 0, Legacy, Legacy), 100);
    let expected = Assigned {
        canary: 7,
        legacy: 12,
        strays: 2,
    };
    assert_eq!(scene.rollout.traffic.assigned, expected);
    scene.look(None);
    assert_eq!(scene.rollout.traffic.assigned, Assigned::default());
    // A weight that is left takes its counts with it.
    scene.rollout.count(&routing(5_000, 1, Canary, Canary), 7);
    scene.rollout.begin_epoch(2, 600_000, scene.now);
    assert_eq!(scene.rollout.traffic.assigned, Assigned::default());
}

#[test]
fn a_request_that_hangs_is_overdue_until_it_ends_or_is_given_up() {
    let mut scene = Scene::at(5_000, false);
    let routing = Routing {
        rollout: 0,
        config_epoch: 1,
        weight: Weight::from_bps(5_000).unwrap(),
        assigned: Arm::Canary,
        arm: Arm::Canary,
        second: START.0 / 1_000,
    };
    scene.rollout.count(&routing, 3);
    let after_ms = scene.rollout.stored.state.overdue_after_ms();
    let at = |ms| scene.rollout.overdue(START.plus_millis(ms)).canary;
    assert_eq!((at(after_ms), at(after_ms + 1_000)), (0, 3));
    // Ten minutes is the longest timeout, and one is given for the sample to arrive.
    scene.now = START.plus_millis(660_000);
    scene.look(None);
    assert_eq!(scene.rollout.overdue(scene.now).canary, 3);
    scene.now = START.plus_millis(662_000);
    scene.look(None);
    assert_eq!(scene.rollout.overdue(scene.now).canary, 0);
}

#[test]
fn a_constant_key_is_told_to_the_data_plane_and_outlives_a_restart() {
    let mut scene = Scene::at(5_000, false);
    for request in 0..300 {
        scene.attempt(Arm::Canary, Role::Live, Outcome::Ok, 42, request);
    }
    assert!(scene.rollout.reader.is_constant(42));
    let text = scene.rollout.stored.to_json();
    let stored = Stored::from_json(&text).unwrap();
    let key = scene.rollout.key.clone();
    let again = Rollout::new(key, stored, 1, Live::default(), 1, scene.now);
    assert!(again.reader.is_constant(42));
    // What was stored by an earlier version knows of no such keys.
    let older = text.replace(r#","constant_keys":[42]"#, "");
    assert_ne!(older, text);
    let older = Stored::from_json(&older).unwrap();
    assert!(older.constant_keys.is_empty());
}

#[test]
fn a_dominant_key_leaves_the_evidence_and_stays_in_the_counts() {
    let mut scene = Scene::at(5_000, false);
    let mut feed = |requests: u64, outcome: Outcome| {
        for request in 0..requests {
            let key = if request % 20 == 0 {
                42
            } else {
                1_000 + request
            };
            let outcome = if key == 42 { outcome } else { Outcome::Ok };
            let arm = if request % 2 == 0 {
                Arm::Canary
            } else {
                Arm::Legacy
            };
            scene.attempt(arm, Role::Live, outcome, key, 0);
            scene.look(None);
        }
        (scene.decided.clone(), scene.rollout.live.totals.canary)
    };
    feed(2_000, Outcome::Ok);
    let (decided, totals) = feed(2_000, Outcome::ServerError);
    assert_eq!(decided, []);
    assert_eq!(totals.errors, 100);
    assert_eq!(scene.rollout.traffic.keys.dominant(), [42]);
}

#[test]
fn rate_limits_are_held_against_the_present_weight_of_one_account() {
    let mut scene = Scene::at(5_000, false);
    let room = Room {
        limit: 500,
        remaining: 20,
        lowest_share: 0.04,
    };
    let mut around = Surroundings {
        now: scene.now,
        store_healthy: true,
        rooms: PerArm {
            legacy: Rooms::default(),
            canary: Rooms {
                requests: Some(room),
                tokens: None,
            },
        },
        is_one_account: true,
        breakers: PerArm::default(),
    };
    for _ in 0..20 {
        scene.attempt(Arm::Canary, Role::Live, Outcome::Ok, 1, 1);
        scene.attempt(Arm::Canary, Role::Pinned, Outcome::Ok, 1, 1);
        scene.rollout.count_canary(2, scene.now);
    }
    around.now = scene.now;
    let headroom = scene.rollout.headroom(around);
    assert_eq!(headroom.own, Some(0.5));
    let share = headroom.requests.unwrap().share;
    assert!((share - 0.96).abs() < 1e-9, "{share}");
    // Each client's account has limits of its own.
    around.is_one_account = false;
    assert_eq!(scene.rollout.headroom(around), Headroom::default());
    around.is_one_account = true;
    // What was used at 50% is not used at 5%.
    scene.look(Some(Event::Operator(Command {
        action: Action::SetWeight(Weight::from_bps(500).unwrap()),
        reason: String::new(),
    })));
    assert_eq!(scene.rollout.headroom(around), Headroom::default());
    around.now = scene.now.plus_millis(120_000);
    let headroom = scene.rollout.headroom(around);
    assert_eq!(headroom.own, None, "counted from the change on");
    assert!(headroom.requests.is_some());
}
