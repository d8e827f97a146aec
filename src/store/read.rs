//! What is read back, by name. Short queries only: a long one would keep the WAL from shrinking.

use sqlx::{Executor, FromRow, Row, Sqlite, SqlitePool, sqlite::SqliteRow};

use super::{RolloutRow, StoredDecision, Totals};
use crate::arm::{Arm, PerArm, Weight};
use crate::clock::UnixMillis;

/// All states, by name, the latest first.
pub(super) async fn rollouts<'c>(
    from: impl Executor<'c, Database = Sqlite>,
) -> Result<Vec<RolloutRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT rollout_id, rollout, version, updated_at, state FROM rollout_state
         ORDER BY rollout, updated_at DESC",
    )
    .fetch_all(from)
    .await
}

impl FromRow<'_, SqliteRow> for RolloutRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            rollout_id: row.try_get("rollout_id")?,
            name: row.try_get("rollout")?,
            version: row.try_get("version")?,
            state: row.try_get("state")?,
            updated_at: UnixMillis(row.try_get("updated_at")?),
        })
    }
}

/// Decisions, newest first.
pub(super) async fn decisions(
    pool: &SqlitePool,
    rollout: Option<String>,
    limit: u32,
    before: Option<i64>,
) -> Result<Vec<StoredDecision>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, at, rollout, rollout_id, kind, weight_from_bps, weight_to_bps, stage, decided_by,
             reason, evidence
         FROM decision
         WHERE ($1 IS NULL OR rollout = $1) AND ($2 IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3",
    )
    .bind(rollout)
    .bind(before)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Decisions with ids above `after`, oldest first.
pub(super) async fn decisions_after(
    pool: &SqlitePool,
    after: i64,
    limit: u32,
) -> Result<Vec<StoredDecision>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, at, rollout, rollout_id, kind, weight_from_bps, weight_to_bps, stage, decided_by,
             reason, evidence
         FROM decision WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

impl FromRow<'_, SqliteRow> for StoredDecision {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let weight = |column| -> Result<Weight, sqlx::Error> {
            Ok(Weight::from_bps(row.try_get(column)?).unwrap_or(Weight::FULL))
        };
        let evidence: String = row.try_get("evidence")?;
        Ok(Self {
            id: row.try_get("id")?,
            at: UnixMillis(row.try_get("at")?),
            rollout: row.try_get("rollout")?,
            rollout_id: row.try_get("rollout_id")?,
            kind: row.try_get("kind")?,
            weight_from: weight("weight_from_bps")?,
            weight_to: weight("weight_to_bps")?,
            stage: row.try_get("stage")?,
            by: row.try_get("decided_by")?,
            reason: row.try_get("reason")?,
            evidence: serde_json::from_str(&evidence)
                .unwrap_or(serde_json::Value::String(evidence)),
        })
    }
}

/// Cumulative counts of both arms; zeros for a rollout without traffic.
pub(super) async fn totals<'c>(
    from: impl Executor<'c, Database = Sqlite>,
    rollout_id: String,
) -> Result<PerArm<Totals>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT arm, requests, errors, rate_limited, rejected, client_gone, masked, input_tokens,
             cached_input_tokens, output_tokens, cost_usd, unpriced, no_usage, reported_cost_usd
         FROM arm_total WHERE rollout_id = $1",
    )
    .bind(rollout_id)
    .fetch_all(from)
    .await?;
    let mut totals = PerArm::<Totals>::default();
    for row in rows {
        if let Some(arm) = Arm::from_word(row.try_get("arm")?) {
            *totals.get_mut(arm) = totals_of(&row)?;
        }
    }
    Ok(totals)
}

/// The counts of a row.
pub(super) fn totals_of(row: &SqliteRow) -> Result<Totals, sqlx::Error> {
    let count = |column| -> Result<u64, sqlx::Error> {
        let count: i64 = row.try_get(column)?;
        Ok(u64::try_from(count).unwrap_or(0))
    };
    Ok(Totals {
        requests: count("requests")?,
        errors: count("errors")?,
        rate_limited: count("rate_limited")?,
        rejected: count("rejected")?,
        client_gone: count("client_gone")?,
        masked: count("masked")?,
        input_tokens: count("input_tokens")?,
        cached_input_tokens: count("cached_input_tokens")?,
        output_tokens: count("output_tokens")?,
        cost_usd: row.try_get("cost_usd")?,
        unpriced: count("unpriced")?,
        no_usage: count("no_usage")?,
        reported_cost_usd: row.try_get("reported_cost_usd")?,
    })
}
