//! What people were told of budgets, so that a restart neither tells it again nor forgets to tell.
//!
//! A few rows a day. They go with the lines of the account of costs.

use std::sync::LazyLock;

use sqlx::{Row, SqliteConnection, SqlitePool};

use super::insert::Insert;
use super::{Store, StoreError, cost};

/// A threshold of a budget that was told.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetTold {
    /// As [`super::day_of`] counts.
    pub day: i64,
    /// The budget's name.
    pub budget: String,
    /// The threshold, in percent of what a day may cost.
    pub percent: u32,
    /// What a day might cost then: a budget that is lowered is told anew.
    pub usd_per_day: f64,
}

impl Store {
    /// Records what was told. Never waits: what the queue cannot take is dropped, and told again after a
    /// restart.
    pub fn record_told(&self, told: Vec<BudgetTold>) {
        self.0.shared.queue_told(told);
    }

    /// What was told of `day` (since 1970, in UTC) and later ones.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn told_since(&self, day: i64) -> Result<Vec<BudgetTold>, StoreError> {
        self.read(async move |pool| told_since(&pool, day).await)
            .await
    }
}

async fn told_since(pool: &SqlitePool, day: i64) -> Result<Vec<BudgetTold>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT unixepoch(day) / 86400 AS day, budget, percent, usd_per_day FROM budget_told WHERE day >= $1",
    )
    .bind(cost::date_of(day))
    .fetch_all(pool)
    .await?;
    let told = rows.iter().map(|row| {
        Ok(BudgetTold {
            day: row.try_get("day")?,
            budget: row.try_get("budget")?,
            percent: row.try_get("percent")?,
            usd_per_day: row.try_get("usd_per_day")?,
        })
    });
    told.collect()
}

static TOLD: LazyLock<Insert> = LazyLock::new(|| {
    let columns = "day, budget, percent, usd_per_day";
    Insert::new("budget_told", columns, "ON CONFLICT DO NOTHING")
});

/// Adds what is not there yet.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    told: &[BudgetTold],
) -> Result<(), sqlx::Error> {
    TOLD.run(connection, told, |row, told: &BudgetTold| {
        row.push_bind(cost::date_of(told.day))
            .push_bind(told.budget.clone())
            .push_bind(told.percent)
            .push_bind(told.usd_per_day);
    })
    .await
}
