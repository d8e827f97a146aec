//! The task that owns the writing connection.
//!
//! It wakes every 250 ms, earlier for 4,000 attempts or a decision, and stores first the decisions one by
//! one, then everything else in one transaction, then does one small step of retention.
//! **Trouble:** after any failure the connection is closed, the rows are kept, health turns bad once,
//! and the next try comes after a pause that doubles. **Recovery:** a new connection proves itself with
//! a write, then the kept rows are stored, then health turns good. No database call is ever cancelled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::time::Instant;

use super::doubt::Checks;
use super::error::{Fault, Trouble, describe, fault_of};
use super::health::{Identity, check_folder};
use super::inbox::{Batch, Shared};
use super::retention::Retention;
use super::rows::Kinds;
use super::sqlite;
use super::{Known, StoreError, batch, write};
use crate::clock::UnixMillis;

/// The task's own things.
pub(super) struct Writer {
    shared: Arc<Shared>,
    connection: Option<SqliteConnection>,
    /// The files that `connection` belongs to.
    identity: Option<Identity>,
    /// Rows that a try could not store.
    batch: Batch,
    kinds: Kinds,
    /// The states that the file holds, to be written into its successor if it gets lost.
    known: Known,
    /// The number of the latest decision that is known.
    last_decision: i64,
    /// The file is another one than before: write `known` into it.
    restore: bool,
    retention: Retention,
    checks: Checks,
    /// What keeps rows from being stored.
    write_error: Option<String>,
    /// What is wrong with the folder.
    folder_error: Option<String>,
    pause: Duration,
    retry_at: Instant,
    probe_at: Instant,
}

