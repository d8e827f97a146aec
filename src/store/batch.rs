//! The transaction that stores everything but decisions: rows, counts, cells and saved states.
//!
//! Counts are summed in memory first and added to those in the file; statements hold many rows each.

use sqlx::query_builder::{QueryBuilder, Separated};
use sqlx::{Connection, Sqlite, SqliteConnection};

use super::aggregate::{Aggregates, Totals, micros_to_ms};
use super::inbox::Batch;
use super::{AttemptRow, CellRow, cost, intervals, learned, told, write};
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::config::RequestRows;
use crate::outcome::Outcome;
use crate::sketch::{Sketch, upper_ms};

/// Rows in one statement at most: 500 x 26 values stay far below SQLite's bound of 32,766.
const CHUNK: usize = 500;

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

pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Stores a batch: rows, counts, cells and states, all or nothing.
pub(super) async fn store_batch(
    connection: &mut SqliteConnection,
    batch: &Batch,
    rows: RequestRows,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with(write::BEGIN).await?;
    insert_requests(&mut transaction, &batch.attempts, rows).await?;
    let aggregates = Aggregates::of(&batch.attempts);
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

/// Runs `push` on statements of at most [`CHUNK`] rows each.
pub(super) async fn insert_chunks<T>(
    connection: &mut SqliteConnection,
    insert: &str,
    rows: &[T],
    on_conflict: &str,
    mut push: impl FnMut(&mut Separated<'_, Sqlite, &'static str>, &T),
) -> Result<(), sqlx::Error> {
    for chunk in rows.chunks(CHUNK) {
        let mut query = QueryBuilder::<Sqlite>::new(insert);
        query.push_values(chunk, |mut row, value| push(&mut row, value));
        query.push(on_conflict);
        // Only full chunks come again in the same shape: do not crowd the cache with the others.
        let repeats = chunk.len() == CHUNK;
        query
            .build()
            .persistent(repeats)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn insert_requests(
    connection: &mut SqliteConnection,
    attempts: &[AttemptRow],
    rows: RequestRows,
) -> Result<(), sqlx::Error> {
    let wanted: Vec<&AttemptRow> = attempts
        .iter()
        .filter(|row| match rows {
            RequestRows::All => true,
            RequestRows::Failures => row.sample.outcome != Outcome::Ok,
            RequestRows::None => false,
        })
        .collect();
    let insert = "INSERT INTO request (started_at, rollout, rollout_id, arm, assigned_arm, stage, weight_bps,
        model, streamed, outcome, status, latency_ms, ttft_ms, input_tokens, cached_input_tokens,
        cache_write_tokens, output_tokens, cost_usd, attempt, role, upstream_request_id, config_epoch, key_hash,
        cache_write_1h_tokens, reported_cost_usd, tag) ";
    insert_chunks(connection, insert, &wanted, "", |row, attempt| {
        let sample = &attempt.sample;
        let usage = sample.usage;
        row.push_bind(sample.started_at.0)
            .push_bind(
                attempt
                    .rollout
                    .as_ref()
                    .map(|rollout| rollout.name.to_string()),
            )
            .push_bind(
                attempt
                    .rollout
                    .as_ref()
                    .map(|rollout| rollout.id.to_string()),
            )
            .push_bind(sample.arm.as_str())
            .push_bind(sample.assigned.as_str())
            .push_bind(sample.stage)
            .push_bind(sample.weight.bps())
            .push_bind(sample.model.as_deref())
            .push_bind(sample.streamed)
            .push_bind(sample.outcome.as_str())
            .push_bind((sample.status != 0).then_some(sample.status))
            .push_bind(micros_to_ms(sample.latency_us))
            .push_bind(sample.ttft_us.map(micros_to_ms))
            .push_bind(usage.map(|usage| usage.input_tokens))
            .push_bind(usage.map(|usage| usage.cached_input_tokens))
            .push_bind(usage.map(|usage| usage.cache_write_tokens))
            .push_bind(usage.map(|usage| usage.output_tokens))
            .push_bind(attempt.price())
            .push_bind(sample.attempt)
            .push_bind(sample.role.as_str())
            .push_bind(sample.upstream_request_id.as_deref())
            .push_bind(sample.config_epoch)
            .push_bind((sample.key_hash != 0).then(|| format!("{:016x}", sample.key_hash)))
            .push_bind(usage.map(|usage| usage.cache_write_1h_tokens))
            .push_bind(sample.reported_cost_usd)
            .push_bind(sample.tag.as_deref());
    })
    .await
}

/// Binds the columns of [`TOTALS`].
pub(super) fn bind_totals(row: &mut Separated<'_, Sqlite, &'static str>, totals: &Totals) {
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
    let insert = format!("INSERT INTO arm_total (rollout_id, rollout, arm, {TOTALS}) ");
    let add = format!(
        " ON CONFLICT (rollout_id, arm) DO UPDATE SET rollout = excluded.rollout, {ADD_TOTALS}"
    );
    insert_chunks(connection, &insert, &totals, &add, |row, total| {
        let ((rollout, arm), totals) = total;
        row.push_bind(rollout.id.to_string())
            .push_bind(rollout.name.to_string())
            .push_bind(arm.as_str());
        bind_totals(row, totals);
    })
    .await?;
    let sketches = aggregates.buckets();
    let buckets: Vec<_> = sketches
        .iter()
        .flat_map(|(key, sketch)| {
            sketch
                .iter()
                .map(move |(bucket, count)| (key, bucket, count))
        })
        .collect();
    let insert =
        "INSERT INTO latency_bucket (slot_at, rollout_id, arm, metric, bucket, upper_ms, count) ";
    let add = " ON CONFLICT (slot_at, rollout_id, arm, metric, bucket) DO UPDATE SET count = count + excluded.count";
    insert_chunks(connection, insert, &buckets, add, |row, counted| {
        let ((hour, rollout_id, arm, metric), bucket, count) = counted;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "times are counted one by one"
        )]
        let count = *count as i64;
        row.push_bind(*hour)
            .push_bind((*rollout_id).to_owned())
            .push_bind(arm.as_str())
            .push_bind(*metric)
            .push_bind(*bucket)
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
    let insert = "INSERT INTO evidence_cell (rollout_id, block, config_epoch, opened_at, closed_at, weight_bps,
        arm, requests, errors, rate_limited, rejected, streamed, latency, ttft) ";
    insert_chunks(connection, insert, &arms, "", |row, (cell, arm)| {
        let counts = cell.cell.arms.get(*arm);
        let UnixMillis(opened_at) = cell.cell.opened_at;
        row.push_bind(cell.rollout_id.to_string())
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
