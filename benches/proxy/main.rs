//! What cutover costs against nginx and HAProxy, in one run on one machine: CPU time, requests per
//! second, memory, and the time that it adds. `docs/benchmarks.md` says what each figure means.
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
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::sleep;

mod answer;
mod clients;
mod configs;
mod cpu;
mod events;
mod figures;
mod measure;
mod memory;
mod open_loop;
mod options;
mod pacer;
mod peers;
mod place;
mod rounds;
mod system_calls;
mod table;
mod upstream;

use clients::Load;
use cpu::Machine;
use options::Options;
use pacer::Pacer;
use rounds::Bench;
use upstream::Upstreams;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts it without this flag, to see that it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it as `cargo bench --bench proxy`");
        return ExitCode::SUCCESS;
    }
    let done = Options::new(&arguments).and_then(|mut options| {
        place::pinned(&arguments)?;
        let possible = place::streams_possible(options.streams);
        let fewer = (possible < options.streams)
            .then(|| format!("only {possible} streams: `ulimit -Hn` allows no more files"));
        options.streams = possible;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        LocalSet::new().block_on(&runtime, until_asked_to_stop(&options, fewer))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it; a signal ends it early, and with it the peer that runs and the folder.
async fn until_asked_to_stop(options: &Options, fewer: Option<String>) -> Result<(), String> {
    let stop = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
    let (mut interrupt, mut terminate) = (
        stop(SignalKind::interrupt())?,
        stop(SignalKind::terminate())?,
    );
    tokio::select! {
        done = run(options, fewer) => done,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("asked to stop".to_owned()),
    }
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

async fn run(options: &Options, fewer: Option<String>) -> Result<(), String> {
    let folder = Folder::new().map_err(|e| format!("a temporary folder: {e}"))?;
    let upstreams = Upstreams::start(Pacer::new())
        .await
        .map_err(|e| format!("the upstreams: {e}"))?;
    let (begun, machine) = (Instant::now(), Machine::now());
    let ceiling = ceiling(&upstreams).await?;
    let mut bench = Bench::new(options, &folder.0, &upstreams);
    bench.remarks.extend(fewer);
    for round in 0..options.rounds {
        bench.round(round).await;
    }
    let (others, stolen) = Machine::now().others_since(&machine, begun.elapsed());
    bench.remarks.extend(busy_remark(others, stolen));
    let facts = conditions(options, ceiling, others, stolen);
    let mut text = format!(
        "# cutover against nginx and HAProxy\n\n{facts}\n{}",
        table::markdown(&bench.rounds)
    );
    for remark in &bench.remarks {
        text += &format!("\nRemark: {remark}.\n");
    }
    println!("{text}");
    if let Some(path) = &options.json {
        let value = serde_json::json!({
            "conditions": facts.lines().collect::<Vec<_>>(),
            "remarks": bench.remarks,
            "figures": table::json(&bench.rounds),
        });
        fs::write(path, format!("{value:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if let Some(name) = &options.record {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/recorded");
        let written = fs::create_dir_all(&place)
            .and_then(|()| fs::write(place.join(format!("{name}.md")), &text));
        written.map_err(|e| format!("benches/recorded/{name}.md: {e}"))?;
    }
    bench.fault.map_or(Ok(()), Err)
}

/// A quiet machine is part of what is measured.
fn busy_remark(others: f64, stolen: f64) -> Option<String> {
    (others + stolen > 0.05).then(|| {
        "other programs used this machine meanwhile: ratios are rough, latencies are worthless"
            .to_owned()
    })
}

/// How it was measured, as a list.
fn conditions(options: &Options, ceiling: f64, others: f64, stolen: f64) -> String {
    let events = f64::from(measure::STREAMS) / measure::PERIOD.as_secs_f64();
    format!(
        "{}- requests: {} connections that ask again as soon as they are answered; a body of 600 bytes \
         and the headers of the OpenAI Python SDK, answered with 800 bytes of JSON\n\
         - chunks: {} streams, together {events:.0} events per second of about 230 bytes\n\
         - held: {} streams with one event every {:?} each; memory beyond that of the idle proxy\n\
         - latency: {} requests/s on a schedule; TTFT and gaps: {} new streams/s on a schedule, 20 events \
         each, one every {:?}; times count from the schedule, without those of the same run without a proxy\n\
         - {} rounds ({} with held streams) of {:?} per figure; medians; ratios within each round, to all of nginx\n\
         - one worker on one core; the bench without a proxy reaches {ceiling:.0} requests/s on its own core\n\
         - cutover with metering, SQLite rows and controller on; nginx and HAProxy log nothing\n\
         - other programs used {:.0}% of all cores meanwhile, other machines {:.0}%\n",
        table::facts(),
        measure::CONNECTIONS,
        measure::STREAMS,
        options.streams,
        measure::HELD_PERIOD,
        measure::RATE,
        measure::STREAM_RATE,
        measure::PERIOD,
        options.rounds,
        options.crowded_rounds,
        options.measure,
        100.0 * others,
        100.0 * stolen,
    )
}

/// Requests per second that the bench manages without a proxy: what it cannot measure beyond.
async fn ceiling(upstreams: &Upstreams) -> Result<f64, String> {
    let [first, _] = upstreams.addresses;
    let load = Load::plain(first, peers::PATH, measure::CONNECTIONS);
    sleep(Duration::from_millis(200)).await;
    let (begun, before) = (Instant::now(), load.seen.answers.get());
    sleep(Duration::from_secs(1)).await;
    let rate = measure::per(load.seen.answers.get() - before, begun.elapsed());
    load.end().await?;
    Ok(rate)
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "no load counts to 2^53")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
