//! `cutover report` over the record of a real daemon, with it and after it.

use std::fs;
use std::process::Output;

use serde_json::Value;

use super::load::Load;
use super::process::cutover;
use super::scene::Scene;
use crate::harness::wait_until;

const STAGES: &str = r#"
warm-up = 50
stages = [{ weight = "20%", dwell = "1s" }, { weight = "50%", dwell = "1h" }]
trip = { cooldown = "1h", max-per-day = 10 }
"#;

fn report(scene: &Scene, args: &[&str]) -> Output {
    let mut command = cutover();
    command.arg("report").args(args);
    command.current_dir(scene.folder.path()).output().unwrap()
}

fn text(scene: &Scene, args: &[&str]) -> String {
    let told = report(scene, args);
    let errors = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{args:?}: {errors}");
    String::from_utf8(told.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn a_migration_is_told_as_it_was_recorded() {
    let scene = Scene::new(STAGES).await;
    let empty = scene.folder.path().join("nothing.db");
    let asked = report(&scene, &["--store", empty.to_str().unwrap()]);
    assert_eq!(asked.status.code(), Some(3));
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    let at = |weight: f64| move |rollout: &Value| rollout["weight"] == weight;
    daemon.until("at 50%", at(0.5)).await;
    load.answers(200).await;
    load.set_model("fault-500@canary");
    daemon.until("tripped", at(0.0)).await;
    load.set_model("ok");
    let hostile = r#"{"reason": "<script>alert(1)</script> | no"}"#;
    daemon.operate("hold", hostile).await;
    load.answers(50).await;
    // With the daemon up.
    let told: Value = serde_json::from_str(&text(&scene, &["--format", "json"])).unwrap();
    assert_eq!(told["rollout"], "default");
    assert!(
        !told["notes"].to_string().contains("kept since"),
        "{told:#}"
    );
    load.stop_without_failures().await;
    let holds = "SELECT id FROM decision WHERE kind = 'hold'";
    wait_until("the hold is stored", || !scene.sql(holds).is_empty()).await;
    daemon.signal("TERM");
    drop(daemon);

    let json = text(&scene, &["--format", "json"]);
    assert_eq!(
        json,
        text(&scene, &["--format", "json"]),
        "the same store, the same report"
    );
    let told: Value = serde_json::from_str(&json).unwrap();
    let rows = scene.sql(
        "SELECT arm, count(*) AS requests, sum(outcome NOT IN ('ok', 'client-gone')) AS errors
         FROM request WHERE role = 'live' AND attempt = 1 GROUP BY arm ORDER BY arm",
    );
    for row in &rows {
        let figures = &told["arms"][row["arm"].as_str().unwrap()];
        assert_eq!(figures["requests"], row["requests"], "{figures:#}");
        assert_eq!(figures["errors"], row["errors"], "{figures:#}");
    }
    let rescued =
        scene.sql("SELECT count(*) AS n FROM request WHERE role = 'rescue' AND outcome = 'ok'");
    let masked = &told["masked"]["canary"];
    assert_eq!(masked["made_good"], rescued[0]["n"]);
    assert_eq!(masked["reached_clients"], 0);
    let kinds: Vec<&str> = told["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["start", "promote", "trip", "hold"]);
    assert_eq!(told["incidents"][0]["kind"], "trip");
    assert_eq!(told["incidents"][0]["is_open"], true);
    assert_eq!(
        (&told["state"], &told["weight"]),
        (&"tripped".into(), &0.0.into())
    );

    assert_eq!(told["stage"], 2, "the one that it was promoted to");
    let page = scene.folder.path().join("report.html");
    text(&scene, &["--out", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("&lt;script&gt;alert(1)"));
    assert!(!page.contains("<script"));
    let markdown = text(&scene, &["--format", "md"]);
    assert!(
        markdown.starts_with("# Migration report: default"),
        "{markdown}"
    );
    // Without a configuration, the store alone will do.
    let database = scene.database();
    let named = [
        "--config",
        "absent.toml",
        "--store",
        database.to_str().unwrap(),
    ];
    assert!(text(&scene, &named).contains("Migration report"));
    let asked = report(&scene, &["--config", "absent.toml"]);
    assert_eq!(asked.status.code(), Some(3));
    let asked = report(&scene, &["--rollout", "other"]);
    assert_eq!(asked.status.code(), Some(1));
}
