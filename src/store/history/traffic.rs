//! What the arms did over time, as far as it is kept: counts per slot, times per hour.

use std::collections::BTreeMap;

use sqlx::Row;

use super::{History, failing};
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::sketch::Sketch;
use crate::store::{StoreError, Totals, read};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Live traffic of both arms in one slot: a minute, or an hour if it is older than two days.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slot {
    /// When it begins.
    pub at: UnixMillis,
    /// The counts.
    pub arms: PerArm<Totals>,
}

/// Times of successful live requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrafficTimes {
    /// Total times.
    pub latency: Sketch,
    /// Times to the first token.
    pub ttft: Sketch,
    /// Times per output token after the first.
    pub tpot: Sketch,
}

impl History {
    /// The slots of a rollout id that begin from `from` on and before `to`, in their order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn slots(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<Slot>, StoreError> {
        let mut slots: BTreeMap<i64, Slot> = BTreeMap::new();
        for (from, to) in days(from, to) {
            let rows = sqlx::query(
                "SELECT slot_at, arm, requests, errors, rate_limited, rejected, client_gone, masked,
                     input_tokens, cached_input_tokens, output_tokens, cost_usd, unpriced, no_usage,
                     reported_cost_usd
                 FROM interval WHERE slot_at >= $1 AND slot_at < $2 AND rollout_id = $3",
            )
            .bind(from)
            .bind(to)
            .bind(rollout_id)
            .fetch_all(&self.pool)
            .await
            .map_err(failing)?;
            for row in &rows {
                let word: &str = row.try_get("arm").map_err(failing)?;
                let Some(arm) = Arm::from_word(word) else {
                    continue;
                };
                let at: i64 = row.try_get("slot_at").map_err(failing)?;
                let slot = slots.entry(at).or_insert_with(|| Slot {
                    at: UnixMillis(at),
                    ..Slot::default()
                });
                let totals = read::totals_of(row).map_err(failing)?;
                slot.arms.get_mut(arm).merge(&totals);
            }
        }
        Ok(slots.into_values().collect())
    }

    /// Times of a rollout id per hour, from `from` rounded down to an hour and before `to`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn times(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<BTreeMap<UnixMillis, PerArm<TrafficTimes>>, StoreError> {
        let mut hours: BTreeMap<UnixMillis, PerArm<TrafficTimes>> = BTreeMap::new();
        let from = from.0.div_euclid(HOUR_MS) * HOUR_MS;
        for (from, to) in days(UnixMillis(from), to) {
            let rows = sqlx::query(
                "SELECT slot_at, arm, metric, bucket, count FROM latency_bucket
                 WHERE slot_at >= $1 AND slot_at < $2 AND rollout_id = $3",
            )
            .bind(from)
            .bind(to)
            .bind(rollout_id)
            .fetch_all(&self.pool)
            .await
            .map_err(failing)?;
            for row in &rows {
                let at: i64 = row.try_get("slot_at").map_err(failing)?;
                let word: &str = row.try_get("arm").map_err(failing)?;
                let Some(arm) = Arm::from_word(word) else {
                    continue;
                };
                let hour = UnixMillis(at.div_euclid(HOUR_MS) * HOUR_MS);
                let times = hours.entry(hour).or_default().get_mut(arm);
                let sketch = match row.try_get("metric").map_err(failing)? {
                    "latency" => &mut times.latency,
                    "ttft" => &mut times.ttft,
                    "tpot" => &mut times.tpot,
                    _ => continue,
                };
                let count: u32 = row.try_get("count").map_err(failing)?;
                sketch.add(row.try_get("bucket").map_err(failing)?, f64::from(count));
            }
        }
        Ok(hours)
    }

    /// Counts of a rollout id since it began, those of slots that are no longer kept included.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn totals_of(&self, rollout_id: &str) -> Result<PerArm<Totals>, StoreError> {
        read::totals(&self.pool, rollout_id.to_owned())
            .await
            .map_err(failing)
    }
}

/// A stretch of time in pieces of a day at most.
fn days(from: UnixMillis, to: UnixMillis) -> impl Iterator<Item = (i64, i64)> {
    let starts = std::iter::successors(Some(from.0), |at| at.checked_add(DAY_MS));
    starts
        .take_while(move |at| *at < to.0)
        .map(move |at| (at, at.saturating_add(DAY_MS).min(to.0)))
}
