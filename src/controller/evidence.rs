//! What the controller may see of the traffic: cells of counts, never single requests.
//!
//! Pure. A cell holds what finished in both arms between its opening and its closing under one weight
//! and one configuration epoch. Replicas and blocks add cells; nothing is ever estimated here.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::outcome::{Blame, Outcome};
use crate::sample::Sample;
use crate::sketch::Sketch;

/// Counts of one arm in one cell. Only samples for which [`Sample::is_evidence`] holds are counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCell {
    /// Attempts that finished.
    pub requests: u64,
    /// Of these, failed by the arm's fault.
    pub errors: u64,
    /// Of these, answered with 429.
    pub rate_limited: u64,
    /// Of these, answered with another 4xx that the client is blamed for.
    pub rejected: u64,
    /// Of these, asked for as a stream.
    pub streamed: u64,
    /// Total times of the successful ones.
    pub latency: Sketch,
    /// Times to the first token of the successful streams.
    pub ttft: Sketch,
}

impl ArmCell {
    /// Counts one sample that is evidence.
    pub fn record(&mut self, sample: &Sample) {
        self.requests += 1;
        self.streamed += u64::from(sample.streamed);
        self.errors += u64::from(sample.outcome.is_error());
        match (sample.outcome.blame(), sample.outcome) {
            (Blame::Capacity, _) => self.rate_limited += 1,
            (Blame::Client, _) => self.rejected += 1,
            (_, Outcome::Ok) => {
                self.latency.record_ms(micros_to_ms(sample.latency_us));
                if let Some(ttft_us) = sample.ttft_us {
                    self.ttft.record_ms(micros_to_ms(ttft_us));
                }
            }
            _ => {}
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.rate_limited += other.rate_limited;
        self.rejected += other.rejected;
        self.streamed += other.streamed;
        self.latency.merge(&other.latency);
        self.ttft.merge(&other.ttft);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times below 285 years are exact"
)]
fn micros_to_ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// One cell of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// When it was closed; for the open cell, the time of the look.
    pub closed_at: UnixMillis,
    /// The effective weight under which its requests were assigned.
    pub weight: Weight,
    /// The configuration under which its requests were assigned.
    pub config_epoch: u32,
    /// The counts.
    pub arms: PerArm<ArmCell>,
}

impl Cell {
    /// An empty cell.
    #[must_use]
    pub fn open(now: UnixMillis, weight: Weight, config_epoch: u32) -> Self {
        Self {
            opened_at: now,
            closed_at: now,
            weight,
            config_epoch,
            arms: PerArm::default(),
        }
    }

    /// True if the cell should close now: it is at least a second old and both arms have requests, or
    /// it is 60 seconds old. (A change of weight or configuration closes it too; the caller knows that.)
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        let age_ms = now.millis_since(self.opened_at);
        let both = self.arms.legacy.requests > 0 && self.arms.canary.requests > 0;
        age_ms >= 60_000 || (age_ms >= 1_000 && both)
    }

    /// True if nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arms.legacy.requests == 0 && self.arms.canary.requests == 0
    }
}

/// Gathers samples into cells: the one way in which evidence is counted, live and simulated.
///
/// Bounded: cells that nobody takes are merged into the last one of their weight, the oldest are dropped.
#[derive(Debug, Clone)]
pub struct Collector {
    open: Cell,
    since: UnixMillis,
    closed: Vec<Cell>,
    late: u64,
}

impl Collector {
    /// Most closed cells kept until they are taken.
    pub const CLOSED_MAX: usize = 64;

    /// Starts with an empty cell.
    #[must_use]
    pub fn new(now: UnixMillis, weight: Weight, config_epoch: u32) -> Self {
        Self {
            open: Cell::open(now, weight, config_epoch),
            since: now,
            closed: Vec::new(),
            late: 0,
        }
    }

    /// Counts a sample if it is evidence for the present weight. One that was assigned under an earlier
    /// weight or configuration is late: it says nothing about this cell's share, and is only counted.
    pub fn record(&mut self, sample: &Sample) {
        if !sample.is_evidence() {
            return;
        }
        let current = sample.weight == self.open.weight
            && sample.config_epoch == self.open.config_epoch
            && sample.started_at >= self.since;
        if current {
            self.open.arms.get_mut(sample.arm).record(sample);
        } else {
            self.late += 1;
        }
    }

    /// Closes the open cell if it is due. Call it at every look.
    pub fn tick(&mut self, now: UnixMillis) {
        self.open.closed_at = now;
        // A clock that went back would keep the cell open for as long as it went back.
        if self.open.is_due(now) || now < self.open.opened_at {
            self.close(now, self.open.weight, self.open.config_epoch);
        }
    }

