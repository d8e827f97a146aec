//! A configuration that is edited under load: what is right applies at once, what is wrong changes
//! nothing and is told once, and no request notices.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::Load;
use super::process::{CANARY_KEY, Daemon};
use super::scene::Scene;
use crate::provider::Provider;

const HALF: &str = "warm-up = 0\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
/// The design allows two seconds; a machine that runs all tests at once gets more.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

fn stages(status: &Value) -> &Value {
    &status["rollouts"][0]["stage"]["of"]
}

/// Waits until so many configurations were applied.
async fn applied(daemon: &Daemon, times: usize) -> Duration {
    let began = Instant::now();
    while daemon.count("configuration applied") < times {
        assert!(
            began.elapsed() < super::PATIENCE,
            "the edit was not applied"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_changes_nothing_and_is_told_once() {
    let scene = Scene::new(HALF).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    load.answers(20).await;
    scene.edit("stages =", "stagez =");
    let (rollout, took) = daemon
        .until_status("told", |status| status["config"]["error"].is_string())
        .await;
    println!("told after {took:?}");
    assert!(took < APPLIED_WITHIN, "it took {took:?}");
    assert_eq!(
        (&rollout["weight"], &rollout["stage"]["of"]),
        (&0.5.into(), &2.into())
    );
    let error = daemon.status().await["config"]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    let line_of = 1 + scene
        .config(HALF)
        .lines()
        .position(|l| l.starts_with("stages"))
        .unwrap();
    let place = format!("cutover.toml:{line_of}:1");
    assert!(error.contains(&place), "no place `{place}`: {error}");
    assert!(
        error.contains("stagez") && error.contains("stages"),
        "no remedy: {error}"
    );
    // Some looks of the poll later it is still one line.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(daemon.count("config-rejected"), 1);
    let told = daemon
        .line("rejects", |line| line.contains("config-rejected"))
        .await;
    assert!(told.contains(&place), "{told}");

    scene.edit("stagez =", "stages =");
    daemon
        .until_status("mended", |status| status["config"]["error"].is_null())
        .await;
    assert_eq!(daemon.rollout().await["id"], rollout["id"]);
    load.stop_without_failures().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_in_place_by_rename_and_with_sighup_apply_within_seconds() {
    let scene = Scene::new(HALF).await;
    let mut daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    load.answers(20).await;
    let with = |middle: &str| {
        let stages =
            format!("stages = [{{ weight = \"50%\", dwell = \"1h\" }}, {middle} \"100%\"]");
        scene.config(&format!("warm-up = 0\n{stages}\n"))
    };
    scene.write(&with("\"60%\","));
    let (_, took) = daemon
        .until_status("saved in place", |status| stages(status) == 3)
        .await;
    println!("in place: {took:?}");
    assert!(took < APPLIED_WITHIN, "it took {took:?}");

    scene.replace(&with("\"60%\", \"70%\","));
    let (_, took) = daemon
        .until_status("saved by rename", |status| stages(status) == 4)
        .await;
    println!("by rename: {took:?}");
    assert!(took < APPLIED_WITHIN, "it took {took:?}");

    scene.write(&with("\"60%\", \"70%\", \"80%\","));
    daemon.signal("HUP");
    let (rollout, took) = daemon
        .until_status("reread", |status| stages(status) == 5)
        .await;
    println!("with SIGHUP: {took:?}");
    assert!(took < APPLIED_WITHIN, "it took {took:?}");
    assert_eq!(
        (&rollout["weight"], &rollout["stage"]["index"]),
        (&0.5.into(), &1.into())
    );

    // Nothing to reread is nothing to do.
    daemon.signal("HUP");
    load.answers(50).await;
    assert!(daemon.is_running());
    assert_eq!(daemon.count("configuration applied"), 3);
    load.stop_without_failures().await;
}

/// Evidence of health that the error guard has gathered.
fn evidence(rollout: &Value) -> f64 {
    rollout["guards"][0]["evidence"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_or_model_map_starts_new_evidence_at_the_same_weight() {
    let scene = Scene::new(HALF).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    let (before, _) = daemon
        .until("proving", |rollout| evidence(rollout) > 20.0)
        .await;
    let key = scene.folder.path().join("key");
    fs::write(&key, "sk-canary-new\n").unwrap();
    scene.edit("env:CANARY_KEY", &format!("file:{}", key.display()));
    applied(&daemon, 1).await;
    let after = daemon.rollout().await;
    assert!(
        evidence(&after) < evidence(&before) / 2.0,
        "evidence was kept: {after:#}"
    );
    for same in ["id", "weight", "stage"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    daemon
        .until("proving again", |rollout| evidence(rollout) > 20.0)
        .await;
    load.answers(50).await;
    let asked = scene.canary.requests();
    let keys: Vec<_> = asked
        .iter()
        .map(|r| r.header("authorization").unwrap())
        .collect();
    assert_eq!(keys[0], format!("Bearer {CANARY_KEY}"));
    assert_eq!(keys.last(), Some(&"Bearer sk-canary-new"));
    assert!(keys.iter().all(|key| *key != "Bearer sk-client"));

    // The file of the key is watched as well as the one that names it.
    fs::write(&key, "sk-canary-newest\n").unwrap();
    applied(&daemon, 2).await;
    daemon
        .until("proving once more", |rollout| evidence(rollout) > 20.0)
        .await;
    scene.edit(
        "[[rollout]]",
        "models = { \"ok\" = \"fine\" }\n\n[[rollout]]",
    );
    applied(&daemon, 3).await;
    let mapped = daemon.rollout().await;
    assert!(evidence(&mapped) < 20.0, "evidence was kept: {mapped:#}");
    assert_eq!(mapped["weight"], before["weight"]);
    load.answers(50).await;
    load.stop_without_failures().await;
    let last = scene.canary.requests().pop().unwrap();
    assert_eq!(last.json()["model"], "fine");
    assert_eq!(
        last.header("authorization"),
        Some("Bearer sk-canary-newest")
    );
    assert_eq!(scene.legacy.requests().pop().unwrap().json()["model"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_canary_is_another_rollout_that_begins_at_nothing() {
    let stages = "warm-up = 1000000\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
    let scene = Scene::new(stages).await;
    let other = Provider::start("other").await;
    let mut daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    daemon
        .operate("weight", r#"{"weight": "50%", "reason": "begin"}"#)
        .await;
    load.answers(100).await;
    let before = daemon.rollout().await;
    assert!(!scene.canary.requests().is_empty());

    scene.edit(&scene.canary.base_url(), &other.base_url());
    applied(&daemon, 1).await;
    let after = daemon.rollout().await;
    assert_ne!(after["id"], before["id"]);
    assert_eq!(
        (&after["weight"], &after["state"]),
        (&0.0.into(), &"warming-up".into())
    );
    assert_eq!(after["arms"]["canary"]["requests"], 0);
    load.answers(20).await;
    let left = scene.canary.requests().len();
    load.answers(100).await;
    assert_eq!(
        scene.canary.requests().len(),
        left,
        "the old canary is asked no more"
    );
    assert!(
        other.requests().is_empty(),
        "nothing goes to the new one before its first stage"
    );

    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    load.answers(50).await;
    assert!(!other.requests().is_empty());
    load.stop_without_failures().await;
    // The new rollout is the one that a restart finds.
    daemon.kill();
    let daemon = scene.start().await;
    let restored = daemon.rollout().await;
    assert_eq!(
        (&restored["id"], &restored["weight"]),
        (&after["id"], &0.5.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_stages_keep_the_rung_that_stands_or_take_the_next_one_above() {
    let rollout = |stages: &str| format!("warm-up = 0\nstages = [{stages}]\n");
    let rung = |weight: &str| format!("{{ weight = \"{weight}\", dwell = \"1h\" }}, ");
    let scene = Scene::new(&rollout(&(rung("5%") + &rung("20%") + "\"100%\""))).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    daemon.operate("weight", r#"{"weight": "20%"}"#).await;
    let place = |rollout: &Value| {
        let stage = &rollout["stage"];
        (
            rollout["weight"].as_f64().unwrap(),
            stage["index"].as_u64().unwrap(),
            stage["of"].as_u64().unwrap(),
        )
    };
    assert_eq!(place(&daemon.rollout().await), (0.2, 2, 3));

    scene.write(&scene.config(&rollout(
        &(rung("1%") + &rung("5%") + &rung("20%") + "\"100%\""),
    )));
    daemon
        .until("on the same rung", |rollout| place(rollout) == (0.2, 3, 4))
        .await;

    scene.write(&scene.config(&rollout(&(rung("10%") + &rung("30%") + "\"100%\""))));
    daemon
        .until("on the next rung", |rollout| place(rollout) == (0.3, 2, 3))
        .await;
    daemon
        .line("records it", |line| line.contains("20% -> 30%"))
        .await;
    let last = daemon.decisions().await.pop().unwrap();
    assert_eq!(
        (&last["kind"], &last["by"]),
        (&"config".into(), &"config".into())
    );
    assert_eq!(
        (&last["weight_from"], &last["weight_to"]),
        (&0.2.into(), &0.3.into())
    );
    load.stop_without_failures().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_address_needs_a_restart_and_says_so() {
    let scene = Scene::new(HALF).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    scene.edit(
        "[proxy]\nlisten = \"127.0.0.1:0\"",
        "[proxy]\nlisten = \"127.0.0.1:1\"",
    );
    let line = daemon
        .line("needs a restart", |line| line.contains("needs a restart"))
        .await;
    assert!(
        line.contains("proxy.listen") && line.contains("WARN"),
        "{line}"
    );
    load.answers(50).await;
    load.stop_without_failures().await;
}
