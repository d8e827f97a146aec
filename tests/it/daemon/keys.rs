//! Sticky keys that are none: every client sends the same one, and the traffic is divided all the same.

use serde_json::{Value, json};

use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Client, End};
use crate::harness::wait_until;

/// Sends `count` requests that differ in their prompt alone; gives how many the canary answered.
async fn ask(daemon: &Daemon, from: u64, count: u64, headers: &[(&str, &str)]) -> u64 {
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    let mut canary = 0;
    for number in from..from + count {
        let body = json!({
            "model": "ok",
            "user": "app",
            "messages": [{"role": "user", "content": format!("question {number}")}],
        });
        client
            .request(
                "POST",
                "/v1/chat/completions",
                headers,
                body.to_string().as_bytes(),
            )
            .await
            .unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.head.status, answer.end), (200, End::Clean));
        canary += u64::from(answer.head.header("x-cutover-arm") == Some("canary"));
    }
    canary
}

fn is_running(rollout: &Value) -> bool {
    rollout["state"] == "running"
}

/// Warms up and then measures the canary's share of 600 requests at a weight of 20%.
async fn share_after_warm_up(lines: &str, headers: &[(&str, &str)]) -> (Scene, Daemon, u64) {
    let rollout = format!(
        "name = \"default\"\nwarm-up = 300\n{lines}
        stages = [{{ weight = \"20%\", dwell = \"1h\" }}, {{ weight = \"100%\" }}]"
    );
    let scene = Scene::new(&rollout).await;
    let daemon = scene.start().await;
    assert_eq!(ask(&daemon, 0, 310, headers).await, 0);
    daemon.until("running", is_running).await;
    let canary = ask(&daemon, 1_000, 600, headers).await;
    (scene, daemon, canary)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constant_user_field_does_not_send_all_traffic_to_one_arm() {
    let (scene, mut daemon, canary) = share_after_warm_up("", &[]).await;
    // 120 are expected of 600, with five standard deviations.
    assert!((71..=169).contains(&canary), "{canary} of 600");
    let rollout = daemon.rollout().await;
    assert_eq!(rollout["constant_keys"].as_array().unwrap().len(), 1);
    let key = rollout["constant_keys"][0].as_str().unwrap().to_owned();
    assert_eq!(daemon.count("share one sticky key"), 1);
    assert_eq!(
        daemon.count(&key),
        1,
        "the line names the key that `status` shows"
    );
    // The same conversations go the same way after a restart, without learning it anew.
    let mark = format!(
        "\"constant_keys\":[{}]",
        u64::from_str_radix(&key, 16).unwrap()
    );
    let is_stored = |row: &Value| row["state"].as_str().unwrap().contains(&mark);
    wait_until("the key is stored", || {
        scene
            .sql("SELECT state FROM rollout_state")
            .iter()
            .any(is_stored)
    })
    .await;
    daemon.kill();
    let daemon = scene.start().await;
    assert_eq!(daemon.rollout().await["constant_keys"][0], *key);
    assert_eq!(ask(&daemon, 1_000, 600, &[]).await, canary);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constant_header_gives_way_to_the_next_thing_that_tells_requests_apart() {
    let headers = [("x-tenant", "acme")];
    // The header is constant, so `user` takes its place, which is constant as well; then the prompt does.
    let lines = "sticky = \"header:x-tenant\"";
    let (_scene, daemon, _) = share_after_warm_up(lines, &headers).await;
    let again = ask(&daemon, 5_000, 600, &headers).await;
    assert!((71..=169).contains(&again), "{again} of 600");
    let rollout = daemon.rollout().await;
    assert_eq!(rollout["constant_keys"].as_array().unwrap().len(), 2);
}
