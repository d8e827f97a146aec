//! Reads rows of single attempts, newest first, in short statements over a bounded time.
//!
//! Millions of rows may lie between two that fit. Failures have an index of their own; everything else is
//! looked at window by window, and the search ends after a while and says how far it came.

use std::time::Duration;

use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, Row, SqlitePool};
use tokio::time::Instant;

use super::{Store, StoreError, as_time};
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::outcome::{Blame, Outcome};

/// A search ends after this.
const SEARCH_FOR: Duration = Duration::from_millis(250);
/// One statement should take no longer: windows grow below it and shrink above it.
const STATEMENT: Duration = Duration::from_millis(20);
/// Ids in the first window.
const WINDOW: i64 = 10_000;
/// The first and the last id.
pub(super) const ENDS: &str =
    "SELECT (SELECT min(id) FROM request_row), (SELECT max(id) FROM request_row)";

/// Which attempts are asked for. `None` is every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// The rollout's name.
    pub rollout: Option<String>,
    /// The arm that was asked.
    pub arm: Option<Arm>,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// Only those whose outcome is not `ok`.
    pub failed: bool,
    /// Only ids below this one, for paging.
    pub before: Option<i64>,
    /// Rows at most.
    pub limit: usize,
}

/// Attempts, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestPage {
    /// The rows.
    pub requests: Vec<StoredRequest>,
    /// Set if the search ended early: rows with this id and above were looked at, those below were not.
    pub searched_to: Option<i64>,
}

/// One attempt as the store keeps it. Serialized with the fields of the admin API.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredRequest {
    /// Its number, rising in the order of recording.
    pub id: i64,
    /// When it began; RFC 3339 in the API.
    #[serde(serialize_with = "as_time")]
    pub at: UnixMillis,
    /// The rollout's name; `None` outside of all rollouts.
    pub rollout: Option<String>,
    /// The arm that was asked. This and what else rows have in common is `None` if that record of it is gone.
    pub arm: Option<String>,
    /// The arm that the sticky key names.
    pub assigned_arm: Option<String>,
    /// `live`, `rescue`, `retry`, `probe` ...
    pub role: Option<String>,
    /// 1, or more after a failure.
    pub attempt: Option<i64>,
    /// The arm's own name of the model.
    pub model: Option<String>,
    /// Whether the client asked for a stream.
    pub streamed: Option<bool>,
    /// What became of it.
    pub outcome: String,
    /// Who answers for that.
    pub blame: Blame,
    /// Of the upstream; `None` when none came.
    pub status: Option<i64>,
    /// Milliseconds until its end.
    pub latency_ms: f64,
    /// Milliseconds until the first token; streams only.
    pub ttft_ms: Option<f64>,
    /// All input tokens.
    pub input_tokens: Option<i64>,
    /// Output tokens.
    pub output_tokens: Option<i64>,
    /// US dollars; `None` when unknown.
    pub cost_usd: Option<f64>,
    /// What the provider calls it.
    pub upstream_request_id: Option<String>,
    /// What the header of `proxy.tag-header` says.
    pub tag: Option<String>,
}

impl FromRow<'_, SqliteRow> for StoredRequest {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let outcome: String = row.try_get("outcome")?;
        Ok(Self {
            id: row.try_get("id")?,
            at: UnixMillis(row.try_get("started_at")?),
            rollout: row.try_get("rollout")?,
            arm: row.try_get("arm")?,
            assigned_arm: row.try_get("assigned_arm")?,
            role: row.try_get("role")?,
            attempt: row.try_get("attempt")?,
            model: row.try_get("model")?,
            streamed: row.try_get("streamed")?,
            blame: Outcome::from_word(&outcome).map_or(Blame::Cutover, Outcome::blame),
            outcome,
            status: row.try_get("status")?,
            latency_ms: row.try_get("latency_ms")?,
            ttft_ms: row.try_get("ttft_ms")?,
            input_tokens: row.try_get("input_tokens")?,
            output_tokens: row.try_get("output_tokens")?,
            cost_usd: row.try_get("cost_usd")?,
            upstream_request_id: row.try_get("upstream_request_id")?,
            tag: row.try_get("tag")?,
        })
    }
}

impl Store {
    /// Attempts like this, newest first. Takes a quarter of a second at most, whatever the store holds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn requests(&self, filter: RequestFilter) -> Result<RequestPage, StoreError> {
        self.read(async move |pool| requests(&pool, &filter).await)
            .await
    }
}

async fn requests(pool: &SqlitePool, filter: &RequestFilter) -> Result<RequestPage, sqlx::Error> {
    let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(ENDS).fetch_one(pool).await?;
    let (first, last) = (first.unwrap_or(0), last.unwrap_or(-1));
    let mut page = RequestPage::default();
    // Everything from here on was looked at.
    let mut seen_from = filter
        .before
        .unwrap_or(i64::MAX)
        .min(last.saturating_add(1));
    let mut window = WINDOW;
    let ends_at = Instant::now() + SEARCH_FOR;
    let sql = statement(filter);
    while seen_from > first && page.requests.len() < filter.limit {
        let began = Instant::now();
        if began >= ends_at {
            page.searched_to = Some(seen_from);
            break;
        }
        let wanted = filter.limit - page.requests.len();
        let from = seen_from.saturating_sub(window).max(first);
        let rows: Vec<StoredRequest> = sqlx::query_as(AssertSqlSafe(sql.as_str()))
            .bind(from)
            .bind(seen_from)
            .bind(filter.rollout.as_deref())
            .bind(filter.arm.map(Arm::as_str))
            .bind(filter.outcome.map(Outcome::as_str))
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .fetch_all(pool)
            .await?;
        page.requests.extend(rows);
        seen_from = from;
        window = if began.elapsed() < STATEMENT {
            window.saturating_mul(4)
        } else {
            (window / 2).max(1_000)
        };
    }
    Ok(page)
}

/// Rows with ids from `$1` to below `$2`. One whose kind is gone has NULLs, and fits no filter by them.
pub(super) fn statement(filter: &RequestFilter) -> String {
    let only_failures = filter.failed || filter.outcome.is_some_and(|it| it != Outcome::Ok);
    let rows = if only_failures {
        "INDEXED BY request_failed LEFT JOIN request_kind AS k ON k.id = r.kind WHERE r.outcome <> 'ok' AND"
    } else {
        "LEFT JOIN request_kind AS k ON k.id = r.kind WHERE"
    };
    format!(
        "SELECT r.id, r.started_at, k.rollout, k.arm, k.assigned_arm, k.role, k.attempt, k.model, k.streamed,
             r.outcome, k.status, r.latency_us / 1000.0 AS latency_ms, r.ttft_us / 1000.0 AS ttft_ms,
             r.input_tokens, r.output_tokens, r.cost_usd, r.upstream_request_id, k.tag
         FROM request_row AS r {rows} r.id >= $1 AND r.id < $2 AND ($3 IS NULL OR k.rollout = $3)
             AND ($4 IS NULL OR k.arm = $4) AND ($5 IS NULL OR r.outcome = $5)
         ORDER BY r.id DESC LIMIT $6"
    )
}
