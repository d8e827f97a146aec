//! The real binary, as people run it: a folder, a configuration, two providers, signals, and its log.
//!
//! Each scene has ports and a folder of its own, so that all tests run side by side. Nothing here sleeps
//! for readiness: a daemon counts as started when it says so in its log and `/readyz` agrees.

mod admin_cli;
mod alerts;
mod backtest;
mod complete;
mod decision_log;
mod events;
mod history;
mod hostile;
mod keys;
mod load;
mod metrics;
mod money;
mod network;
mod outage;
mod page;
mod pinning;
mod process;
mod reload;
mod report;
mod restart;
mod scene;
mod sdk;
mod shutdown;
mod simulate;
mod store_failure;
mod terminal;
mod traces;

use std::time::Duration;

/// What should take a second may take this long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
