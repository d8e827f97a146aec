//! Keeps the file small: old rows go, old counts and cells become coarser, freed pages go back.
//!
//! Small steps for a few milliseconds per turn of the writer, when nothing else waits; a round of all tasks per
//! minute.
//! Decisions, states and totals are kept for good: they are few.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::time::Instant;

use super::limits::Limits;
use super::rows::KIND_LASTS_MS;
use super::write::BEGIN;
use super::{cost, intervals, learned};
use crate::clock::UnixMillis;
use crate::config::StoreConfig;

/// Rows deleted in one step.
const CHUNK: u64 = 2_000;
/// The same, as SQLite counts.
const CHUNK_IDS: i64 = 2_000;
/// Steps follow each other for so long, then the writer looks for other work.
const TURN: Duration = Duration::from_millis(5);
/// A kind is kept for so long after its rows are too old at the latest; a day more than they need.
const KIND_MS: i64 = KIND_LASTS_MS + 86_400_000;
/// Pages given back in one step.
const FREE_PAGES: i64 = 500;
/// What is younger stays as fine as it was written.
pub(super) const FINE_FOR_MS: i64 = 2 * 86_400_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    DeleteRequests,
    DeleteKinds,
    DeleteIntervals,
    DeleteBuckets,
    DeleteCells,
    DeleteLearned,
    DeleteCosts,
    MergeIntervals,
    MergeCells,
    FreePages,
}

impl Task {
    const fn next(self) -> Option<Self> {
        Some(match self {
            Self::DeleteRequests => Self::DeleteKinds,
            Self::DeleteKinds => Self::DeleteIntervals,
            Self::DeleteIntervals => Self::DeleteBuckets,
            Self::DeleteBuckets => Self::DeleteCells,
            Self::DeleteCells => Self::DeleteLearned,
            Self::DeleteLearned => Self::DeleteCosts,
            Self::DeleteCosts => Self::MergeIntervals,
            Self::MergeIntervals => Self::MergeCells,
            Self::MergeCells => Self::FreePages,
            Self::FreePages => return None,
        })
    }
}

/// Where the round is.
#[derive(Debug)]
pub(super) struct Retention {
    keep_ms: i64,
    kept_learned: usize,
    every: Duration,
    task: Task,
    next_round_at: Instant,
    /// Rows before this id were looked at in this round.
    requests_from: i64,
    /// Up to here everything is merged.
    intervals_until: i64,
    cells_until: i64,
}

