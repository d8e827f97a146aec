//! The end: new connections are refused, what runs may finish within the drain time, all is recorded.

use std::time::{Duration, Instant};

use serde_json::json;

use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Client, End};

const HALF: &str = "warm-up = 0\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";

/// A stream whose pieces come this far apart, read up to its first piece.
async fn stream(daemon: &Daemon, gap_ms: u64) -> Client {
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    let body = json!({
        "model": format!("fault-gap-{gap_ms}"),
        "user": format!("user of {gap_ms}"),
        "messages": [{"role": "user", "content": "what is new?"}],
        "stream": true,
    });
    let headers = [("content-type", "application/json")];
    let body = body.to_string();
    client
        .request("POST", "/v1/chat/completions", &headers, body.as_bytes())
        .await
        .unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    client.part().await.unwrap().unwrap();
    client
}

/// Connects until the data port takes no connection any more; gives those that were taken.
async fn until_refused(daemon: &Daemon) -> Vec<Client> {
    let deadline = Instant::now() + super::PATIENCE;
    let mut taken = Vec::new();
    while let Ok(client) = Client::connect(daemon.proxy).await {
        assert!(Instant::now() < deadline, "new connections are still taken");
        taken.push(client);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    taken
}

/// A row for each attempt that the providers saw.
fn assert_all_recorded(scene: &Scene) {
    let rows = scene.sql("SELECT count(*) AS rows FROM request");
    assert_eq!(rows[0]["rows"], scene.served());
}

async fn drains_on(signal: &str) {
    let scene = Scene::new(HALF).await;
    let mut daemon = scene.start().await;
    for _ in 0..20 {
        drop(stream(&daemon, 0).await.body().await);
    }
    let mut running = Vec::new();
    for gap_ms in [200, 210, 220] {
        running.push(stream(&daemon, gap_ms).await);
    }
    // Connections without a request must not hold the end up, those included that come with the signal.
    let (idle, ()) = tokio::join!(until_refused(&daemon), async {
        tokio::task::block_in_place(|| daemon.signal(signal));
    });
    assert_eq!(daemon.get("/readyz").await.unwrap().head.status, 503);
    assert_eq!(daemon.get("/healthz").await.unwrap().head.status, 200);
    for mut client in running {
        let (body, end) = client.body().await;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(
            end == End::Clean && text.contains("[DONE]"),
            "{end:?}: {text}"
        );
    }
    let finished_at = Instant::now();
    assert_eq!(daemon.exit_code().await, Some(0));
    let took = finished_at.elapsed();
    println!("ended {took:?} after the last stream");
    // Far from the drain time of 20 s.
    assert!(
        took < Duration::from_secs(8),
        "something else was waited for: {took:?}"
    );
    assert_all_recorded(&scene);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_streams_finish_after_sigterm() {
    drains_on("TERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_streams_finish_after_sigint() {
    drains_on("INT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_longer_than_the_drain_time_is_cut_and_recorded() {
    let scene = Scene::new(HALF).await;
    scene.edit("drain = \"20s\"", "drain = \"1s\"");
    let mut daemon = scene.start().await;
    let mut client = stream(&daemon, 3_000).await;
    daemon.signal("TERM");
    let (_, end) = client.body().await;
    assert_ne!(end, End::Clean, "a cut stream must not look whole");
    assert_eq!(daemon.exit_code().await, Some(0));
    assert_all_recorded(&scene);
    let rows = scene.sql("SELECT outcome, latency_ms FROM request");
    println!("recorded as {}", rows[0]);
    assert_ne!(rows[0]["outcome"], "ok");
    let errors = scene.sql("SELECT sum(errors) AS errors FROM arm_total");
    assert_eq!(
        errors[0]["errors"], 0,
        "cutover's own doing is no arm's error"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let scene = Scene::new(HALF).await;
    let mut daemon = scene.start().await;
    let mut client = stream(&daemon, 15_000).await;
    daemon.signal("TERM");
    drop(until_refused(&daemon).await);
    assert!(daemon.is_running());
    let second_at = Instant::now();
    daemon.signal("INT");
    daemon.exit_code().await;
    let took = second_at.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    assert_ne!(client.body().await.1, End::Clean);
}
