//! Whether the file may be corrupt although the writer gets along with it.
//!
//! The writer has most pages that it needs in memory and may not notice for days that the file has become
//! something else. Readers notice at once, and their word is a doubt: the whole file is then read, on a connection
//! and a task of its own, so that nobody waits for it. That costs the disk minutes if the file is large, so it is
//! done seldom, and each time is told. Nothing here sets a file aside; that is the writer's business.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::StoreError;
use super::error::{Fault, describe, fault_of};
use super::inbox::Shared;
use super::limits::Limits;
use super::sqlite::{self, OpenError};

/// The longest pause between two checks of a file.
const PAUSE_MAX: Duration = Duration::from_secs(86_400);

/// Raised by readers, settled by the writer.
#[derive(Debug, Default)]
pub(super) struct Doubt(AtomicBool);

impl Doubt {
    /// What a reader's error means for its caller. Raises the doubt if it says that the file is corrupt.
    pub(super) fn read_failed(&self, error: &sqlx::Error) -> StoreError {
        if fault_of(error) == Fault::Corrupt {
            self.raise();
        }
        StoreError::Unavailable {
            reason: describe(error),
        }
    }

    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn settle(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The checks of one file: one at a time, and the longer apart the more of them found nothing.
#[derive(Debug)]
pub(super) struct Checks {
    running: Option<JoinHandle<Result<(), OpenError>>>,
    began: Instant,
    /// The latest check found nothing, and yet there was another doubt: look at the indexes as well.
    thorough: bool,
    pause: Duration,
    next_at: Instant,
}

impl Checks {
    /// Of a file that was never checked.
    pub(super) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            running: None,
            began: now,
            thorough: false,
            pause: limits.check_every,
            next_at: now,
        }
    }

    /// The file is another one: no doubt is left, and what a check still finds counts for nothing.
    pub(super) fn begin_anew(&mut self, shared: &Shared) {
        *self = Self::new(&shared.limits);
        shared.doubt.settle();
    }

    /// Begins a check if there is a doubt and it is time, and hears what the one under way has found. Waits for
    /// nothing.
    ///
    /// # Errors
    /// Names the first damage.
    pub(super) async fn turn(&mut self, shared: &Shared) -> Result<(), String> {
        let now = Instant::now();
        if let Some(ended) = self.running.take_if(|check| check.is_finished()) {
            // A check that could not end has found nothing out.
            let Ok(found) = ended.await else {
                return Ok(());
            };
            return self.end(found, shared);
        }
        let is_due = shared.doubt.is_raised() && now >= self.next_at;
        if is_due && self.running.is_none() && shared.close_by().is_none() {
            tracing::warn!(
                thorough = self.thorough,
                "a reader found the database file corrupt; all of it is read now"
            );
            self.began = now;
            let (path, limits) = (shared.config.path.clone(), shared.limits.clone());
            self.running = Some(tokio::spawn(check(path, limits, self.thorough)));
        }
        Ok(())
    }

    fn end(&mut self, found: Result<(), OpenError>, shared: &Shared) -> Result<(), String> {
        self.next_at = Instant::now() + self.pause;
        let seconds = self.began.elapsed().as_secs_f64();
        match found {
            Ok(()) => {
                let again_s = self.pause.as_secs();
                tracing::warn!(
                    seconds,
                    again_s,
                    "the database file is in order; readers open it anew"
                );
                self.thorough = true;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                // What the readers hold in memory is all that is left to doubt. They close when they are done.
                drop(shared.replace_readers(sqlite::readers(&shared.config.path, &shared.limits)));
                shared.doubt.settle();
                Ok(())
            }
            Err(OpenError::Corrupt(damage)) => {
                tracing::warn!(seconds, damage, "the database file is corrupt");
                Err(damage)
            }
            Err(OpenError::Other(error)) => {
                // The doubt stays for the next time.
                tracing::warn!(seconds, %error, "the database file cannot be checked");
                Ok(())
            }
        }
    }
}

/// Reads the whole file through a connection that is new.
async fn check(path: PathBuf, limits: Limits, thorough: bool) -> Result<(), OpenError> {
    let mut connection = sqlite::look(&path, &limits).await?;
    let check = if thorough {
        "PRAGMA integrity_check(1)"
    } else {
        "PRAGMA quick_check(1)"
    };
    let found = sqlx::query_scalar(check).fetch_one(&mut connection).await;
    drop(connection.close().await);
    let found: String = found?;
    if found == "ok" {
        return Ok(());
    }
    let damage = format!("the database file is corrupt ({found})");
    Err(OpenError::Corrupt(damage))
}
