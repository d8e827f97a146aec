//! Bounds and paces of the store.

use std::time::Duration;

use crate::learned::CAPACITY;

/// Bounds and paces. The defaults are the product's; tests use smaller ones.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// The longest that a row waits in a healthy store.
    pub(super) flush_every: Duration,
    /// This many waiting attempts are written at once.
    pub(super) flush_rows: usize,
    /// Attempts in one transaction at most.
    pub(super) transaction_rows: usize,
    /// Waiting attempts at most.
    pub(super) queued_attempts: usize,
    /// Waiting cells at most.
    pub(super) queued_cells: usize,
    /// Waiting ids that were learned at most.
    pub(super) queued_learned: usize,
    /// Ids that the file keeps at most.
    pub(super) kept_learned: usize,
    /// Waiting commits at most.
    pub(super) queued_commits: usize,
    /// How long SQLite waits for another process's lock.
    pub(super) busy_timeout: Duration,
    /// How often folder and file are looked at.
    pub(super) probe_every: Duration,
    /// Pause after a failure; doubles up to `retry_at_most`.
    pub(super) retry_first: Duration,
    /// The longest pause between two tries.
    pub(super) retry_at_most: Duration,
    /// Pause between two rounds of retention.
    pub(super) retention_every: Duration,
    /// Pause between the first two checks of a file that readers find corrupt; doubles from then on.
    pub(super) check_every: Duration,
    /// What closing may take before the rest is given up.
    pub(super) close_within: Duration,
    /// Stands in for a disk that is full at this many pages; 0: no bound.
    #[cfg(test)]
    pub(super) max_pages: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flush_every: Duration::from_millis(250),
            flush_rows: 4_000,
            transaction_rows: 10_000,
            queued_attempts: 100_000,
            queued_cells: 10_000,
            queued_learned: 100_000,
            kept_learned: CAPACITY,
            queued_commits: 4_096,
            busy_timeout: Duration::from_secs(1),
            probe_every: Duration::from_secs(3),
            retry_first: Duration::from_millis(250),
            retry_at_most: Duration::from_secs(5),
            retention_every: Duration::from_secs(60),
            check_every: Duration::from_secs(600),
            close_within: Duration::from_secs(5),
            #[cfg(test)]
            max_pages: std::sync::Arc::default(),
        }
    }
}
