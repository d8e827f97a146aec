//! What both arms did: requests by outcome, times, tokens, costs. Live first attempts are what clients asked
//! and what is evidence; other attempts are counted apart, by role.

use super::page::{Labels, Page, Row};
use crate::arm::Arm;
use crate::driver::metrics::{ArmCounts, Histogram, Snapshot};
use crate::outcome::Outcome;

/// Stands for requests outside every rollout; no rollout can be called this.
const NO_ROLLOUT: &str = "(none)";

type Count = fn(&ArmCounts) -> u64;
type Times = fn(&ArmCounts) -> &Histogram;
type Arms<'a> = Vec<(Labels<'a>, &'a ArmCounts)>;

pub(super) fn add(page: &mut Page, snapshot: &Snapshot) {
    let rollouts = snapshot.status.rollouts.iter().zip(&snapshot.rollouts);
    let mut arms: Arms<'_> = Vec::new();
    for (status, more) in rollouts {
        for arm in Arm::BOTH {
            let labels = vec![("rollout", status.name.as_str()), ("arm", arm.as_str())];
            arms.push((labels, more.counts.arms.get(arm)));
        }
    }
    page.counter(
        "cutover_requests_total",
        "Live first attempts by what became of them; those without an answer are there once they are given up",
        arms.iter().flat_map(|(labels, counts)| {
            Outcome::ALL.map(|outcome| {
                let count = counts.requests.get(&outcome).copied().unwrap_or(0);
                (with(labels, &[("outcome", outcome.as_str())]), count as f64)
            })
        }),
    );
    page.gauge(
        "cutover_requests_under_way",
        "Live first attempts that have not ended yet",
        snapshot.status.rollouts.iter().flat_map(|status| {
            Arm::BOTH.map(|arm| {
                let labels = vec![("rollout", status.name.as_str()), ("arm", arm.as_str())];
                (labels, status.arms.get(arm).under_way as f64)
            })
        }),
    );
    add_counts(page, &arms);
    add_times(page, &arms);
    add_costs(page, &arms);
    for arm in Arm::BOTH {
        let labels = vec![("rollout", NO_ROLLOUT), ("arm", arm.as_str())];
        arms.push((labels, snapshot.outside.arms.get(arm)));
    }
    add_by_role(page, &arms);
}

fn with<'a>(labels: &Labels<'a>, more: &[(&'static str, &'a str)]) -> Labels<'a> {
    labels.iter().chain(more).copied().collect()
}

fn errors(counts: &ArmCounts) -> u64 {
    let requests = counts.requests.iter();
    let errors = requests.filter(|(outcome, _)| outcome.is_error());
    errors.map(|(_, count)| count).sum()
}

fn add_counts(page: &mut Page, arms: &Arms<'_>) {
    let counters: [Row<Count>; 8] = [
        (
            "cutover_errors_total",
            "Live first attempts that failed by the arm's fault, whether or not somebody made good for it",
            errors,
        ),
        (
            "cutover_masked_failures_total",
            "Failures of an arm that the other arm or a retry made good: no client saw them",
            |counts| counts.masked,
        ),
        (
            "cutover_input_tokens_total",
            "Input tokens of live first attempts, cached ones included",
            |counts| counts.input_tokens,
        ),
        (
            "cutover_cached_input_tokens_total",
            "Input tokens of live first attempts that were read from a prompt cache",
            |counts| counts.cached_input_tokens,
        ),
        (
            "cutover_cache_write_tokens_total",
            "Input tokens of live first attempts that were written to a prompt cache",
            |counts| counts.cache_write_tokens,
        ),
        (
            "cutover_output_tokens_total",
            "Output tokens of live first attempts",
            |counts| counts.output_tokens,
        ),
        (
            "cutover_unpriced_requests_total",
            "Live first attempts that stated tokens and whose cost is unknown: no price, or cut short",
            |counts| counts.unpriced,
        ),
        (
            "cutover_no_usage_requests_total",
            "Live first attempts that were answered, at least in part, and stated no tokens",
            |counts| counts.no_usage,
        ),
    ];
    for (name, help, value) in counters {
        let series = arms.iter();
        let series = series.map(|(labels, counts)| (labels.clone(), value(counts) as f64));
        page.counter(name, help, series);
    }
}

fn add_times(page: &mut Page, arms: &Arms<'_>) {
    let histograms: [Row<Times>; 3] = [
        (
            "cutover_request_duration_seconds",
            "From a request to the end of its answer, of live first attempts that ended well",
            |counts| &counts.latency_s,
        ),
        (
            "cutover_time_to_first_token_seconds",
            "From a request to the first content of its stream, of live first attempts that ended well",
            |counts| &counts.ttft_s,
        ),
        (
            "cutover_time_per_output_token_seconds",
            "Time per output token after the first of a stream, of live first attempts that ended well",
            |counts| &counts.tpot_s,
        ),
    ];
    for (name, help, of) in histograms {
        let series = arms.iter();
        let series = series.map(|(labels, counts)| (labels.clone(), of(counts)));
        page.histogram(name, help, series);
    }
}

fn add_costs(page: &mut Page, arms: &Arms<'_>) {
    page.counter(
        "cutover_reported_cost_usd_total",
        "US dollars of live first attempts as the provider itself says; absent while it says nothing",
        arms.iter()
            .filter_map(|(labels, counts)| Some((labels.clone(), counts.reported_cost_usd?))),
    );
}

fn add_by_role(page: &mut Page, arms: &Arms<'_>) {
    page.counter(
        "cutover_cost_usd_total",
        "US dollars of all attempts whose cost is known, by role; a role without any is absent",
        arms.iter().flat_map(|(labels, counts)| {
            let costs = counts.cost_usd.iter();
            costs.map(|(role, usd)| (with(labels, &[("role", role)]), *usd))
        }),
    );
    page.counter(
        "cutover_other_attempts_total",
        "Attempts that are no live first ones: rescues, retries, overflows, probes, forced and pinned \
         requests. A series appears with its first attempt",
        arms.iter().flat_map(|(labels, counts)| {
            let others = counts.others.iter();
            others.map(|((role, outcome), count)| {
                let more = [("role", *role), ("outcome", outcome.as_str())];
                (with(labels, &more), *count as f64)
            })
        }),
    );
}
