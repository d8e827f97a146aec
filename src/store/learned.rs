//! Ids of state that the canary keeps: recorded in batches, read back at the start, deleted when past.
//!
//! Rows name the canary that they belong to. Those of another one are never read, and go in time.

use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::insert::Insert;
use super::{Store, StoreError};
use crate::clock::UnixMillis;
use crate::learned::LearnedId;

/// Ids of another canary stay for so long after they were learned: whoever moves the canary may move it back.
const KEPT_OF_OTHERS_MS: i64 = 86_400_000;
/// Rows that are read at once.
const PAGE: i64 = 10_000;

impl Store {
    /// Records ids that were learned. Never waits: what the queue cannot take is dropped and counted.
    pub fn record_learned(&self, ids: Vec<LearnedId>) {
        self.0.shared.queue_learned(ids);
    }

    /// Only ids of this canary are kept from now on; those of others are deleted a day after they were learned.
    pub fn keep_learned_of(&self, canary: u64) {
        self.0.shared.keep_learned_of(canary.cast_signed());
    }

    /// The ids of a canary that are not past yet, with the times of their ends: those that end last come
    /// first, about as many as the table in memory holds at most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn learned(
        &self,
        canary: u64,
        now: UnixMillis,
    ) -> Result<Vec<(u64, UnixMillis)>, StoreError> {
        let most = self.0.shared.limits.kept_learned;
        self.read(async move |pool| ids(&pool, canary.cast_signed(), now, most).await)
            .await
    }
}

/// Reads page by page: a row weighs many times what is kept of it.
pub(super) async fn ids(
    pool: &SqlitePool,
    canary: i64,
    now: UnixMillis,
    most: usize,
) -> Result<Vec<(u64, UnixMillis)>, sqlx::Error> {
    let mut found: Vec<(u64, UnixMillis)> = Vec::new();
    let (mut last_end, mut last_hash) = (i64::MAX, i64::MAX);
    loop {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT hash, expires_at FROM learned_id
             WHERE canary = $1 AND expires_at > $2 AND (expires_at, hash) < ($3, $4)
             ORDER BY expires_at DESC, hash DESC LIMIT $5",
        )
        .bind(canary)
        .bind(now.0)
        .bind(last_end)
        .bind(last_hash)
        .bind(PAGE)
        .fetch_all(pool)
        .await?;
        let Some(&(hash, end)) = rows.last().filter(|_| found.len() < most) else {
            return Ok(found);
        };
        (last_end, last_hash) = (end, hash);
        let ids = rows.into_iter();
        found.extend(ids.map(|(hash, end)| (hash.cast_unsigned(), UnixMillis(end))));
    }
}

static LEARNED: LazyLock<Insert> = LazyLock::new(|| {
    let renew = "ON CONFLICT (hash) DO UPDATE SET canary = excluded.canary,
        learned_at = excluded.learned_at, expires_at = excluded.expires_at";
    Insert::new("learned_id", "hash, canary, learned_at, expires_at", renew)
});

/// Adds ids, or moves on the end of those that are there.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    ids: &[LearnedId],
) -> Result<(), sqlx::Error> {
    LEARNED
        .run(connection, ids, |row, id: &LearnedId| {
            row.push_bind(id.hash.cast_signed())
                .push_bind(id.canary.cast_signed())
                .push_bind(id.learned_at.0)
                .push_bind(id.expires_at.0);
        })
        .await
}

/// Deletes some ids that are past, belong to another canary than `canary` for a day, or are too many; returns
/// how many. `canary` is `None` until it is known; `most` of its ids are kept.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    canary: Option<i64>,
    now: UnixMillis,
    most: usize,
) -> Result<u64, sqlx::Error> {
    let Some(canary) = canary else {
        return Ok(0);
    };
    let last_kept: Option<i64> = sqlx::query_scalar(
        "SELECT expires_at FROM learned_id WHERE canary = $1 ORDER BY expires_at DESC LIMIT 1 OFFSET $2",
    )
    .bind(canary)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_optional(&mut *connection)
    .await?;
    let past = now.0.max(last_kept.unwrap_or(i64::MIN));
    let left = now.0.saturating_sub(KEPT_OF_OTHERS_MS);
    let mut deleted = 0;
    for (whose, past, left) in [
        ("<", now.0, left),
        (">", now.0, left),
        ("=", past, i64::MIN),
    ] {
        let delete = format!(
            "DELETE FROM learned_id WHERE hash IN
                 (SELECT hash FROM learned_id
                  WHERE canary {whose} $1 AND (expires_at <= $2 OR learned_at <= $3) LIMIT 2000)"
        );
        let done = sqlx::query(AssertSqlSafe(delete))
            .bind(canary)
            .bind(past)
            .bind(left)
            .execute(&mut *connection)
            .await?;
        deleted += done.rows_affected();
    }
    Ok(deleted)
}
