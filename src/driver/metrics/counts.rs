//! What is counted of one rollout's attempts since the process began.
//!
//! Plain numbers. Live first attempts are counted as `status` counts them; all others by role. Bounded by
//! the words there are: two arms, 21 outcomes, 7 roles.

use std::collections::BTreeMap;

use super::histogram::{Histogram, LATENCY_S, TPOT_S, TTFT_S};
use crate::arm::PerArm;
use crate::controller::effect::DecisionKind;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};

/// Counts of one rollout, or of all that is outside of them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Of both arms.
    pub arms: PerArm<ArmCounts>,
    /// Decisions that hold, by the word of their kind.
    pub decisions: BTreeMap<&'static str, u64>,
}

/// Counts of one arm.
#[derive(Debug, Clone)]
pub struct ArmCounts {
    /// Live first attempts by outcome.
    pub requests: BTreeMap<Outcome, u64>,
    /// Attempts of the other roles: (role, outcome).
    pub others: BTreeMap<(&'static str, Outcome), u64>,
    /// Failures that the other arm or a retry made good.
    pub masked: u64,
    /// Input tokens of live first attempts, cached ones included.
    pub input_tokens: u64,
    /// Of these, read from a prompt cache.
    pub cached_input_tokens: u64,
    /// Of these, written to one.
    pub cache_write_tokens: u64,
    /// Output tokens of live first attempts.
    pub output_tokens: u64,
    /// US dollars of the attempts of known cost, by role; a role without any has no entry.
    pub cost_usd: BTreeMap<&'static str, f64>,
    /// US dollars of live first attempts as the provider says; `None` if it says nothing.
    pub reported_cost_usd: Option<f64>,
    /// Live first attempts that stated tokens, and whose cost is unknown.
    pub unpriced: u64,
    /// Live first attempts that were answered and stated no tokens.
    pub no_usage: u64,
    /// Seconds of live first attempts that ended well.
    pub latency_s: Histogram,
    /// Of these, seconds to the first token.
    pub ttft_s: Histogram,
    /// Of these, seconds per output token after the first.
    pub tpot_s: Histogram,
}

impl Default for ArmCounts {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            others: BTreeMap::new(),
            masked: 0,
            input_tokens: 0,
            cached_input_tokens: 0,
            cache_write_tokens: 0,
            output_tokens: 0,
            cost_usd: BTreeMap::new(),
            reported_cost_usd: None,
            unpriced: 0,
            no_usage: 0,
            latency_s: Histogram::new(&LATENCY_S),
            ttft_s: Histogram::new(&TTFT_S),
            tpot_s: Histogram::new(&TPOT_S),
        }
    }
}

impl Counts {
    /// Counts an attempt that ended. `cost_usd` is `None` when that is unknown.
    pub fn record(&mut self, sample: &Sample, cost_usd: Option<f64>) {
        if let Some(failed) = sample.masks_failure_of() {
            self.arms.get_mut(failed).masked += 1;
        }
        self.arms.get_mut(sample.arm).record(sample, cost_usd);
    }

    /// Counts a decision that holds.
    pub fn decided(&mut self, kind: DecisionKind) {
        *self.decisions.entry(kind.as_str()).or_default() += 1;
    }
}

impl ArmCounts {
    fn record(&mut self, sample: &Sample, cost_usd: Option<f64>) {
        let role = sample.role.as_str();
        if let Some(usd) = cost_usd {
            *self.cost_usd.entry(role).or_default() += usd;
        }
        if sample.role != Role::Live {
            *self.others.entry((role, sample.outcome)).or_default() += 1;
            return;
        }
        *self.requests.entry(sample.outcome).or_default() += 1;
        if let Some(usage) = sample.usage {
            self.input_tokens += u64::from(usage.input_tokens);
            self.cached_input_tokens += u64::from(usage.cached_input_tokens);
            self.cache_write_tokens += u64::from(usage.cache_write_tokens);
            self.output_tokens += u64::from(usage.output_tokens);
            self.unpriced += u64::from(cost_usd.is_none());
        }
        self.no_usage += u64::from(sample.stated_no_usage());
        if let Some(usd) = sample.reported_cost_usd {
            *self.reported_cost_usd.get_or_insert_default() += usd;
        }
        if sample.outcome == Outcome::Ok {
            let times = [&mut self.latency_s, &mut self.ttft_s, &mut self.tpot_s];
            record_times(sample, times);
        }
    }
}

/// Latency, time to the first token and time per output token, in seconds.
pub(super) fn record_times(sample: &Sample, times: [&mut Histogram; 3]) {
    let [latency_s, ttft_s, tpot_s] = times;
    latency_s.record(seconds(sample.latency_us));
    if let Some(ttft_us) = sample.ttft_us {
        ttft_s.record(seconds(ttft_us));
    }
    if let Some(tpot_us) = sample.tpot_us() {
        tpot_s.record(tpot_us / 1e6);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times below 285 years are exact"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
