//! The whole daemon within the test: real ports, real SQLite file, a scripted provider at either end.
//!
//! Nothing sleeps to be ready: `start` returns when the ports are served, and everything that takes its
//! time is waited for with a deadline. Rows are read after a clean shutdown, when all are written.

use std::future::Future;
use std::time::{Duration, Instant};

use cutover::app::{App, Source, start};
use cutover::config::parse::parse;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Row as _, SqliteConnection};
use tempfile::TempDir;

use crate::client::{Answer, Client, End, post};
use crate::provider::Provider;

/// The canary's key, which nobody but the canary may ever see.
pub(crate) const CANARY_KEY: &str = "sk-canary-0123456789";
/// Legacy's key, in tests that inject one.
pub(crate) const LEGACY_KEY: &str = "sk-legacy-0123456789";
pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const MESSAGES: &str = "/v1/messages";
pub(crate) const RESPONSES: &str = "/v1/responses";

/// Nothing that a test waits for takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test sets apart from the defaults: lines of TOML for each table.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) proxy: String,
    pub(crate) legacy: String,
    pub(crate) canary: String,
    /// Tables of rollouts; empty: one called `default`.
    pub(crate) rollouts: String,
    /// What follows the provider's address in its base URL.
    pub(crate) legacy_path: Option<String>,
    pub(crate) canary_path: Option<String>,
    /// In place of the provider's own address.
    pub(crate) canary_url: Option<String>,
    /// In place of the provider's own address.
    pub(crate) legacy_url: Option<String>,
}

