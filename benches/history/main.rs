//! What a look at the daemon costs when it has 30 days of history, and what the looking costs its clients.
//!
//! `cargo bench --bench history` fills a store with 30 days at 10 requests/s (`CUTOVER_BENCH_DAYS` for other
//! lengths), starts the daemon on it between two stand-ins, and prints times of the admin port under load and
//! the clients' latencies with and without viewers. It fails when the status takes 20 ms or what a page shows
//! first 300 ms. Needs 8 GB of disk for 30 days.
#![expect(clippy::print_stdout, reason = "a bench speaks to a person")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cutover::demo::load::{Load, Settings};
use cutover::demo::standin::{Profile, Spread, StandIn};
use serde_json::Value;

mod fill;

const STATUS_MAX: Duration = Duration::from_millis(20);
const PAINT_MAX: Duration = Duration::from_millis(300);
/// Requests per second of the clients.
const CLIENTS_RATE: f64 = 100.0;
const ROUND: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// What the page asks for before all of it is shown: its charts begin with the whole history.
const PAINT: [&str; 4] = [
    "/api/v1/status",
    "/charts.json?rollout=default&width=1200&small=280",
    "/api/v1/decisions?limit=50",
    "/api/v1/requests?failed=true&limit=20",
];

fn main() -> ExitCode {
    // `cargo test --benches` starts it without this flag, to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it as `cargo bench --bench history`");
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("over the limit");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("it cannot be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A running daemon. Killed when dropped.
struct Daemon {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    ready_after: Duration,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    fn start(folder: &Path, arms: [&StandIn; 2]) -> Result<Self, Box<dyn Error>> {
        let (proxy, admin) = (free_port()?, free_port()?);
        let [legacy, canary] = arms.map(StandIn::base_url);
        let config = format!(
            "[proxy]\nlisten = \"{proxy}\"\nworkers = 1\n[admin]\nlisten = \"{admin}\"\n\
             [store]\nurl = \"sqlite:{}/cutover.db\"\n\
             [arms.legacy]\nbase-url = \"{legacy}\"\n\
             [arms.canary]\nbase-url = \"{canary}\"\napi-key = \"env:CUTOVER_BENCH_KEY\"\n\
             [[rollout]]\nname = \"bench\"\nwarm-up = 0\n\
             stages = [{{ weight = \"50%\", dwell = \"30d\" }}, \"100%\"]\n",
            folder.display()
        );
        let path = folder.join("cutover.toml");
        std::fs::write(&path, config)?;
        let program = option_env!("CARGO_BIN_EXE_cutover").ok_or("start it with cargo")?;
        let began = Instant::now();
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(&path)
            .env("CUTOVER_BENCH_KEY", "bench")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut daemon = Self {
            child,
            proxy,
            admin,
            ready_after: Duration::ZERO,
        };
        while get(admin, "/readyz").is_err() {
            if daemon.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(60) {
                return Err("the daemon does not become ready".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon.ready_after = began.elapsed();
        Ok(daemon)
    }

    /// Ends it as a service manager does.
    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        let kill = format!("kill -TERM {}", self.child.id());
        Command::new("sh").args(["-c", &kill]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// One request over a connection of its own; the body of a 200.
fn get(admin: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(format!("{path}: {body}").into())
    }
}

/// Times of `count` turns, sorted.
fn timed(
    count: usize,
    mut turn: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        turn()?;
        times.push(began.elapsed());
        // The load goes on in between.
        std::thread::sleep(Duration::from_millis(5));
    }
    times.sort_unstable();
    Ok(times)
}

/// The time that a share of the sorted times does not exceed.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    let place = (times.len() * percent).div_ceil(100).max(1) - 1;
    times.get(place).copied().unwrap_or_default()
}

fn told(what: &str, times: &[Duration]) -> Duration {
    let ms = |percent| quantile(times, percent).as_secs_f64() * 1e3;
    println!("{what:<44} p50 {:>8.2} ms   p99 {:>8.2} ms", ms(50), ms(99));
    quantile(times, 99)
}

fn bench() -> Result<bool, Box<dyn Error>> {
    let days: i64 = match std::env::var("CUTOVER_BENCH_DAYS") {
        Ok(days) => days.parse()?,
        Err(_) => 30,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let profile = |name| Profile {
        first_token: Spread {
            median_ms: 5.0,
            sigma: 0.1,
        },
        token_gap: Spread {
            median_ms: 1.0,
            sigma: 0.1,
        },
        ..Profile::new(name, 7)
    };
    let legacy = StandIn::start(profile("legacy"))?;
    let canary = StandIn::start(profile("canary"))?;
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("cutover.db");

    let daemon = Daemon::start(folder.path(), [&legacy, &canary])?;
    println!("start to ready, empty store: {:.0?}", daemon.ready_after);
    let status: Value = serde_json::from_str(&get(daemon.admin, "/api/v1/status")?)?;
    let id = status.pointer("/rollouts/0/id").and_then(Value::as_str);
    let id = id.ok_or("no rollout")?.to_owned();
    daemon.stop()?;
    let began = Instant::now();
    runtime.block_on(fill::fill(&database, &id, days))?;
    let mib = std::fs::metadata(&database)?.len() / (1 << 20);
    println!(
        "{days} days at {} requests/s: {mib} MiB, written in {:.0?}",
        fill::RATE,
        began.elapsed()
    );

    let daemon = Daemon::start(folder.path(), [&legacy, &canary])?;
    println!("start to ready, full store: {:.0?}", daemon.ready_after);
    let load = Load::start(daemon.proxy, settings(1));
    std::thread::sleep(Duration::from_secs(2));
    let ask = |path: &'static str| move || get(daemon.admin, path).map(drop);
    let status = told("status", &timed(300, ask("/api/v1/status"))?);
    let paint = timed(50, || {
        PAINT
            .iter()
            .try_for_each(|path| get(daemon.admin, path).map(drop))
    })?;
    let paint = told("status + charts of all + decisions + failures", &paint);
    for path in PAINT.iter().skip(1).chain(&[
        "/charts.json?rollout=default&width=1200&small=280&from=-24h",
        "/charts.json?rollout=default&width=1200&small=280&from=-7d",
        "/api/v1/series?from=-24h",
        "/api/v1/series?from=-7d",
        "/api/v1/series?from=-30d",
        "/api/v1/series?from=-30d&step=1h",
        "/api/v1/requests?failed=true&arm=canary&limit=1000",
        // There are none: the whole history is searched, as far as the time for it goes.
        "/api/v1/requests?outcome=tls",
        "/api/v1/requests?rollout=none",
    ]) {
        told(path, &timed(20, ask(path))?);
    }
    runtime.block_on(load.stop());
    viewers(&runtime, &daemon)?;
    daemon.stop()?;
    Ok(status < STATUS_MAX && paint < PAINT_MAX)
}

fn settings(seed: u64) -> Settings {
    Settings::new("gpt-5-mini", CLIENTS_RATE, seed)
}

/// What clients see without viewers, with one, and with all that are let in, taking turns.
fn viewers(runtime: &tokio::runtime::Runtime, daemon: &Daemon) -> Result<(), Box<dyn Error>> {
    let mut seen: [Vec<Duration>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    let mut middle: [Vec<Duration>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for ((count, p99s), p50s) in [0, 1, 32].into_iter().zip(&mut seen).zip(&mut middle) {
            let streams: Result<Vec<_>, _> = (0..count).map(|_| view(daemon.admin)).collect();
            let streams = streams?;
            let load = Load::start(daemon.proxy, settings(round as u64 + 2));
            std::thread::sleep(ROUND);
            let latency = load.latency();
            runtime.block_on(load.stop());
            for stream in streams {
                stream.shutdown(std::net::Shutdown::Both)?;
            }
            let of = |q| Duration::from_secs_f64(latency.quantile_ms(q).unwrap_or(0.0) / 1e3);
            p99s.push(of(0.99));
            p50s.push(of(0.5));
            // Their places become free.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    for ((count, p99s), p50s) in [0, 1, 32].into_iter().zip(&mut seen).zip(&mut middle) {
        p99s.sort_unstable();
        p50s.sort_unstable();
        println!(
            "clients' latency, {count:>2} viewers, {ROUNDS} rounds: p50 {:.1?}   p99 {:.1?}   ({:.1?} to {:.1?})",
            quantile(p50s, 50),
            quantile(p99s, 50),
            quantile(p99s, 1),
            quantile(p99s, 100)
        );
    }
    Ok(())
}

/// Opens a stream of events and reads it until it is shut.
fn view(admin: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(format!("GET /api/v1/events HTTP/1.1\r\nhost: {admin}\r\n\r\n").as_bytes())?;
    let mut reader = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut room = [0; 65_536];
        while reader.read(&mut room).is_ok_and(|count| count > 0) {}
    });
    Ok(stream)
}
