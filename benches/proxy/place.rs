//! Where the bench runs and how many files it may open; both are passed on to the peers.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The bench's own core.
const BENCH_CORE: &str = "1";
/// Files that are open besides the sockets of streams.
const OTHER_FILES: u64 = 700;

/// Moves the bench to its core: starts itself again under `taskset` where it is not there yet.
pub(crate) fn pinned(arguments: &[String]) -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let cores = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    if cores.map(str::trim) == Some(BENCH_CORE) {
        return Ok(());
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return Err("it needs two cores: one for the proxies and one for itself".to_owned());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("taskset");
    command
        .args(["--cpu-list", BENCH_CORE])
        .arg(program)
        .args(arguments);
    // Returns only if it failed.
    Err(format!(
        "taskset, of the package util-linux: {}",
        command.exec()
    ))
}

/// Lets this process open as many files as `wanted` streams take, a socket on either side of each, if
/// that is allowed; returns for how many streams it is.
pub(crate) fn streams_possible(wanted: u32) -> u32 {
    let need = 2 * u64::from(wanted) + OTHER_FILES;
    let [_, hard] = limits();
    // The first needs the right to raise a hard limit, the second needs none.
    for limit in [need.max(hard), hard] {
        if limits().into_iter().min() >= Some(need) {
            break;
        }
        let pid = std::process::id().to_string();
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid, &format!("--nofile={limit}:{limit}")]);
        drop(command.stderr(Stdio::null()).status());
    }
    let [soft, _] = limits();
    let streams = soft.saturating_sub(OTHER_FILES) / 2;
    wanted.min(u32::try_from(streams).unwrap_or(u32::MAX))
}

/// How many files this process may open: now, and at most.
fn limits() -> [u64; 2] {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap_or_default().split_whitespace();
    // "unlimited" is no number.
    let mut next = || numbers.next().map_or(0, |n| n.parse().unwrap_or(u64::MAX));
    [next(), next()]
}
