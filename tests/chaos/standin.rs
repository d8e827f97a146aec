//! A provider in a process of its own, so that it can be killed and stopped like a real one.
//!
//! The process is this very test binary, started with the name of a test that plays the provider. It looks at
//! the credentials of all it is sent and says what it should not have seen.

mod quiet;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::it::provider::{Provider, Request};
use crate::{CANARY_KEY, CLIENT_KEY, PATIENCE};

/// Tells the process which provider it is: name, port, and whether it is scripted or quiet.
const ROLE: &str = "CUTOVER_CHAOS_STANDIN";
const SEEN: &str = "saw what it must not: ";

/// A provider's process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Standin {
    name: &'static str,
    kind: &'static str,
    pub(crate) port: u16,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Standin {
    /// The scripted provider of the integration tests: it fails as it is told.
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_as(name, "scripted").await
    }

    /// One that never fails, and costs little.
    pub(crate) async fn start_quiet(name: &'static str) -> Self {
        Self::start_as(name, "quiet").await
    }

    async fn start_as(name: &'static str, kind: &'static str) -> Self {
        let said = Arc::default();
        let (child, port) = spawn(name, kind, 0, &said).await;
        Self {
            name,
            kind,
            port,
            child,
            said,
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// `kill -9`. Does nothing if it is dead.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Starts it again at its port.
    pub(crate) async fn revive(&mut self) {
        self.kill();
        (self.child, _) = spawn(self.name, self.kind, self.port, &self.said).await;
    }

    /// Stops the process where it stands; the kernel goes on taking connections for it.
    pub(crate) fn stop(&self) {
        crate::daemon::signal(self.child.id(), "STOP");
    }

    pub(crate) fn go_on(&self) {
        crate::daemon::signal(self.child.id(), "CONT");
    }

    /// Credentials that it should not have seen.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        let bad = said.iter().filter(|line| line.contains(SEEN));
        bad.cloned().collect()
    }
}

#[expect(
    clippy::zombie_processes,
    reason = "it is waited for when it is dropped"
)]
async fn spawn(name: &str, kind: &str, port: u16, said: &Arc<Mutex<Vec<String>>>) -> (Child, u16) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "standin::provider_process", "--ignored"])
        .args(["--nocapture", "--quiet"])
        .env(ROLE, format!("{name} {port} {kind}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (kept, before) = (Arc::clone(said), said.lock().unwrap().len());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = said.lock().unwrap()[before..].iter().find_map(|line| {
            let (_, port) = line.split_once("listens on ")?;
            port.trim().parse().ok()
        });
        if let Some(port) = found {
            return (child, port);
        }
        assert!(Instant::now() < deadline, "{name} does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is wrong with the credentials of a request.
fn complaint(name: &str, request: &Request) -> Option<String> {
    let (wanted, forbidden) = match name {
        "canary" => (CANARY_KEY, CLIENT_KEY),
        _ => (CLIENT_KEY, CANARY_KEY),
    };
    // A connection that is only kept warm carries no request, so every request has a key.
    let has = |key: &str| request.headers.iter().any(|(_, value)| value.contains(key));
    let body = String::from_utf8_lossy(&request.body);
    let leaks = has(forbidden) || body.contains(forbidden) || request.target.contains(forbidden);
    (leaks || !has(wanted)).then(|| format!("{name} {SEEN}{:?}", request.headers))
}

#[test]
#[ignore = "the process of a provider, which the other tests start"]
fn provider_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut words = role.split(' ');
    let name = if words.next() == Some("canary") {
        "canary"
    } else {
        "legacy"
    };
    let port = words.next().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if words.next() == Some("quiet") {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
                .await
                .unwrap();
            println!("\nlistens on {}", listener.local_addr().unwrap().port());
            tokio::spawn(quiet::serve(name, listener));
            while_wanted(|| {}).await;
            return;
        }
        let provider = Provider::start_at(name, port).await;
        println!("\nlistens on {}", provider.port());
        while_wanted(|| {
            for request in provider.requests() {
                if let Some(complaint) = complaint(name, &request) {
                    println!("\n{complaint}");
                }
            }
            provider.clear();
        })
        .await;
    });
}

/// Looks five times a second, as long as the process that started this one lives.
async fn while_wanted(look: impl Fn()) {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(200)).await;
        look();
        std::io::stdout().flush().ok();
    }
}
