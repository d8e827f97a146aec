//! The peers: how each is configured, started on its core, waited for and stopped.
//!
//! One runs at a time. Only processes that were started here are ever stopped, by their id.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::ask_once;
use crate::configs;

/// The core that every proxy runs on; the bench itself has the next one.
const PROXY_CORE: &str = "0";
/// Stands for the canary's credential.
const KEY: &str = "sk-canary-0123456789abcdef";
/// The path of a request that cutover meters.
pub(crate) const PATH: &str = "/v1/chat/completions";
const START_LIMIT: Duration = Duration::from_secs(10);
const SET_LIMIT: Duration = Duration::from_secs(2);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Nobody: the bench asks its own providers.
    Direct,
    /// The yardstick.
    Nginx,
    /// The other one.
    Haproxy,
    /// Ourselves.
    Cutover,
    /// Ourselves on a path that is not metered: bytes pass unread.
    Unmetered,
    /// Ourselves without rows of requests.
    Unrecorded,
    /// Ourselves with two workers on both cores.
    TwoWorkers,
}

impl Peer {
    /// Those of whom everything is measured, the yardstick first.
    pub(crate) const RIVALS: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Cutover];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Cutover => "cutover",
            Self::Unmetered => "cutover-unmetered",
            Self::Unrecorded => "cutover-unrecorded",
            Self::TwoWorkers => "cutover-two-workers",
        }
    }

    /// True for all ways in which cutover is measured.
    pub(crate) fn is_cutover(self) -> bool {
        self >= Self::Cutover
    }

    /// The path that is asked of it.
    fn path(self) -> &'static str {
        match self {
            Self::Unmetered => "/v1/unmetered",
            _ => PATH,
        }
    }

    /// The cores that it may use.
    fn cores(self) -> &'static str {
        match self {
            Self::TwoWorkers => "0,1",
            _ => PROXY_CORE,
        }
    }

    fn config(self, places: &configs::Places<'_>) -> String {
        let manner = |workers, rows| configs::cutover(places, configs::Manner { workers, rows });
        match self {
            Self::Direct => String::new(),
            Self::Nginx => configs::nginx(places),
            Self::Haproxy => configs::haproxy(places),
            Self::Cutover | Self::Unmetered => manner(1, "all"),
            Self::Unrecorded => manner(1, "none"),
            Self::TwoWorkers => manner(2, "all"),
        }
    }

    /// Its version, as it tells it.
    pub(crate) fn version(self) -> Option<String> {
        let flag = if self.is_cutover() { "--version" } else { "-v" };
        let output = Command::new(self.program()?).arg(flag).output().ok()?;
        // nginx tells its version on standard error.
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
        let words = line
            .split_whitespace()
            .map(|word| word.trim_start_matches("nginx/"));
        words
            .into_iter()
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
    }

    /// Its program, where that is installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        if self.is_cutover() {
            let built = option_env!("CARGO_BIN_EXE_cutover").unwrap_or_default();
            let path = std::env::var_os("CUTOVER_BENCH_BINARY").map_or(built.into(), PathBuf::from);
            return path.is_file().then_some(path);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        // Debian keeps daemons where the PATH of ordinary users does not lead.
        let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
        folders
            .map(|folder| Path::new(folder).join(self.name()))
            .find(|path| path.is_file())
    }
}

/// A peer that runs; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its first process.
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The path that is asked of it.
    pub(crate) path: &'static str,
    /// Where operators ask it; cutover alone answers there.
    pub(crate) admin: SocketAddr,
    /// From the start of its process to its first answer; `taskset` and `setpriv` included.
    pub(crate) started_in: Duration,
}

impl Running {
    /// The id of its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The id of a process that has ended may be somebody else's by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.child.id().to_string();
        let asked = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .is_ok_and(|s| s.success());
        let begun = Instant::now();
        while asked && begun.elapsed() < STOP_LIMIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a peer in front of both upstreams and waits until it answers.
///
/// # Errors
/// Why it is not measured, as a remark for the table.
pub(crate) async fn start(
    peer: Peer,
    folder: &Path,
    upstreams: [SocketAddr; 2],
) -> Result<Running, String> {
    let Some(program) = peer.program() else {
        let why = if peer.is_cutover() {
            "not built: run `make bench`"
        } else {
            "not installed: `make bench` installs it from Debian"
        };
        return Err(why.to_owned());
    };
    let folder = folder.join(peer.name());
    let [address, admin] = free_addresses().map_err(|e| e.to_string())?;
    let places = configs::Places {
        listen: address,
        admin,
        upstreams,
        folder: &folder,
    };
    let log = prepare(peer, &places).map_err(|e| format!("its folder: {e}"))?;
    let config = folder.join(configs::FILE);
    let mut command = Command::new("taskset");
    // A bench that is killed takes its peer with it.
    let with_us = ["setpriv", "--pdeathsig", "TERM"];
    command
        .args(["--cpu-list", peer.cores()])
        .args(with_us)
        .arg(&program);
    match peer {
        Peer::Nginx => command.arg("-p").arg(&folder).arg("-c").arg(&config),
        Peer::Haproxy => command.arg("-db").arg("-f").arg(&config),
        _ => command.arg("run").arg("--config").arg(&config),
    };
    let spawned = command
        .current_dir(&folder)
        .env(configs::KEY_NAME, KEY)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|e| e.to_string())?)
        .stderr(log)
        .spawn();
    let child = spawned.map_err(|e| format!("taskset, of the package util-linux: {e}"))?;
    let mut running = Running {
        child,
        address,
        path: peer.path(),
        admin,
        started_in: Duration::ZERO,
    };
    ready(&mut running, &folder).await?;
    if peer.is_cutover() {
        set_weight(&program, &config)?;
    }
    Ok(running)
}

/// Loopback addresses that nobody listens on. They are free again before the peer binds them, so
/// another program could step in; the peer then fails to start, and the table says so.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let [first, second] = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    Ok([first.local_addr()?, second.local_addr()?])
}

fn prepare(peer: Peer, places: &configs::Places<'_>) -> io::Result<File> {
    // What an earlier round left, a database above all, would not be a fresh start.
    match fs::remove_dir_all(places.folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => fs::create_dir_all(places.folder)?,
    }
    fs::write(places.folder.join(configs::FILE), peer.config(places))?;
    File::create(places.folder.join("log"))
}

async fn ready(running: &mut Running, folder: &Path) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let Err(fault) = ask_once(running.address).await else {
            running.started_in = begun.elapsed();
            return Ok(());
        };
        let ended = !matches!(running.child.try_wait(), Ok(None));
        if ended || begun.elapsed() > START_LIMIT {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("nothing logged");
            let what = if ended {
                "ended at once"
            } else {
                "does not answer"
            };
            return Err(format!("{what} ({fault}; {last})"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sends half of the traffic to the canary, as an operator would. A daemon that is just recording a
/// decision of its own asks to be asked again.
fn set_weight(program: &Path, config: &Path) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let mut command = Command::new(program);
        command
            .args(["set-weight", "50%", "--reason", "bench", "--config"])
            .arg(config);
        command.env(configs::KEY_NAME, KEY).stdin(Stdio::null());
        let output = command.output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        if begun.elapsed() > SET_LIMIT {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "`cutover set-weight` failed: {}",
                text.trim().replace('\n', " ")
            ));
        }
        thread::sleep(Duration::from_millis(100));
    }
}
