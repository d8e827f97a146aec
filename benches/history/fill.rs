//! Thirty days of traffic, written into a store as if they had happened.
//!
//! Plain SQL into the daemon's own schema: through the daemon it would take thirty days.

use std::error::Error;
use std::path::Path;

use cutover::arm::Arm;
use cutover::clock::UnixMillis;
use cutover::sketch::{Sketch, upper_ms};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

/// Requests per second, both arms together.
pub(crate) const RATE: i64 = 10;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const FINE_MS: i64 = 2 * DAY_MS;
const DECISIONS: i64 = 1_500;

/// Writes `days` days that end now.
pub(crate) async fn fill(path: &Path, rollout_id: &str, days: i64) -> Result<(), Box<dyn Error>> {
    let now = UnixMillis::now().0;
    // The oldest hour would be deleted while it is measured.
    let start = (now - days * DAY_MS + 2 * HOUR_MS) / HOUR_MS * HOUR_MS;
    let mut store = SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Off)
        .pragma("cache_size", "-262144")
        .connect()
        .await?;
    let mut from = start;
    while from < now {
        let to = (from + DAY_MS).min(now);
        requests(&mut store, rollout_id, from, to).await?;
        from = to;
    }
    intervals(&mut store, rollout_id, start, now).await?;
    cells(&mut store, rollout_id, start, now).await?;
    decisions(&mut store, rollout_id, start, now).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut store)
        .await?;
    store.close().await?;
    Ok(())
}

async fn requests(
    store: &mut SqliteConnection,
    rollout_id: &str,
    from: i64,
    to: i64,
) -> Result<(), sqlx::Error> {
    // Kind 1 + 4 x canary + 2 x streamed + failed.
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 7)
         INSERT OR IGNORE INTO request_kind (id, made_at, rollout, rollout_id, arm, assigned_arm, stage, weight_bps,
             model, streamed, status, attempt, role, config_epoch)
         SELECT 1 + i, $2, 'bench', $1, iif(i / 4, 'canary', 'legacy'), iif(i / 4, 'canary', 'legacy'), 0, 5000,
             'gpt-5-mini', i / 2 % 2, iif(i % 2, 503, 200), 1, 'live', 1
         FROM n",
    )
    .bind(rollout_id)
    .bind(UnixMillis::now().0)
    .execute(&mut *store)
    .await?;
    sqlx::query(
        "WITH RECURSIVE n(at) AS (SELECT $1 UNION ALL SELECT at + 1000 / $3 FROM n WHERE at + 1000 / $3 < $2)
         INSERT INTO request_row (started_at, kind, outcome, latency_us, ttft_us, input_tokens, cached_input_tokens,
             cache_write_tokens, output_tokens, cost_usd, upstream_request_id, key_hash, cache_write_1h_tokens)
         SELECT at, 1 + at / 100 % 2 * 4 + at / 200 % 2 * 2 + (at / 100 % 1009 = 0),
             iif(at / 100 % 1009 = 0, 'server-error', 'ok'), (400 + at % 997) * 1000,
             iif(at / 200 % 2, (100 + at % 89) * 1000, NULL),
             900 + at % 1013, 0, 0, 100 + at % 211, 0.00042,
             printf('req_%024x', at * 2654435761), at * 40503, 0
         FROM n",
    )
    .bind(from)
    .bind(to)
    .bind(RATE)
    .execute(store)
    .await
    .map(|_| ())
}

/// Times around `median_ms`, `scale` of each.
fn sketch(random: &mut StdRng, draws: u32, scale: f64, median_ms: f64) -> Sketch {
    let mut sketch = Sketch::default();
    for _ in 0..draws {
        let sum: f64 = (0..6).map(|_| random.random_range(-1.0..1.0)).sum();
        let bucket = cutover::sketch::bucket_of(median_ms * (0.6 * sum / 1.4).exp());
        sketch.add(bucket, scale);
    }
    sketch
}

