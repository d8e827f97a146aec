//! Calls of models as the OpenTelemetry conventions for GenAI cut them: by operation, provider and model.
//!
//! Rollouts and outcomes are counted elsewhere, so these carry neither: the arm is their only label beyond
//! the conventions. Bounded: clients choose the names of models, so only names of the configuration stand for
//! themselves, [`KEYS_MOST`] in all, and everything else is [`OTHER`]. With two arms and four kinds of calls
//! that makes at most `KEYS_MOST + 8` entries of [`SERIES_EACH`] series each: 6,984 series.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counts::record_times;
use super::histogram::{Histogram, LATENCY_S, TOKENS, TPOT_S, TTFT_S};
use crate::arm::Arm;
use crate::config::values::Glob;
use crate::config::{BudgetConfig, Config};
use crate::outcome::Outcome;
use crate::sample::Sample;

/// Stands for every model that has no entry of its own.
pub const OTHER: &str = "other";
/// Entries of named models at most.
pub const KEYS_MOST: usize = 64;
/// Series of one entry: five histograms, each with its buckets, one above them, a sum and a count.
pub const SERIES_EACH: usize =
    LATENCY_S.len() + TTFT_S.len() + TPOT_S.len() + 2 * TOKENS.len() + 5 * 3;

/// Which calls an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The arm that was called.
    pub arm: Arm,
    /// `chat`, `text_completion`, `embeddings`.
    pub operation: &'static str,
    /// Whose API was spoken: `openai` or `anthropic`.
    pub provider: &'static str,
}

/// Calls of one kind to one model.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Seconds of calls that ended well.
    pub duration_s: Histogram,
    /// Of these, seconds to the first token.
    pub ttft_s: Histogram,
    /// Of these, seconds per output token after the first.
    pub tpot_s: Histogram,
    /// Input tokens of each call that stated them.
    pub input_tokens: Histogram,
    /// Output tokens of each call that stated them.
    pub output_tokens: Histogram,
}

/// All calls of models since the process began.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    by_kind: BTreeMap<Kind, BTreeMap<Arc<str>, Operation>>,
    named: usize,
}

impl Operation {
    fn new() -> Self {
        Self {
            duration_s: Histogram::new(&LATENCY_S),
            ttft_s: Histogram::new(&TTFT_S),
            tpot_s: Histogram::new(&TPOT_S),
            input_tokens: Histogram::new(&TOKENS),
            output_tokens: Histogram::new(&TOKENS),
        }
    }

    fn record(&mut self, sample: &Sample) {
        if sample.outcome == Outcome::Ok {
            let times = [&mut self.duration_s, &mut self.ttft_s, &mut self.tpot_s];
            record_times(sample, times);
        }
        if let Some(usage) = sample.usage {
            self.input_tokens.record(f64::from(usage.input_tokens));
            self.output_tokens.record(f64::from(usage.output_tokens));
        }
    }
}

impl Operations {
    /// Counts an attempt of any role, if it calls a model; `model` is the arm's own name of it.
    pub fn record(&mut self, config: &Config, model: &str, sample: &Sample) {
        let Some(dialect) = sample.dialect else {
            return;
        };
        let kind = Kind {
            arm: sample.arm,
            operation: dialect.operation(),
            provider: dialect.provider(),
        };
        let models = self.by_kind.entry(kind).or_default();
        if let Some(known) = models.get_mut(model) {
            return known.record(sample);
        }
        let is_own = self.named < KEYS_MOST && is_configured(config, sample.arm, model);
        self.named += usize::from(is_own);
        let name: Arc<str> = if is_own { model.into() } else { OTHER.into() };
        let entry = models.entry(name).or_insert_with(Operation::new);
        entry.record(sample);
    }

    /// Every entry with its model.
    pub fn entries(&self) -> impl Iterator<Item = (Kind, &str, &Operation)> {
        self.by_kind.iter().flat_map(|(kind, models)| {
            let models = models.iter();
            models.map(|(model, operation)| (*kind, &**model, operation))
        })
    }
}

/// True if the configuration names the model somewhere: in prices, maps, matches, timeouts or budgets.
fn is_configured(config: &Config, arm: Arm, model: &str) -> bool {
    let is = |glob: &Glob| glob.as_str() == model;
    let arm = config.arms.get(arm);
    let budget = |budget: &BudgetConfig| budget.model.as_ref().is_some_and(is);
    let rollouts = config.rollouts.iter();
    !model.is_empty()
        && (arm.prices.contains_key(model)
            || arm
                .models
                .iter()
                .any(|(from, to)| from == model || to == model)
            || arm.model_timeouts.iter().any(|entry| is(&entry.models))
            || config.budgets.iter().any(budget)
            || rollouts.flat_map(|it| &it.match_models).any(is))
}
