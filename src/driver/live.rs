//! What people see of a rollout's traffic right now: cumulative counts and recent percentiles.
//!
//! Plain data, owned by the driver. Counts go on over restarts (the store gives their start values);
//! percentiles cover the last [`WINDOW_S`] seconds, in slots that are dropped as they age. Bounded:
//! [`SLOTS`] slots of two sketches per arm.

use std::collections::VecDeque;

use serde::Serialize;

use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};
use crate::sketch::Sketch;
use crate::store::Totals;

/// Percentiles cover this many seconds.
pub const WINDOW_S: u64 = 600;
const SLOT_MS: i64 = 10_000;
/// Slots kept at most.
const SLOTS: usize = 60;

/// One rollout's live view.
#[derive(Debug, Default)]
pub struct Live {
    /// Counts since the rollout id began.
    pub totals: PerArm<Totals>,
    slots: PerArm<VecDeque<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    starts_at: UnixMillis,
    requests: u64,
    latency: Sketch,
    ttft: Sketch,
}

/// Three percentiles in milliseconds; `null` without data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

impl Live {
    /// Starts from counts that were stored.
    #[must_use]
    pub fn new(totals: PerArm<Totals>) -> Self {
        Self {
            totals,
            slots: PerArm::default(),
        }
    }

    /// Counts a sample of this rollout. `cost_usd` is `None` when its model has no price.
    pub fn record(&mut self, sample: &Sample, cost_usd: Option<f64>, now: UnixMillis) {
        if let Some(failed) = sample.masks_failure_of() {
            self.totals.get_mut(failed).masked += 1;
        }
        if sample.role != Role::Live {
            return;
        }
        self.totals.get_mut(sample.arm).count(sample, cost_usd);
        let slot = self.slot(sample.arm, now);
        slot.requests += 1;
        if sample.outcome == Outcome::Ok {
            slot.latency.record_ms(ms(sample.latency_us));
            if let Some(ttft_us) = sample.ttft_us {
                slot.ttft.record_ms(ms(ttft_us));
            }
        }
    }

    /// Requests per second of an arm over the window, or over the time since it has data if that is less.
    #[must_use]
    pub fn rate_per_s(&self, arm: Arm, now: UnixMillis) -> f64 {
        let slots = self
            .slots
            .get(arm)
            .iter()
            .filter(|slot| is_recent(slot, now));
        let (mut requests, mut first) = (0u64, now);
        for slot in slots {
            requests += slot.requests;
            first = first.min(slot.starts_at);
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = requests as f64 * 1_000.0 / now.millis_since(first).max(1_000) as f64;
        rate
    }

    /// Percentiles of the total times of an arm's successful answers.
    #[must_use]
    pub fn latency(&self, arm: Arm, now: UnixMillis) -> Percentiles {
        self.percentiles(arm, now, |slot| &slot.latency)
    }

    /// Percentiles of the times to the first token.
    #[must_use]
    pub fn ttft(&self, arm: Arm, now: UnixMillis) -> Percentiles {
        self.percentiles(arm, now, |slot| &slot.ttft)
    }

    fn percentiles(&self, arm: Arm, now: UnixMillis, of: impl Fn(&Slot) -> &Sketch) -> Percentiles {
        let mut merged = Sketch::default();
        for slot in self
            .slots
            .get(arm)
            .iter()
            .filter(|slot| is_recent(slot, now))
        {
            merged.merge(of(slot));
        }
        let at = |q| merged.quantile_ms(q).map(|ms| (ms * 100.0).round() / 100.0);
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
        }
    }

    fn slot(&mut self, arm: Arm, now: UnixMillis) -> &mut Slot {
        let starts_at = UnixMillis(now.0.div_euclid(SLOT_MS) * SLOT_MS);
        let slots = self.slots.get_mut(arm);
        // A clock that was set back keeps filling the newest slot.
        let newest = slots.pop_back();
        let slot = match newest {
            Some(newest) if newest.starts_at >= starts_at => newest,
            Some(older) => {
                slots.push_back(older);
                Slot {
                    starts_at,
                    ..Slot::default()
                }
            }
            None => Slot {
                starts_at,
                ..Slot::default()
            },
        };
        while slots.len() >= SLOTS {
            slots.pop_front();
        }
        slots.push_back_mut(slot)
    }
}

fn is_recent(slot: &Slot, now: UnixMillis) -> bool {
    now.millis_since(slot.starts_at) <= SLOT_MS * 60
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times below 285 years are exact"
)]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}
