//! What the command line and the environment ask of the bench:
//!
//! - `--quick` measures for two minutes in place of ten: to see whether something works;
//! - `--json FILE` also writes every figure of every round;
//! - `--record NAME` keeps the table in `benches/recorded/NAME.md`;
//! - `--only PEER` measures one peer, without ratios: for work with a profiler;
//! - `--load LOAD` measures under one load: `latency`, `ttft`, `requests`, `chunks`, `held` or
//!   `manners`;
//! - `CUTOVER_BENCH_SECONDS` sets how long each load is measured, `CUTOVER_BENCH_STREAMS` how many
//!   streams are held open at once;
//! - `CUTOVER_BENCH_BINARY` names another build of cutover.

use std::path::PathBuf;
use std::time::Duration;

use crate::peers::Peer;

/// What is asked for.
pub(crate) struct Options {
    /// Every peer is measured so often.
    pub(crate) rounds: usize,
    /// The first rounds of these also hold many streams, which takes long.
    pub(crate) crowded_rounds: usize,
    /// Streams that are held open at once, at most.
    pub(crate) streams: u32,
    /// Write the figures there.
    pub(crate) json: Option<PathBuf>,
    /// How long each load is measured.
    pub(crate) measure: Duration,
    /// Keep the tables under this name.
    pub(crate) record: Option<String>,
    only: Option<Peer>,
    load: Option<String>,
}

/// The loads, as the command line names them.
const LOADS: [&str; 6] = ["latency", "ttft", "requests", "chunks", "held", "manners"];

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(arguments: &[String]) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            let why = "it needs Linux: it reads CPU time from /proc and pins with taskset";
            return Err(why.to_owned());
        }
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let (rounds, crowded_rounds, seconds) = if quick { (2, 1, "1") } else { (5, 3, "2") };
        let measure = variable("CUTOVER_BENCH_SECONDS", seconds, 0.2..=60.0)?;
        let streams = variable("CUTOVER_BENCH_STREAMS", "9000", 10.0..=20_000.0)?;
        let record = value(arguments, "--record")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if record.is_some_and(|name| name.starts_with(['-', '.']) || !name.chars().all(plain)) {
            return Err("--record: letters, digits, dots and dashes only".to_owned());
        }
        let only = match value(arguments, "--only")? {
            None => None,
            Some(name) => {
                let peer = Peer::RIVALS.into_iter().find(|peer| peer.name() == name);
                Some(peer.ok_or("--only: nginx, haproxy or cutover")?)
            }
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 10 and 20,000"
        )]
        let streams = streams as u32;
        let load = value(arguments, "--load")?;
        if load.is_some_and(|load| !LOADS.contains(&load)) {
            return Err(format!("--load: one of {}", LOADS.join(", ")));
        }
        Ok(Self {
            load: load.map(str::to_owned),
            rounds,
            crowded_rounds,
            streams,
            json: value(arguments, "--json")?.map(PathBuf::from),
            measure: Duration::from_secs_f64(measure),
            record: record.map(str::to_owned),
            only,
        })
    }

    /// True if it is to be measured under this load.
    pub(crate) fn wants_load(&self, load: &str) -> bool {
        self.load.as_deref().is_none_or(|only| only == load)
    }

    /// True if many streams are to be held in this round.
    pub(crate) fn wants_held(&self, round: usize) -> bool {
        round < self.crowded_rounds && self.wants_load("held")
    }

    /// True if this peer is to be measured.
    pub(crate) fn wants(&self, peer: Peer) -> bool {
        self.only.is_none_or(|only| only == peer)
    }
}

fn value<'a>(arguments: &'a [String], flag: &str) -> Result<Option<&'a str>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == flag) else {
        return Ok(None);
    };
    let value = arguments
        .get(at + 1)
        .ok_or(format!("{flag} needs a value"))?;
    Ok(Some(value))
}

/// A number from the environment.
fn variable(
    name: &str,
    otherwise: &str,
    range: std::ops::RangeInclusive<f64>,
) -> Result<f64, String> {
    let text = std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (low, high) = range.into_inner();
    number.ok_or(format!("{name}={text} is not {low} to {high}"))
}
