//! The store as a process sees it that may not write yet: where the rollouts stand, and what lives on the
//! canary.
//!
//! Each look opens the file read-only and closes it again, so that it holds up no checkpoint of the process
//! that writes, and follows the path if that one makes a new file. The schema may be an older or a newer
//! one: only columns that every release has are named.

use std::path::Path;

use sqlx::SqlitePool;

use super::error::describe;
use super::limits::Limits;
use super::{RolloutRow, StoreError, learned, read, sqlite};
use crate::clock::UnixMillis;

/// All stored rollouts, by name, the latest first among those of one name.
///
/// # Errors
/// [`StoreError::Unavailable`] when there is no such file, or it cannot be read.
pub async fn rollouts(path: &Path) -> Result<Vec<RolloutRow>, StoreError> {
    let pool = pool(path);
    let found = read::rollouts(&pool).await;
    pool.close().await;
    found.map_err(unavailable)
}

/// The ids of a canary that are not past yet, with the times of their ends.
///
/// # Errors
/// [`StoreError::Unavailable`] when there is no such file, or it cannot be read.
pub async fn learned(
    path: &Path,
    canary: u64,
    now: UnixMillis,
) -> Result<Vec<(u64, UnixMillis)>, StoreError> {
    let pool = pool(path);
    let most = Limits::default().kept_learned;
    let found = learned::ids(&pool, canary.cast_signed(), now, most).await;
    pool.close().await;
    found.map_err(unavailable)
}

/// Ids of a canary that end after `end`, those that end last first; as many as one look takes.
///
/// # Errors
/// [`StoreError::Unavailable`] when there is no such file, or it cannot be read.
pub async fn learned_until_after(
    path: &Path,
    canary: u64,
    end: UnixMillis,
) -> Result<Vec<(u64, UnixMillis)>, StoreError> {
    let pool = pool(path);
    // One page.
    let found = learned::ids(&pool, canary.cast_signed(), end, 1).await;
    pool.close().await;
    found.map_err(unavailable)
}

fn pool(path: &Path) -> SqlitePool {
    sqlite::readers(path, &Limits::default())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` takes"
)]
fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable {
        reason: describe(&error),
    }
}
