//! Turns a batch of attempts into the counts that are added to the store: per slot, per arm, per bucket.
//!
//! Pure. Only live first attempts are counted, so that the counts say what clients met; a rescue or a
//! retry shows as one masked failure of the arm that it made up for. The account of costs per day is
//! apart, and takes attempts of every role: all of them are billed.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cost::{CostKey, CostSums, add_known};
use super::{AttemptRow, RolloutKey};
use crate::arm::Arm;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};
use crate::sketch::Sketch;

/// A key is looked for among this many of the latest ones.
const LATEST: usize = 16;
/// Width of a slot.
pub(super) const SLOT_MS: i64 = 60_000;
/// Width of the slots that old ones are merged to, and of those that count buckets.
pub(super) const HOUR_MS: i64 = 3_600_000;

/// Live traffic of one arm: cumulative per rollout id, or of one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// First attempts of all assigned requests, whatever became of them.
    pub requests: u64,
    /// Of these, failed by the arm's fault.
    pub errors: u64,
    /// Of these, answered with 429.
    pub rate_limited: u64,
    /// Of these, answered with another 4xx that the client is blamed for.
    pub rejected: u64,
    /// Of these, given up by the client.
    pub client_gone: u64,
    /// Failures of this arm that a rescue or a retry made good.
    pub masked: u64,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Input tokens read from a prompt cache.
    pub cached_input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What the requests of known cost did cost, in US dollars; `None` without any.
    pub cost_usd: Option<f64>,
    /// Requests whose answer stated tokens but whose cost is unknown: the model has no price, or the
    /// stream broke off before its last count.
    pub unpriced: u64,
    /// Requests that were answered, at least in part, and stated no tokens at all.
    pub no_usage: u64,
    /// What the provider itself says, in US dollars; `None` if it says nothing.
    pub reported_cost_usd: Option<f64>,
}

impl Totals {
    /// Counts one live first attempt.
    pub fn count(&mut self, sample: &Sample, cost_usd: Option<f64>) {
        self.requests += 1;
        self.errors += u64::from(sample.outcome.is_error());
        self.rate_limited += u64::from(sample.outcome == Outcome::RateLimited);
        self.rejected += u64::from(sample.outcome == Outcome::ClientError);
        self.client_gone += u64::from(sample.outcome == Outcome::ClientGone);
        if let Some(usage) = sample.usage {
            self.input_tokens += u64::from(usage.input_tokens);
            self.cached_input_tokens += u64::from(usage.cached_input_tokens);
            self.output_tokens += u64::from(usage.output_tokens);
            self.unpriced += u64::from(cost_usd.is_none());
        }
        self.no_usage += u64::from(sample.stated_no_usage());
        add_known(&mut self.cost_usd, cost_usd);
        add_known(&mut self.reported_cost_usd, sample.reported_cost_usd);
    }

    /// Answers of known cost: what a cost per request is divided by, wherever one is shown. Failures, 429s and
    /// rejections cost nothing and bring nothing, and whoever rescues them pays, so they must not make their arm look
    /// cheap. An answer that broke off counts as failed and as unknown: too few rather than too many.
    #[must_use]
    pub const fn known_answers(&self) -> u64 {
        let unanswered = self.errors + self.rate_limited + self.rejected;
        self.requests
            .saturating_sub(unanswered + self.unpriced + self.no_usage)
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.rate_limited += other.rate_limited;
        self.rejected += other.rejected;
        self.client_gone += other.client_gone;
        self.masked += other.masked;
        self.input_tokens += other.input_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.output_tokens += other.output_tokens;
        add_known(&mut self.cost_usd, other.cost_usd);
        self.unpriced += other.unpriced;
        self.no_usage += other.no_usage;
        add_known(&mut self.reported_cost_usd, other.reported_cost_usd);
    }
}

/// Times of successful live first attempts, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// Until the answer ended.
    pub latency: Sketch,
    /// Until the first token; streams only.
    pub ttft: Sketch,
    /// Per output token after the first; streams only.
    pub tpot: Sketch,
}

impl Times {
    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named().iter().all(|(_, sketch)| sketch.is_empty())
    }

    /// Adds all times of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.ttft.merge(&other.ttft);
        self.tpot.merge(&other.tpot);
    }

    /// With the word that the store has for each.
    pub(super) const fn named(&self) -> [(&'static str, &Sketch); 3] {
        [
            ("latency", &self.latency),
            ("ttft", &self.ttft),
            ("tpot", &self.tpot),
        ]
    }

    fn record(&mut self, sample: &Sample) {
        self.latency.record_ms(micros_to_ms(sample.latency_us));
        if let Some(ttft_us) = sample.ttft_us {
            self.ttft.record_ms(micros_to_ms(ttft_us));
        }
        if let Some(tpot_us) = sample.tpot_us() {
            self.tpot.record_ms(tpot_us / 1_000.0);
        }
    }
}

