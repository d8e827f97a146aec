//! One life of the binary: started, asked, signalled, measured.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, Client};
use crate::{CANARY_KEY, PATIENCE};

const POLL: Duration = Duration::from_millis(10);
/// An answer of the admin port that takes longer is none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Sends a signal by its short name.
pub(crate) fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// The binary under test.
fn binary() -> PathBuf {
    let other = std::env::var_os("CUTOVER_BIN").filter(|path| !path.is_empty());
    other.map_or_else(|| env!("CARGO_BIN_EXE_cutover").into(), PathBuf::from)
}

/// A wall clock that a file sets, for the daemon alone.
#[derive(Debug, Clone)]
pub(crate) struct FakeClock {
    library: PathBuf,
    offset: PathBuf,
}

impl FakeClock {
    /// `None` where the package `libfaketime` was not unpacked (`make chaos` does that).
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        let library = std::env::var_os("CUTOVER_FAKETIME").map(PathBuf::from)?;
        let clock = Self {
            library,
            offset: folder.join("clock"),
        };
        clock.set("+0");
        clock.library.exists().then_some(clock)
    }

    /// Sets the clock so far from the true time. It applies within a second.
    pub(crate) fn set(&self, offset: &str) {
        // By renaming, so that nobody reads half of it.
        let beside = self.offset.with_extension("new");
        fs::write(&beside, format!("{offset}\n")).unwrap();
        fs::rename(beside, &self.offset).unwrap();
    }

    fn env(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.clone()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) proxy: u16,
    pub(crate) admin: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(config: &Path, clock: Option<&FakeClock>) -> Self {
        let mut child = Command::new(binary())
            .args(["run", "--log-format", "json", "--config"])
            .arg(config)
            .current_dir(config.parent().unwrap())
            .env_remove("RUST_LOG")
            .env_remove("CUTOVER_CONFIG")
            .env("CANARY_KEY", CANARY_KEY)
            .envs(clock.map(FakeClock::env).into_iter().flatten())
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
        let deadline = Instant::now() + PATIENCE;
        while daemon.proxy == 0 {
            let ready = daemon.line(|line| line.contains("\"ready\""));
            if let Some(ready) = ready {
                (daemon.proxy, daemon.admin) = (port_of(&ready, "proxy"), port_of(&ready, "admin"));
                break;
            }
            let ended = daemon.child.try_wait().unwrap();
            let log = daemon.lines();
            assert!(ended.is_none(), "it ended at once: {log:#?}");
            assert!(Instant::now() < deadline, "it is never ready: {log:#?}");
            tokio::time::sleep(POLL).await;
        }
        daemon
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has logged.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line like this.
    pub(crate) fn line(&self, is_it: impl Fn(&str) -> bool) -> Option<String> {
        self.lines().into_iter().find(|line| is_it(line))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// True if it has ended and nobody has waited for it.
    fn is_dead(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }

    /// `kill -9`, and wait for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and wait for the end; gives the exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        signal(self.pid(), "TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The status; `None` if the admin port does not answer.
    pub(crate) async fn try_status(admin: u16) -> Option<Value> {
        let answer = ask(admin, "GET", "/api/v1/status", "").await?;
        (answer.head.status == 200).then(|| answer.json())
    }

    /// The status, asked for until it is given.
    pub(crate) async fn status(&self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = Self::try_status(self.admin).await {
                return status;
            }
            assert!(!self.is_dead(), "it ended by itself: {:#?}", self.lines());
            assert!(Instant::now() < deadline, "the admin port does not answer");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the status is like this.
    pub(crate) async fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if is_it(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never {what}: {status:#}");
            tokio::time::sleep(POLL * 3).await;
        }
    }

    /// Sets the weight of the only rollout as an operator does; gives the status of the answer.
    pub(crate) async fn set_weight(&self, percent: u64) -> Option<u16> {
        let body = format!(r#"{{"weight": "{percent}%", "reason": "chaos"}}"#);
        let path = "/api/v1/rollouts/default/weight";
        let answer = ask(self.admin, "PUT", path, &body).await?;
        Some(answer.head.status)
    }

    /// Asks for what is read from the store, whatever comes of it.
    pub(crate) async fn ask_for_decisions(&self) {
        drop(ask(self.admin, "GET", "/api/v1/decisions", "").await);
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = ask(self.admin, "GET", "/metrics", "").await;
        answer.map_or_else(String::new, |answer| answer.text())
    }

    /// Resident memory in KiB, open descriptors, threads.
    pub(crate) fn size(&self) -> Size {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            number.unwrap_or(0)
        };
        Size {
            rss_kib: number("VmRSS:"),
            threads: number("Threads:"),
            descriptors: fs::read_dir(proc.join("fd")).map_or(0, |fds| fds.count() as u64),
        }
    }
}

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rss_kib: u64,
    pub(crate) threads: u64,
    pub(crate) descriptors: u64,
}

async fn ask(port: u16, method: &str, path: &str, body: &str) -> Option<Answer> {
    let answered = async {
        let mut client = Client::connect(port).await.ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        client.send(request.as_bytes()).await.ok()?;
        client.answer().await.ok()
    };
    tokio::time::timeout(ANSWERS_WITHIN, answered).await.ok()?
}

/// The port of the address that follows `key`.
fn port_of(line: &str, key: &str) -> u16 {
    let (_, rest) = line.split_once(&format!("\"{key}\"")).unwrap();
    let (_, rest) = rest.split_once("127.0.0.1:").unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}
