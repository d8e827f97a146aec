//! From the start of the real binary to its first "ready" on a large database, and its memory at rest.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cutover::clock::UnixMillis;
use cutover::store::Store;

#[path = "../history/fill.rs"]
mod fill;

use crate::made;

const STARTS: usize = 7;
const READY_MAX: Duration = Duration::from_millis(100);
const IDLE_MAX_KB: u64 = 40 * 1_024;
/// Days of `fill` in a gigabyte, about.
const MB_PER_DAY: i64 = 250;

/// Prints times from start to ready; fails when they or the memory at rest miss the target.
pub(crate) fn measure() -> Result<(), Box<dyn Error>> {
    let mb: i64 = match std::env::var("CUTOVER_BENCH_MB") {
        Ok(mb) => mb.parse()?,
        Err(_) => 1_000,
    };
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let empty = Daemon::start(folder.path())?.stop()?;
    let database = folder.path().join("cutover.db");
    runtime.block_on(fill::fill(&database, "bench-1", (mb / MB_PER_DAY).max(1)))?;
    let opened = opened(&runtime, folder.path())?;
    let starts: Result<Vec<_>, _> = (0..STARTS)
        .map(|_| Daemon::start(folder.path()).and_then(Daemon::stop))
        .collect();
    let mut starts = starts?;
    starts.sort_unstable();
    let median = starts.get(STARTS / 2).copied().unwrap_or_default();
    println!(
        "start: {} MiB; ready after {:.1?} (of {STARTS}; memory {} kB); with an empty store {:.1?}; opening alone {opened:.1?}",
        std::fs::metadata(&database)?.len() / (1 << 20),
        median.0,
        median.1,
        empty.0
    );
    if median.0 > READY_MAX || median.1 > IDLE_MAX_KB {
        return Err("it takes too long, or too much memory".into());
    }
    Ok(())
}

fn opened(runtime: &tokio::runtime::Runtime, folder: &Path) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let config = made::store_config(folder);
    let store = runtime
        .block_on(Store::open(&config, UnixMillis::now()))?
        .store;
    runtime.block_on(store.load_rollouts())?;
    let took = began.elapsed();
    runtime.block_on(store.close())?;
    Ok(took)
}

/// A running daemon. Killed when dropped.
struct Daemon {
    child: Child,
    ready_after: Duration,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let (proxy, admin) = (free_port()?, free_port()?);
        let config = format!(
            "[proxy]\nlisten = \"{proxy}\"\n[admin]\nlisten = \"{admin}\"\n\
             [store]\nurl = \"sqlite:{}/cutover.db\"\n\
             [arms.legacy]\nbase-url = \"http://127.0.0.1:1\"\n\
             [arms.canary]\nbase-url = \"http://127.0.0.1:2\"\napi-key = \"client\"\n\
             [[rollout]]\nname = \"bench\"\nwarm-up = 0\n",
            folder.display()
        );
        let path = folder.join("cutover.toml");
        std::fs::write(&path, config)?;
        let program = option_env!("CARGO_BIN_EXE_cutover").ok_or("start it with cargo")?;
        let began = Instant::now();
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut daemon = Self {
            child,
            ready_after: Duration::ZERO,
        };
        while !is_ready(admin) {
            if daemon.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(60) {
                return Err("the daemon does not become ready".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.ready_after = began.elapsed();
        Ok(daemon)
    }

    /// Ends it as a service manager does; the time to ready, and its memory two seconds later in kB.
    fn stop(mut self) -> Result<(Duration, u64), Box<dyn Error>> {
        std::thread::sleep(Duration::from_secs(2));
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = resident.and_then(|it| it.trim().split(' ').next()?.parse().ok());
        let kill = format!("kill -TERM {}", self.child.id());
        Command::new("sh").args(["-c", &kill]).status()?;
        self.child.wait()?;
        Ok((self.ready_after, kb.ok_or("no memory")?))
    }
}

fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(admin)?;
        let head = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
