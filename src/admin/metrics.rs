//! `GET /metrics`: everything that the driver counts, in the text format of Prometheus.
//!
//! Families are made anew at each scrape from one snapshot of the driver, so there is no second set of
//! numbers and nothing that outlives its rollout. Units are seconds, US dollars, tokens, and ratios up to 1.
//! What is not known has no series: it is never 0. It asks the driver alone, so it answers while the store
//! is down; and it shows no key, no address beyond a receiver's host and no name that a client chose.

use http::StatusCode;
use prometheus::{TEXT_FORMAT, TextEncoder};
use tokio::sync::oneshot;

use super::{Admin, Answer, api, error, whole, with_type};
use crate::driver::Request as DriverRequest;
use crate::driver::metrics::Snapshot;

mod daemon;
mod operations;
mod page;
mod process;
mod rollouts;
mod traffic;

use page::Page;

/// `GET /metrics`
pub(super) async fn metrics(admin: &Admin) -> Answer {
    let (reply, answer) = oneshot::channel();
    let snapshot = match api::ask(admin, DriverRequest::Metrics(reply), answer).await {
        Ok(snapshot) => snapshot,
        Err(answer) => return answer,
    };
    match text(&snapshot, admin) {
        Ok(text) => with_type(StatusCode::OK, TEXT_FORMAT, whole(text)),
        Err(message) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
    }
}

fn text(snapshot: &Snapshot, admin: &Admin) -> Result<String, String> {
    let mut page = Page::default();
    daemon::add(&mut page, snapshot);
    daemon::add_connections(&mut page, admin.gauges.read());
    daemon::add_spans(&mut page, admin.spans.read());
    process::add(&mut page, snapshot.started_at);
    rollouts::add(&mut page, snapshot);
    rollouts::add_guards(&mut page, &snapshot.status.rollouts);
    traffic::add(&mut page, snapshot);
    operations::add(&mut page, &snapshot.operations);
    TextEncoder::new()
        .encode_to_string(&page.into_families())
        .map_err(|error| format!("the metrics cannot be written: {error}"))
}
