//! What happened over time: counts and times per step, the line of the weight, the decisions of a while.
//!
//! Reads only, and never much at once: a long statement would keep the WAL from shrinking, and a long
//! computation the driver from its work. What is older than two days is known by the hour.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Row, SqlitePool};

use super::aggregate::{HOUR_MS, SLOT_MS};
use super::batch::TOTALS;
use super::intervals::{SKETCHES, measured_of};
use super::retention::FINE_FOR_MS;
use super::{Measured, RolloutKey, Store, StoreError, StoredDecision};
use crate::arm::{Arm, PerArm, Weight};
use crate::clock::UnixMillis;

/// Rows read by one statement.
const PAGE: usize = 500;
/// Changes of the weight that one call gives at most, the latest ones.
const CHANGES_MAX: u32 = 5_000;

/// Live traffic of both arms in one step of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesPoint {
    /// The start of the step, a multiple of its width since 1970.
    pub at: UnixMillis,
    /// What each arm did.
    pub arms: PerArm<Measured>,
}

/// The narrowest step in milliseconds that shows time from `from` on truthfully.
#[must_use]
pub const fn finest_step_ms(from: UnixMillis, now: UnixMillis) -> i64 {
    // The hour at the border may be half merged already.
    if now.millis_since(from) > FINE_FOR_MS - HOUR_MS {
        HOUR_MS
    } else {
        SLOT_MS
    }
}

impl Store {
    /// The rollout of this name, or else of this id; of several ids under one name the one that was in use
    /// last. `None` if there never was one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn find_rollout(&self, name_or_id: &str) -> Result<Option<RolloutKey>, StoreError> {
        let asked = name_or_id.to_owned();
        self.read(async move |pool| find_rollout(&pool, asked).await)
            .await
    }

    /// Live traffic of a rollout id between `from`, rounded down to a step, and `to`, which is not included.
    /// Rising in time; steps without traffic are left out. `step_ms` is a minute at least; below
    /// [`finest_step_ms`] the counts of whole hours stand in their first step.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn series(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
        step_ms: i64,
    ) -> Result<Vec<SeriesPoint>, StoreError> {
        let rollout_id = rollout_id.to_owned();
        self.read(async move |pool| series(&pool, rollout_id, from, to, step_ms).await)
            .await
    }

    /// The effective weight of a rollout id over time: what it was at `from`, then each change up to `to`,
    /// the latest 5,000. Empty if nothing was ever decided.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn weights_between(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<(UnixMillis, Weight)>, StoreError> {
        let rollout_id = rollout_id.to_owned();
        self.read(async move |pool| weights_between(&pool, rollout_id, from, to).await)
            .await
    }

    /// Decisions of a rollout id from `from` to `to`, oldest first; of more than `limit` the latest.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn decisions_between(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
        limit: u32,
    ) -> Result<Vec<StoredDecision>, StoreError> {
        let rollout_id = rollout_id.to_owned();
        self.read(async move |pool| decisions_between(&pool, rollout_id, from, to, limit).await)
            .await
    }
}

async fn find_rollout(pool: &SqlitePool, asked: String) -> Result<Option<RolloutKey>, sqlx::Error> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT rollout_id, rollout FROM rollout_state WHERE rollout = $1 OR rollout_id = $1
         ORDER BY rollout = $1 DESC, updated_at DESC LIMIT 1",
    )
    .bind(asked)
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|(id, name)| RolloutKey {
        id: id.into(),
        name: name.into(),
    }))
}

