//! The scenario of `cutover simulate`: how two synthetic arms behave over time.
//!
//! May read the scenario's file. Its faults have places and remedies like those of the configuration, and
//! are all told at once. Every key has a default, so that the shortest scenario is an empty file.

use std::path::Path;

use super::parse::fault::Fault;
use super::parse::{LoadError, read_text};
use super::raw::Reader;
use crate::arm::PerArm;

mod read;

/// A world for the controller. Complete: absent keys are filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Length of a run in milliseconds of virtual time.
    pub duration_ms: i64,
    /// Time between two looks of the controller in milliseconds.
    pub tick_ms: i64,
    /// Requests per second of both arms together, the mean of a day.
    pub rate_per_s: f64,
    /// Share by which the rate swings over the day: 0.5 is from 50% at midnight to 150% at noon.
    pub daily_swing: f64,
    /// How each arm behaves when nothing happens.
    pub arms: PerArm<Behaviour>,
    /// What happens, in the order of the file.
    pub changes: Vec<Change>,
    /// Short failures that hit each arm by itself, at times of chance.
    pub incidents: Vec<Incident>,
}

/// How an arm behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Share of requests that fail, 0 to 1.
    pub error_rate: f64,
    /// Mean number of failures that come together; at least 1, which is independence.
    pub clusters: f64,
    /// Times to the end of the answer.
    pub latency: Times,
    /// Times to the first token of streams.
    pub ttft: Times,
    /// Share of requests that are streamed, 0 to 1.
    pub streamed: f64,
    /// Answers that take longer than the rest, if any.
    pub slow_tail: Option<SlowTail>,
}

/// A lognormal distribution of times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// In milliseconds; above 0.
    pub median_ms: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
}

/// Some answers take longer than the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowTail {
    /// Of all answers, 0 to 1.
    pub share: f64,
    /// How many times as long.
    pub factor: f64,
}

/// Something that happens at a known time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// When, in milliseconds from the start.
    pub at_ms: i64,
    /// When it is over, in milliseconds from the start; `i64::MAX` when it lasts.
    pub until_ms: i64,
    /// Which arms it touches.
    pub arms: PerArm<bool>,
    /// The share that fails meanwhile; as before, if `None`.
    pub error_rate: Option<f64>,
    /// Factor on times to the end.
    pub latency_factor: f64,
    /// Factor on times to the first token.
    pub ttft_factor: f64,
}

/// Short failures, again and again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Incident {
    /// Mean time between two beginnings on one arm, in milliseconds.
    pub every_ms: i64,
    /// How long each lasts, in milliseconds.
    pub for_ms: i64,
    /// The share that fails meanwhile.
    pub error_rate: f64,
}

/// Reads a scenario.
///
/// # Errors
/// Every fault, in the order of the file.
pub fn parse(text: &str) -> Result<Scenario, Vec<Fault>> {
    let no_env = |_: &str| None;
    let mut reader = Reader::new(text, &no_env);
    let scenario = read::scenario(&mut reader);
    reader.faults.sort_by_key(|f| (f.line, f.column));
    scenario
        .filter(|_| reader.faults.is_empty())
        .ok_or(reader.faults)
}

/// Reads the scenario in the file at `path`.
///
/// # Errors
/// When the file cannot be read, or with every fault in it.
pub fn load(path: &Path) -> Result<Scenario, LoadError> {
    parse(&read_text(path)?).map_err(|faults| LoadError::Invalid {
        path: path.to_owned(),
        faults,
    })
}

#[cfg(test)]
mod tests;
