//! Whether the file may be corrupt although the writer gets along with it.
//!
//! The writer has most pages that it needs in memory and may not notice for days that the file has become
//! something else. Readers notice at once, and their word is a doubt: the writer then opens the file anew
//! and reads all of it. Nothing here sets a file aside; that is the writer's business.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::SqliteConnection;

use super::StoreError;
use super::error::{Fault, describe, fault_of};
use super::sqlite::OpenError;

/// Raised by readers, settled by the writer.
#[derive(Debug, Default)]
pub(super) struct Doubt(AtomicBool);

impl Doubt {
    /// What a reader's error means for its caller. Raises the doubt if it says that the file is corrupt.
    pub(super) fn read_failed(&self, error: &sqlx::Error) -> StoreError {
        if fault_of(error) == Fault::Corrupt {
            self.0.store(true, Ordering::Relaxed);
        }
        StoreError::Unavailable {
            reason: describe(error),
        }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Reads the whole file through a connection that is new, if there is a doubt, and settles it.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] names the first damage.
    pub(super) async fn settle(&self, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        if !self.is_raised() {
            return Ok(());
        }
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(connection)
            .await?;
        // Whatever was found, the next file is not the one that was doubted.
        self.0.store(false, Ordering::Relaxed);
        if found == "ok" {
            return Ok(());
        }
        let damage = format!("the database file is corrupt ({found})");
        Err(OpenError::Corrupt(damage))
    }
}