/// Refuses all callers once the writer is gone, however it went.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, connection: SqliteConnection, known: Known) -> Self {
        let now = Instant::now();
        let retention = Retention::new(&shared.config, &shared.limits);
        let checks = Checks::new(&shared.limits);
        Self {
            shared,
            connection: Some(connection),
            identity: None,
            batch: Batch::default(),
            kinds: Kinds::default(),
            known,
            last_decision: 0,
            restore: false,
            retention,
            checks,
            write_error: None,
            folder_error: None,
            pause: Duration::ZERO,
            retry_at: now,
            probe_at: now,
        }
    }

    /// Works until the store is closed.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        let _guard = EndGuard(Arc::clone(&self.shared));
        if self.learn_last_decision().await.is_err() {
            tracing::debug!("the file cannot be read; the first write will meet the same trouble");
        }
        loop {
            self.wait().await;
            // What was handed over before the closing has at least one whole turn to be stored in.
            let close_by = self.shared.close_by();
            self.turn().await;
            let now = Instant::now();
            match close_by {
                Some(close_by) if now >= close_by || self.is_done() => break,
                _ => {}
            }
        }
        self.end().await
    }

    async fn wait(&self) {
        let close_by = self.shared.close_by();
        if self.write_error.is_none() {
            if close_by.is_none() {
                self.shared.wait_for_work().await;
            }
            return;
        }
        let until = close_by.map_or(self.retry_at, |close_by| close_by.min(self.retry_at));
        let pause = until.saturating_duration_since(Instant::now());
        self.shared.wait_for_call(pause).await;
    }

    fn is_done(&self) -> bool {
        self.write_error.is_none() && self.batch.is_empty() && self.shared.is_empty()
    }

    async fn turn(&mut self) {
        let now = Instant::now();
        if now >= self.probe_at {
            self.probe_at = now + self.shared.limits.probe_every;
            self.folder_error = self.on_path(check_folder).await.and_then(Result::err);
        }
        if now >= self.retry_at {
            match self.store().await {
                Ok(()) => {
                    self.write_error = None;
                    self.pause = Duration::ZERO;
                }
                Err(trouble) => self.fail(trouble).await,
            }
        }
        self.report();
    }

    /// Tells the watchers; while the store fails, also those who asked for one try only.
    fn report(&self) {
        let error = self.write_error.as_ref().or(self.folder_error.as_ref());
        self.shared
            .health
            .send_if_modified(|health| health.update(UnixMillis::now(), error.cloned()));
        if let Some(reason) = &self.write_error {
            for commit in self.shared.take_impatient_commits() {
                let reason = reason.clone();
                commit.reply(Err(StoreError::Unavailable { reason }));
            }
        }
    }

    async fn store(&mut self) -> Result<(), Trouble> {
        self.check_identity().await?;
        let checked = self.checks.turn(&self.shared).await;
        checked.map_err(Trouble::Corrupt)?;
        if self.connection.is_none() {
            self.reconnect().await?;
        }
        self.store_commits().await?;
        self.store_batch().await?;
        let due = self.retention.is_due(Instant::now());
        if due && !self.shared.is_busy() && self.shared.close_by().is_none() {
            let now = UnixMillis::now();
            if let Some(connection) = &mut self.connection {
                let canary = self.shared.canary();
                // The clock may have jumped: no kind is used again that is deleted now.
                self.kinds.begin_day(now);
                self.retention.turn(connection, now, canary).await?;
            }
        }
        Ok(())
    }

    /// Runs `look` on the path, on a thread that may wait for the disk.
    async fn on_path<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Option<T> {
        let path = self.shared.config.path.clone();
        tokio::task::spawn_blocking(move || look(&path)).await.ok()
    }

    /// Notices that the file at the path is not the open one any more.
    async fn check_identity(&mut self) -> Result<(), Trouble> {
        if self.connection.is_none() {
            return Ok(());
        }
        let Some(now) = self.on_path(Identity::of).await else {
            return Ok(());
        };
        match self.identity {
            Some(before) if !before.is_same(now) => {
                self.let_go().await;
                self.identity = None;
                self.restore = true;
                let retired = self
                    .on_path(move |path| before.retire_wal(path, UnixMillis::now()))
                    .await;
                let reason = "the database file was deleted, moved or replaced while in use";
                Err(Trouble::Passing(match retired {
                    Some(Err(error)) => {
                        format!("{reason}, and its journal cannot be moved ({error})")
                    }
                    _ => format!("{reason}; a new one is made"),
                }))
            }
            _ => {
                self.identity = Some(now);
                Ok(())
            }
        }
    }

    /// Closes every connection to the file, so that it may be moved.
    async fn let_go(&mut self) {
        self.disconnect().await;
        let readers = sqlite::readers(&self.shared.config.path, &self.shared.limits);
        self.shared.replace_readers(readers).close().await;
        self.checks.begin_anew(&self.shared);
    }

    async fn disconnect(&mut self) {
        self.kinds.forget();
        if let Some(connection) = self.connection.take() {
            // The connection is given up because it failed: its last words are of no use.
            drop(connection.close().await);
        }
    }

    async fn reconnect(&mut self) -> Result<(), Trouble> {
        let connection = sqlite::open(&self.shared.config.path, &self.shared.limits).await?;
        let connection = self.connection.insert(connection);
        let nothing = Known::new();
        let known = if self.restore { &self.known } else { &nothing };
        let last_decision = if self.restore { self.last_decision } else { 0 };
        write::restore_states(connection, known, last_decision).await?;
        let replaced = u64::from(std::mem::take(&mut self.restore));
        self.shared.health.send_if_modified(|health| {
            health.files_replaced += replaced;
            false
        });
        self.learn_last_decision().await?;
        self.identity = self.on_path(Identity::of).await;
        Ok(())
    }

    /// Remembers how far the decisions are numbered, for a file that takes this one's place.
    async fn learn_last_decision(&mut self) -> Result<(), Trouble> {
        if let Some(connection) = &mut self.connection {
            let found = write::last_decision(connection).await?;
            self.last_decision = self.last_decision.max(found);
        }
        Ok(())
    }

    async fn store_commits(&mut self) -> Result<(), Trouble> {
        while let Some(connection) = &mut self.connection
            && let Some(mut commit) = self.shared.next_commit()
        {
            sqlite::full_disk_for_tests(connection, &self.shared.limits).await?;
            match write::commit(connection, &commit).await {
                Ok(result) => {
                    if let Ok(committed) = &result {
                        let id = committed.decision_id.unwrap_or(0);
                        self.last_decision = self.last_decision.max(id);
                        let mut row = commit.row.clone();
                        row.version = committed.version;
                        self.known.insert(row.rollout_id.clone(), row);
                    }
                    commit.reply(result);
                }
                Err(error) if fault_of(&error) == Fault::Refused => {
                    let detail = error.to_string();
                    commit.reply(Err(StoreError::Refused { detail }));
                    return Err(Trouble::Reconnect);
                }
                Err(error) => {
                    commit.tried = true;
                    // `report` answers it, unless it is one of those that stay.
                    self.shared.put_back(commit);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn store_batch(&mut self) -> Result<(), Trouble> {
        if self.batch.is_empty() {
            self.batch = self.shared.next_batch();
        }
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        if self.batch.is_empty() {
            return Ok(());
        }
        sqlite::full_disk_for_tests(connection, &self.shared.limits).await?;
        let rows = self.shared.config.requests;
        let (kinds, now) = (&mut self.kinds, UnixMillis::now());
        match batch::store_batch(connection, &self.batch, rows, kinds, now).await {
            Ok(()) => {
                for row in std::mem::take(&mut self.batch).states {
                    match self.known.get(&row.rollout_id) {
                        Some(known) if known.version != row.version => {}
                        _ => drop(self.known.insert(row.rollout_id.clone(), row)),
                    }
                }
                Ok(())
            }
            Err(error) => {
                if fault_of(&error) == Fault::Refused {
                    // It would be refused for ever and keep all others from being stored.
                    let lost = std::mem::take(&mut self.batch);
                    let samples = lost.attempts().count() + lost.learned.len();
                    self.shared.count_dropped(samples, lost.cells.len());
                }
                Err(error.into())
            }
        }
    }

    async fn fail(&mut self, trouble: Trouble) {
        self.disconnect().await;
        let reason = match trouble {
            Trouble::Reconnect => return,
            Trouble::Passing(reason) => reason,
            Trouble::Corrupt(reason) => self.replace_corrupt(&reason).await,
        };
        self.write_error.get_or_insert(reason);
        let limits = &self.shared.limits;
        self.pause = (self.pause * 2).clamp(limits.retry_first, limits.retry_at_most);
        self.retry_at = Instant::now() + self.pause;
    }

    /// Sets the broken file aside; the next try makes a new one.
    async fn replace_corrupt(&mut self, reason: &str) -> String {
        self.let_go().await;
        self.identity = None;
        match sqlite::set_aside(&self.shared.config.path, UnixMillis::now()).await {
            Ok(aside) => {
                self.restore = true;
                let text = format!("{reason}; set aside as {}", aside.display());
                self.shared.health.send_if_modified(|health| {
                    health.set_aside = Some(aside);
                    false
                });
                text
            }
            Err(error) => format!("{reason}, and it cannot be set aside ({error})"),
        }
    }

    async fn end(mut self) -> Result<(), StoreError> {
        let (attempts, commits) = self.shared.end();
        let attempts = attempts + self.batch.attempts().count();
        self.shared.count_dropped(attempts, 0);
        self.shared.readers().close().await;
        let mut error = self.write_error.take();
        if let Some(mut connection) = self.connection.take() {
            // Leaves one tidy file. A reader in another process may prevent it, which does no harm.
            drop(
                sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
                    .execute(&mut connection)
                    .await,
            );
            if let Err(closing) = connection.close().await {
                error.get_or_insert_with(|| describe(&closing));
            }
        }
        if error.is_none() && attempts + commits == 0 {
            return Ok(());
        }
        let error = error.as_deref().unwrap_or("there was no time left");
        Err(StoreError::Unavailable {
            reason: format!("{attempts} attempts and {commits} decisions were not stored: {error}"),
        })
    }
}
