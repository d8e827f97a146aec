//! A store that fails takes nothing with it: requests flow, weights freeze, one line says so, and all
//! goes on when it is back.

use std::fs;
use std::time::Duration;

use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;

/// The first stage is proven within seconds, and the next ones as well.
const EAGER: &str = r#"
warm-up = 0
stages = [{ weight = "20%", dwell = "3s" }, { weight = "40%", dwell = "0s" }, { weight = "60%", dwell = "1h" }, "100%"]
"#;

/// Fails the store by `break_it`, mends it by `mend_it`, and follows what happens.
async fn survives(scene: &Scene, break_it: impl FnOnce(), mend_it: impl FnOnce()) -> Daemon {
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    daemon
        .until("at the first stage", |rollout| rollout["weight"] == 0.2)
        .await;
    load.answers(20).await;

    break_it();
    daemon
        .line("is failing", |line| line.contains("store-failing"))
        .await;
    let status = daemon.status().await;
    assert_eq!(status["store"]["healthy"], false);
    assert!(status["store"]["error"].is_string(), "{status:#}");
    let refused = daemon
        .try_operate("weight", r#"{"weight": "90%"}"#)
        .await
        .unwrap();
    assert_eq!(refused.head.status, 503, "{}", refused.text());
    // Long enough for the dwell to end and the proof to be there.
    tokio::time::sleep(Duration::from_secs(4)).await;
    load.answers(100).await;
    assert_eq!(
        daemon.rollout().await["weight"],
        0.2,
        "weights do not rise blind"
    );

    mend_it();
    daemon
        .line("works again", |line| line.contains("store-recovered"))
        .await;
    let (_, took) = daemon
        .until("promoted again", |rollout| rollout["weight"] == 0.6)
        .await;
    println!("promoted {took:?} after the recovery");
    assert_eq!(daemon.status().await["store"]["healthy"], true);
    load.stop_without_failures().await;
    assert_eq!(daemon.count("store-failing"), 1);
    assert_eq!(daemon.count("store-recovered"), 1);
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_moved_away_and_back_loses_nothing() {
    let scene = Scene::new(EAGER).await;
    let folder = scene.database_folder();
    let away = scene.folder.path().join("away");
    let break_it = || {
        fs::rename(&folder, &away).unwrap();
        fs::write(&folder, "in the way").unwrap();
    };
    let mend_it = || {
        fs::remove_file(&folder).unwrap();
        fs::rename(&away, &folder).unwrap();
    };
    let mut daemon = survives(&scene, break_it, mend_it).await;
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    assert_eq!(
        scene.sql("PRAGMA integrity_check")[0]["integrity_check"],
        "ok"
    );
    let rows = scene.sql("SELECT count(*) AS rows FROM request");
    assert_eq!(
        rows[0]["rows"],
        scene.served(),
        "a row for each request, the failing time included"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_deleted_is_filled_anew_with_the_state_that_was() {
    let scene = Scene::new(EAGER).await;
    let folder = scene.database_folder();
    let break_it = || fs::remove_dir_all(&folder).unwrap();
    let mend_it = || fs::create_dir(&folder).unwrap();
    let mut daemon = survives(&scene, break_it, mend_it).await;
    daemon.kill();
    let daemon = scene.start().await;
    assert_eq!(daemon.rollout().await["weight"], 0.6);
}
