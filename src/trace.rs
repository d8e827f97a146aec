//! Traces: one span per request, told to a collector of OpenTelemetry.
//!
//! `context` reads and writes `traceparent`, `otlp` puts spans into the collector's words, `export` sends
//! them. The data plane fills a [`Span`] while its request runs (`proxy::span`) and hands it over without
//! waiting. A span holds no body, no credential and no sticky key. Requests that are not traced allocate
//! nothing for it.

use crate::clock::UnixMillis;
use crate::llm::Dialect;
use crate::sample::Sample;

pub mod context;
pub mod export;
mod otlp;

pub use context::{Context, Parent};

/// A request that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its place in its trace.
    pub context: Context,
    /// The client's `tracestate`.
    pub trace_state: Option<Box<str>>,
    /// When its head was there.
    pub started_at: UnixMillis,
    /// Its method.
    pub method: http::Method,
    /// How it calls a model; `None`: it calls none.
    pub dialect: Option<Dialect>,
    /// The name of its rollout; `None` outside all of them.
    pub rollout: Option<Box<str>>,
    /// What was tried, in the order in which it ended; never empty.
    pub attempts: Vec<Attempt>,
}

/// One attempt of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// All that is known of it.
    pub sample: Sample,
    /// When it ended, in microseconds since the request's head was there.
    pub ended_us: u64,
    /// Host and port of the arm, as its base URL has them.
    pub server: Box<str>,
}

impl Span {
    /// The attempt that the client saw: the one that went well, else the last.
    #[must_use]
    pub fn answer(&self) -> Option<&Attempt> {
        let well = |attempt: &&Attempt| attempt.sample.outcome == crate::outcome::Outcome::Ok;
        let well = self.attempts.iter().find(well);
        well.or_else(|| self.attempts.last())
    }
}
