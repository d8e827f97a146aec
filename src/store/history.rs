//! The store as those see it who look back: a backtest, a report. Reads only, with or without a daemon.
//!
//! The file is opened read-only and never changed, made or moved. Where no daemon has it open, nothing is made
//! beside it either; beside a store in use, SQLite keeps its `-wal` and `-shm` as the daemon does. Long tables are read in short statements,
//! a stretch of time each, so that a running daemon can shrink its WAL in between. Decides nothing.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Executor, Row, Sqlite, SqlitePool, sqlite::SqliteRow};

use super::aggregate::SLOT_MS;
use super::error::describe;
use super::sqlite::MIGRATIONS;
use super::{RolloutRow, SeriesPoint, StoreError, StoredDecision, Totals, read, series};
use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::outcome::Outcome;

mod cells;

/// How long a reader waits for a lock; the daemon's transactions take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Probes of a time; they have an index of their own.
pub(super) const PROBES: &str =
    "SELECT r.started_at, r.latency_us / 1000.0 AS latency_ms, r.outcome
     FROM request_row AS r INDEXED BY request_probe CROSS JOIN request_kind AS k ON k.id = r.kind
     WHERE r.kind < 0 AND r.started_at >= $1 AND r.started_at < $2 AND k.role = 'probe'
         AND k.arm = 'canary' AND k.rollout_id = $3";

/// A store opened for looking back.
#[derive(Debug, Clone)]
pub struct History {
    pool: SqlitePool,
}

/// What is stored of a rollout at one moment.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Its state.
    pub rollout: RolloutRow,
    /// All decisions of its id, oldest first.
    pub decisions: Vec<StoredDecision>,
    /// Counts since the id began, those of times that are no longer kept included.
    pub totals: PerArm<Totals>,
}

/// A request that tried whether a tripped canary is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeRow {
    /// When it ended.
    pub at: UnixMillis,
    /// It was answered well.
    pub ok: bool,
}

impl History {
    /// Opens the file at `path` for reading.
    ///
    /// # Errors
    /// [`StoreError::NoFile`] when there is none, [`StoreError::NewerSchema`] and
    /// [`StoreError::ForeignSchema`] when another version wrote it, else [`StoreError::Unavailable`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.is_file() {
            let path = path.to_owned();
            return Err(StoreError::NoFile { path });
        }
        // Files that another user's look left behind could keep the next daemon from writing. A daemon that
        // starts meanwhile writes to its log first, and for some minutes not to this file.
        let is_at_rest = !has_wal(path);
        let pool = connect(path, is_at_rest).await.map_err(failing)?;
        let history = Self { pool };
        history.check_schema(path).await?;
        Ok(history)
    }

    async fn check_schema(&self, path: &Path) -> Result<(), StoreError> {
        let foreign = |detail: String| StoreError::ForeignSchema {
            path: path.to_owned(),
            detail,
        };
        let has_history: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failing)?;
        if has_history == 0 {
            return Err(foreign("it is no store of cutover's".to_owned()));
        }
        let applied: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
                .fetch_all(&self.pool)
                .await
                .map_err(failing)?;
        let known = MIGRATIONS.iter().map(|it| it.version).max().unwrap_or(0);
        let found = applied.last().map_or(0, |(version, _)| *version);
        if found > known {
            let path = path.to_owned();
            return Err(StoreError::NewerSchema { path, found, known });
        }
        if found < known {
            return Err(foreign(format!(
                "schema {found}, older than {known}; `cutover run` brings it up to date"
            )));
        }
        for migration in MIGRATIONS.iter() {
            let same = applied.iter().any(|(version, checksum)| {
                *version == migration.version && checksum[..] == migration.checksum[..]
            });
            if !same {
                return Err(foreign(format!("migration {} differs", migration.version)));
            }
        }
        Ok(())
    }

    /// All stored rollouts, by name, the latest first among those of one name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        read::rollouts(&self.pool).await.map_err(failing)
    }

    /// What is stored of a rollout id at one moment, short of its measured traffic; `None` without a state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn moment(&self, rollout_id: &str) -> Result<Option<Moment>, StoreError> {
        let read = async {
            let mut transaction = self.pool.begin().await?;
            let rows = read::rollouts(&mut *transaction).await?;
            let Some(rollout) = rows.into_iter().find(|row| row.rollout_id == rollout_id) else {
                return Ok(None);
            };
            let decisions = decisions_of(&mut *transaction, rollout_id).await?;
            let totals = read::totals(&mut *transaction, rollout_id.to_owned()).await?;
            Ok(Some(Moment {
                rollout,
                decisions,
                totals,
            }))
        };
        read.await.map_err(failing)
    }

    /// All decisions of a rollout id, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn decisions_of(&self, rollout_id: &str) -> Result<Vec<StoredDecision>, StoreError> {
        let decisions = decisions_of(&self.pool, rollout_id).await;
        decisions.map_err(failing)
    }

    /// Live traffic of a rollout id from `from` on and before `to`, as finely as it is kept: by the minute, or
    /// by the hour if it is older than two days. Rising in time; times without traffic are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn measured(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<SeriesPoint>, StoreError> {
        series::series(&self.pool, rollout_id.to_owned(), from, to, SLOT_MS)
            .await
            .map_err(failing)
    }

    /// Probes of a rollout id that began from `from` on and before `to` and said something about the canary,
    /// in the order in which they ended. As far as rows of single attempts are kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn probes(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<ProbeRow>, StoreError> {
        let rows = sqlx::query(PROBES)
            .bind(from.0)
            .bind(to.0)
            .bind(rollout_id)
            .fetch_all(&self.pool)
            .await
            .map_err(failing)?;
        let probe = |row: &SqliteRow| -> Result<Option<ProbeRow>, sqlx::Error> {
            let outcome = Outcome::from_word(row.try_get("outcome")?);
            let Some(outcome) = outcome.filter(|outcome| outcome.is_evidence()) else {
                return Ok(None);
            };
            let started_at = UnixMillis(row.try_get("started_at")?);
            let latency_ms: f64 = row.try_get("latency_ms")?;
            #[expect(clippy::cast_possible_truncation, reason = "at most days")]
            let at = started_at.plus_millis(latency_ms.ceil() as i64);
            let ok = outcome == Outcome::Ok;
            Ok(Some(ProbeRow { at, ok }))
        };
        let mut probes = Vec::new();
        for row in &rows {
            probes.extend(probe(row).map_err(failing)?);
        }
        probes.sort_by_key(|probe| probe.at);
        Ok(probes)
    }
}

async fn decisions_of<'c>(
    from: impl Executor<'c, Database = Sqlite>,
    rollout_id: &str,
) -> Result<Vec<StoredDecision>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, at, rollout, rollout_id, kind, weight_from_bps, weight_to_bps, stage, decided_by,
             reason, evidence
         FROM decision WHERE rollout_id = $1 ORDER BY id",
    )
    .bind(rollout_id)
    .fetch_all(from)
    .await
}

async fn connect(path: &Path, immutable: bool) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(immutable)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(BUSY_TIMEOUT)
        .connect_with(options)
        .await?;
    // Opening is lazy: the first statement finds out.
    sqlx::query("SELECT count(*) FROM sqlite_master")
        .execute(&pool)
        .await?;
    Ok(pool)
}

fn has_wal(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    Path::new(&wal).exists()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn failing(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable {
        reason: describe(&error),
    }
}
