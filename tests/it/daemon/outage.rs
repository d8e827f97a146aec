//! A healthy canary gets everything; one that breaks loses everything within seconds, and no client
//! sees an error.

use std::time::{Duration, Instant};

use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;

const ONE_STAGE: &str = r#"
warm-up = 0
stages = [{ weight = "10%", dwell = "1h" }, { weight = "50%", dwell = "1h" }, "100%"]
trip = { cooldown = "1s", max-per-day = 10 }
"#;

/// The design allows two seconds; a machine that runs all tests at once gets more.
const TRIPPED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_canary_gets_everything_without_a_failed_request() {
    let stages = r#"
warm-up = 50
stages = [{ weight = "10%", dwell = "0s" }, { weight = "50%", dwell = "0s" }, "100%"]
"#;
    let scene = Scene::new(stages).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    daemon
        .until("complete", |rollout| rollout["state"] == "complete")
        .await;
    // What keeps the weight holds before it is recorded.
    daemon
        .line("is complete", |line| {
            line.contains("complete rollout=default")
        })
        .await;
    let decisions = daemon.decisions().await;
    let kinds: Vec<_> = decisions
        .iter()
        .map(|d| d["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["start", "promote", "promote", "complete"]);
    let before = scene.legacy.requests().len();
    load.answers(100).await;
    // Requests that were under way at the last promotion may still have gone to legacy.
    assert!(scene.legacy.requests().len() <= before + 5);
    load.stop_without_failures().await;
}

/// Raises the canary to 50%, breaks it, and waits until its weight is 0.
async fn at_half_the_traffic(daemon: &Daemon, load: &Load, fault: impl AsyncFnOnce()) {
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    let seen = load.by_canary();
    let deadline = Instant::now() + super::PATIENCE;
    while load.by_canary() < seen + 50 {
        assert!(Instant::now() < deadline, "the canary gets no traffic");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let broken_at = Instant::now();
    fault().await;
    let (rollout, _) = daemon
        .until("tripped", |rollout| rollout["weight"] == 0.0)
        .await;
    let took = broken_at.elapsed();
    println!("weight 0 after {took:?}: {}", rollout["reason"]);
    assert!(took < TRIPPED_WITHIN, "it took {took:?}");
    assert_eq!(rollout["state"], "tripped");
    assert_eq!(rollout["stage"]["weight"], 0.5, "the stage is kept");
    load.answers(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_refuses_connections_is_tripped_and_comes_back_by_probes() {
    let scene = Scene::new(ONE_STAGE).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    at_half_the_traffic(&daemon, &load, async || scene.canary.kill().await).await;
    scene.canary.revive().await;
    // Five probes, one each ten seconds.
    let back = |rollout: &serde_json::Value| rollout["weight"] == 0.5;
    let (rollout, took) = daemon.until("probed back", back).await;
    println!("back at its stage after {took:?}");
    assert_eq!(rollout["state"], "running");
    let last = daemon.decisions().await.pop().unwrap();
    assert_eq!(
        (&last["kind"], &last["by"]),
        (&"resume".into(), &"controller".into())
    );
    let seen = load.by_canary();
    load.answers(100).await;
    assert!(
        load.by_canary() > seen + 20,
        "half of the traffic is the canary's again"
    );
    load.stop_without_failures().await;
}

async fn trips_and_is_resumed(fault: &str) {
    let scene = Scene::new(ONE_STAGE).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    at_half_the_traffic(&daemon, &load, async || load.set_model(fault)).await;
    load.set_model("ok");
    let resumed = daemon.cli(&["resume", "--reason", "the relay is mended"]);
    assert!(resumed.status.success(), "{resumed:?}");
    let rollout = daemon.rollout().await;
    assert_eq!(
        (&rollout["state"], &rollout["weight"]),
        (&"running".into(), &0.5.into())
    );
    let masked = rollout["arms"]["canary"]["masked"].as_u64().unwrap();
    let errors = rollout["arms"]["canary"]["errors"].as_u64().unwrap();
    assert!(
        errors > 0 && masked == errors,
        "{masked} of {errors} failures were masked"
    );
    load.answers(100).await;
    load.stop_without_failures().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_answers_500_is_tripped_and_resumed_by_hand() {
    trips_and_is_resumed("fault-500@canary").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_resets_connections_is_tripped_and_resumed_by_hand() {
    trips_and_is_resumed("fault-reset-before-head@canary").await;
}
