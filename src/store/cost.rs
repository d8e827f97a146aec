//! The account of costs: sums per day, rollout, arm, model and tag, added up from attempts of every role.
//!
//! An unknown cost stays unknown: a sum is `None` until one of its costs is known, and what is not in it is
//! counted beside it. Who calls bounds the names; here they are taken as they come.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sqlx::{Row, SqliteConnection, SqlitePool};

use super::batch::int;
use super::insert::Insert;
use super::{AttemptRow, Store, StoreError};
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::sample::Sample;

const DAY_MS: i64 = 86_400_000;

/// The day that a time lies in, counted from 1970, in UTC.
#[must_use]
pub const fn day_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(DAY_MS)
}

/// A day since 1970 as `2026-11-21`.
#[must_use]
pub fn date_of(day: i64) -> String {
    let start = UnixMillis(day.saturating_mul(DAY_MS)).to_string();
    start.get(..10).unwrap_or_default().to_owned()
}

/// Where an attempt stands in the account of costs. Names are bounded per day by whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// As [`day_of`] counts.
    pub day: i64,
    /// The arm's own name of the model; empty for none.
    pub model: Arc<str>,
    /// The tag; empty for none.
    pub tag: Arc<str>,
}

/// What attempts cost, and how many of them are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// US dollars of those whose cost is known; `None` without any.
    pub cost_usd: Option<f64>,
    /// Attempts that stated tokens, but whose cost is unknown.
    pub unpriced: u64,
    /// Attempts that were answered, at least in part, and stated no tokens at all.
    pub no_usage: u64,
}

impl Spent {
    /// What one attempt cost.
    #[must_use]
    pub fn by(sample: &Sample, cost_usd: Option<f64>) -> Self {
        Self {
            cost_usd,
            unpriced: u64::from(sample.usage.is_some() && cost_usd.is_none()),
            no_usage: u64::from(sample.stated_no_usage()),
        }
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        add_known(&mut self.cost_usd, other.cost_usd);
        self.unpriced += other.unpriced;
        self.no_usage += other.no_usage;
    }
}

/// Sums of one line of the account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CostSums {
    requests: u64,
    spent: Spent,
    input_tokens: u64,
    cached_input_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
    reported_cost_usd: Option<f64>,
}

impl CostSums {
    /// Counts one attempt.
    pub(super) fn count(&mut self, sample: &Sample, cost_usd: Option<f64>) {
        self.requests += 1;
        self.spent.add(&Spent::by(sample, cost_usd));
        if let Some(usage) = sample.usage {
            self.input_tokens += u64::from(usage.input_tokens);
            self.cached_input_tokens += u64::from(usage.cached_input_tokens);
            self.cache_write_tokens += u64::from(usage.cache_write_tokens);
            self.output_tokens += u64::from(usage.output_tokens);
        }
        add_known(&mut self.reported_cost_usd, sample.reported_cost_usd);
    }

    /// Adds all of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.spent.add(&other.spent);
        self.input_tokens += other.input_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.output_tokens += other.output_tokens;
        add_known(&mut self.reported_cost_usd, other.reported_cost_usd);
    }
}

/// One line of the account as it is stored, over all rollouts.
#[derive(Debug, Clone, PartialEq)]
pub struct DayCost {
    /// The arm.
    pub arm: Arm,
    /// Day, model and tag.
    pub bill: Bill,
    /// What it comes to.
    pub spent: Spent,
}

/// Adds what is known to what is known.
pub(super) fn add_known(sum: &mut Option<f64>, more: Option<f64>) {
    *sum = match (*sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (sum, more) => sum.or(more),
    };
}

/// The primary key of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CostKey {
    day: i64,
    rollout: Arc<str>,
    arm: Arm,
    model: Arc<str>,
    tag: Arc<str>,
}

impl CostKey {
    /// The line that an attempt belongs to.
    pub(super) fn of(row: &AttemptRow, bill: &Bill) -> Self {
        let rollout = row.rollout.as_ref();
        Self {
            day: bill.day,
            rollout: rollout.map_or_else(|| Arc::from(""), |key| Arc::clone(&key.name)),
            arm: row.sample.arm,
            model: Arc::clone(&bill.model),
            tag: Arc::clone(&bill.tag),
        }
    }

