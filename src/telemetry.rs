//! The log: readable on a terminal, JSON for machines. Fields first, constant messages.
//!
//! The decision log is product surface: its lines come from `controller::effect` and are printed here
//! without decoration, so that a person can read them and a script can parse them.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line per event for people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Target of a decision's line for people: the sentence alone.
pub const DECISION_LINE: &str = "cutover::decision::line";
/// Target of a decision for machines: the sentence and one field per number.
pub const DECISION_FIELDS: &str = "cutover::decision::fields";

/// Starts logging to standard error. `RUST_LOG` overrides `level`.
///
/// Starting it a second time in one process changes nothing.
pub fn start(format: LogFormat, level: &str) {
    let base = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| level.to_owned());
    // A decision is told once, in the form that suits the format.
    let other_form = match format {
        LogFormat::Text => DECISION_FIELDS,
        LogFormat::Json => DECISION_LINE,
    };
    let filter = EnvFilter::new(format!("{base},{other_form}=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_target(false);
    let started = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second start finds the first one's subscriber, which is as good.
    drop(started);
}
