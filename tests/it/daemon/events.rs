//! The stream of events: status and decisions as they come, for all who look, and for as long as they do.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Client, End, Head};

const STAGES: &str =
    "warm-up = 1000000\nstages = [{ weight = \"5%\", dwell = \"1h\" }, \"100%\"]\n";

/// One open stream.
struct Stream {
    client: Client,
    head: Head,
    text: String,
}

/// One event of it.
#[derive(Debug, Default)]
struct Event {
    kind: String,
    id: Option<i64>,
    data: Value,
}

impl Stream {
    async fn open(daemon: &Daemon, headers: &[(&str, &str)]) -> Self {
        let mut client = Client::connect(daemon.admin).await.unwrap();
        let get = client.request("GET", "/api/v1/events", headers, b"");
        get.await.unwrap();
        let head = client.head().await.unwrap();
        let text = String::new();
        Self { client, head, text }
    }

    /// The next event that is more than a comment; `None` at the clean end.
    async fn next(&mut self) -> Result<Option<Event>, End> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let mut event = Event::default();
                for line in block.lines() {
                    match line.split_once(": ").unwrap() {
                        ("event", kind) => kind.clone_into(&mut event.kind),
                        ("id", id) => event.id = Some(id.parse().unwrap()),
                        ("data", data) => event.data = serde_json::from_str(data).unwrap(),
                        ("retry" | "", _) => {}
                        other => panic!("{other:?}"),
                    }
                }
                if !event.kind.is_empty() {
                    return Ok(Some(event));
                }
            }
            match self.client.part().await? {
                Some(part) => self.text += std::str::from_utf8(&part).unwrap(),
                None => return Ok(None),
            }
        }
    }

    /// The next event like this.
    async fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            let event = self.next().await.unwrap().expect("the stream ended");
            if is_it(&event) {
                return event;
            }
            assert!(Instant::now() < deadline, "the event never came");
        }
    }

    async fn decision(&mut self) -> Event {
        self.until(|event| event.kind == "decision").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_see_the_status_at_once_and_each_change_and_decision_after_it() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    daemon.operate("hold", r#"{"reason": "before"}"#).await;
    let mut stream = Stream::open(&daemon, &[]).await;
    assert_eq!(stream.head.status, 200);
    assert_eq!(
        stream.head.header("content-type"),
        Some("text/event-stream")
    );
    assert_eq!(stream.head.header("cache-control"), Some("no-store"));
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.kind, "status");
    assert_eq!(first.data["rollouts"][0]["state"], "held");
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&first.data), keys(&daemon.status().await));

    let began = Instant::now();
    daemon.operate("resume", r#"{"reason": "now"}"#).await;
    let decision = stream.decision().await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let listed = daemon
        .get("/api/v1/decisions?limit=1")
        .await
        .unwrap()
        .json();
    assert_eq!(decision.data, listed["decisions"][0]);
    assert_eq!(decision.id, decision.data["id"].as_i64());
    assert_eq!(
        decision.data["kind"], "resume",
        "the hold was before its time"
    );
    stream
        .until(|event| event.kind == "status" && event.data["rollouts"][0]["state"] != "held")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_comes_back_misses_no_decision_even_over_a_restart() {
    let scene = Scene::new(STAGES).await;
    let mut daemon = scene.start().await;
    let mut stream = Stream::open(&daemon, &[]).await;
    daemon.operate("hold", r#"{"reason": "1"}"#).await;
    let seen = stream.decision().await.id.unwrap().to_string();
    drop(stream);
    daemon.operate("resume", r#"{"reason": "2"}"#).await;
    daemon.operate("hold", r#"{"reason": "3"}"#).await;
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    let daemon = scene.start().await;
    let mut stream = Stream::open(&daemon, &[("last-event-id", &seen)]).await;
    daemon.operate("resume", r#"{"reason": "4"}"#).await;
    for expected in ["2", "3", "4"] {
        let decision = stream.decision().await;
        assert_eq!(decision.data["reason"], expected);
    }
    let bad = Stream::open(&daemon, &[("last-event-id", "x")]).await;
    assert_eq!(bad.head.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_viewers_are_served_and_their_places_become_free() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = Stream::open(&daemon, &[]).await;
        assert_eq!(stream.next().await.unwrap().unwrap().kind, "status");
        streams.push(stream);
    }
    let refused = Stream::open(&daemon, &[]).await;
    assert_eq!(refused.head.status, 503);
    // Everything else is served as before.
    assert_eq!(daemon.get("/api/v1/status").await.unwrap().head.status, 200);
    daemon.operate("hold", "{}").await;
    for stream in &mut streams {
        assert_eq!(stream.decision().await.data["kind"], "hold");
    }
    drop(streams);
    let deadline = Instant::now() + super::PATIENCE;
    while Stream::open(&daemon, &[]).await.head.status != 200 {
        assert!(Instant::now() < deadline, "no place became free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_does_not_hold_up_the_end_and_is_told_of_it() {
    let scene = Scene::new(STAGES).await;
    let mut daemon = scene.start().await;
    let mut stream = Stream::open(&daemon, &[]).await;
    stream.next().await.unwrap();
    let began = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    // The drain may take 20 s; nothing is under way.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    while stream.next().await.is_ok_and(|event| event.is_some()) {}
}