    /// True if that is this line. It may be although this is false: names are compared by where they stand.
    pub(super) fn is_of(&self, row: &AttemptRow, bill: &Bill) -> bool {
        let same_rollout = match &row.rollout {
            Some(key) => Arc::ptr_eq(&self.rollout, &key.name),
            None => self.rollout.is_empty(),
        };
        self.day == bill.day
            && self.arm == row.sample.arm
            && same_rollout
            && Arc::ptr_eq(&self.model, &bill.model)
            && Arc::ptr_eq(&self.tag, &bill.tag)
    }
}

static LINE: LazyLock<Insert> = LazyLock::new(|| {
    let columns = "day, rollout, arm, model, tag, requests, unpriced, no_usage, input_tokens, \
        cached_input_tokens, cache_write_tokens, output_tokens, cost_usd, reported_cost_usd";
    let add = "ON CONFLICT (day, rollout, arm, model, tag) DO UPDATE SET
        requests = requests + excluded.requests,
        unpriced = unpriced + excluded.unpriced,
        no_usage = no_usage + excluded.no_usage,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        cost_usd = coalesce(cost_usd + excluded.cost_usd, cost_usd, excluded.cost_usd),
        reported_cost_usd = coalesce(reported_cost_usd + excluded.reported_cost_usd, reported_cost_usd,
            excluded.reported_cost_usd)";
    Insert::new("cost_by_day", columns, add)
});

/// Adds the sums of a batch to those in the file.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    costs: &BTreeMap<CostKey, CostSums>,
) -> Result<(), sqlx::Error> {
    let lines: Vec<_> = costs.iter().collect();
    LINE.run(connection, &lines, |row, (key, sums)| {
        row.push_bind(date_of(key.day))
            .push_bind(Arc::clone(&key.rollout))
            .push_bind(key.arm.as_str())
            .push_bind(Arc::clone(&key.model))
            .push_bind(Arc::clone(&key.tag))
            .push_bind(int(sums.requests))
            .push_bind(int(sums.spent.unpriced))
            .push_bind(int(sums.spent.no_usage))
            .push_bind(int(sums.input_tokens))
            .push_bind(int(sums.cached_input_tokens))
            .push_bind(int(sums.cache_write_tokens))
            .push_bind(int(sums.output_tokens))
            .push_bind(sums.spent.cost_usd)
            .push_bind(sums.reported_cost_usd);
    })
    .await
}

/// Deletes lines of days that ended before `oldest`, some at a time, and what was told of those days; returns
/// how many lines.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    oldest: i64,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM cost_by_day WHERE (day, rollout, arm, model, tag) IN
             (SELECT day, rollout, arm, model, tag FROM cost_by_day WHERE day < $1 LIMIT 2000)",
    )
    .bind(date_of(day_of(UnixMillis(oldest))))
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM budget_told WHERE day < $1")
        .bind(date_of(day_of(UnixMillis(oldest))))
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected())
}

impl Store {
    /// The account of costs from `day` (since 1970, in UTC) on, summed over rollouts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn costs_since(&self, day: i64) -> Result<Vec<DayCost>, StoreError> {
        self.read(async move |pool| costs_since(&pool, day).await)
            .await
    }
}

async fn costs_since(pool: &SqlitePool, day: i64) -> Result<Vec<DayCost>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT unixepoch(day) / 86400 AS day, arm, model, tag, sum(unpriced) AS unpriced,
             sum(no_usage) AS no_usage, sum(cost_usd) AS cost_usd
         FROM cost_by_day WHERE day >= $1
         GROUP BY day, arm, model, tag",
    )
    .bind(date_of(day))
    .fetch_all(pool)
    .await?;
    let mut costs = Vec::with_capacity(rows.len());
    for row in rows {
        let count = |column| -> Result<u64, sqlx::Error> {
            let count: i64 = row.try_get(column)?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        let name = |column| -> Result<Arc<str>, sqlx::Error> {
            let name: String = row.try_get(column)?;
            Ok(name.into())
        };
        let Some(arm) = Arm::from_word(row.try_get("arm")?) else {
            continue;
        };
        let bill = Bill {
            day: row.try_get("day")?,
            model: name("model")?,
            tag: name("tag")?,
        };
        let spent = Spent {
            unpriced: count("unpriced")?,
            no_usage: count("no_usage")?,
            cost_usd: row.try_get("cost_usd")?,
        };
        costs.push(DayCost { arm, bill, spent });
    }
    Ok(costs)
}