async fn intervals(
    store: &mut SqliteConnection,
    rollout_id: &str,
    start: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    let mut random = StdRng::seed_from_u64(7);
    let mut transaction = store.begin().await?;
    let fine_from = (now - FINE_MS) / HOUR_MS * HOUR_MS;
    let mut slot = start;
    while slot < now {
        let (width, draws, scale) = if slot < fine_from {
            (HOUR_MS, 3_600, 5.0)
        } else {
            (MINUTE_MS, 300, 1.0)
        };
        for arm in Arm::BOTH {
            let times = [("latency", 800.0), ("ttft", 150.0), ("tpot", 12.0)]
                .map(|(metric, median)| (metric, sketch(&mut random, draws, scale, median)));
            interval(&mut transaction, rollout_id, slot, width, arm, &times).await?;
        }
        slot += width;
    }
    transaction.commit().await
}

async fn interval(
    store: &mut SqliteConnection,
    rollout_id: &str,
    slot: i64,
    width: i64,
    arm: Arm,
    times: &[(&str, Sketch); 3],
) -> Result<(), sqlx::Error> {
    let requests = RATE * width / 2_000;
    let [latency, ttft, tpot] = times.each_ref().map(|(_, sketch)| sketch.to_bytes());
    sqlx::query(
        "INSERT INTO interval VALUES ($1, $2, $3, 0, 'bench', $4, $4 / 1000, 0, 0, 0, 0, $4 * 1400, 0, $4 * 200,
             $4 * 0.00042, 0, 0, NULL, $5, $6, $7)",
    )
    .bind(slot)
    .bind(rollout_id)
    .bind(arm.as_str())
    .bind(requests)
    .bind(latency)
    .bind(ttft)
    .bind(tpot)
    .execute(&mut *store)
    .await?;
    for (metric, sketch) in times {
        for (bucket, count) in sketch.iter() {
            sqlx::query(
                "INSERT INTO latency_bucket VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
            )
            .bind(slot / HOUR_MS * HOUR_MS)
            .bind(rollout_id)
            .bind(arm.as_str())
            .bind(*metric)
            .bind(bucket)
            .bind(upper_ms(bucket))
            .bind(count)
            .execute(&mut *store)
            .await?;
        }
    }
    Ok(())
}

async fn cells(
    store: &mut SqliteConnection,
    rollout_id: &str,
    start: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    for (from, to, width) in [
        (start, now - FINE_MS, MINUTE_MS),
        ((now - FINE_MS).max(start), now, 1_000),
    ] {
        sqlx::query(
            "WITH RECURSIVE n(at) AS (SELECT $2 UNION ALL SELECT at + $4 FROM n WHERE at + $4 < $3)
             INSERT INTO evidence_cell (rollout_id, block, config_epoch, opened_at, closed_at, weight_bps, arm,
                 requests, errors, rate_limited, rejected, streamed, latency, ttft)
             SELECT $1, 0, 1, at, at + $4, 5000, arm, $4 / 200, 0, 0, 0, $4 / 400,
                 '{\"310\":1.0,\"325\":2.0,\"338\":1.0,\"351\":1.0}', '{\"240\":1.0,\"251\":1.0}'
             FROM n, (SELECT 'legacy' AS arm UNION ALL SELECT 'canary') WHERE at < $3",
        )
        .bind(rollout_id)
        .bind(from)
        .bind(to)
        .bind(width)
        .execute(&mut *store)
        .await?;
    }
    Ok(())
}

async fn decisions(
    store: &mut SqliteConnection,
    rollout_id: &str,
    start: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    let guard = "{\"name\":\"error-rate\",\"verdict\":\"healthy\",\"value\":0.00102,\"limit\":0.006,\
        \"evidence\":5.31,\"needed\":5.3,\"explanation\":\"the canary's error rate is within its limit\"}";
    let evidence = format!("{{\"guards\":[{}]}}", [guard; 12].join(","));
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $4)
         INSERT INTO decision (at, rollout, rollout_id, version, kind, weight_from_bps, weight_to_bps, stage,
             decided_by, reason, evidence)
         SELECT $2 + ($3 - $2) / $4 * i, 'bench', $1, 1000000 + i, 'set-weight', i % 2 * 2500, (i + 1) % 2 * 2500,
             0, 'operator', 'a reason of about the length that reasons have', $5 FROM n",
    )
    .bind(rollout_id)
    .bind(start)
    .bind(now)
    .bind(DECISIONS)
    .bind(evidence)
    .execute(store)
    .await
    .map(|_| ())
}
