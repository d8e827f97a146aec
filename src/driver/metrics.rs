//! What Prometheus is told: counters and histograms since the process began, and how all stands now.
//!
//! Owned by the driver, which counts samples as it takes them in: no locks, and nothing on the request path.
//! A rollout's counts live and go with it. It only counts; the admin port puts names and labels on it.
//!
//! Series are bounded by what the configuration names: about 300 for each rollout (two arms, 21 outcomes,
//! three histograms; up to 252 more for the outcomes of rescues, retries, probes and pinned requests), a few
//! dozen for the daemon, and those of [`operations`].

use super::Driver;
use super::rollout::Rollout;
use super::status::Status;
use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::sample::Sample;
use crate::store::Health;

mod counts;
mod histogram;
pub mod operations;

pub use counts::{ArmCounts, Counts};
pub use histogram::Histogram;

use operations::Operations;

/// What is counted beside the rollouts.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Attempts outside every rollout.
    outside: Counts,
    operations: Operations,
    /// Configurations that were put in force, and those that were rejected.
    pub(super) loaded: u64,
    pub(super) rejected: u64,
    /// When the process began. Reckoned anew each time, it would follow the clock.
    began_at: UnixMillis,
}

/// Everything at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// As `status` shows it.
    pub status: Status,
    /// The store, as far as `status` does not show it.
    pub health: Health,
    /// When the process began.
    pub started_at: UnixMillis,
    /// When the configuration in force was loaded.
    pub config_loaded_at: UnixMillis,
    /// Configurations that were put in force since start, the first one included.
    pub configs_loaded: u64,
    /// Configurations that were rejected since start.
    pub configs_rejected: u64,
    /// Batches of samples that wait for the driver, and how many may.
    pub queued_batches: (usize, usize),
    /// Samples that were dropped because that queue was full.
    pub dropped_in_queue: u64,
    /// The words for how the arms' breakers stand.
    pub breakers: PerArm<&'static str>,
    /// One for each rollout of `status`, in the same order.
    pub rollouts: Vec<RolloutSnapshot>,
    /// Attempts outside every rollout.
    pub outside: Counts,
    /// Calls of models.
    pub operations: Operations,
}

/// What `status` does not show of a rollout as numbers.
#[derive(Debug)]
pub struct RolloutSnapshot {
    /// Its counts.
    pub counts: Counts,
    /// When its stage was entered.
    pub stage_since: UnixMillis,
    /// When it acts by itself next; `None` when it waits for proof or a person.
    pub next_action_at: Option<UnixMillis>,
    /// All that holds it, each one of [`HELD_BY`](crate::controller::view::HELD_BY).
    pub held_by: Vec<&'static str>,
}

impl Metrics {
    pub(super) fn begin(now: UnixMillis) -> Self {
        Self {
            began_at: now,
            ..Self::default()
        }
    }

    /// Counts an attempt that ended; those of rollouts are counted there as well.
    pub(super) fn record(&mut self, config: &Config, sample: &Sample, cost_usd: Option<f64>) {
        self.operations
            .record(config, super::money::model_of(config, sample), sample);
        if sample.rollout.is_none() {
            self.outside.record(sample, cost_usd);
        }
    }
}

impl Driver {
    pub(super) fn snapshot(&self) -> Snapshot {
        let around = self.surroundings();
        let samples = &self.inputs.samples;
        let rollout = |rollout: &Rollout| {
            let view = rollout.view(around);
            RolloutSnapshot {
                counts: rollout.counts.clone(),
                stage_since: view.stage.since,
                next_action_at: view.next_action_at,
                held_by: view.held_by,
            }
        };
        Snapshot {
            status: self.status(),
            health: self.health.borrow().clone(),
            started_at: self.metrics.began_at,
            config_loaded_at: self.config_loaded_at,
            configs_loaded: self.metrics.loaded,
            configs_rejected: self.metrics.rejected,
            queued_batches: samples.queued(),
            dropped_in_queue: samples.dropped(),
            breakers: PerArm::from_fn(|arm| around.breakers.get(arm).as_str()),
            rollouts: self.rollouts.iter().map(rollout).collect(),
            outside: self.metrics.outside.clone(),
            operations: self.metrics.operations.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
