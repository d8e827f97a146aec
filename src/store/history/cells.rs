//! Cells of evidence, in pages of some minutes.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{History, failing};
use crate::arm::{Arm, Weight};
use crate::clock::UnixMillis;
use crate::controller::evidence::{ArmCell, Cell};
use crate::sketch::Sketch;
use crate::store::StoreError;

impl History {
    /// When the first and the last kept cell of a rollout id opened; `None` without any.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn cells_span(
        &self,
        rollout_id: &str,
    ) -> Result<Option<(UnixMillis, UnixMillis)>, StoreError> {
        let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(
            "SELECT min(opened_at), max(opened_at) FROM evidence_cell WHERE rollout_id = $1",
        )
        .bind(rollout_id)
        .fetch_one(&self.pool)
        .await
        .map_err(failing)?;
        Ok(first
            .zip(last)
            .map(|(first, last)| (UnixMillis(first), UnixMillis(last))))
    }

    /// The cells of a rollout id that opened from `from` on and before `to`, in the order in which they
    /// closed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn cells(
        &self,
        rollout_id: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<Cell>, StoreError> {
        let rows = sqlx::query(
            "SELECT opened_at, closed_at, weight_bps, config_epoch, arm, requests, errors, rate_limited,
                 rejected, streamed, latency, ttft
             FROM evidence_cell WHERE opened_at >= $1 AND opened_at < $2 AND rollout_id = $3
             ORDER BY opened_at, id",
        )
        .bind(from.0)
        .bind(to.0)
        .bind(rollout_id)
        .fetch_all(&self.pool)
        .await
        .map_err(failing)?;
        let mut cells: BTreeMap<(i64, i64, u16, u32), Cell> = BTreeMap::new();
        for row in &rows {
            add(&mut cells, row).map_err(failing)?;
        }
        Ok(cells.into_values().collect())
    }
}

/// A cell has a row for each arm, with the same times. Sorted by when they closed.
fn add(
    cells: &mut BTreeMap<(i64, i64, u16, u32), Cell>,
    row: &SqliteRow,
) -> Result<(), sqlx::Error> {
    let Some(arm) = Arm::from_word(row.try_get("arm")?) else {
        return Ok(());
    };
    let count = |column| -> Result<u64, sqlx::Error> {
        let count: i64 = row.try_get(column)?;
        Ok(u64::try_from(count).unwrap_or(0))
    };
    let sketch = |column| -> Result<Sketch, sqlx::Error> {
        let text: &str = row.try_get(column)?;
        serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    let (opened_at, closed_at): (i64, i64) = (row.try_get("opened_at")?, row.try_get("closed_at")?);
    let (bps, epoch): (u16, u32) = (row.try_get("weight_bps")?, row.try_get("config_epoch")?);
    let cell = cells
        .entry((closed_at, opened_at, bps, epoch))
        .or_insert_with(|| Cell {
            closed_at: UnixMillis(closed_at),
            ..Cell::open(
                UnixMillis(opened_at),
                Weight::from_bps(bps).unwrap_or(Weight::FULL),
                epoch,
            )
        });
    cell.arms.get_mut(arm).merge(&ArmCell {
        requests: count("requests")?,
        errors: count("errors")?,
        rate_limited: count("rate_limited")?,
        rejected: count("rejected")?,
        streamed: count("streamed")?,
        latency: sketch("latency")?,
        ttft: sketch("ttft")?,
    });
    Ok(())
}
