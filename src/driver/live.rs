//! What people see of a rollout's traffic right now: cumulative counts and recent percentiles.
//!
//! Plain data, owned by the driver. Counts go on over restarts (the store gives their start values);
//! percentiles cover the last [`WINDOW_S`] seconds, in slots that are dropped as they age. Bounded:
//! [`SLOTS`] slots of four sketches per arm.

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
    tpot: Sketch,
    /// Not times, but numbers of the same range.
    tokens_per_s: Sketch,
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

/// Three percentiles of a speed: the slow ones count. `null` without data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Speeds {
    /// Median.
    pub p50: Option<f64>,
    /// Nine of ten are faster.
    pub p10: Option<f64>,
    /// 99 of 100 are faster.
    pub p1: Option<f64>,
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

    /// Counts a sample of this rollout. `cost_usd` is `None` when that is unknown.
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
            if let Some(tpot_us) = sample.tpot_us() {
                slot.tpot.record_ms(tpot_us / 1_000.0);
            }
            if let Some(speed) = sample.tokens_per_s() {
                slot.tokens_per_s.record_ms(speed);
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

    /// Percentiles of the times per output token after the first.
    #[must_use]
    pub fn tpot(&self, arm: Arm, now: UnixMillis) -> Percentiles {
        self.percentiles(arm, now, |slot| &slot.tpot)
    }

    /// Percentiles of the output tokens per second of whole answers.
    #[must_use]
    pub fn tokens_per_s(&self, arm: Arm, now: UnixMillis) -> Speeds {
        let [p50, p10, p1] = self.quantiles(arm, now, |slot| &slot.tokens_per_s, [0.5, 0.1, 0.01]);
        Speeds { p50, p10, p1 }
    }

    fn percentiles(&self, arm: Arm, now: UnixMillis, of: impl Fn(&Slot) -> &Sketch) -> Percentiles {
        let [p50, p90, p99] = self.quantiles(arm, now, of, [0.5, 0.9, 0.99]);
        Percentiles { p50, p90, p99 }
    }

    fn quantiles(
        &self,
        arm: Arm,
        now: UnixMillis,
        of: impl Fn(&Slot) -> &Sketch,
        wanted: [f64; 3],
    ) -> [Option<f64>; 3] {
        let mut merged = Sketch::default();
        for slot in self
            .slots
            .get(arm)
            .iter()
            .filter(|slot| is_recent(slot, now))
        {
            merged.merge(of(slot));
        }
        wanted.map(|q| merged.quantile_ms(q).map(|ms| (ms * 100.0).round() / 100.0))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::Weight;
    use crate::sample::Usage;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    /// A stream of 101 tokens whose first came after 100 ms, and each further one after `tpot_us`.
    fn stream(tpot_us: u64) -> Sample {
        Sample {
            started_at: NOW,
            rollout: Some(0),
            config_epoch: 1,
            arm: Arm::Canary,
            assigned: Arm::Canary,
            weight: Weight::FULL,
            stage: 0,
            role: Role::Live,
            attempt: 1,
            outcome: Outcome::Ok,
            status: 200,
            latency_us: 100_000 + 100 * tpot_us,
            ttft_us: Some(100_000),
            streamed: true,
            complete: true,
            conn_reused: true,
            client_retry: false,
            dialect: Some(crate::llm::Dialect::OpenAiChat),
            model: None,
            usage: Some(Usage {
                output_tokens: 101,
                ..Usage::default()
            }),
            upstream_request_id: None,
            key_hash: 0,
            body_hash: 0,
            reported_cost_usd: None,
            tag: None,
            first_role: Role::Live,
        }
    }

    #[test]
    fn of_times_and_of_speeds_the_slow_tail_is_shown() {
        let mut live = Live::default();
        for tpot_ms in 1..=100 {
            live.record(&stream(tpot_ms * 1_000), None, NOW);
        }
        let check = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            assert!(
                (found / expected - 1.0).abs() < 0.0105,
                "{found}, not {expected}"
            );
        };
        let tpot = live.tpot(Arm::Canary, NOW);
        check(tpot.p50, 50.0);
        check(tpot.p90, 90.0);
        check(tpot.p99, 99.0);
        // 101 tokens after 0.1 s and a hundred times the time per token.
        let speed_at = |tpot_ms: f64| 101.0 / (0.1 + tpot_ms / 10.0);
        let speeds = live.tokens_per_s(Arm::Canary, NOW);
        check(speeds.p50, speed_at(51.0));
        check(speeds.p10, speed_at(91.0));
        check(speeds.p1, speed_at(100.0));
        assert_eq!(live.tpot(Arm::Legacy, NOW), Percentiles::default());
        assert_eq!(live.tokens_per_s(Arm::Legacy, NOW), Speeds::default());
    }
}