    /// A weight or configuration was published: what is assigned from now on belongs to a new cell.
    pub fn switch(&mut self, now: UnixMillis, weight: Weight, config_epoch: u32) {
        if weight != self.open.weight || config_epoch != self.open.config_epoch {
            self.close(now, weight, config_epoch);
            self.since = now;
        }
    }

    fn close(&mut self, now: UnixMillis, weight: Weight, config_epoch: u32) {
        let fresh = Cell::open(now, weight, config_epoch);
        let mut cell = std::mem::replace(&mut self.open, fresh);
        cell.closed_at = now;
        if cell.is_empty() {
            return;
        }
        if self.closed.len() >= Self::CLOSED_MAX {
            match self.closed.last_mut() {
                Some(last)
                    if last.weight == cell.weight && last.config_epoch == cell.config_epoch =>
                {
                    last.closed_at = now;
                    last.arms.legacy.merge(&cell.arms.legacy);
                    last.arms.canary.merge(&cell.arms.canary);
                    return;
                }
                _ => {
                    let dropped = self.closed.remove(0);
                    self.late += dropped.arms.legacy.requests + dropped.arms.canary.requests;
                }
            }
        }
        self.closed.push(cell);
    }

    /// The open cell.
    #[must_use]
    pub const fn open(&self) -> &Cell {
        &self.open
    }

    /// The open cell, for sources that count by themselves, as the simulator does.
    pub const fn open_mut(&mut self) -> &mut Cell {
        &mut self.open
    }

    /// Takes the cells that closed since the last call, oldest first.
    pub fn take_closed(&mut self) -> Vec<Cell> {
        std::mem::take(&mut self.closed)
    }

    /// Samples that came too late for the cell that they belong to.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::Arm;
    use crate::sample::Role;

    const SECOND: i64 = 1_000;

    fn sample(at_s: i64, arm: Arm, bps: u16) -> Sample {
        Sample {
            started_at: UnixMillis(at_s * SECOND),
            rollout: Some(0),
            config_epoch: 0,
            arm,
            assigned: arm,
            weight: Weight::from_bps(bps).unwrap(),
            stage: 0,
            role: Role::Live,
            attempt: 1,
            outcome: Outcome::Ok,
            status: 200,
            latency_us: 5_000,
            ttft_us: None,
            streamed: false,
            complete: true,
            conn_reused: true,
            client_retry: false,
            dialect: Some(crate::llm::Dialect::OpenAiChat),
            model: None,
            usage: None,
            upstream_request_id: None,
            key_hash: 0,
            body_hash: 0,
            reported_cost_usd: None,
            tag: None,
            first_role: Role::Live,
        }
    }

    #[test]
    fn a_cell_closes_when_both_arms_spoke_or_after_a_minute() {
        let weight = Weight::from_bps(500).unwrap();
        let mut collector = Collector::new(UnixMillis(0), weight, 0);
        collector.record(&sample(0, Arm::Legacy, 500));
        collector.tick(UnixMillis(59 * SECOND));
        assert!(collector.take_closed().is_empty());
        collector.record(&sample(59, Arm::Canary, 500));
        collector.tick(UnixMillis(59 * SECOND));
        assert_eq!(collector.take_closed().len(), 1);
        collector.tick(UnixMillis(200 * SECOND));
        assert!(
            collector.take_closed().is_empty(),
            "empty cells tell nothing"
        );
    }

    #[test]
    fn what_was_assigned_under_an_earlier_weight_is_late() {
        let mut collector = Collector::new(UnixMillis(0), Weight::from_bps(500).unwrap(), 0);
        collector.record(&sample(0, Arm::Canary, 500));
        collector.switch(UnixMillis(SECOND), Weight::ZERO, 0);
        collector.record(&sample(0, Arm::Canary, 500));
        collector.switch(UnixMillis(2 * SECOND), Weight::from_bps(500).unwrap(), 0);
        // The same weight again, but assigned before it was published again.
        collector.record(&sample(0, Arm::Canary, 500));
        collector.record(&sample(3, Arm::Canary, 500));
        assert_eq!(collector.late(), 2);
        assert_eq!(collector.open().arms.canary.requests, 1);
        assert_eq!(collector.take_closed().len(), 1);
    }

    #[test]
    fn cells_that_nobody_takes_are_merged_not_lost() {
        let mut collector = Collector::new(UnixMillis(0), Weight::FULL, 0);
        for minute in 0..200 {
            collector.record(&sample(minute * 60, Arm::Canary, 10_000));
            collector.tick(UnixMillis((minute + 1) * 60 * SECOND));
        }
        let cells = collector.take_closed();
        assert_eq!(cells.len(), Collector::CLOSED_MAX);
        let requests: u64 = cells.iter().map(|cell| cell.arms.canary.requests).sum();
        assert_eq!(requests, 200);
    }
}
