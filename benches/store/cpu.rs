//! CPU time of this process's threads, by their names. Reads `/proc` and nothing else. Linux only.

use std::fs;
use std::time::Duration;

/// CPU time of the threads whose names begin like this, up to now; those that ended are not in it.
pub(crate) fn used_by(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let paths = tasks.flatten().map(|task| task.path());
    let of = |path: &std::path::Path| {
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let spent = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let spent = spent.split(' ').next().and_then(|ns| ns.parse().ok());
        let wanted = comm.starts_with(name);
        Duration::from_nanos(if wanted { spent.unwrap_or(0) } else { 0 })
    };
    paths.map(|path| of(&path)).sum()
}

/// Microseconds for each of `count`.
pub(crate) fn us_each(time: Duration, count: usize) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    time.as_secs_f64() * 1e6 / f64::from(count.max(1))
}

/// The time that a share of the times does not exceed, in microseconds. Sorts them.
pub(crate) fn quantile_us(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let place = (times.len() * percent).div_ceil(100).max(1) - 1;
    let time = times.get(place).copied().unwrap_or_default();
    time.as_secs_f64() * 1e6
}
