//! The daemon: build, configuration, store, queues, budgets, receivers of alerts, and how both arms can be
//! reached.

use super::page::Page;
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::driver::metrics::Snapshot;
use crate::driver::money::BudgetStatus;
use crate::driver::status::{ClientsStatus, RoomStatus, Status};
use crate::proxy::gauges::Connections;
use crate::upstream::pool::figures::Figures;

const BREAKER: [&str; 3] = ["closed", "open", "half-open"];

/// Seconds since 1970.
pub(super) fn seconds(at: UnixMillis) -> f64 {
    at.0 as f64 / 1_000.0
}

pub(super) fn add(page: &mut Page, snapshot: &Snapshot) {
    let status = &snapshot.status;
    page.gauge(
        "cutover_build_info",
        "Always 1; the version is a label",
        [(vec![("version", status.version)], 1.0)],
    );
    add_config(page, snapshot);
    add_store(page, snapshot);
    page.single(
        "cutover_learned_ids",
        "Ids of state on the canary that are remembered",
        status.learned_ids.known as f64,
    );
    page.counter(
        "cutover_ids_learned_total",
        "Ids of state on the canary that answers gave out",
        [(Vec::new(), status.learned_ids.learned_total as f64)],
    );
    page.states(
        "cutover_breaker_state",
        "1 for how the breaker of an arm stands: an open one dials the arm for single probes only",
        "state",
        &BREAKER,
        Arm::BOTH.map(|arm| {
            let now = Some(*snapshot.breakers.get(arm));
            (vec![("arm", arm.as_str())], now)
        }),
    );
    add_headroom(page, snapshot);
    add_budgets(page, &status.budgets);
    add_alerts(page, status);
    add_clients(page, &status.clients);
}

/// Of a receiver's address only the host is shown; its place in the list tells two of one host apart.
fn add_alerts(page: &mut Page, status: &Status) {
    let names: Vec<String> = status
        .alerts
        .iter()
        .enumerate()
        .map(|(place, it)| {
            let (_, rest) = it.webhook.split_once("://").unwrap_or_default();
            let host = rest.split('/').next().unwrap_or_default();
            format!("{} {host}", place + 1)
        })
        .collect();
    let all = || {
        let named = names.iter().zip(&status.alerts);
        named.map(|(name, it)| (vec![("webhook", name.as_str()), ("format", it.format)], it))
    };
    page.counter(
        "cutover_alerts_total",
        "Messages to a receiver of alerts: taken (sent), refused for good (failed), given up (dropped)",
        all().flat_map(|(labels, it)| {
            let results = [
                ("sent", it.sent),
                ("failed", it.failed),
                ("dropped", it.dropped),
            ];
            results.map(|(result, count)| {
                let mut labels = labels.clone();
                labels.push(("result", result));
                (labels, count as f64)
            })
        }),
    );
    page.gauge(
        "cutover_alerts_queued",
        "Messages to a receiver of alerts that wait or are under way",
        all().map(|(labels, it)| (labels, it.queued as f64)),
    );
    page.counter(
        "cutover_alerts_overflowed_total",
        "Alerts that came too fast and reached no receiver at all",
        [(Vec::new(), status.alerts_overflowed as f64)],
    );
}

/// The names are those of the configuration, and never what a request says.
fn add_clients(page: &mut Page, clients: &ClientsStatus) {
    if clients.known.is_empty() {
        return;
    }
    page.counter(
        "cutover_client_requests_total",
        "Requests of a client: let in (admitted), or over its rate and answered with 429 (limited)",
        clients.known.iter().flat_map(|client| {
            let results = [("admitted", client.requests), ("limited", client.limited)];
            results.map(|(result, count)| {
                let labels = vec![("client", client.name.as_str()), ("result", result)];
                (labels, count as f64)
            })
        }),
    );
    page.counter(
        "cutover_unauthorized_requests_total",
        "Requests without the key of a client, answered with 401",
        [(Vec::new(), clients.unauthorized as f64)],
    );
}

fn add_config(page: &mut Page, snapshot: &Snapshot) {
    page.single(
        "cutover_config_last_reload_successful",
        "1 if the configuration file is the one in force, 0 if a newer file was rejected",
        f64::from(snapshot.status.config.error.is_none()),
    );
    page.single(
        "cutover_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was loaded, in seconds since 1970",
        seconds(snapshot.config_loaded_at),
    );
    page.counter(
        "cutover_config_loads_total",
        "Configurations that were read, the first one included",
        [
            (vec![("result", "applied")], snapshot.configs_loaded as f64),
            (
                vec![("result", "rejected")],
                snapshot.configs_rejected as f64,
            ),
        ],
    );
}

