//! What the command line and the environment ask of the bench:
//!
//! - `--record NAME` keeps the tables in `benches/recorded/NAME.md`;
//! - `--only PEER` measures one peer, without ratios: for work with a profiler;
//! - `CUTOVER_BENCH_SECONDS` sets how long each load is measured;
//! - `CUTOVER_BENCH_BINARY` names another build of cutover.

use std::time::Duration;

use crate::peers::Peer;

/// What is asked for.
pub(crate) struct Options {
    /// How long each load is measured.
    pub(crate) measure: Duration,
    /// Keep the tables under this name.
    pub(crate) record: Option<String>,
    only: Option<Peer>,
}

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
        let seconds = std::env::var("CUTOVER_BENCH_SECONDS").unwrap_or_else(|_| "2".to_owned());
        let measure = seconds
            .parse()
            .ok()
            .filter(|seconds| (0.2..=60.0).contains(seconds));
        let measure = measure.ok_or(format!("CUTOVER_BENCH_SECONDS={seconds} is not 0.2 to 60"))?;
        let record = value(arguments, "--record")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if record.is_some_and(|name| name.starts_with(['-', '.']) || !name.chars().all(plain)) {
            return Err("--record: letters, digits, dots and dashes only".to_owned());
        }
        let only = match value(arguments, "--only")? {
            None => None,
            Some(name) => {
                let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
                Some(peer.ok_or("--only: nginx, haproxy, cutover or cutover-unmetered")?)
            }
        };
        Ok(Self {
            measure: Duration::from_secs_f64(measure),
            record: record.map(str::to_owned),
            only,
        })
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
