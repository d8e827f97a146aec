//! One sample's way from a worker's hand over the driver to the disk: the CPU time of every thread on it.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use cutover::alert;
use cutover::clock::UnixMillis;
use cutover::driver::begin::Memory;
use cutover::driver::{Driver, Inputs, StandBy};
use cutover::recorder::{self, SampleSink};
use cutover::sample::Routing;
use cutover::store::Store;
use tokio::sync::mpsc;

use crate::cpu::{us_each, used_by};
use crate::made;

/// Samples per second of a busy process: as many as one core proxies.
const RATE: usize = 20_000;
/// So many are handed over in one go, as they come from a core that is never idle.
const BURST: usize = 20;

/// Prints what a sample costs with rows on and off.
pub(crate) fn measure(count: usize) -> Result<(), Box<dyn Error>> {
    println!("one sample, {count} of them at {RATE}/s: CPU time in us");
    for rows in ["all", "failures"] {
        let folder = tempfile::tempdir()?;
        let spent = run(folder.path(), rows, count)?;
        let [worker, control, sqlite] = spent.map(|time| us_each(time, count));
        println!(
            "  rows {rows:<9} hand-over {worker:>5.2}   control {control:>5.2}   SQLite {sqlite:>5.2}   \
             behind the request path {:>5.2}",
            control + sqlite
        );
    }
    Ok(())
}

/// CPU time of the worker, the control plane and SQLite's thread.
fn run(folder: &Path, rows: &str, count: usize) -> Result<[Duration; 3], Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let config = made::config(folder, rows)?;
    let (recorder, samples) = recorder::channel();
    let (_requests, requests) = mpsc::channel(1);
    let (_reloads, reloads) = mpsc::channel(1);
    let inputs = Inputs {
        samples,
        requests,
        reloads,
    };
    let (alerts, task) = alert::start(&config.alerts);
    runtime.spawn(task);
    let store = runtime.block_on(Store::open(&config.store, UnixMillis::now()))?;
    let store = store.store;
    let stand_by = StandBy::begin(config)?;
    let memory = runtime.block_on(Memory::read(&stand_by, &store))?;
    let driver = Driver::take_over(stand_by, &memory, None, store.clone(), inputs, alerts);
    let planes = driver.planes();
    let driver = runtime.spawn(driver.run());
    let began = Instant::now();
    let weight = || {
        let plane = planes.borrow();
        plane
            .rollouts
            .first()
            .map(|it| it.weights.snapshot().weight.bps())
    };
    while weight() != Some(made::WEIGHT_BPS) {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("the rollout does not begin".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let epoch = planes.borrow().config_epoch;
    let sink = recorder.sink();
    let before = ["control", "sqlx"].map(used_by);
    let worker = std::thread::Builder::new()
        .name("worker-0".to_owned())
        .spawn(move || hand_over(sink, epoch, count))?;
    let worker = worker.join().map_err(|_| "the worker failed")?;
    drop(recorder);
    runtime.block_on(driver)?;
    let rollout = runtime.block_on(store.load_rollouts())?;
    let rollout = rollout.first().ok_or("no rollout")?.rollout_id.clone();
    stored(&runtime, &store, &rollout, count)?;
    let after = ["control", "sqlx"].map(used_by);
    runtime.block_on(store.close())?;
    let [control, sqlite] = [0, 1].map(|at: usize| {
        let (after, before) = (after.get(at), before.get(at));
        after
            .copied()
            .unwrap_or_default()
            .saturating_sub(before.copied().unwrap_or_default())
    });
    Ok([worker, control, sqlite])
}

/// Waits until the store has counted all of them.
pub(crate) fn stored(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    rollout: &str,
    count: usize,
) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    loop {
        let totals = runtime.block_on(store.totals(rollout))?;
        let requests = totals.legacy.requests + totals.canary.requests;
        if requests >= count as u64 {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(120) {
            let dropped = store.health().borrow().dropped_samples;
            return Err(format!("{requests} of {count} arrived, {dropped} dropped").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Plays a worker; the CPU time that only the handing over took.
fn hand_over(sink: SampleSink, epoch: u32, count: usize) -> Duration {
    let began = Instant::now();
    let mut spent = Duration::ZERO;
    let mut number = 0;
    while number < count {
        let now = UnixMillis::now();
        let burst: Vec<_> = (number..count.min(number + BURST))
            .map(|number| made::sample(number as u64, now))
            .collect();
        number += burst.len();
        let before = used_by("worker-0");
        for sample in burst {
            sink.routed(Routing {
                rollout: 0,
                config_epoch: epoch,
                weight: sample.weight,
                assigned: sample.assigned,
                arm: sample.arm,
                second: sample.second(),
            });
            sink.record(cutover::sample::Sample {
                config_epoch: epoch,
                ..sample
            });
        }
        spent += used_by("worker-0").saturating_sub(before);
        let due = Duration::from_secs_f64(number as f64 / RATE as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    drop(sink);
    spent
}
