//! CPU time of a proxy: all of its processes and threads, and its data-plane threads alone.
//!
//! Reads `/proc` and nothing else. Linux only.

use std::fs;
use std::time::Duration;

/// `/proc/PID/stat` counts in these.
const TICK: Duration = Duration::from_millis(10);
/// Threads of this name carry cutover's data plane.
const DATA_PLANE: &str = "worker-";

/// CPU time that was used up to one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// By all threads that run, to the nanosecond.
    threads: Duration,
    /// By all threads, ended ones too, in ticks.
    processes: Duration,
    /// By the data-plane threads.
    data_plane: Duration,
}

/// CPU time between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// By the whole peer.
    pub(crate) whole: Duration,
    /// By the threads that carry traffic; the same as `whole` where no thread is named so.
    pub(crate) data_plane: Duration,
}

impl Used {
    /// What a process and its descendants have used.
    pub(crate) fn by(pid: u32) -> Self {
        let mut used = Self::default();
        for pid in family(pid) {
            used.processes += ticks(&format!("/proc/{pid}/stat"));
            for task in tasks(pid) {
                let spent = nanoseconds(&format!("{task}/schedstat"));
                used.threads += spent;
                let name = fs::read_to_string(format!("{task}/comm")).unwrap_or_default();
                if name.starts_with(DATA_PLANE) {
                    used.data_plane += spent;
                }
            }
        }
        used
    }

    /// What was spent since `before`.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let threads = self.threads.saturating_sub(before.threads);
        let processes = self.processes.saturating_sub(before.processes);
        // The ticks are coarse but remember threads that ended; believe them only if that shows.
        let whole = if processes > threads + 2 * TICK {
            processes
        } else {
            threads
        };
        let data_plane = match self.data_plane.saturating_sub(before.data_plane) {
            Duration::ZERO => whole,
            some => some,
        };
        Spent { whole, data_plane }
    }
}

/// A process and all processes that descend from it.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        for task in tasks(pid) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    all
}

fn tasks(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    entries
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .collect()
}

fn nanoseconds(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let first = text
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    Duration::from_nanos(first.unwrap_or_default())
}

fn ticks(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let fields = text
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2);
    fields
        .filter_map(|field| field.parse::<u32>().ok())
        .map(|ticks| TICK * ticks)
        .sum()
}
