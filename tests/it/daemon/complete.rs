//! After the end of a migration the way back stays open: one command returns everything to legacy.

use std::time::{Duration, Instant};

use super::load::Load;
use super::scene::Scene;

/// The promise is a second; a machine that runs all tests at once gets more.
const RETURNED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_returns_everything_to_legacy_after_the_end() {
    let scene = Scene::new("warm-up = 0\nstages = [{ weight = \"100%\", dwell = \"0s\" }]\n").await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    daemon
        .until("complete", |rollout| rollout["state"] == "complete")
        .await;
    load.answers(100).await;
    let asked_at = Instant::now();
    let done = daemon.cli(&["rollback", "--reason", "the invoices do not add up"]);
    let took = asked_at.elapsed();
    assert!(done.status.success(), "{done:?}");
    println!("the command took {took:?}");
    assert!(took < RETURNED_WITHIN, "the command took {took:?}");
    let rollout = daemon.rollout().await;
    assert_eq!(
        (&rollout["state"], &rollout["weight"]),
        (&"rolled-back".into(), &0.0.into())
    );
    // What was under way at the canary may still end there; nothing new may begin.
    let canary_before = scene.canary.requests().len();
    load.answers(200).await;
    let canary_after = scene.canary.requests().len();
    assert!(
        canary_after <= canary_before + 5,
        "{canary_before} -> {canary_after}"
    );
    let last = daemon.decisions().await.pop().unwrap();
    assert_eq!(
        (&last["kind"], &last["by"]),
        (&"roll-back".into(), &"operator".into())
    );
    assert!(
        last["reason"].as_str().unwrap().contains("invoices"),
        "{last}"
    );
    load.stop_without_failures().await;
}