pub(super) async fn series(
    pool: &SqlitePool,
    rollout_id: String,
    from: UnixMillis,
    to: UnixMillis,
    step_ms: i64,
) -> Result<Vec<SeriesPoint>, sqlx::Error> {
    let step_ms = step_ms.max(SLOT_MS);
    let step_of = |at: i64| at.div_euclid(step_ms) * step_ms;
    // Row by row: a page goes on behind the last row of the page before.
    let page = format!(
        "SELECT slot_at, arm, stage, {TOTALS}, {SKETCHES} FROM interval
         WHERE (slot_at, rollout_id, arm, stage) > ($1, $2, $3, $4) AND slot_at < $5 AND rollout_id = $2
         ORDER BY slot_at, rollout_id, arm, stage LIMIT {PAGE}"
    );
    let mut after: (i64, String, i64) = (step_of(from.0), String::new(), -1);
    let mut points: BTreeMap<i64, PerArm<Measured>> = BTreeMap::new();
    loop {
        let rows = sqlx::query(AssertSqlSafe(page.as_str()))
            .bind(after.0)
            .bind(&rollout_id)
            .bind(&after.1)
            .bind(after.2)
            .bind(to.0)
            .fetch_all(pool)
            .await?;
        for row in &rows {
            let slot_at: i64 = row.try_get("slot_at")?;
            after = (slot_at, row.try_get("arm")?, row.try_get("stage")?);
            if let Some(arm) = Arm::from_word(&after.1) {
                let arms = points.entry(step_of(slot_at)).or_default();
                arms.get_mut(arm).merge(&measured_of(row)?);
            }
        }
        if rows.len() < PAGE {
            break;
        }
    }
    let point = |(at, arms)| SeriesPoint {
        at: UnixMillis(at),
        arms,
    };
    Ok(points.into_iter().map(point).collect())
}

async fn weights_between(
    pool: &SqlitePool,
    rollout_id: String,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<(UnixMillis, Weight)>, sqlx::Error> {
    let before: Option<u16> = sqlx::query_scalar(
        "SELECT weight_to_bps FROM decision WHERE rollout_id = $1 AND at <= $2
         ORDER BY at DESC, id DESC LIMIT 1",
    )
    .bind(&rollout_id)
    .bind(from.0)
    .fetch_optional(pool)
    .await?;
    let mut rows: Vec<(i64, u16, u16)> = sqlx::query_as(
        "SELECT at, weight_from_bps, weight_to_bps FROM decision
         WHERE rollout_id = $1 AND at > $2 AND at <= $3 ORDER BY at DESC, id DESC LIMIT $4",
    )
    .bind(&rollout_id)
    .bind(from.0)
    .bind(to.0)
    .bind(CHANGES_MAX)
    .fetch_all(pool)
    .await?;
    rows.reverse();
    let weight = |bps| Weight::from_bps(bps).unwrap_or(Weight::FULL);
    let mut first = before.or_else(|| rows.first().map(|(_, was, _)| *was));
    if first.is_none() {
        first = sqlx::query_scalar(
            "SELECT weight_from_bps FROM decision WHERE rollout_id = $1 AND at > $2 ORDER BY at, id LIMIT 1",
        )
        .bind(rollout_id)
        .bind(to.0)
        .fetch_optional(pool)
        .await?;
    }
    let mut line: Vec<_> = first.map(|bps| (from, weight(bps))).into_iter().collect();
    for (at, _, bps) in rows {
        if line.last().is_some_and(|(_, now)| *now != weight(bps)) {
            line.push((UnixMillis(at), weight(bps)));
        }
    }
    Ok(line)
}

async fn decisions_between(
    pool: &SqlitePool,
    rollout_id: String,
    from: UnixMillis,
    to: UnixMillis,
    limit: u32,
) -> Result<Vec<StoredDecision>, sqlx::Error> {
    let mut decisions: Vec<StoredDecision> = sqlx::query_as(
        "SELECT id, at, rollout, rollout_id, kind, weight_from_bps, weight_to_bps, stage, decided_by,
             reason, evidence
         FROM decision WHERE rollout_id = $1 AND at >= $2 AND at <= $3
         ORDER BY at DESC, id DESC LIMIT $4",
    )
    .bind(rollout_id)
    .bind(from.0)
    .bind(to.0)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    decisions.reverse();
    Ok(decisions)
}
