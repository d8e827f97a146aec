//! Memory and sleeps of a proxy with all of its processes, and what a file weighs.
//!
//! Reads `/proc` and nothing else. Linux only.

use std::fs;
use std::path::Path;

use crate::cpu::{family, tasks};

/// Proportional set size of a peer, in KiB: its own pages, and its share of shared ones.
pub(crate) fn pss_kib(pid: u32) -> f64 {
    let of = |pid: u32| line(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    family(pid).into_iter().map(of).sum()
}

/// Resident set size of a peer, in KiB.
pub(crate) fn rss_kib(pid: u32) -> f64 {
    let of = |pid: u32| line(&format!("/proc/{pid}/status"), "VmRSS:");
    family(pid).into_iter().map(of).sum()
}

/// How often the threads of a peer have gone to sleep of their own will so far.
pub(crate) fn sleeps(pid: u32) -> f64 {
    let of = |task: String| line(&format!("{task}/status"), "voluntary_ctxt_switches:");
    family(pid).into_iter().flat_map(tasks).map(of).sum()
}

/// Size of a file, in MB of a million bytes.
pub(crate) fn size_mb(path: &Path) -> Option<f64> {
    let bytes = fs::metadata(path).ok()?.len();
    Some(crate::number(bytes) / 1e6)
}

/// The number behind the first line that starts so.
fn line(path: &str, start: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(start));
    let number = found.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}