impl Retention {
    pub(super) fn new(config: &StoreConfig, limits: &Limits) -> Self {
        Self {
            keep_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
            kept_learned: limits.kept_learned,
            every: limits.retention_every,
            task: Task::DeleteRequests,
            next_round_at: Instant::now(),
            requests_from: 0,
            intervals_until: 0,
            cells_until: 0,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next_round_at
    }

    /// Does some small steps, each in a transaction of its own. `canary`: whose learned ids are kept.
    pub(super) async fn turn(
        &mut self,
        connection: &mut SqliteConnection,
        now: UnixMillis,
        canary: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        while self.is_due(Instant::now()) && began.elapsed() < TURN {
            self.step(connection, now, canary).await?;
        }
        Ok(())
    }

    async fn step(
        &mut self,
        connection: &mut SqliteConnection,
        now: UnixMillis,
        canary: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        let oldest = now.0.saturating_sub(self.keep_ms);
        let fine_from = now.0.saturating_sub(FINE_FOR_MS);
        let finished = match self.task {
            Task::DeleteRequests => {
                let next = delete_requests(connection, self.requests_from, oldest).await?;
                self.requests_from = next.unwrap_or(0);
                next.is_none()
            }
            Task::DeleteKinds => delete_kinds(connection, oldest).await? < CHUNK,
            Task::DeleteIntervals => delete_intervals(connection, oldest).await? < CHUNK,
            Task::DeleteBuckets => delete_buckets(connection, oldest).await? < CHUNK,
            Task::DeleteCells => delete_cells(connection, oldest).await? < CHUNK,
            Task::DeleteLearned => {
                let most = self.kept_learned;
                learned::delete(connection, canary, now, most).await? < CHUNK
            }
            Task::DeleteCosts => cost::delete(connection, oldest).await? < CHUNK,
            Task::MergeIntervals => {
                let merged = merge_intervals(connection, self.intervals_until, fine_from).await?;
                self.intervals_until = merged.unwrap_or(self.intervals_until);
                merged.is_none()
            }
            Task::MergeCells => {
                let merged = merge_cells(connection, self.cells_until, fine_from).await?;
                self.cells_until = merged.unwrap_or(self.cells_until);
                merged.is_none()
            }
            Task::FreePages => free_pages(connection).await? <= FREE_PAGES,
        };
        if finished {
            match self.task.next() {
                Some(task) => self.task = task,
                None => {
                    self.task = Task::DeleteRequests;
                    self.next_round_at = Instant::now() + self.every;
                }
            }
        }
        Ok(())
    }
}

/// Deletes what is too old among some rows from the id `from` on; returns where to go on, `None` when all is done.
/// Rows stand in the order of recording, so that nearly all that is too old stands in front.
async fn delete_requests(
    connection: &mut SqliteConnection,
    from: i64,
    oldest: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let first: Option<i64> = sqlx::query_scalar("SELECT min(id) FROM request_row WHERE id >= $1")
        .bind(from)
        .fetch_one(&mut *connection)
        .await?;
    let Some(first) = first else {
        return Ok(None);
    };
    let end = first.saturating_add(CHUNK_IDS);
    let deleted =
        sqlx::query("DELETE FROM request_row WHERE id >= $1 AND id < $2 AND started_at < $3")
            .bind(first)
            .bind(end)
            .bind(oldest)
            .execute(&mut *connection)
            .await?;
    let goes_on = deleted.rows_affected() > 0 || is_old_after(connection, end, oldest).await?;
    Ok(goes_on.then_some(end))
}

/// True if rows from the id `from` on are too old: those before them were recorded with a wrong clock. Looks at a
/// few.
async fn is_old_after(
    connection: &mut SqliteConnection,
    from: i64,
    oldest: i64,
) -> Result<bool, sqlx::Error> {
    let mut ahead = 0;
    loop {
        let started_at: Option<i64> = sqlx::query_scalar(
            "SELECT started_at FROM request_row WHERE id >= $1 ORDER BY id LIMIT 1",
        )
        .bind(from.saturating_add(ahead))
        .fetch_optional(&mut *connection)
        .await?;
        match started_at {
            None => return Ok(false),
            Some(at) if at < oldest => return Ok(true),
            Some(_) => ahead = ahead.saturating_mul(2).max(CHUNK_IDS),
        }
    }
}

/// Deletes kinds that no row can have any more. The latest one stays, for the next to be numbered after it.
async fn delete_kinds(connection: &mut SqliteConnection, oldest: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM request_kind WHERE id IN
             (SELECT id FROM request_kind WHERE made_at < $1 AND abs(id) <
                  max((SELECT max(id) FROM request_kind), -(SELECT min(id) FROM request_kind))
              ORDER BY made_at LIMIT 2000)",
    )
    .bind(oldest.saturating_sub(KIND_MS))
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

async fn delete_intervals(
    connection: &mut SqliteConnection,
    oldest: i64,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM interval WHERE (slot_at, rollout_id, arm, stage) IN
             (SELECT slot_at, rollout_id, arm, stage FROM interval WHERE slot_at < $1 LIMIT 2000)",
    )
    .bind(oldest)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

async fn delete_buckets(
    connection: &mut SqliteConnection,
    oldest: i64,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM latency_bucket WHERE (slot_at, rollout_id, arm, metric, bucket) IN
             (SELECT slot_at, rollout_id, arm, metric, bucket FROM latency_bucket WHERE slot_at < $1 LIMIT 2000)",
    )
    .bind(oldest)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

async fn delete_cells(connection: &mut SqliteConnection, oldest: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM evidence_cell WHERE id IN
             (SELECT id FROM evidence_cell WHERE opened_at < $1 ORDER BY opened_at LIMIT 2000)",
    )
    .bind(oldest)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Merges the oldest minute after `from` into its hour; `None` if there is none before `until`.
async fn merge_intervals(
    connection: &mut SqliteConnection,
    from: i64,
    until: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let slot: Option<i64> = sqlx::query_scalar(
        "SELECT min(slot_at) FROM interval WHERE slot_at > $1 AND slot_at < $2 AND slot_at % 3600000 <> 0",
    )
    .bind(from)
    .bind(until)
    .fetch_one(&mut *connection)
    .await?;
    let Some(slot) = slot else {
        return Ok(None);
    };
    let mut transaction = connection.begin_with(BEGIN).await?;
    intervals::merge_minute(&mut transaction, slot).await?;
    transaction.commit().await?;
    Ok(Some(slot))
}

/// Merges the cells of the oldest minute from `from` on that has several of a kind; returns the end of
/// that minute, or `None` if there is none before `until`.
async fn merge_cells(
    connection: &mut SqliteConnection,
    from: i64,
    until: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let minute: Option<i64> = sqlx::query_scalar(
        "SELECT opened_at / 60000 * 60000 AS minute FROM evidence_cell
         WHERE opened_at >= $1 AND opened_at < $2 / 60000 * 60000
         GROUP BY minute, rollout_id, config_epoch, weight_bps, arm HAVING count(*) > 1
         ORDER BY minute LIMIT 1",
    )
    .bind(from)
    .bind(until)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(minute) = minute else {
        return Ok(None);
    };
    let mut transaction = connection.begin_with(BEGIN).await?;
    let last: i64 = sqlx::query_scalar("SELECT max(id) FROM evidence_cell")
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO evidence_cell (rollout_id, block, config_epoch, opened_at, closed_at, weight_bps, arm,
             requests, errors, rate_limited, rejected, streamed, latency, ttft)
         SELECT rollout_id, min(block), config_epoch, min(opened_at), max(closed_at), weight_bps, arm,
             sum(requests), sum(errors), sum(rate_limited), sum(rejected), sum(streamed),
             (SELECT json_group_object(bucket, count) FROM
                 (SELECT b.key AS bucket, sum(b.value) AS count FROM evidence_cell AS c, json_each(c.latency) AS b
                  WHERE c.opened_at >= $1 AND c.opened_at < $1 + 60000 AND c.rollout_id = o.rollout_id
                      AND c.config_epoch = o.config_epoch AND c.weight_bps = o.weight_bps AND c.arm = o.arm
                  GROUP BY b.key)),
             (SELECT json_group_object(bucket, count) FROM
                 (SELECT b.key AS bucket, sum(b.value) AS count FROM evidence_cell AS c, json_each(c.ttft) AS b
                  WHERE c.opened_at >= $1 AND c.opened_at < $1 + 60000 AND c.rollout_id = o.rollout_id
                      AND c.config_epoch = o.config_epoch AND c.weight_bps = o.weight_bps AND c.arm = o.arm
                  GROUP BY b.key))
         FROM evidence_cell AS o WHERE opened_at >= $1 AND opened_at < $1 + 60000
         GROUP BY rollout_id, config_epoch, weight_bps, arm",
    )
    .bind(minute)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "DELETE FROM evidence_cell WHERE opened_at >= $1 AND opened_at < $1 + 60000 AND id <= $2",
    )
    .bind(minute)
    .bind(last)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(minute + 60_000))
}

/// Gives some free pages back to the file system; returns how many there were.
async fn free_pages(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
        .fetch_one(&mut *connection)
        .await?;
    if free > 0 {
        sqlx::raw_sql("PRAGMA incremental_vacuum(500)")
            .execute(connection)
            .await?;
    }
    Ok(free)
}
