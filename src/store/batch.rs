//! The transaction that stores everything but decisions: rows, counts, cells and saved states.
//!
//! Counts are summed in memory first and added to those in the file; statements hold many rows each.

use std::sync::{Arc, LazyLock};

use sqlx::{Connection, SqliteConnection};

use super::aggregate::{Aggregates, Totals};
use super::inbox::Batch;
use super::insert::{Insert, Values};
use super::rows::Kinds;
use super::{AttemptRow, CellRow, cost, intervals, learned, rows, told, write};
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::config::RequestRows;
use crate::outcome::Outcome;
use crate::sketch::{Sketch, upper_ms};

/// The columns of [`Totals`], in the order of [`bind_totals`].
pub(super) const TOTALS: &str = "requests, errors, rate_limited, rejected, client_gone, masked, \
    input_tokens, cached_input_tokens, output_tokens, cost_usd, unpriced, no_usage, reported_cost_usd";

/// Adds counts to a row that exists. Used by writes and by retention.
pub(super) const ADD_TOTALS: &str = "requests = requests + excluded.requests, \
    errors = errors + excluded.errors, \
    rate_limited = rate_limited + excluded.rate_limited, \
    rejected = rejected + excluded.rejected, \
    client_gone = client_gone + excluded.client_gone, \
    masked = masked + excluded.masked, \
    input_tokens = input_tokens + excluded.input_tokens, \
    cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens, \
    output_tokens = output_tokens + excluded.output_tokens, \
    cost_usd = coalesce(cost_usd + excluded.cost_usd, cost_usd, excluded.cost_usd), \
    unpriced = unpriced + excluded.unpriced, \
    no_usage = no_usage + excluded.no_usage, \
    reported_cost_usd = coalesce(reported_cost_usd + excluded.reported_cost_usd, reported_cost_usd, \
        excluded.reported_cost_usd)";

static TOTAL: LazyLock<Insert> = LazyLock::new(|| {
    let columns = format!("rollout_id, rollout, arm, {TOTALS}");
    let add = format!(
        "ON CONFLICT (rollout_id, arm) DO UPDATE SET rollout = excluded.rollout, {ADD_TOTALS}"
    );
    Insert::new("arm_total", columns, add)
});

static BUCKET: LazyLock<Insert> = LazyLock::new(|| {
    let columns = "slot_at, rollout_id, arm, metric, bucket, upper_ms, count";
    let add = "ON CONFLICT (slot_at, rollout_id, arm, metric, bucket) DO UPDATE SET count = count + excluded.count";
    Insert::new("latency_bucket", columns, add)
});

static CELL: LazyLock<Insert> = LazyLock::new(|| {
    let columns = "rollout_id, block, config_epoch, opened_at, closed_at, weight_bps, arm, requests, errors, \
        rate_limited, rejected, streamed, latency, ttft";
    Insert::new("evidence_cell", columns, "")
});

pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Stores a batch: rows, counts, cells and states, all or nothing. After an error [`Kinds::forget`] must follow.
pub(super) async fn store_batch(
    connection: &mut SqliteConnection,
    batch: &Batch,
    which: RequestRows,
    kinds: &mut Kinds,
    now: UnixMillis,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with(write::BEGIN).await?;
    let wanted: Vec<&AttemptRow> = batch
        .attempts()
        .filter(|row| match which {
            RequestRows::All => true,
            RequestRows::Failures => row.sample.outcome != Outcome::Ok,
            RequestRows::None => false,
        })
        .collect();
    rows::insert(&mut transaction, kinds, &wanted, now).await?;
    let aggregates = Aggregates::of(batch.attempts());
    add_aggregates(&mut transaction, &aggregates).await?;
    cost::add(&mut transaction, &aggregates.costs).await?;
    insert_cells(&mut transaction, &batch.cells).await?;
    learned::insert(&mut transaction, &batch.learned).await?;
    told::insert(&mut transaction, &batch.told).await?;
    for row in &batch.states {
        write::save_state(&mut transaction, row).await?;
    }
    transaction.commit().await
}

/// Binds the columns of [`TOTALS`].
pub(super) fn bind_totals(row: &mut Values, totals: &Totals) {
    row.push_bind(int(totals.requests))
        .push_bind(int(totals.errors))
        .push_bind(int(totals.rate_limited))
        .push_bind(int(totals.rejected))
        .push_bind(int(totals.client_gone))
        .push_bind(int(totals.masked))
        .push_bind(int(totals.input_tokens))
        .push_bind(int(totals.cached_input_tokens))
        .push_bind(int(totals.output_tokens))
        .push_bind(totals.cost_usd)
        .push_bind(int(totals.unpriced))
        .push_bind(int(totals.no_usage))
        .push_bind(totals.reported_cost_usd);
}

async fn add_aggregates(
    connection: &mut SqliteConnection,
    aggregates: &Aggregates,
) -> Result<(), sqlx::Error> {
    intervals::add(connection, &aggregates.slots).await?;
    let totals: Vec<_> = aggregates.totals().into_iter().collect();
    TOTAL
        .run(connection, &totals, |row, ((rollout, arm), totals)| {
            row.push_bind(Arc::clone(&rollout.id))
                .push_bind(Arc::clone(&rollout.name))
                .push_bind(arm.as_str());
            bind_totals(row, totals);
        })
        .await?;
    let sketches = aggregates.buckets();
    let mut buckets = Vec::new();
    for ((hour, rollout_id, arm, metric), sketch) in &sketches {
        // Shared by some hundred rows each.
        let words = [*rollout_id, arm.as_str(), metric].map(Arc::<str>::from);
        let counted = sketch.iter();
        buckets.extend(counted.map(|(bucket, count)| (*hour, words.clone(), bucket, count)));
    }
    BUCKET
        .run(connection, &buckets, |row, (hour, words, bucket, count)| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "times are counted one by one"
            )]
            let count = *count as i64;
            row.push_bind(*hour);
            for word in words {
                row.push_bind(Arc::clone(word));
            }
            row.push_bind(*bucket)
                .push_bind(upper_ms(*bucket))
                .push_bind(count);
        })
        .await
}

async fn insert_cells(
    connection: &mut SqliteConnection,
    cells: &[CellRow],
) -> Result<(), sqlx::Error> {
    let arms: Vec<(&CellRow, Arm)> = cells
        .iter()
        .flat_map(|cell| Arm::BOTH.map(|arm| (cell, arm)))
        .collect();
    CELL.run(connection, &arms, |row, (cell, arm)| {
        let counts = cell.cell.arms.get(*arm);
        let UnixMillis(opened_at) = cell.cell.opened_at;
        row.push_bind(Arc::clone(&cell.rollout_id))
            .push_bind(cell.block)
            .push_bind(cell.cell.config_epoch)
            .push_bind(opened_at)
            .push_bind(cell.cell.closed_at.0)
            .push_bind(cell.cell.weight.bps())
            .push_bind(arm.as_str())
            .push_bind(int(counts.requests))
            .push_bind(int(counts.errors))
            .push_bind(int(counts.rate_limited))
            .push_bind(int(counts.rejected))
            .push_bind(int(counts.streamed))
            .push_bind(sketch_json(&counts.latency))
            .push_bind(sketch_json(&counts.ttft));
    })
    .await
}

/// A sketch as `{"340": 2.0, ...}`, which SQLite's JSON functions can add up.
fn sketch_json(sketch: &Sketch) -> String {
    serde_json::to_string(sketch).unwrap_or_else(|_| "{}".to_owned())
}
