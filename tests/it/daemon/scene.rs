//! What a daemon needs around it: two providers, a folder, a configuration.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::process::Daemon;
use crate::provider::Provider;

/// Margins so wide that some dozens of requests prove a stage; everything else off.
pub(super) const GUARDS: &str = r#"
[rollout.guards]
error-rate = { max = "20%", max-increase = "10%" }
latency-p99 = "off"
latency-p50 = "off"
ttft-p99 = "off"
ttft-p50 = "off"
rate-limited = "off"
rejected = "off"
"#;

/// Providers, a folder and a configuration in it.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) legacy: Provider,
    pub(super) canary: Provider,
    pub(super) folder: TempDir,
}

impl Scene {
    /// `rollout` holds lines of `[[rollout]]`.
    pub(super) async fn new(rollout: &str) -> Self {
        let scene = Self {
            legacy: Provider::start("legacy").await,
            canary: Provider::start("canary").await,
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(scene.database_folder()).unwrap();
        scene.write(&scene.config(rollout));
        scene
    }

    /// A complete configuration with these lines in `[[rollout]]`.
    pub(super) fn config(&self, rollout: &str) -> String {
        format!(
            r#"[proxy]
listen = "127.0.0.1:0"
workers = 2
drain = "20s"

[admin]
listen = "127.0.0.1:0"

[store]
url = "sqlite:{database}"

[arms.legacy]
base-url = "{legacy}"

[arms.canary]
base-url = "{canary}"
api-key = "env:CANARY_KEY"

[[rollout]]
{rollout}
{GUARDS}"#,
            database = self.database().display(),
            legacy = self.legacy.base_url(),
            canary = self.canary.base_url(),
        )
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("cutover.toml")
    }

    pub(super) fn database_folder(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.database_folder().join("cutover.db")
    }

    /// Saves the configuration in place.
    pub(super) fn write(&self, config: &str) {
        fs::write(self.path(), config).unwrap();
    }

    /// Saves the configuration as editors do: beside it, then renamed.
    pub(super) fn replace(&self, config: &str) {
        let beside = self.folder.path().join(".cutover.toml.new");
        fs::write(&beside, config).unwrap();
        fs::rename(beside, self.path()).unwrap();
    }

    /// Saves the configuration with one text in place of another, which it must hold.
    pub(super) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path()).unwrap();
        assert!(text.contains(from), "`{from}` is not in the configuration");
        self.write(&text.replace(from, to));
    }

    pub(super) async fn start(&self) -> Daemon {
        Daemon::start(&self.path(), "json").await
    }

    /// Asks a copy of the database as it is on the disk, so that asking mends nothing.
    pub(super) fn sql(&self, query: &str) -> Vec<Value> {
        let copy = tempfile::tempdir().unwrap();
        for name in ["cutover.db", "cutover.db-wal"] {
            let from = self.database_folder().join(name);
            if from.exists() {
                fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        let asked = Command::new("sqlite3")
            .arg("-json")
            .arg(copy.path().join("cutover.db"))
            .arg(query)
            .output()
            .expect("the package `sqlite3` is there (`make packages`)");
        let error = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success(), "{query}: {error}");
        if asked.stdout.is_empty() {
            return Vec::new();
        }
        serde_json::from_slice(&asked.stdout).unwrap()
    }

    /// Live requests that both providers have read.
    pub(super) fn served(&self) -> usize {
        self.legacy.requests().len() + self.canary.requests().len()
    }
}
