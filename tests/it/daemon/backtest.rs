//! `cutover backtest` over the record of a real daemon, while it runs.

use std::fs;
use std::process::Output;

use serde_json::Value;

use super::load::Load;
use super::process::{Daemon, cutover};
use super::scene::Scene;

const STAGES: &str = r#"
warm-up = 50
stages = [{ weight = "20%", dwell = "1s" }, { weight = "50%", dwell = "1s" }, { weight = "80%", dwell = "1h" }]
trip = { cooldown = "1h", max-per-day = 10 }
"#;

fn backtest(scene: &Scene, args: &[&str]) -> Output {
    let mut command = cutover();
    command.arg("backtest").args(args);
    command.current_dir(scene.folder.path()).output().unwrap()
}

fn json(scene: &Scene, config: &str) -> Value {
    let asked = backtest(scene, &["--json", "--config", config]);
    let errors = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{errors}");
    serde_json::from_slice(&asked.stdout).unwrap()
}

/// Up to 80%, held and resumed on the way, then an outage. Returns when all of it is stored.
async fn migrate(scene: &Scene, daemon: &Daemon) {
    let load = Load::start(daemon.proxy);
    let at = |weight: f64| move |rollout: &Value| rollout["weight"] == weight;
    daemon.until("at 20%", at(0.2)).await;
    daemon
        .operate("hold", r#"{"reason": "a look at it"}"#)
        .await;
    load.answers(100).await;
    daemon
        .operate("resume", r#"{"reason": "it is fine"}"#)
        .await;
    daemon.until("at 80%", at(0.8)).await;
    load.answers(300).await;
    load.set_model("fault-500@canary");
    daemon.until("tripped", at(0.0)).await;
    load.set_model("ok");
    load.answers(50).await;
    load.stop_without_failures().await;
    // Decisions are stored at once, what they rest on with the next batch.
    let cells = "SELECT cell.id FROM decision trip JOIN evidence_cell cell ON cell.closed_at >= trip.at \
                 WHERE trip.kind = 'trip'";
    let stored = || !scene.sql(cells).is_empty();
    crate::harness::wait_until("the trip and its cell are stored", stored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_that_were_in_force_decide_the_same_and_others_do_not() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    migrate(&scene, &daemon).await;
    let same = json(&scene, "cutover.toml");
    let decisions = same["decisions"].as_array().unwrap();
    let kinds: Vec<&str> = decisions
        .iter()
        .map(|it| it["recorded"]["kind"].as_str().unwrap_or("-"))
        .collect();
    let expected = ["start", "hold", "resume", "promote", "promote", "trip"];
    assert_eq!(kinds, expected, "{same:#}");
    for decision in decisions {
        let cells = || {
            scene.sql(
                "SELECT opened_at, closed_at, weight_bps, arm, requests, errors FROM evidence_cell \
                 ORDER BY id DESC LIMIT 6",
            )
        };
        assert_eq!(
            decision["difference"],
            "same",
            "{decision:#} {:#?}",
            cells()
        );
    }
    let requests = |course: &str| same[course]["canary_requests"].as_f64().unwrap();
    let ratio = requests("replayed") / requests("recorded");
    assert!((0.8..1.25).contains(&ratio), "{same:#}");
    assert_eq!(same["replayed"]["trips"], 1);
    // Times may differ by a look; `difference` above says by how much.
    for field in ["trips", "rollbacks", "retreats", "weight_at_end"] {
        assert_eq!(same["recorded"][field], same["replayed"][field], "{same:#}");
    }
    let weights = |course: &Value| -> Vec<Value> {
        let reached = course["reached"].as_array().unwrap().iter();
        reached.map(|it| it["weight"].clone()).collect()
    };
    assert_eq!(weights(&same["recorded"]), weights(&same["replayed"]));
    assert_eq!(same["refused"], Value::Array(Vec::new()));

    // Without a fuse and with a guard that allows everything, the outage would have gone on.
    let config = fs::read_to_string(scene.path()).unwrap();
    let blind = config
        .replace(
            r#"trip = { cooldown = "1h", max-per-day = 10 }"#,
            "trip = \"off\"",
        )
        .replace(
            "max = \"20%\", max-increase = \"10%\"",
            "max-increase = \"99%\"",
        );
    assert_ne!(blind, config);
    fs::write(scene.folder.path().join("blind.toml"), blind).unwrap();
    let blind = json(&scene, "blind.toml");
    assert_eq!(blind["recorded"]["trips"], 1, "{blind:#}");
    assert_eq!(blind["replayed"]["trips"], 0, "{blind:#}");
    let trip = |it: &&Value| it["recorded"]["kind"] == "trip";
    let trip = blind["decisions"].as_array().unwrap().iter().find(trip);
    assert_eq!(trip.unwrap()["difference"], "not-taken");

    let asked = backtest(&scene, &["--config", "blind.toml"]);
    let text = String::from_utf8_lossy(&asked.stdout);
    for part in [
        "trip 80% -> 0%",
        "not taken",
        "Where they part",
        "canary requests",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    // The daemon went on meanwhile.
    assert_eq!(daemon.rollout().await["state"], "tripped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replayed_is_refused_with_a_remedy() {
    let scene = Scene::new(STAGES).await;
    let check = |args: &[&str], code: i32, part: &str| {
        let asked = backtest(&scene, args);
        let errors = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert_eq!(asked.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(part), "{args:?}: {errors}");
    };
    check(&[], 3, "there is no store `");
    check(&["--config", "absent.toml"], 3, "there is no absent.toml");
    fs::write(scene.folder.path().join("note.db"), "shopping list").unwrap();
    check(&["--store", "note.db"], 3, "corrupt");
    fs::write(scene.folder.path().join("empty.db"), "").unwrap();
    check(&["--store", "empty.db"], 3, "no store of cutover's");
    check(&["--from", "yesterday"], 2, "write a time");
    fs::write(scene.folder.path().join("bad.toml"), "[rolout]\n").unwrap();
    check(&["--config", "bad.toml"], 1, "did you mean");
    let daemon = scene.start().await;
    check(&["--rollout", "other"], 1, "rollout");
    check(&[], 1, "the store holds no");
    drop(daemon);
    // What looks back leaves nothing behind but what it found.
    let left = fs::read_dir(scene.folder.path()).unwrap();
    let names: Vec<_> = left.map(|it| it.unwrap().file_name()).collect();
    assert!(!names.iter().any(|it| it == "absent.db"), "{names:?}");
}
