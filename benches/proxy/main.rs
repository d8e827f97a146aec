//! What cutover costs against nginx and HAProxy, in one run on one machine: CPU time per proxied
//! request and per event of a stream, and requests per second, each proxy on one core.
//!
//! The bench plays the clients and both providers itself, on a core of its own; the proxies have the
//! other. Each round measures every peer, one at a time, so that ratios compare like with like.
//! `make bench` runs it; `options` lists what can be asked of it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench speaks to a person"
)]

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::sleep;

mod answer;
mod clients;
mod configs;
mod cpu;
mod options;
mod pacer;
mod peers;
mod table;
mod upstream;

use clients::Load;
use cpu::Used;
use options::Options;
use pacer::{Pace, Pacer};
use peers::{Peer, Running};
use table::{Cost, Round, Row};
use upstream::Upstreams;

/// The bench's own core.
const BENCH_CORE: &str = "1";
const ROUNDS: usize = 3;
/// Client connections that send plain requests.
const CONNECTIONS: u32 = 64;
const STREAMS: u32 = 200;
/// Time between two events of one stream.
const PERIOD: Duration = Duration::from_millis(20);
const WARM_UP: Duration = Duration::from_millis(500);
/// Streams start within this time.
const RAMP: Duration = Duration::from_millis(400);
/// Streams run on for this long after they were measured.
const AFTER: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts it without this flag, to see that it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it as `cargo bench --bench proxy`");
        return ExitCode::SUCCESS;
    }
    let done = Options::new(&arguments).and_then(|options| {
        pinned(&arguments)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        LocalSet::new().block_on(&runtime, run(&options))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Moves the bench to its core: starts itself again under `taskset` where it is not there yet.
fn pinned(arguments: &[String]) -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let cores = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    if cores.map(str::trim) == Some(BENCH_CORE) {
        return Ok(());
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return Err("it needs two cores: one for the proxies and one for itself".to_owned());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("taskset");
    command
        .args(["--cpu-list", BENCH_CORE])
        .arg(program)
        .args(arguments);
    // Returns only if it failed.
    Err(format!(
        "taskset, of the package util-linux: {}",
        command.exec()
    ))
}

/// A folder for the peers' files that goes when the bench ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("cutover-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

async fn run(options: &Options) -> Result<(), String> {
    let folder = Folder::new().map_err(|e| format!("a temporary folder: {e}"))?;
    let pacer = Pacer::new(STREAMS, PERIOD);
    let upstreams = Upstreams::start(pacer)
        .await
        .map_err(|e| format!("the upstreams: {e}"))?;
    let ceiling = ceiling(&upstreams).await?;
    let row = |peer| Row {
        peer,
        rounds: Vec::new(),
        remark: None,
    };
    let mut rows: Vec<Row> = Peer::ALL
        .into_iter()
        .filter(|peer| options.wants(*peer))
        .map(row)
        .collect();
    for round in 1..=ROUNDS {
        for row in rows.iter_mut().filter(|row| row.remark.is_none()) {
            match peers::start(row.peer, &folder.0, upstreams.addresses).await {
                Err(remark) => row.remark = Some(remark),
                Ok(running) => {
                    let name = row.peer.name();
                    eprintln!("round {round} of {ROUNDS}: {name}");
                    let measured = measure(&running, &upstreams, options.measure).await;
                    row.rounds
                        .push(measured.map_err(|fault| format!("{name}: {fault}"))?);
                }
            }
        }
    }
    let text = report(&rows, ceiling, options);
    println!("{text}");
    if let Some(name) = &options.record {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/recorded");
        let written = fs::create_dir_all(&place)
            .and_then(|()| fs::write(place.join(format!("{name}.md")), &text));
        written.map_err(|e| format!("benches/recorded/{name}.md: {e}"))?;
    }
    let own = rows
        .iter()
        .find(|row| row.peer == Peer::Cutover)
        .and_then(|row| row.remark.as_ref());
    own.map_or(Ok(()), |remark| {
        Err(format!("cutover was not measured: {remark}"))
    })
}

fn report(rows: &[Row], ceiling: f64, options: &Options) -> String {
    let events = f64::from(STREAMS) / PERIOD.as_secs_f64();
    format!(
        "# cutover against nginx and HAProxy\n\n{}- requests: {CONNECTIONS} connections that ask again as \
         soon as they are answered; {REQUEST_FACTS}\n- events: {STREAMS} streams, together {events:.0} \
         events per second of about 220 bytes, evenly spread or ten at a time; every one arrived\n- {ROUNDS} rounds of \
         {:?} per figure; medians; ratios within each round, to all of nginx\n- one worker on one core; \
         the bench without a proxy reaches {ceiling:.0} requests/s on its own core\n- cutover with \
         metering, SQLite rows and controller on; nginx and HAProxy log nothing\n\n{}",
        table::facts(),
        options.measure,
        table::tables(rows)
    )
}

/// What one request is; `clients` and `upstream` hold the bytes.
const REQUEST_FACTS: &str =
    "a body of 600 bytes and the headers of the OpenAI Python SDK, answered with 800 bytes of JSON";

/// Requests per second that the bench manages without a proxy: what it cannot measure beyond.
async fn ceiling(upstreams: &Upstreams) -> Result<f64, String> {
    let [first, _] = upstreams.addresses;
    let load = Load::plain(first, "/v1/chat/completions", CONNECTIONS);
    sleep(Duration::from_millis(200)).await;
    let (begun, before) = (Instant::now(), load.seen.answers.get());
    sleep(Duration::from_secs(1)).await;
    let rate = per(load.seen.answers.get() - before, begun.elapsed());
    load.end().await?;
    Ok(rate)
}

async fn measure(
    running: &Running,
    upstreams: &Upstreams,
    time: Duration,
) -> Result<Round, String> {
    let [_, second_before] = upstreams.requests();
    let all_before: u64 = upstreams.requests().iter().sum();
    let load = Load::plain(running.address, running.path, CONNECTIONS);
    sleep(WARM_UP).await;
    let answers = || load.seen.answers.get();
    let (begun, before, used) = (Instant::now(), answers(), Used::by(running.pid()));
    sleep(time).await;
    let (elapsed, asked) = (begun.elapsed(), answers() - before);
    let spent = Used::by(running.pid()).since(&used);
    load.end().await?;
    upstreams.take_fault().map_or(Ok(()), Err)?;
    let [_, second] = upstreams.requests();
    let all: u64 = upstreams.requests().iter().sum();
    let spread_event = measure_streams(running, upstreams, time, Pace::Spread).await?;
    let burst_event = measure_streams(running, upstreams, time, Pace::Bursts).await?;
    Ok(Round {
        requests_per_s: per(asked, elapsed),
        busy: spent.whole.as_secs_f64() / elapsed.as_secs_f64(),
        request: cost(spent, asked),
        spread_event,
        burst_event,
        second_share: number(second - second_before) / number(all - all_before),
    })
}

async fn measure_streams(
    running: &Running,
    upstreams: &Upstreams,
    time: Duration,
    pace: Pace,
) -> Result<Cost, String> {
    let pacer = &upstreams.pacer;
    pacer.pace.set(pace);
    let events = (RAMP + WARM_UP + time + AFTER).as_millis() / PERIOD.as_millis();
    pacer
        .events_per_stream
        .set(u32::try_from(events).map_err(|e| e.to_string())?);
    let sent_before = (pacer.events.get(), pacer.bytes.get());
    let load = Load::streams(running.address, running.path, STREAMS, RAMP);
    sleep(RAMP + WARM_UP).await;
    let (begun, before, used) = (
        Instant::now(),
        load.seen.events.get(),
        Used::by(running.pid()),
    );
    sleep(time).await;
    let (elapsed, arrived) = (begun.elapsed(), load.seen.events.get() - before);
    let spent = Used::by(running.pid()).since(&used);
    let seen = load.end().await?;
    upstreams.take_fault().map_or(Ok(()), Err)?;
    let sent = (
        pacer.events.get() - sent_before.0,
        pacer.bytes.get() - sent_before.1,
    );
    let got = (seen.events.get(), seen.bytes.get());
    if seen.answers.get() != u64::from(STREAMS) || got != sent {
        return Err(format!("(events, bytes) sent: {sent:?}, arrived: {got:?}"));
    }
    let planned = f64::from(STREAMS) / PERIOD.as_secs_f64();
    let rate = per(arrived, elapsed);
    if (rate / planned - 1.0).abs() > 0.05 {
        return Err(format!(
            "{rate:.0} events/s arrived instead of {planned:.0}"
        ));
    }
    Ok(cost(spent, arrived))
}

fn cost(spent: cpu::Spent, units: u64) -> Cost {
    let us = |time: Duration| time.as_secs_f64() * 1e6 / number(units);
    Cost {
        whole_us: us(spent.whole),
        data_plane_us: us(spent.data_plane),
    }
}

fn per(count: u64, time: Duration) -> f64 {
    number(count) / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "no load counts to 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
