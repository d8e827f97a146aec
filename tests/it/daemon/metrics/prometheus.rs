//! A real Prometheus, and its `promtool`, from the folder that `CUTOVER_PROMETHEUS` names.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::super::PATIENCE;
use crate::client::Client;

const POLL: Duration = Duration::from_millis(100);

/// The folder with both programs; says that the test is skipped if there is none.
pub(super) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CUTOVER_PROMETHEUS").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "skipped: CUTOVER_PROMETHEUS names no folder with prometheus and promtool; `make test` does"
        );
    }
    folder
}

/// Runs `promtool` in `deploy/prometheus` with this on its standard input.
pub(super) fn promtool(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(folder().unwrap().join("promtool"))
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A running Prometheus that scrapes one daemon each second. Killed when dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    /// Starts it and waits until it answers.
    pub(super) async fn start(admin: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/deploy/prometheus/cutover.rules.yml"
        );
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{rules}\"]\n\
             scrape_configs:\n- job_name: cutover\n  static_configs: [{{targets: [\"127.0.0.1:{admin}\"]}}]\n"
        );
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        // It cannot be told to take any port and say which.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new(self::folder().unwrap().join("prometheus"))
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child,
            port,
            _folder: folder,
        };
        let deadline = Instant::now() + PATIENCE;
        while prometheus.get("/-/ready").await.is_none() {
            let ended = prometheus.child.try_wait().unwrap();
            assert_eq!(ended, None, "it ended before it was ready");
            assert!(Instant::now() < deadline, "it is never ready");
            tokio::time::sleep(POLL).await;
        }
        prometheus
    }

    async fn get(&self, target: &str) -> Option<String> {
        let mut client = Client::connect(self.port).await.ok()?;
        client.request("GET", target, &[], b"").await.ok()?;
        let answer = client.answer().await.ok()?;
        (answer.head.status == 200).then(|| answer.text())
    }

    /// The result of an instant query; an error of the query is its text.
    pub(super) async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut target = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            target += &format!("%{byte:02X}");
        }
        let mut client = Client::connect(self.port).await.unwrap();
        client.request("GET", &target, &[], b"").await.unwrap();
        let answer = client.answer().await.unwrap().json();
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer.to_string()),
        }
    }

    /// The only value of a query, once it is as expected.
    pub(super) async fn becomes(&self, expression: &str, expected: f64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.query(expression).await.unwrap();
            let value = |one: &Value| one["value"][1].as_str().unwrap().parse::<f64>().unwrap();
            let is_it = |value: f64| (value - expected).abs() <= 1e-9 * expected.abs().max(1.0);
            if found.len() == 1 && is_it(value(&found[0])) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{expression} is {found:?}, not {expected}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
}
