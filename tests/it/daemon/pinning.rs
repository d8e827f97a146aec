//! What the canary keeps for clients is found there by every worker, and after `kill -9`.

use serde_json::{Value, json};

use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Answer, Client, post};
use crate::harness::{MESSAGES, RESPONSES, ask, exchange, served_by, wait_until};
use crate::pinning::{after_response, after_thinking, response_id, signature};
use crate::provider::Provider;

const ROLLOUT: &str = r#"name = "default"
warm-up = 0
trip = "off"
retreat = "off"
stages = [{ weight = "1%", dwell = "30d" }, { weight = "100%", dwell = "30d" }]
"#;

async fn set_weight(daemon: &Daemon, weight: &str, fraction: f64) {
    let body = json!({"weight": weight, "reason": "a test"}).to_string();
    daemon.operate("weight", &body).await;
    let is_there = |rollout: &Value| {
        let weight = rollout["weight"].as_f64();
        weight.is_some_and(|weight| (weight - fraction).abs() < 1e-9)
    };
    daemon.until("at its weight", is_there).await;
}

async fn send(daemon: &Daemon, path: &str, body: &Value) -> Answer {
    post(daemon.proxy, path, body).await.unwrap()
}

async fn get(daemon: &Daemon, target: &str) -> Answer {
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    client.request("GET", target, &[], b"").await.unwrap();
    client.answer().await.unwrap()
}

/// Conversations that began on the canary go on there, others go to legacy.
async fn check(daemon: &Daemon, response: &str, signed: &str) {
    for _ in 0..4 {
        let answer = send(daemon, RESPONSES, &after_response(response)).await;
        assert_eq!(served_by(&answer), "canary");
        let answer = send(daemon, MESSAGES, &after_thinking(signed)).await;
        assert_eq!(served_by(&answer), "canary");
        let answer = get(daemon, &format!("/v1/responses/{response}")).await;
        assert_eq!(served_by(&answer), "canary");
    }
    for (path, body) in [
        (RESPONSES, ask("state", false)),
        (MESSAGES, ask("state", true)),
        (RESPONSES, after_response("resp_unknown")),
        (MESSAGES, after_thinking("sig_unknown")),
    ] {
        assert_eq!(served_by(&send(daemon, path, &body).await), "legacy");
    }
    let answer = get(daemon, "/v1/responses/resp_unknown").await;
    assert_eq!(served_by(&answer), "legacy");
}

fn stored(scene: &Scene) -> i64 {
    let rows = scene.sql("SELECT count(*) AS n FROM learned_id");
    rows[0]["n"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_go_on_where_they_began_after_a_rollback_and_a_kill() {
    let scene = Scene::new(ROLLOUT).await;
    let mut daemon = scene.start().await;
    set_weight(&daemon, "100%", 1.0).await;
    let first = send(&daemon, RESPONSES, &ask("state", true)).await;
    assert_eq!(served_by(&first), "canary");
    let response = response_id(&first, true);
    let first = send(&daemon, MESSAGES, &ask("state", true)).await;
    assert_eq!(served_by(&first), "canary");
    let signed = signature(&first, true);

    daemon.operate("rollback", r#"{"reason": "a test"}"#).await;
    daemon
        .until("rolled back", |rollout| rollout["weight"] == 0.0)
        .await;
    check(&daemon, &response, &signed).await;

    let known = daemon.status().await["learned_ids"]["known"].clone();
    wait_until("the ids are stored", || json!(stored(&scene)) == known).await;
    daemon.kill();
    let mut daemon = scene.start().await;
    let learned = daemon.status().await["learned_ids"].clone();
    assert_eq!(learned, json!({"known": known, "learned_total": 0}));
    check(&daemon, &response, &signed).await;

    // A file that takes the place of a lost one is told of them again.
    std::fs::remove_file(scene.database()).unwrap();
    daemon
        .line("works again", |line| line.contains("store-recovered"))
        .await;
    let known = daemon.status().await["learned_ids"]["known"].clone();
    wait_until("they are stored anew", || json!(stored(&scene)) == known).await;
    daemon.kill();
    let daemon = scene.start().await;
    check(&daemon, &response, &signed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_knows_an_id_as_soon_as_the_client_has_it() {
    let scene = Scene::new(ROLLOUT).await;
    let daemon = scene.start().await;
    set_weight(&daemon, "100%", 1.0).await;
    // The second connection goes to the worker that has none.
    let mut one = Client::connect(daemon.proxy).await.unwrap();
    let warm = exchange(&mut one, RESPONSES, &[], &ask("ok", false)).await;
    assert_eq!(warm.head.status, 200);
    let mut other = Client::connect(daemon.proxy).await.unwrap();
    for round in 0..100 {
        let stream = round % 2 == 0;
        let first = exchange(&mut one, RESPONSES, &[], &ask("state", stream)).await;
        let body = after_response(&response_id(&first, stream));
        let next = exchange(&mut other, RESPONSES, &[], &body).await;
        assert_eq!(served_by(&next), "canary", "round {round}");
        let first = exchange(&mut other, MESSAGES, &[], &ask("state", stream)).await;
        let body = after_thinking(&signature(&first, stream));
        let next = exchange(&mut one, MESSAGES, &[], &body).await;
        assert_eq!(served_by(&next), "canary", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_canary_knows_nothing_of_what_the_one_before_it_kept() {
    let scene = Scene::new(ROLLOUT).await;
    let daemon = scene.start().await;
    set_weight(&daemon, "100%", 1.0).await;
    let first = send(&daemon, RESPONSES, &ask("state", false)).await;
    let next = after_response(&response_id(&first, false));
    assert_eq!(served_by(&send(&daemon, RESPONSES, &next).await), "canary");
    wait_until("the ids are stored", || stored(&scene) > 0).await;

    let other = Provider::start("canary").await;
    scene.edit(&scene.canary.base_url(), &other.base_url());
    daemon
        .until_status("forgotten", |status| status["learned_ids"]["known"] == 0)
        .await;
    assert_eq!(served_by(&send(&daemon, RESPONSES, &next).await), "legacy");
    assert!(other.requests().is_empty());
    let last = scene.canary.requests().len();
    assert_eq!(last, 2, "nothing more went to the old one");

    // Whoever moves it back finds all as it was.
    scene.edit(&other.base_url(), &scene.canary.base_url());
    daemon
        .until_status("known again", |status| status["learned_ids"]["known"] != 0)
        .await;
    assert_eq!(served_by(&send(&daemon, RESPONSES, &next).await), "canary");
}