/// What one arm did in a while: counts and times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// The counts.
    pub totals: Totals,
    /// The times of what succeeded.
    pub times: Times,
}

impl Measured {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.totals.merge(&other.totals);
        self.times.merge(&other.times);
    }
}

/// Start, rollout, arm and stage of a slot.
pub(super) type SlotKey = (i64, RolloutKey, Arm, u16);
/// Hour, rollout id, arm and the word of a metric.
pub(super) type BucketKey<'a> = (i64, &'a str, Arm, &'static str);

/// The value of a key, from a list in which neighbours mostly have one of the latest keys: a key may stand in it
/// more than once.
fn entry<K, V: Default>(
    list: &mut Vec<(K, V)>,
    is: impl Fn(&K) -> bool,
    make: impl FnOnce() -> K,
) -> &mut V {
    let latest = list.iter().rev().take(LATEST);
    let known = latest.map(|(key, _)| key).position(is);
    let at = known.map_or(list.len(), |back| list.len() - 1 - back);
    if known.is_none() {
        list.push((make(), V::default()));
    }
    #[expect(clippy::indexing_slicing, reason = "the place was just found or made")]
    &mut list[at].1
}

/// The slot of an attempt, at this arm.
fn slot_of<'a>(
    slots: &'a mut Vec<(SlotKey, Measured)>,
    sample: &Sample,
    rollout: &RolloutKey,
    of_arm: Arm,
) -> &'a mut Measured {
    let slot = sample.started_at.0.div_euclid(SLOT_MS) * SLOT_MS;
    let is = |(at, key, arm, stage): &SlotKey| {
        (*at, *arm, *stage) == (slot, of_arm, sample.stage) && Arc::ptr_eq(&key.id, &rollout.id)
    };
    let make = || (slot, rollout.clone(), of_arm, sample.stage);
    entry(slots, is, make)
}

/// Counts an attempt of a rollout.
fn count(slots: &mut Vec<(SlotKey, Measured)>, row: &AttemptRow, rollout: &RolloutKey) {
    let sample = &row.sample;
    if let Some(failed) = sample.masks_failure_of() {
        let slot = slot_of(slots, sample, rollout, failed);
        slot.totals.masked += 1;
    }
    if sample.role != Role::Live || sample.attempt != 1 {
        return;
    }
    let slot = slot_of(slots, sample, rollout, sample.arm);
    slot.totals.count(sample, row.price());
    if sample.outcome == Outcome::Ok {
        slot.times.record(sample);
    }
}

/// Counts to be added to the store.
#[derive(Debug, Default)]
pub(super) struct Aggregates {
    /// Per minute.
    pub(super) slots: BTreeMap<SlotKey, Measured>,
    /// The account of costs.
    pub(super) costs: BTreeMap<CostKey, CostSums>,
}

impl Aggregates {
    /// Counts a batch.
    pub(super) fn of<'a>(attempts: impl Iterator<Item = &'a AttemptRow>) -> Self {
        let (mut slots, mut costs) = (Vec::new(), Vec::new());
        for row in attempts {
            if let Some(bill) = &row.bill {
                let sums: &mut CostSums = entry(
                    &mut costs,
                    |key: &CostKey| key.is_of(row, bill),
                    || CostKey::of(row, bill),
                );
                sums.count(&row.sample, row.price());
            }
            if let Some(rollout) = &row.rollout {
                count(&mut slots, row, rollout);
            }
        }
        let mut aggregates = Self::default();
        for (key, sums) in costs {
            aggregates.costs.entry(key).or_default().merge(&sums);
        }
        for (key, measured) in slots {
            let sum = aggregates.slots.entry(key).or_default();
            sum.merge(&measured);
        }
        aggregates
    }

    /// The counts of the whole batch per rollout and arm.
    pub(super) fn totals(&self) -> BTreeMap<(&RolloutKey, Arm), Totals> {
        let mut totals: BTreeMap<_, Totals> = BTreeMap::new();
        for ((_, rollout, arm, _), counts) in &self.slots {
            let sum = totals.entry((rollout, *arm)).or_default();
            sum.merge(&counts.totals);
        }
        totals
    }

    /// The times of the whole batch per hour.
    pub(super) fn buckets(&self) -> BTreeMap<BucketKey<'_>, Sketch> {
        let mut buckets: BTreeMap<_, Sketch> = BTreeMap::new();
        for ((slot, rollout, arm, _), counts) in &self.slots {
            let hour = slot.div_euclid(HOUR_MS) * HOUR_MS;
            for (metric, sketch) in counts.times.named() {
                let key = (hour, &*rollout.id, *arm, metric);
                buckets.entry(key).or_default().merge(sketch);
            }
        }
        buckets
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times below 285 years are exact"
)]
pub(super) fn micros_to_ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}
