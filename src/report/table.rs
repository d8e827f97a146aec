//! The rows of the table of arms, for every format.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use super::words::{self, count, money};
use super::{ArmFigures, Estimate};
use crate::chart::Unit;

/// What a row shows of an arm: the value, and its interval or what else belongs to it.
type Row = fn(&ArmFigures) -> (String, String);

fn estimated(unit: Unit, estimate: Option<&Estimate>) -> (String, String) {
    match estimate {
        Some(it) => (words::value(unit, it.value), words::range(unit, it)),
        None => ("-".to_owned(), String::new()),
    }
}

fn counted(number: u64) -> (String, String) {
    (count(number), String::new())
}

fn usd(cost: Option<f64>) -> (String, String) {
    (cost.map_or("-".to_owned(), money), String::new())
}

/// All rows, in the order of the page.
pub(super) const ROWS: [(&str, Row); 15] = [
    ("requests", |arm| counted(arm.requests)),
    ("errors", |arm| {
        let (rate, range) = estimated(Unit::Share, arm.error_rate.as_ref());
        match arm.error_rate {
            Some(_) => (format!("{} = {rate}", count(arm.errors)), range),
            None => (rate, range),
        }
    }),
    ("latency, median", |arm| {
        estimated(Unit::Millis, arm.latency_p50_ms.as_ref())
    }),
    ("latency, 99th percentile", |arm| {
        estimated(Unit::Millis, arm.latency_p99_ms.as_ref())
    }),
    ("first token, median", |arm| {
        estimated(Unit::Millis, arm.ttft_p50_ms.as_ref())
    }),
    ("first token, 99th percentile", |arm| {
        estimated(Unit::Millis, arm.ttft_p99_ms.as_ref())
    }),
    ("tokens per second, median", |arm| {
        estimated(Unit::PerSecond, arm.output_tokens_per_s.as_ref())
    }),
    ("cost of 1,000 answers", |arm| {
        estimated(Unit::Usd, arm.cost_per_1k_requests_usd.as_ref())
    }),
    ("cost", |arm| usd(arm.cost_usd)),
    ("cost as the provider reports it", |arm| {
        usd(arm.reported_cost_usd)
    }),
    ("input tokens", |arm| {
        let cached = match arm.cached_input_tokens {
            0 => String::new(),
            cached => format!("{} cached", count(cached)),
        };
        (count(arm.input_tokens), cached)
    }),
    ("output tokens", |arm| counted(arm.output_tokens)),
    ("answered with 429", |arm| counted(arm.rate_limited)),
    ("rejected (other 4xx)", |arm| counted(arm.rejected)),
    ("given up by the client", |arm| counted(arm.client_gone)),
];

/// The rows that say something of either arm.
pub(super) fn rows<'a>(
    legacy: &'a ArmFigures,
    canary: &'a ArmFigures,
) -> impl Iterator<Item = (&'static str, [(String, String); 2])> + 'a {
    ROWS.iter().filter_map(move |(name, of)| {
        let both = [of(legacy), of(canary)];
        let says = both.iter().any(|(value, _)| value != "-" && value != "0");
        says.then_some((*name, both))
    })
}