/// A rollout that no evidence ever moves, so that only the test does. `lines` are further keys of it.
pub(crate) fn rollout(name: &str, lines: &str) -> String {
    let off = [
        "error-rate",
        "latency-p99",
        "ttft-p99",
        "ttft-p50",
        "rate-limited",
        "rejected",
    ];
    let off: String = off.map(|guard| format!("{guard} = \"off\"\n")).concat();
    format!(
        "[[rollout]]
        name = \"{name}\"
        warm-up = 0
        trip = \"off\"
        retreat = \"off\"
        stages = [{{ weight = \"1%\", dwell = \"30d\" }}, {{ weight = \"100%\", dwell = \"30d\" }}]
        {lines}
        [rollout.guards]
        latency-p50 = {{ max = \"10m\" }}
        {off}"
    )
}

/// The running daemon between its providers.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) legacy: Provider,
    pub(crate) canary: Provider,
    app: App,
    folder: TempDir,
}

/// What is left after a clean shutdown.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) rows: Vec<Row>,
    /// The file itself.
    pub(crate) database: Vec<u8>,
    pub(crate) legacy: Provider,
    pub(crate) canary: Provider,
}

/// One attempt as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) rollout: Option<String>,
    pub(crate) arm: String,
    pub(crate) role: String,
    pub(crate) model: Option<String>,
    pub(crate) streamed: bool,
    pub(crate) outcome: String,
    pub(crate) status: Option<i64>,
    pub(crate) latency_ms: f64,
    pub(crate) ttft_ms: Option<f64>,
    /// Input, cached input, output.
    pub(crate) tokens: Option<(i64, i64, i64)>,
    pub(crate) attempt: i64,
}

impl Rig {
    /// The daemon with the canary at this share of all eligible traffic.
    pub(crate) async fn at(percent: u16) -> Self {
        let rig = Self::with(Setup::default()).await;
        rig.set_weight("default", percent).await;
        rig
    }

    /// The daemon with a configuration of the test's own, at its first stage.
    pub(crate) async fn with(setup: Setup) -> Self {
        let legacy = Provider::start("legacy").await;
        let canary = Provider::start("canary").await;
        let folder = tempfile::tempdir().unwrap();
        let url = |provider: &Provider, path: Option<String>| {
            let path = path.unwrap_or_else(|| "/v1".to_owned());
            format!("http://127.0.0.1:{}{path}", provider.port())
        };
        let legacy_url = setup
            .legacy_url
            .unwrap_or_else(|| url(&legacy, setup.legacy_path));
        let canary_url = setup
            .canary_url
            .unwrap_or_else(|| url(&canary, setup.canary_path));
        let rollouts = if setup.rollouts.is_empty() {
            rollout("default", "")
        } else {
            setup.rollouts
        };
        let text = format!(
            "[proxy]\nlisten = \"127.0.0.1:0\"\nworkers = 1\ndrain = \"5s\"\n{}
            [admin]\nlisten = \"127.0.0.1:0\"
            [store]\nurl = \"sqlite:{}\"
            [arms.legacy]\nbase-url = \"{legacy_url}\"\n{}
            [arms.canary]\nbase-url = \"{canary_url}\"\napi-key = \"env:CANARY_KEY\"\n{}
            {rollouts}",
            setup.proxy,
            folder.path().join("cutover.db").display(),
            setup.legacy,
            setup.canary,
        );
        let env = |name: &str| match name {
            "CANARY_KEY" => Some(CANARY_KEY.to_owned()),
            "LEGACY_KEY" => Some(LEGACY_KEY.to_owned()),
            _ => None,
        };
        let parsed = parse(&text, &env).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"));
        let app = start(parsed.config, Source::BuiltIn).await.unwrap();
        Self {
            legacy,
            canary,
            app,
            folder,
        }
    }

    /// The port that clients talk to.
    pub(crate) fn port(&self) -> u16 {
        self.app.proxy_addr.port()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.port()).await.unwrap()
    }

    /// One POST over a connection of its own.
    pub(crate) async fn post(&self, target: &str, body: &Value) -> Answer {
        post(self.port(), target, body).await.unwrap()
    }

    /// A request to the admin API.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut client = Client::connect(self.app.admin_addr.port()).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        client.send(head.as_bytes()).await.unwrap();
        client.answer().await.unwrap()
    }

    /// The part of `status` that speaks of one rollout.
    pub(crate) async fn rollout(&self, name: &str) -> Value {
        let status = self.admin("GET", "/api/v1/status", "").await.json();
        let rollouts = status["rollouts"].as_array().unwrap();
        let found = rollouts.iter().find(|rollout| rollout["name"] == name);
        found
            .unwrap_or_else(|| panic!("no rollout {name} in {status}"))
            .clone()
    }

    /// Waits until a rollout's status is as wanted, and returns it.
    pub(crate) async fn wait_rollout(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rollout = self.rollout(name).await;
            if wanted(&rollout) {
                return rollout;
            }
            assert!(Instant::now() < deadline, "still not as wanted: {rollout}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sets a rollout's weight as an operator does, and waits until it is in force.
    pub(crate) async fn set_weight(&self, rollout: &str, percent: u16) {
        let body = json!({"weight": format!("{percent}%"), "reason": "a test"}).to_string();
        let path = format!("/api/v1/rollouts/{rollout}/weight");
        let answer = self.admin("PUT", &path, &body).await;
        assert_eq!(answer.head.status, 200, "{path}: {}", answer.text());
        let wanted = f64::from(percent) / 100.0;
        let is_there = |rollout: &Value| {
            rollout["weight"]
                .as_f64()
                .is_some_and(|weight| (weight - wanted).abs() < 1e-9)
        };
        self.wait_rollout(rollout, is_there).await;
    }

    /// Shuts down cleanly and reads what was recorded.
    pub(crate) async fn finish(self) -> Finished {
        self.app.shut_down().await;
        let rows = rows(&self.folder).await;
        let database = std::fs::read(self.folder.path().join("cutover.db")).unwrap();
        Finished {
            rows,
            database,
            legacy: self.legacy,
            canary: self.canary,
        }
    }
}

async fn rows(folder: &TempDir) -> Vec<Row> {
    let options = SqliteConnectOptions::new().filename(folder.path().join("cutover.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query("SELECT * FROM request ORDER BY id")
        .fetch_all(&mut connection)
        .await;
    let row = |row: &sqlx::sqlite::SqliteRow| {
        let tokens = |column: &str| row.get::<Option<i64>, _>(column);
        Row {
            rollout: row.get("rollout"),
            arm: row.get("arm"),
            role: row.get("role"),
            model: row.get("model"),
            streamed: row.get("streamed"),
            outcome: row.get("outcome"),
            status: row.get("status"),
            latency_ms: row.get("latency_ms"),
            ttft_ms: row.get("ttft_ms"),
            tokens: tokens("input_tokens")
                .zip(tokens("cached_input_tokens"))
                .zip(tokens("output_tokens"))
                .map(|((input, cached), output)| (input, cached, output)),
            attempt: row.get("attempt"),
        }
    };
    rows.unwrap().iter().map(row).collect()
}

/// Waits until something outside the daemon has happened.
pub(crate) async fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A small request for every dialect.
pub(crate) fn ask(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "stream_options": {"include_usage": true},
        "max_tokens": 50, "input": "hello", "prompt": "hello",
        "messages": [{"role": "user", "content": "hello"}]})
}

/// The provider that really gave the answer; fails if cutover names another arm.
pub(crate) fn served_by(answer: &Answer) -> &str {
    let provider = answer.head.header("x-provider").unwrap_or("nobody");
    assert_eq!(
        answer.head.header("x-cutover-arm"),
        Some(provider),
        "{:?}",
        answer.head
    );
    provider
}

/// An answer over a connection that is kept.
pub(crate) async fn exchange(
    client: &mut Client,
    target: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    client
        .request("POST", target, headers, body.to_string().as_bytes())
        .await
        .unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.end, End::Clean);
    answer
}

/// Fails the test rather than hang.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
