//! The process itself, in the names that every Prometheus client uses. Read from `/proc`; elsewhere only the
//! start time is known.

use std::fs;

use super::page::Page;
use crate::clock::UnixMillis;

/// The kernel counts the time of processes in hundredths of a second, on every machine that cutover runs on.
const TICKS_PER_S: f64 = 100.0;

pub(super) fn add(page: &mut Page, started_at: UnixMillis) {
    page.single(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970",
        started_at.0 as f64 / 1_000.0,
    );
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&stat) {
        page.counter(
            "process_cpu_seconds_total",
            "Processor time that was used, in user and in system mode",
            [(Vec::new(), ticks / TICKS_PER_S)],
        );
    }
    let memory = number_after(&status, "VmRSS:").map(|kib| kib * 1_024.0);
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory that is held in RAM",
            memory,
        ),
        (
            "process_threads",
            "Threads of the process",
            number_after(&status, "Threads:"),
        ),
        (
            "process_open_fds",
            "Open file descriptors, sockets included",
            fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| entries.count() as f64),
        ),
        (
            "process_max_fds",
            "File descriptors that may be open",
            number_after(&limits, "Max open files"),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.single(name, help, value);
        }
    }
}

/// User and system time. The name of the program, in parentheses, may hold anything.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_kernel_are_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(300.0));
        assert_eq!(cpu_ticks(""), None);
        assert_eq!(
            number_after("A:\t1\nVmRSS:\t  520 kB\n", "VmRSS:"),
            Some(520.0)
        );
        let limits = "Max open files            1024   1048576   files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024.0));
        assert_eq!(
            number_after("Max open files unlimited", "Max open files"),
            None
        );
    }
}
