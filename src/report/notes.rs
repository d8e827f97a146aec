//! What a reader has to know of the data before trusting a number.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use super::Report;
use super::words::{counted, minute};
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::store::Measured;

const MINUTE_MS: i64 = 60_000;

pub(super) fn notes(
    report: &Report,
    kept: &PerArm<Measured>,
    is_whole: bool,
    has_lost: bool,
    first_point: Option<UnixMillis>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if report.requests() == 0 {
        notes.push("No live traffic is recorded in this time.".to_owned());
        return notes;
    }
    let counted_before = Arm::BOTH
        .iter()
        .map(|&arm| {
            let all = report.arms.get(arm).requests;
            all.saturating_sub(kept.get(arm).totals.requests)
        })
        .sum::<u64>();
    if has_lost && counted_before > 0 {
        let since = first_point.map_or("now".to_owned(), minute);
        notes.push(format!(
            "Times and minutes are kept since {since} UTC only: {} before that are in the counts and sums, but \
             not in percentiles, comparisons and charts; what was saved so far takes them at the later cost of a \
             request.",
            counted(counted_before, "request")
        ));
    }
    if !is_whole {
        notes.push(
            "This report covers a part of the record, by whole minutes (hours, where it is older than two days)."
                .to_owned(),
        );
    }
    for arm in Arm::BOTH {
        let figures = report.arms.get(arm);
        let unknown = figures.unpriced + figures.no_usage;
        if figures.requests > 0 && figures.cost_usd.is_none() {
            notes.push(format!(
                "The cost of {arm} is unknown: give its models prices in the configuration."
            ));
        } else if unknown > 0 {
            notes.push(format!(
                "Not in the cost of {arm}: {} without a price or cut short, {} that stated no tokens.",
                counted(figures.unpriced, "request"),
                counted(figures.no_usage, "request")
            ));
        }
    }
    notes.extend(reported(report));
    let cells = report.differences.is_empty() && report.started_at.is_some();
    if cells {
        notes.push(
            "The arms never had traffic at the same time, so nothing can be compared.".to_owned(),
        );
    }
    if report.to.millis_since(report.from) < 10 * MINUTE_MS {
        notes
            .push("The record is shorter than ten minutes: take its numbers with care.".to_owned());
    }
    notes.push(
        "Requests are live first attempts; probes, rescues and requests outside of the rollout are not counted. \
         What the recorder had to drop under overload is missing; `cutover status` counts it while the daemon \
         runs. Intervals hold for one look at one number: they are no basis for stopping early. Those of rates and \
         times treat requests as independent; sticky keys and bursts make them narrower than they claim."
            .to_owned(),
    );
    notes
}

/// Where a provider's own bill differs from the price list by more than a tenth.
fn reported(report: &Report) -> Vec<String> {
    let differs = |arm: &Arm| {
        let figures = report.arms.get(*arm);
        let (cost, reported) = (figures.cost_usd?, figures.reported_cost_usd?);
        let is_off = (reported - cost).abs() > 0.1 * cost.abs().max(reported.abs());
        is_off.then(|| {
            format!(
                "The provider of {arm} itself reports {} where the prices in the configuration make {}: check \
                 them.",
                super::words::money(reported),
                super::words::money(cost)
            )
        })
    };
    Arm::BOTH.iter().filter_map(differs).collect()
}
