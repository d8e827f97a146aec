//! How many rows per second the writer sustains, counts and account of costs included.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use cutover::clock::UnixMillis;
use cutover::store::{RolloutKey, Store};

use crate::cpu::{us_each, used_by};
use crate::made;

/// Rows that are on their way at most, below what the store's queue takes.
const AHEAD: u64 = 50_000;
/// Rows in one hand-over, as the driver makes it.
const BATCH: usize = 256;
/// What is asked of it.
const ROWS_PER_S: f64 = 50_000.0;

/// Prints rows per second.
pub(crate) fn measure(count: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let config = made::store_config(folder.path());
    let store = runtime
        .block_on(Store::open(&config, UnixMillis::now()))?
        .store;
    let key = RolloutKey {
        id: "bench-1".into(),
        name: "bench".into(),
    };
    let names: [Arc<str>; 2] = ["gpt-5".into(), "".into()];
    let before = used_by("");
    let began = Instant::now();
    let mut handed = 0;
    let mut making = std::time::Duration::ZERO;
    while handed < count {
        let totals = runtime.block_on(store.totals(&key.id))?;
        let stored = totals.legacy.requests + totals.canary.requests;
        let making_from = used_by("store-");
        while handed < count && handed as u64 - stored < AHEAD {
            let now = UnixMillis::now();
            let numbers = handed..count.min(handed + BATCH);
            handed = numbers.end;
            let rows = numbers.map(|number| made::row(number as u64, now, &key, &names));
            store.record_attempts(rows.collect());
        }
        making += used_by("store-").saturating_sub(making_from);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    crate::samples::stored(&runtime, &store, &key.id, count)?;
    let took = began.elapsed();
    let spent = used_by("").saturating_sub(before).saturating_sub(making);
    let dropped = store.health().borrow().dropped_samples;
    runtime.block_on(store.close())?;
    let bytes = std::fs::metadata(&config.path)?.len();
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "writer: {count} rows in {took:.1?}: {rate:.0} rows/s, {:.2} us of CPU and {:.0} bytes a row, {dropped} dropped",
        us_each(spent, count),
        bytes as f64 / count as f64
    );
    if rate < ROWS_PER_S || dropped > 0 {
        return Err(format!("fewer than {ROWS_PER_S:.0} rows/s, or some dropped").into());
    }
    Ok(())
}
