//! Where each rollout stands, and what its guards say.

use super::daemon::seconds;
use super::page::{Labels, Page, Row};
use crate::controller::effect::DecisionKind;
use crate::controller::view::HELD_BY;
use crate::driver::metrics::{RolloutSnapshot, Snapshot};
use crate::driver::status::{GuardStatus, RolloutStatus};

const STATES: [&str; 8] = [
    "warming-up",
    "running",
    "held",
    "tripped",
    "retreated",
    "rolled-back",
    "complete",
    "stopped",
];
const VERDICTS: [&str; 5] = ["harm", "healthy", "undecided", "no-data", "not-applicable"];

type Standing = fn(&RolloutStatus, &RolloutSnapshot) -> Option<f64>;
type Says = fn(&GuardStatus) -> Option<f64>;

fn labels(rollout: &RolloutStatus) -> Labels<'_> {
    vec![("rollout", rollout.name.as_str())]
}

const GAUGES: [Row<Standing>; 9] = [
    (
        "cutover_weight_ratio",
        "The effective share of the canary; 0 while tripped",
        |it, _| Some(it.weight),
    ),
    (
        "cutover_stage_weight_ratio",
        "The share of the canary that the stage intends",
        |it, _| Some(it.stage.weight),
    ),
    ("cutover_stage", "The stage, from 1", |it, _| {
        Some(it.stage.index as f64)
    }),
    ("cutover_stages", "How many stages there are", |it, _| {
        Some(it.stage.of as f64)
    }),
    (
        "cutover_stage_start_timestamp_seconds",
        "When the stage was entered, in seconds since 1970",
        |_, it| Some(seconds(it.stage_since)),
    ),
    (
        "cutover_rollout_attempt",
        "How often the rollout was tried, this time included",
        |it, _| Some(f64::from(it.attempt)),
    ),
    (
        "cutover_next_action_timestamp_seconds",
        "When the rollout acts by itself at the earliest, in seconds since 1970; absent while it waits \
             for proof or a person",
        |_, it| it.next_action_at.map(seconds),
    ),
    (
        "cutover_dominant_keys",
        "Sticky keys with over 2% of the requests, which are left out of the evidence",
        |it, _| Some(it.dominant_keys.len() as f64),
    ),
    (
        "cutover_constant_keys",
        "Sticky keys that most requests shared, and that are none therefore",
        |it, _| Some(it.constant_keys.len() as f64),
    ),
];

pub(super) fn add(page: &mut Page, snapshot: &Snapshot) {
    let all = || snapshot.status.rollouts.iter().zip(&snapshot.rollouts);
    for (name, help, value) in GAUGES {
        let one = |(status, more)| Some((labels(status), value(status, more)?));
        page.gauge(name, help, all().filter_map(one));
    }
    page.states(
        "cutover_state",
        "1 for the state of a rollout",
        "state",
        &STATES,
        all().map(|(status, _)| (labels(status), Some(status.state))),
    );
    page.gauge(
        "cutover_held",
        "1 for what holds a rollout: an operator, a reason of the controller's own, or both",
        all().flat_map(|(status, more)| {
            HELD_BY.map(|cause| {
                let mut labels = labels(status);
                labels.push(("cause", cause));
                (labels, f64::from(more.held_by.contains(&cause)))
            })
        }),
    );
    page.counter(
        "cutover_decisions_total",
        "Decisions that hold, by kind",
        all().flat_map(|(status, more)| {
            DecisionKind::ALL.map(|kind| {
                let mut labels = labels(status);
                labels.push(("kind", kind.as_str()));
                let count = more.counts.decisions.get(kind.as_str());
                (labels, count.copied().unwrap_or(0) as f64)
            })
        }),
    );
    page.counter(
        "cutover_repeated_requests_total",
        "Requests that were left out of the evidence because they repeated one that nobody could answer",
        all().map(|(status, _)| (labels(status), status.repeats as f64)),
    );
}

fn is_time(guard: &GuardStatus) -> bool {
    guard.name.starts_with("latency") || guard.name.starts_with("ttft")
}

/// A value or a limit of a guard on times in seconds, of one on rates as a ratio.
fn of_kind(guard: &GuardStatus, wants_time: bool, number: Option<f64>) -> Option<f64> {
    let unit = if wants_time { 1_000.0 } else { 1.0 };
    number
        .filter(|_| is_time(guard) == wants_time)
        .map(|number| number / unit)
}

pub(super) fn add_guards(page: &mut Page, rollouts: &[RolloutStatus]) {
    let all = || {
        rollouts.iter().flat_map(|rollout| {
            rollout.guards.iter().map(|guard| {
                let mut labels = labels(rollout);
                labels.push(("guard", guard.name));
                (labels, guard)
            })
        })
    };
    let gauges: [Row<Says>; 6] = [
        (
            "cutover_guard_evidence",
            "Evidence (an e-value) of health in this stage, or of harm if that is the verdict",
            |guard| Some(guard.evidence),
        ),
        (
            "cutover_guard_evidence_needed",
            "What the evidence of health has to reach",
            |guard| Some(guard.needed),
        ),
        (
            "cutover_guard_value_ratio",
            "The share of the canary's requests that a guard on rates counts in this stage",
            |guard| of_kind(guard, false, guard.value),
        ),
        (
            "cutover_guard_limit_ratio",
            "The share that a guard on rates allows now",
            |guard| of_kind(guard, false, guard.limit),
        ),
        (
            "cutover_guard_value_seconds",
            "The canary's time in this stage by a guard on times",
            |guard| of_kind(guard, true, guard.value),
        ),
        (
            "cutover_guard_limit_seconds",
            "The time that a guard on times allows now",
            |guard| of_kind(guard, true, guard.limit),
        ),
    ];
    for (name, help, value) in gauges {
        let series = all().filter_map(|(labels, guard)| Some((labels, value(guard)?)));
        page.gauge(name, help, series);
    }
    page.states(
        "cutover_guard_verdict",
        "1 for what a guard says",
        "verdict",
        &VERDICTS,
        all().map(|(labels, guard)| (labels, Some(guard.verdict))),
    );
}
