//! Opens the database file: settings, schema, and what to do with a broken one.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlStr, SqliteConnection, SqlitePool};

use super::error::{Fault, describe, fault_of};
use super::limits::Limits;
use super::{Known, StoreError, health, write};
use crate::clock::UnixMillis;
use crate::config::StoreConfig;

/// The schema's history: version, name and text of each file in `migrations/sqlite`. Files are only ever
/// added. Listed by hand: sqlx's macro would compile SQLite a second time, for the compiler's own use.
pub(super) const SCHEMA: [(i64, &str, &str); 1] = [(
    1,
    "first",
    include_str!("../../migrations/sqlite/0001_first.sql"),
)];

pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migration = |(version, name, text)| {
        let (name, text) = (Cow::Borrowed(name), SqlStr::from_static(text));
        Migration::new(version, name, MigrationType::Simple, text, false)
    };
    Migrator::with_migrations(SCHEMA.map(migration).into())
});

/// The WAL file is cut back to this size after a checkpoint.
const JOURNAL_SIZE_LIMIT: &str = "67108864";
/// Connections that read at the same time at most.
const READERS: u32 = 2;

/// Why the file could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The file is broken.
    Corrupt(String),
    /// Anything else.
    Other(StoreError),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        let reason = describe(&error);
        match fault_of(&error) {
            Fault::Corrupt => Self::Corrupt(reason),
            Fault::Passing | Fault::Refused => Self::Other(StoreError::Unavailable { reason }),
        }
    }
}

fn options(path: &Path, limits: &Limits) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(limits.busy_timeout)
        .disable_statement_logging()
}

/// Opens the writer's connection, makes the file if need be, and brings the schema up to date.
pub(super) async fn open(path: &Path, limits: &Limits) -> Result<SqliteConnection, OpenError> {
    let options = options(path, limits)
        .create_if_missing(true)
        // Takes effect on a new file only, before its first table.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        // A loss of power may cost the last rows, never the file. Commits of decisions use FULL.
        .synchronous(SqliteSynchronous::Normal)
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT);
    let mut connection = options.connect().await?;
    match prepare(path, &mut connection, limits).await {
        Ok(()) => Ok(connection),
        Err(error) => {
            drop(connection.close().await);
            Err(error)
        }
    }
}

async fn prepare(
    path: &Path,
    connection: &mut SqliteConnection,
    limits: &Limits,
) -> Result<(), OpenError> {
    full_disk_for_tests(connection, limits).await?;
    // `run` itself cannot be awaited in a task: the compiler fails to prove its future `Send`.
    MIGRATIONS
        .run_direct(None, connection, false)
        .await
        .map_err(|error| migration_error(path, error))
}

/// Applies the bound on pages that stands in for a full disk; nothing outside of tests.
#[cfg(test)]
pub(super) async fn full_disk_for_tests(
    connection: &mut SqliteConnection,
    limits: &Limits,
) -> Result<(), sqlx::Error> {
    let pages = match limits.max_pages.load(std::sync::atomic::Ordering::SeqCst) {
        0 => 1_000_000_000,
        pages => pages,
    };
    let pragma = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::raw_sql(pragma).execute(connection).await.map(|_| ())
}

#[cfg(not(test))]
#[expect(clippy::unused_async, reason = "the shape of its test version")]
pub(super) async fn full_disk_for_tests(
    _: &mut SqliteConnection,
    _: &Limits,
) -> Result<(), sqlx::Error> {
    Ok(())
}

fn migration_error(path: &Path, error: MigrateError) -> OpenError {
    let path = path.to_owned();
    let known = MIGRATIONS.iter().map(|it| it.version).max().unwrap_or(0);
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::VersionMissing(found) if found > known => {
            OpenError::Other(StoreError::NewerSchema { path, found, known })
        }
        error => OpenError::Other(StoreError::ForeignSchema {
            path,
            detail: error.to_string(),
        }),
    }
}

/// Opens the file and loads the rollouts' states; a corrupt file is set aside and a new one opened.
pub(super) async fn open_or_set_aside(
    config: &StoreConfig,
    limits: &Limits,
    now: UnixMillis,
) -> Result<(SqliteConnection, Known, Option<PathBuf>), StoreError> {
    let reason = match open_and_load(&config.path, limits).await {
        Ok((connection, known)) => return Ok((connection, known, None)),
        Err(OpenError::Other(error)) => return Err(error),
        Err(OpenError::Corrupt(reason)) => reason,
    };
    let aside = set_aside(&config.path, now)
        .await
        .map_err(|error| StoreError::Unavailable {
            reason: format!("{reason}, and it cannot be set aside ({error})"),
        })?;
    match open_and_load(&config.path, limits).await {
        Ok((connection, known)) => Ok((connection, known, Some(aside))),
        Err(OpenError::Other(error)) => Err(error),
        Err(OpenError::Corrupt(reason)) => Err(StoreError::Unavailable { reason }),
    }
}

async fn open_and_load(
    path: &Path,
    limits: &Limits,
) -> Result<(SqliteConnection, Known), OpenError> {
    let mut connection = open(path, limits).await?;
    match write::load_states(&mut connection).await {
        Ok(known) => Ok((connection, known)),
        Err(error) => {
            drop(connection.close().await);
            Err(error.into())
        }
    }
}

/// Renames the broken file. Call it only after every connection was closed.
pub(super) async fn set_aside(path: &Path, now: UnixMillis) -> io::Result<PathBuf> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || health::set_aside(&path, now))
        .await
        .unwrap_or_else(|_| Err(io::Error::other("interrupted")))
}

/// A connection that can only read, beside all others.
pub(super) async fn look(path: &Path, limits: &Limits) -> Result<SqliteConnection, sqlx::Error> {
    options(path, limits).read_only(true).connect().await
}

/// A pool that can only read. It connects when it is first used, after the writer made the file.
pub(super) fn readers(path: &Path, limits: &Limits) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options(path, limits).read_only(true))
}
