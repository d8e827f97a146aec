//! What those who hand samples over, and those who read, notice of the deleting of a day.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::clock::UnixMillis;
use cutover::config::StoreConfig;
use cutover::store::{RequestFilter, RolloutKey, Store};
use tokio::runtime::Runtime;

use crate::cpu::quantile_us;
use crate::made;

const DAY_MS: i64 = 86_400_000;
/// Rows per second that come meanwhile.
const RATE: u32 = 1_000;
const LASTS: Duration = Duration::from_secs(10);

/// Fills a store with a day that is too old, and one that is not; prints times with and without deleting.
pub(crate) fn measure(rows: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let keeps = made::store_config(folder.path());
    fill(&runtime, &keeps, rows)?;
    let deletes = StoreConfig {
        retention: Duration::from_secs(86_400),
        ..keeps.clone()
    };
    println!("retention: {rows} rows of a day, {RATE} rows/s meanwhile, times in us");
    for (what, config) in [("kept", &keeps), ("deleted", &deletes)] {
        let store = runtime
            .block_on(Store::open(config, UnixMillis::now()))?
            .store;
        let (mut handed, mut read) = traffic(&runtime, &store)?;
        runtime.block_on(store.close())?;
        let left = count(&runtime, &config.path)?;
        println!(
            "  {what:<8} hand-over p50 {:>7.1} p99 {:>7.1}   latest 20 failures p50 {:>7.0} p99 {:>7.0}   rows left {left}",
            quantile_us(&mut handed, 50),
            quantile_us(&mut handed, 99),
            quantile_us(&mut read, 50),
            quantile_us(&mut read, 99),
        );
    }
    Ok(())
}

fn key() -> RolloutKey {
    RolloutKey {
        id: "bench-1".into(),
        name: "bench".into(),
    }
}

/// Half of the rows are two days old.
fn fill(runtime: &Runtime, config: &StoreConfig, rows: usize) -> Result<(), Box<dyn Error>> {
    let now = UnixMillis::now();
    let store = runtime.block_on(Store::open(config, now))?.store;
    let names: [Arc<str>; 2] = ["gpt-5".into(), "".into()];
    let mut number = 0;
    for age_ms in [2 * DAY_MS, DAY_MS / 2] {
        let end = number + rows;
        while number < end {
            let next = end.min(number + 20_000);
            let at = |number: usize| {
                let part = (end - number) as i64 * (DAY_MS / 4) / rows.max(1) as i64;
                now.plus_millis(-age_ms - part)
            };
            let made = (number..next).map(|it| made::row(it as u64, at(it), &key(), &names));
            store.record_attempts(made.collect());
            crate::samples::stored(runtime, &store, &key().id, next)?;
            number = next;
        }
    }
    runtime.block_on(store.close())?;
    Ok(())
}

/// Times of handing one row over and of one read, under steady traffic.
fn traffic(
    runtime: &Runtime,
    store: &Store,
) -> Result<(Vec<Duration>, Vec<Duration>), Box<dyn Error>> {
    let names: [Arc<str>; 2] = ["gpt-5".into(), "".into()];
    let (mut handed, mut read) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for number in 0.. {
        let due = Duration::from_secs(1) / RATE * number;
        if due > LASTS {
            break;
        }
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let row = made::row(u64::from(number), UnixMillis::now(), &key(), &names);
        let before = Instant::now();
        store.record_attempts(vec![row]);
        handed.push(before.elapsed());
        if number % 50 == 0 {
            let filter = RequestFilter {
                failed: true,
                limit: 20,
                ..RequestFilter::default()
            };
            let before = Instant::now();
            runtime.block_on(store.requests(filter))?;
            read.push(before.elapsed());
        }
    }
    Ok((handed, read))
}

fn count(runtime: &Runtime, path: &Path) -> Result<i64, Box<dyn Error>> {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .read_only(true);
    let count = async {
        let mut shell = options.connect().await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM request")
            .fetch_one(&mut shell)
            .await?;
        shell.close().await?;
        Ok::<_, sqlx::Error>(count)
    };
    Ok(runtime.block_on(count)?)
}
