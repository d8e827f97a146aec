//! The table `interval`: what each arm did in each minute, and later in each hour.
//!
//! Counts are added up by SQL. The times stand in the same row as compact sketches, which no SQL can add:
//! they are read, merged and written back. Both happen inside the transaction of the caller, so that a
//! crash neither loses nor doubles a part. A sketch that cannot be read is begun anew: it decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::RolloutKey;
use super::aggregate::{HOUR_MS, Measured, SlotKey, Times};
use super::batch::{ADD_TOTALS, TOTALS, bind_totals};
use super::insert::Insert;
use super::read::totals_of;
use crate::arm::Arm;
use crate::sketch::Sketch;

/// The columns of [`Times`].
pub(super) const SKETCHES: &str = "latency_sketch, ttft_sketch, tpot_sketch";

static SLOT: LazyLock<Insert> = LazyLock::new(|| {
    let columns = format!("slot_at, rollout_id, rollout, arm, stage, {TOTALS}, {SKETCHES}");
    let add = format!(
        "ON CONFLICT (slot_at, rollout_id, arm, stage) DO UPDATE SET {ADD_TOTALS},
             latency_sketch = coalesce(excluded.latency_sketch, latency_sketch),
             ttft_sketch = coalesce(excluded.ttft_sketch, ttft_sketch),
             tpot_sketch = coalesce(excluded.tpot_sketch, tpot_sketch)"
    );
    Insert::new("interval", columns, add)
});

/// Adds counts and times to those in the file.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    slots: &BTreeMap<SlotKey, Measured>,
) -> Result<(), sqlx::Error> {
    let mut rows = Vec::with_capacity(slots.len());
    for (key, measured) in slots {
        let times = if measured.times.is_empty() {
            None
        } else {
            let mut times = stored_times(connection, key).await?;
            times.merge(&measured.times);
            Some(times)
        };
        rows.push((key, measured, times));
    }
    SLOT.run(connection, &rows, |row, (key, measured, times)| {
        let (slot_at, rollout, arm, stage) = key;
        row.push_bind(*slot_at)
            .push_bind(Arc::clone(&rollout.id))
            .push_bind(Arc::clone(&rollout.name))
            .push_bind(arm.as_str())
            .push_bind(*stage);
        bind_totals(row, &measured.totals);
        let bytes_of = |sketch: &Sketch| (!sketch.is_empty()).then(|| sketch.to_bytes());
        let times = times.as_ref();
        row.push_bind(times.and_then(|it| bytes_of(&it.latency)))
            .push_bind(times.and_then(|it| bytes_of(&it.ttft)))
            .push_bind(times.and_then(|it| bytes_of(&it.tpot)));
    })
    .await
}

async fn stored_times(
    connection: &mut SqliteConnection,
    key: &SlotKey,
) -> Result<Times, sqlx::Error> {
    let (slot_at, rollout, arm, stage) = key;
    let row = sqlx::query(
        "SELECT latency_sketch, ttft_sketch, tpot_sketch FROM interval
         WHERE slot_at = $1 AND rollout_id = $2 AND arm = $3 AND stage = $4",
    )
    .bind(slot_at)
    .bind(&*rollout.id)
    .bind(arm.as_str())
    .bind(stage)
    .fetch_optional(connection)
    .await?;
    row.map_or_else(|| Ok(Times::default()), |row| times_of(&row))
}

/// The sketches of a row.
fn times_of(row: &SqliteRow) -> Result<Times, sqlx::Error> {
    let sketch = |column| -> Result<Sketch, sqlx::Error> {
        let bytes: Option<&[u8]> = row.try_get(column)?;
        Ok(bytes.and_then(Sketch::from_bytes).unwrap_or_default())
    };
    Ok(Times {
        latency: sketch("latency_sketch")?,
        ttft: sketch("ttft_sketch")?,
        tpot: sketch("tpot_sketch")?,
    })
}

/// Counts and times of a row.
pub(super) fn measured_of(row: &SqliteRow) -> Result<Measured, sqlx::Error> {
    Ok(Measured {
        totals: totals_of(row)?,
        times: times_of(row)?,
    })
}

/// Adds the rows of a minute to those of its hour and deletes them. Inside a transaction of the caller.
pub(super) async fn merge_minute(
    connection: &mut SqliteConnection,
    minute: i64,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM interval WHERE slot_at = $1")
        .bind(minute)
        .fetch_all(&mut *connection)
        .await?;
    let hour = minute.div_euclid(HOUR_MS) * HOUR_MS;
    let mut slots: BTreeMap<SlotKey, Measured> = BTreeMap::new();
    for row in &rows {
        if let Some(arm) = Arm::from_word(row.try_get("arm")?) {
            let rollout = RolloutKey {
                id: row.try_get::<&str, _>("rollout_id")?.into(),
                name: row.try_get::<&str, _>("rollout")?.into(),
            };
            let key = (hour, rollout, arm, row.try_get("stage")?);
            slots.entry(key).or_default().merge(&measured_of(row)?);
        }
    }
    add(connection, &slots).await?;
    sqlx::query("DELETE FROM interval WHERE slot_at = $1")
        .bind(minute)
        .execute(connection)
        .await
        .map(|_| ())
}
