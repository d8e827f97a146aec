//! The transactions on states and decisions, by name. All take the writer's connection; none is ever
//! cancelled.
//!
//! After any error the caller must close the connection: sqlx keeps counting a transaction that SQLite
//! has already rolled back.

use sqlx::{Connection, SqliteConnection};

use super::inbox::Commit;
use super::{Committed, DecisionRow, Known, RolloutRow, StoreError};

/// Never waits for a lock that it would have to give up later: a deferred upgrade fails at once.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// The states in the file.
pub(super) async fn load_states(connection: &mut SqliteConnection) -> Result<Known, sqlx::Error> {
    let rows = super::read::rollouts(connection).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.rollout_id.clone(), row))
        .collect())
}

/// The number of the latest decision in the file, 0 without any.
pub(super) async fn last_decision(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM decision")
        .fetch_one(connection)
        .await
}

/// Stores a state and its decision, safe from a loss of power. The inner result is the answer to the
/// caller; the outer one is trouble.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    commit: &Commit,
) -> Result<Result<Committed, StoreError>, sqlx::Error> {
    sqlx::query("PRAGMA synchronous = FULL")
        .execute(&mut *connection)
        .await?;
    let result = commit_if_current(connection, commit).await?;
    sqlx::query("PRAGMA synchronous = NORMAL")
        .execute(connection)
        .await?;
    Ok(result)
}

async fn commit_if_current(
    connection: &mut SqliteConnection,
    commit: &Commit,
) -> Result<Result<Committed, StoreError>, sqlx::Error> {
    let row = &commit.row;
    let version = row.version + 1;
    let mut transaction = connection.begin_with(BEGIN).await?;
    let stored: Option<i64> =
        sqlx::query_scalar("SELECT version FROM rollout_state WHERE rollout_id = $1")
            .bind(&row.rollout_id)
            .fetch_optional(&mut *transaction)
            .await?;
    let stored = stored.unwrap_or(0);
    if stored == version && commit.tried {
        // The disk may have had it all although the commit reported an error.
        if let Some(done) = find_committed(&mut transaction, commit, version).await? {
            transaction.rollback().await?;
            return Ok(Ok(done));
        }
    }
    if stored != row.version {
        transaction.rollback().await?;
        return Ok(Err(StoreError::Conflict {
            rollout_id: row.rollout_id.clone(),
            expected: row.version,
            stored,
        }));
    }
    put_state(&mut transaction, row, version).await?;
    let decision_id = match &commit.decision {
        Some(decision) => Some(insert_decision(&mut transaction, decision, version).await?),
        None => None,
    };
    transaction.commit().await?;
    Ok(Ok(Committed {
        version,
        decision_id,
    }))
}

/// Looks whether an earlier try of this very commit was stored after all.
async fn find_committed(
    connection: &mut SqliteConnection,
    commit: &Commit,
    version: i64,
) -> Result<Option<Committed>, sqlx::Error> {
    let Some(decision) = &commit.decision else {
        let state: Option<String> =
            sqlx::query_scalar("SELECT state FROM rollout_state WHERE rollout_id = $1")
                .bind(&commit.row.rollout_id)
                .fetch_optional(connection)
                .await?;
        return Ok(
            (state.as_ref() == Some(&commit.row.state)).then_some(Committed {
                version,
                decision_id: None,
            }),
        );
    };
    let id: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM decision WHERE rollout_id = $1 AND version = $2 AND at = $3 AND kind = $4 AND reason = $5",
    )
    .bind(&decision.rollout_id)
    .bind(version)
    .bind(decision.at.0)
    .bind(&decision.kind)
    .bind(&decision.reason)
    .fetch_optional(connection)
    .await?;
    Ok(id.map(|id| Committed {
        version,
        decision_id: Some(id),
    }))
}

/// Writes the states last known into a file that has lost or never had them, and lets the numbers of its
/// decisions go on after `last_decision`, since logs and people know the earlier ones. Also proves that
/// the database takes writes at all, since it always changes a page.
pub(super) async fn restore_states(
    connection: &mut SqliteConnection,
    known: &Known,
    last_decision: i64,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    for row in known.values() {
        put_state(&mut transaction, row, row.version).await?;
    }
    sqlx::query(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'decision', $1
         WHERE $1 > 0 AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'decision')",
    )
    .bind(last_decision)
    .execute(&mut *transaction)
    .await?;
    // Writing the header's free field changes nothing that anybody reads.
    sqlx::query("PRAGMA user_version = 1")
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

async fn put_state(
    connection: &mut SqliteConnection,
    row: &RolloutRow,
    version: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO rollout_state (rollout_id, rollout, version, updated_at, state)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (rollout_id) DO UPDATE SET rollout = excluded.rollout, version = excluded.version,
             updated_at = excluded.updated_at, state = excluded.state",
    )
    .bind(&row.rollout_id)
    .bind(&row.name)
    .bind(version)
    .bind(row.updated_at.0)
    .bind(&row.state)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Stores a state on top of its own version; one that a decision has overtaken changes nothing.
pub(super) async fn save_state(
    connection: &mut SqliteConnection,
    row: &RolloutRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO rollout_state (rollout_id, rollout, version, updated_at, state)
         SELECT $1, $2, $3, $4, $5
         WHERE $3 = 0 OR EXISTS (SELECT 1 FROM rollout_state WHERE rollout_id = $1)
         ON CONFLICT (rollout_id) DO UPDATE SET rollout = excluded.rollout,
             updated_at = excluded.updated_at, state = excluded.state
         WHERE version = excluded.version",
    )
    .bind(&row.rollout_id)
    .bind(&row.name)
    .bind(row.version)
    .bind(row.updated_at.0)
    .bind(&row.state)
    .execute(connection)
    .await
    .map(|_| ())
}

async fn insert_decision(
    connection: &mut SqliteConnection,
    decision: &DecisionRow,
    version: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO decision (at, rollout, rollout_id, version, kind, weight_from_bps, weight_to_bps,
             stage, decided_by, reason, evidence)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
    )
    .bind(decision.at.0)
    .bind(&decision.rollout)
    .bind(&decision.rollout_id)
    .bind(version)
    .bind(&decision.kind)
    .bind(decision.weight_from.bps())
    .bind(decision.weight_to.bps())
    .bind(decision.stage)
    .bind(&decision.by)
    .bind(&decision.reason)
    .bind(decision.evidence.to_string())
    .fetch_one(connection)
    .await
}
