//! The store against a real SQLite file in a folder of its own.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tempfile::TempDir;

use super::limits::Limits;
use super::*;
use crate::arm::Arm;
use crate::config::RequestRows;
use crate::outcome::Outcome;
use crate::sample::{Role, Usage};
use crate::sketch::Sketch;

mod costs;
mod faults;
mod kept;
mod learned;
mod requests;
mod series;
mod views;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A folder with a store's file in it.
struct Place {
    folder: TempDir,
    config: StoreConfig,
    limits: Limits,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            path: folder.path().join("cutover.db"),
            // Longer than the time since NOW: nothing is deleted unless a test asks for it.
            retention: Duration::from_secs(100 * 365 * 86_400),
            requests: RequestRows::All,
        };
        let limits = Limits {
            flush_every: Duration::from_millis(5),
            busy_timeout: Duration::from_millis(20),
            probe_every: Duration::from_millis(10),
            retry_first: Duration::from_millis(5),
            retry_at_most: Duration::from_millis(20),
            close_within: Duration::from_millis(500),
            ..Limits::default()
        };
        Self {
            folder,
            config,
            limits,
        }
    }

    fn path(&self) -> &Path {
        &self.config.path
    }

    async fn try_open(&self) -> Result<Opened, StoreError> {
        Store::open_with(&self.config, NOW, self.limits.clone()).await
    }

    async fn open(&self) -> Store {
        self.try_open().await.unwrap().store
    }

    /// A connection of somebody else, like the sqlite3 shell.
    async fn shell(&self) -> SqliteConnection {
        SqliteConnectOptions::new()
            .filename(self.path())
            .connect()
            .await
            .unwrap()
    }

    async fn rows(&self, sql: &'static str) -> Vec<SqliteRow> {
        let mut shell = self.shell().await;
        let rows = sqlx::query(sql).fetch_all(&mut shell).await.unwrap();
        shell.close().await.unwrap();
        rows
    }

    async fn number(&self, sql: &'static str) -> i64 {
        self.rows(sql).await[0].get(0)
    }

    /// Names in the folder that contain `part`.
    fn files_with(&self, part: &str) -> Vec<String> {
        fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(part))
            .collect()
    }
}

fn key() -> RolloutKey {
    RolloutKey {
        id: Arc::from("default-1"),
        name: Arc::from("default"),
    }
}

fn sample(arm: Arm, outcome: Outcome) -> Sample {
    Sample {
        started_at: NOW,
        rollout: Some(0),
        config_epoch: 1,
        arm,
        assigned: arm,
        weight: Weight::from_bps(500).unwrap(),
        stage: 1,
        role: Role::Live,
        attempt: 1,
        outcome,
        status: if outcome == Outcome::Ok { 200 } else { 503 },
        latency_us: 250_000,
        ttft_us: None,
        streamed: false,
        complete: outcome == Outcome::Ok,
        conn_reused: true,
        client_retry: false,
        dialect: Some(crate::llm::Dialect::OpenAiChat),
        model: Some("gpt-5".into()),
        usage: (outcome == Outcome::Ok).then_some(Usage {
            input_tokens: 100,
            cached_input_tokens: 40,
            cache_write_tokens: 0,
            output_tokens: 20,
            cache_write_1h_tokens: 0,
        }),
        upstream_request_id: Some("req_1".into()),
        key_hash: 0xfeed,
        body_hash: 0,
        reported_cost_usd: None,
        tag: None,
        first_role: Role::Live,
    }
}

fn attempt(sample: Sample) -> AttemptRow {
    let cost_usd = sample.usage.map(|_| 0.25);
    let bill = sample.was_served().then(|| Bill {
        day: day_of(sample.started_at),
        model: sample.model.as_deref().unwrap_or_default().into(),
        tag: sample.tag.as_deref().unwrap_or_default().into(),
    });
    AttemptRow {
        rollout: Some(key()),
        sample,
        cost_usd,
        bill,
    }
}

fn attempts(count: usize, arm: Arm, outcome: Outcome) -> Vec<AttemptRow> {
    vec![attempt(sample(arm, outcome)); count]
}

fn state(version: i64, text: &str) -> RolloutRow {
    RolloutRow {
        rollout_id: "default-1".to_owned(),
        name: "default".to_owned(),
        version,
        state: format!("{{\"is\":\"{text}\"}}"),
        updated_at: NOW,
    }
}

fn decision(kind: &str) -> DecisionRow {
    DecisionRow {
        rollout: "default".to_owned(),
        rollout_id: "default-1".to_owned(),
        at: NOW,
        kind: kind.to_owned(),
        weight_from: Weight::from_bps(500).unwrap(),
        weight_to: Weight::from_bps(2_500).unwrap(),
        stage: 2,
        by: "proof".to_owned(),
        reason: "healthy on every guard".to_owned(),
        evidence: serde_json::json!({"errors": {"canary": [2, 2614]}}),
    }
}
