//! What survives `kill -9`: every decision that anybody was told of, the weight, the stage, the counts.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;
use crate::harness::wait_until;

/// So many rungs that promotions go on all the time.
fn ladder() -> String {
    let rungs: Vec<_> = (20..=70)
        .map(|n| format!("{{ weight = \"{n}%\", dwell = \"0s\" }}"))
        .collect();
    format!("warm-up = 20\nstages = [{}]\n", rungs.join(", "))
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn requests(rollout: &Value) -> u64 {
    let of = |arm: &str| rollout["arms"][arm]["requests"].as_u64().unwrap();
    of("legacy") + of("canary")
}

/// One command of an operator, if the dice say so; gives the id of the decision that was promised.
async fn shake(daemon: &Daemon, dice: &mut Dice) -> Option<i64> {
    let (action, body) = match dice.roll(120) {
        0 => ("hold", r#"{"reason": "lunch"}"#.to_owned()),
        1..=6 => ("resume", "{}".to_owned()),
        7 => (
            "weight",
            format!(r#"{{"weight": "{}%"}}"#, 20 + dice.roll(10)),
        ),
        8 => ("rollback", "{}".to_owned()),
        9..=14 => ("retry", "{}".to_owned()),
        _ => return None,
    };
    let answer = daemon.try_operate(action, &body).await.unwrap();
    answer.json()["decision"].as_i64()
}

/// A weight in percent as the database has it.
#[expect(clippy::cast_possible_truncation, reason = "a weight is small")]
fn bps(percent: f64) -> i64 {
    (percent * 100.0).round() as i64
}

/// The weight that the last decision left.
fn last_weight_bps(decisions: &[Value]) -> i64 {
    decisions
        .last()
        .map_or(0, |last| last["weight_to_bps"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn ten_kills_at_random_moments_lose_no_decision_and_repeat_no_id() {
    const SEED: u64 = 20_260_731;
    println!("seed {SEED}");
    let mut dice = Dice(SEED);
    let scene = Scene::new(&ladder()).await;
    // One cell of evidence is enough for a promotion.
    scene.edit(
        r#"max = "20%", max-increase = "10%""#,
        r#"max-increase = "50%""#,
    );
    let mut daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    let mut known: Vec<Value> = Vec::new();
    let mut all_promised = 0;
    for round in 1..=10 {
        let mut seen = Vec::new();
        let mut promised = Vec::new();
        let kill_at = Instant::now() + Duration::from_millis(300 + dice.roll(2_200));
        while Instant::now() < kill_at {
            let asked_at = Instant::now();
            seen.push((asked_at, requests(&daemon.rollout().await)));
            promised.extend(shake(&daemon, &mut dice).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        daemon.kill();
        let killed_at = Instant::now();

        let check = scene.sql("PRAGMA integrity_check");
        assert_eq!(check[0]["integrity_check"], "ok", "round {round}");
        let stored = scene.sql("SELECT id, kind, weight_from_bps, weight_to_bps, stage, reason FROM decision ORDER BY id");
        assert_eq!(
            stored.get(..known.len()),
            Some(&known[..]),
            "round {round}: history changed"
        );
        for id in &promised {
            let kept = stored.iter().any(|decision| decision["id"] == *id);
            assert!(
                kept,
                "round {round}: decision {id} was promised and is lost"
            );
        }
        all_promised += promised.len();
        let state =
            scene.sql("SELECT json_extract(state, '$.state.stage') AS stage FROM rollout_state");

        daemon = scene.start().await;
        load.set_port(daemon.proxy);
        let restored = daemon
            .line("has restored", |line| line.contains("rollout restored"))
            .await;
        let restored: Value = serde_json::from_str(&restored).unwrap();
        let weight: f64 = restored["weight"]
            .as_str()
            .unwrap()
            .trim_end_matches('%')
            .parse()
            .unwrap();
        let expected = last_weight_bps(&stored);
        assert_eq!(bps(weight), expected, "round {round}: {:?}", stored.last());
        let stage = state[0]["stage"].as_i64().unwrap() + 1;
        assert_eq!(restored["stage"], stage, "round {round}");

        // A promotion may have come since; the history before it is the same, with the same ids.
        let told = daemon.decisions().await;
        let ids = |decisions: &[Value]| {
            decisions
                .iter()
                .map(|d| d["id"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&told)[..stored.len()], ids(&stored), "round {round}");
        let rollout = daemon.rollout().await;
        if daemon.decisions().await.len() == stored.len() {
            let weight = rollout["weight"].as_f64().unwrap();
            assert_eq!(bps(weight * 100.0), expected, "round {round}");
        }

        // What was counted half a second before the kill is on the disk; a busy machine gets a second.
        let before = seen
            .iter()
            .rev()
            .find(|(at, _)| killed_at - *at > Duration::from_secs(1));
        let least = before.map_or(0, |(_, count)| *count);
        let now = requests(&rollout);
        assert!(
            now >= least,
            "round {round}: {now} requests after the kill, {least} before"
        );
        known = stored;
        load.answers(10).await;
    }
    // Ten short lives may leave a busy machine no time for a proof. It gets the time now, unheld.
    let promotions = "SELECT id FROM decision WHERE kind = 'promote'";
    if scene.sql(promotions).is_empty() {
        for action in ["retry", "resume"] {
            // One of them is refused: there is only one thing to end.
            drop(daemon.try_operate(action, "{}").await);
        }
        wait_until("a promotion is stored", || {
            !scene.sql(promotions).is_empty()
        })
        .await;
    }
    known = scene.sql("SELECT id, kind FROM decision ORDER BY id");
    load.stop().await;
    let of = |kind: &str| known.iter().filter(|d| d["kind"] == kind).count();
    let (proven, operated) = (of("promote"), all_promised);
    println!(
        "{} decisions: {proven} promotions, {operated} by operators",
        known.len()
    );
    assert!(
        proven >= 1 && operated >= 3,
        "too little happened: {known:#?}"
    );
}