fn add_store(page: &mut Page, snapshot: &Snapshot) {
    let health = &snapshot.health;
    page.single(
        "cutover_store_healthy",
        "1 if records are being kept; 0 while writing fails, and then no weight rises",
        f64::from(health.healthy),
    );
    page.single(
        "cutover_store_corrupt_set_aside",
        "1 if a corrupt database was set aside since the process began",
        f64::from(health.set_aside.is_some()),
    );
    let (waiting, room) = snapshot.queued_batches;
    page.single(
        "cutover_recorder_queue_batches",
        "Batches of samples that wait to be counted",
        waiting as f64,
    );
    page.single(
        "cutover_recorder_queue_max_batches",
        "Batches of samples that may wait; further ones are dropped",
        room as f64,
    );
    page.counter(
        "cutover_dropped_records_total",
        "Records that a full queue dropped: samples before they were counted (recorder), or before they \
         were stored (store), and cells of evidence before they were stored (cells)",
        [
            (
                vec![("queue", "recorder")],
                snapshot.dropped_in_queue as f64,
            ),
            (vec![("queue", "store")], health.dropped_samples as f64),
            (vec![("queue", "cells")], health.dropped_cells as f64),
        ],
    );
}

/// Whatever the rollouts are, the arms are the same.
fn add_headroom(page: &mut Page, snapshot: &Snapshot) {
    let Some(rollout) = snapshot.status.rollouts.first() else {
        return;
    };
    let mut rooms: Vec<(&str, &str, RoomStatus)> = Vec::new();
    for arm in Arm::BOTH {
        let headroom = rollout.arms.get(arm).headroom;
        let of = |kind, room: Option<RoomStatus>| room.map(|room| (arm.as_str(), kind, room));
        let requests = of("requests", headroom.and_then(|it| it.requests));
        rooms.extend(requests);
        rooms.extend(of("tokens", headroom.and_then(|it| it.tokens)));
    }
    let series = |value: fn(&RoomStatus) -> f64| {
        let one = move |(arm, kind, room): &(&'static str, &'static str, RoomStatus)| {
            (vec![("arm", *arm), ("kind", *kind)], value(room))
        };
        rooms.iter().map(one).collect::<Vec<_>>()
    };
    page.gauge(
        "cutover_rate_limit",
        "The rate limit that an arm states, in its own period; absent while it states none",
        series(|room| f64::from(room.limit)),
    );
    page.gauge(
        "cutover_rate_limit_remaining",
        "What was left of the rate limit by the latest answer",
        series(|room| f64::from(room.remaining)),
    );
    page.gauge(
        "cutover_rate_limit_remaining_ratio",
        "The lowest share of the rate limit that was left in this and the last minute",
        series(|room| room.share),
    );
}

fn add_budgets(page: &mut Page, budgets: &[BudgetStatus]) {
    let series = |value: fn(&BudgetStatus) -> Option<f64>| {
        let one = move |budget: &'_ BudgetStatus| value(budget);
        budgets
            .iter()
            .filter_map(|budget| Some((vec![("budget", budget.name.as_str())], one(budget)?)))
            .collect::<Vec<_>>()
    };
    page.gauge(
        "cutover_budget_usd",
        "US dollars that a day (UTC) may cost before people are told",
        series(|budget| Some(budget.usd_per_day)),
    );
    page.gauge(
        "cutover_budget_spent_usd",
        "US dollars of the budget that are spent today, as far as costs are known",
        series(|budget| budget.spent_usd),
    );
    page.gauge(
        "cutover_budget_spent_ratio",
        "The share of the budget that is spent today, as far as costs are known",
        series(|budget| budget.share),
    );
    page.gauge(
        "cutover_budget_unknown_requests",
        "Attempts of today that the budget covers and whose cost is unknown",
        series(|budget| Some((budget.unpriced + budget.no_usage) as f64)),
    );
}

pub(super) fn add_connections(page: &mut Page, connections: Connections) {
    page.single(
        "cutover_workers",
        "Threads that serve requests",
        connections.workers as f64,
    );
    page.single(
        "cutover_client_connections",
        "Open connections of clients",
        connections.clients as f64,
    );
    let series = |value: fn(&Figures) -> u64| {
        Arm::BOTH.map(|arm| {
            let figures = connections.upstream.get(arm);
            (vec![("arm", arm.as_str())], value(figures) as f64)
        })
    };
    page.gauge(
        "cutover_upstream_idle_connections",
        "Connections to an arm that wait for a request",
        series(|figures| figures.idle),
    );
    page.gauge(
        "cutover_upstream_shared_connections",
        "Connections to an arm that carry several requests at once (HTTP/2)",
        series(|figures| figures.shared),
    );
    page.counter(
        "cutover_upstream_connections_opened_total",
        "Connections to an arm that were made",
        series(|figures| figures.opened),
    );
    page.counter(
        "cutover_upstream_connections_failed_total",
        "Connections to an arm that could not be made",
        series(|figures| figures.failed),
    );
}

pub(super) fn add_spans(page: &mut Page, fates: [(&'static str, u64); 3]) {
    page.counter(
        "cutover_spans_total",
        "Spans of traces: taken by the collector (sent), dropped because the queue was full, or given up \
         because the collector failed",
        fates.map(|(fate, count)| (vec![("result", fate)], count as f64)),
    );
}
