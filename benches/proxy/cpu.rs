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

    /// What the bench itself has used, without the peers that it started.
    pub(crate) fn by_the_bench() -> Duration {
        let own = tasks(std::process::id());
        own.iter()
            .map(|task| nanoseconds(&format!("{task}/schedstat")))
            .sum()
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
pub(crate) fn family(pid: u32) -> Vec<u32> {
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

/// The folders of a process's threads.
pub(crate) fn tasks(pid: u32) -> Vec<String> {
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
    ticks_from(path, 2)
}

/// User and system time, and with `fields` of 4 those of children that have ended.
fn ticks_from(path: &str, fields: usize) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15,
    // the children's the two behind.
    let values = text
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(fields);
    values
        .filter_map(|field| field.parse::<u32>().ok())
        .map(|ticks| TICK * ticks)
        .sum()
}

/// CPU time of the whole machine and of the bench with all that it has started, up to one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Time that all cores were busy, for whomever.
    busy: Duration,
    /// Time that another machine had the cores that this one wanted.
    stolen: Duration,
    /// What of it was ours; a child counts once it has ended.
    ours: Duration,
}

impl Machine {
    /// What was used so far.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let field = |at: usize| {
            let field = line.split_whitespace().nth(at);
            TICK * field
                .and_then(|f| f.parse::<u32>().ok())
                .unwrap_or_default()
        };
        Self {
            // User, nice, system, interrupts of both kinds.
            busy: [1, 2, 3, 6, 7].map(field).into_iter().sum(),
            stolen: field(8),
            ours: ticks_from("/proc/self/stat", 4),
        }
    }

    /// Shares of all cores that others used, and that were stolen, since `before`; 0 to 1.
    pub(crate) fn others_since(&self, before: &Self, elapsed: Duration) -> (f64, f64) {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // The bench is pinned, so the system counts the cores that it may use, not those there are.
        let cores = fs::read_to_string("/proc/cpuinfo").map_or(cores, |text| {
            let listed = text.lines().filter(|l| l.starts_with("processor"));
            listed.count().max(1)
        });
        let cores = f64::from(u32::try_from(cores).unwrap_or(1));
        let ours = self.ours.saturating_sub(before.ours);
        let all = self.busy.saturating_sub(before.busy);
        let share = |time: Duration| time.as_secs_f64() / (elapsed.as_secs_f64() * cores);
        let stolen = self.stolen.saturating_sub(before.stolen);
        (share(all.saturating_sub(ours)), share(stolen))
    }
}
