//! One process of the binary: started, watched, asked, signalled, and killed at the end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;
use crate::client::{Answer, Client, End};

/// The key that the canary must be shown.
pub(super) const CANARY_KEY: &str = "sk-canary-only";
const POLL: Duration = Duration::from_millis(10);

/// The program.
pub(super) fn cutover() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command
        .env_remove("RUST_LOG")
        .env_remove("CUTOVER_CONFIG")
        .env_remove("CUTOVER_ADMIN_TOKEN")
        .env("CANARY_KEY", CANARY_KEY)
        .env("ADMIN_TOKEN", "s3cret");
    command
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    pub(super) proxy: u16,
    pub(super) admin: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", self.lines().join("\n"));
        }
    }
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(config: &Path, log_format: &str) -> Self {
        Self::start_in(config, log_format, &[]).await
    }

    /// The same with these variables in its environment.
    pub(super) async fn start_in(config: &Path, log_format: &str, env: &[(&str, &str)]) -> Self {
        let mut child = cutover()
            .envs(env.iter().copied())
            .args(["run", "--log-format", log_format, "--config"])
            .arg(config)
            .current_dir(config.parent().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut daemon = Self {
            child,
            lines,
            proxy: 0,
            admin: 0,
        };
        let ready = daemon.line("is ready", |line| line.contains("ready")).await;
        daemon.proxy = port_after(&ready, "proxy");
        daemon.admin = port_after(&ready, "admin");
        assert_eq!(daemon.get("/readyz").await.unwrap().head.status, 200);
        daemon
    }

    /// What it has logged so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// How many lines hold all of these words.
    pub(super) fn count(&self, word: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(word))
            .count()
    }

    /// Waits for the first line like this.
    pub(super) async fn line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| is_it(line)) {
                return line;
            }
            assert!(
                Instant::now() < deadline,
                "the log never said that it {what}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// One request to the admin port with these further headers.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, End> {
        let mut client = Client::connect(self.admin).await.map_err(|_| End::Reset)?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request += &format!("host: 127.0.0.1:{}\r\n", self.admin);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        client
            .send(request.as_bytes())
            .await
            .map_err(|_| End::Reset)?;
        client.answer().await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, End> {
        self.ask("GET", path, &[], "").await
    }

    pub(super) async fn status(&self) -> Value {
        self.get("/api/v1/status").await.unwrap().json()
    }

    /// The status of the only rollout.
    pub(super) async fn rollout(&self) -> Value {
        self.status().await["rollouts"][0].clone()
    }

    /// All decisions, oldest first.
    pub(super) async fn decisions(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/decisions?limit=1000").await.unwrap();
        let mut decisions = answer.json()["decisions"].as_array().unwrap().clone();
        decisions.reverse();
        decisions
    }

    /// An operator's command to the rollout `default`, which must be taken.
    pub(super) async fn operate(&self, action: &str, body: &str) -> Value {
        let answer = self.try_operate(action, body).await.unwrap();
        assert_eq!(
            answer.head.status,
            200,
            "{action} {body}: {}",
            answer.text()
        );
        answer.json()
    }

    pub(super) async fn try_operate(&self, action: &str, body: &str) -> Result<Answer, End> {
        let method = if action == "weight" { "PUT" } else { "POST" };
        let path = format!("/api/v1/rollouts/default/{action}");
        self.ask(method, &path, &[], body).await
    }

    /// Waits until the only rollout is like this; gives it, and how long that took.
    pub(super) async fn until(
        &self,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> (Value, Duration) {
        self.until_status(what, |status| is_it(&status["rollouts"][0]))
            .await
    }

    pub(super) async fn until_status(
        &self,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> (Value, Duration) {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if is_it(&status) {
                return (status["rollouts"][0].clone(), began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE * 2, "never {what}: {status:#}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a command of the command line against this daemon.
    pub(super) fn cli(&self, args: &[&str]) -> Output {
        let admin = format!("127.0.0.1:{}", self.admin);
        let mut command = cutover();
        command.args(args).args(["--admin", &admin]);
        tokio::task::block_in_place(|| command.output().unwrap())
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its short name.
    pub(super) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    /// `kill -9`, and wait for the end.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end; gives the exit code.
    pub(super) async fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// The port of the address that follows `key`, in a line of either format.
fn port_after(line: &str, key: &str) -> u16 {
    let (_, rest) = line.split_once(key).unwrap();
    let (_, rest) = rest.split_once("127.0.0.1:").unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}
