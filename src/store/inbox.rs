//! What waits to be written, and all that the handles and the writer share.
//!
//! Every queue is bounded and the lock is held only to move rows in or out, so no caller waits for the
//! disk. Attempts, cells, learned ids and saves may be dropped; commits with a receipt are kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::SqlitePool;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::doubt::Doubt;
use super::{
    AttemptRow, BudgetTold, CellRow, Committed, DecisionRow, Health, Receipt, RolloutRow,
    StoreError,
};
use crate::config::StoreConfig;
use crate::learned::{CAPACITY, LearnedId};

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
            flush_rows: 500,
            transaction_rows: 5_000,
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
            close_within: Duration::from_secs(5),
            #[cfg(test)]
            max_pages: std::sync::Arc::default(),
        }
    }
}

/// A state and its decision on their way to the disk.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) row: RolloutRow,
    pub(super) decision: Option<DecisionRow>,
    /// Stays queued until it is stored.
    pub(super) keep: bool,
    /// An earlier try failed, perhaps after the disk had it all.
    pub(super) tried: bool,
    reply: oneshot::Sender<Result<Committed, StoreError>>,
}

impl Commit {
    /// Tells the caller, if it still listens.
    pub(super) fn reply(self, result: Result<Committed, StoreError>) {
        drop(self.reply.send(result));
    }
}

/// What is written together when there is no decision in it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) cells: Vec<CellRow>,
    pub(super) states: Vec<RolloutRow>,
    pub(super) learned: Vec<LearnedId>,
    pub(super) told: Vec<BudgetTold>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty()
            && self.cells.is_empty()
            && self.states.is_empty()
            && self.learned.is_empty()
            && self.told.is_empty()
    }
}

/// What was told of budgets and waits at most.
const QUEUED_TOLD: usize = 1_000;

/// Appends what has room; returns how many were dropped.
fn push_most<T>(queue: &mut VecDeque<T>, rows: Vec<T>, most: usize, is_closed: bool) -> usize {
    let room = if is_closed {
        0
    } else {
        most.saturating_sub(queue.len())
    };
    let dropped = rows.len().saturating_sub(room);
    queue.extend(rows.into_iter().take(room));
    dropped
}

#[derive(Debug, Default)]
struct Inbox {
    attempts: VecDeque<AttemptRow>,
    cells: VecDeque<CellRow>,
    /// Rollout id -> its latest state.
    states: BTreeMap<String, RolloutRow>,
    commits: VecDeque<Commit>,
    learned: VecDeque<LearnedId>,
    told: VecDeque<BudgetTold>,
    /// Whose learned ids are kept; `None` until that is known.
    canary: Option<i64>,
    /// When to give up storing the rest; set once the store is being closed.
    close_by: Option<Instant>,
    /// The writer has ended.
    closed: bool,
}

/// Shared by the handles and the writer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: StoreConfig,
    pub(super) limits: Limits,
    pub(super) health: watch::Sender<Health>,
    pub(super) doubt: Doubt,
    inbox: Mutex<Inbox>,
    wake: Notify,
    readers: Mutex<SqlitePool>,
}

impl Shared {
    pub(super) fn new(
        config: StoreConfig,
        limits: Limits,
        health: Health,
        readers: SqlitePool,
    ) -> Self {
        Self {
            config,
            limits,
            health: watch::Sender::new(health),
            doubt: Doubt::default(),
            inbox: Mutex::default(),
            wake: Notify::new(),
            readers: Mutex::new(readers),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queue_attempts(&self, rows: Vec<AttemptRow>) {
        let (dropped, wake) = {
            let mut inbox = self.inbox();
            let is_closed = inbox.closed;
            let most = self.limits.queued_attempts;
            let dropped = push_most(&mut inbox.attempts, rows, most, is_closed);
            (dropped, inbox.attempts.len() >= self.limits.flush_rows)
        };
        self.count_dropped(dropped, 0);
        if wake {
            self.wake.notify_one();
        }
    }

    pub(super) fn queue_cells(&self, rows: Vec<CellRow>) {
        let dropped = {
            let mut inbox = self.inbox();
            let is_closed = inbox.closed;
            push_most(&mut inbox.cells, rows, self.limits.queued_cells, is_closed)
        };
        self.count_dropped(0, dropped);
    }

    pub(super) fn queue_learned(&self, ids: Vec<LearnedId>) {
        let dropped = {
            let mut inbox = self.inbox();
            let is_closed = inbox.closed;
            let most = self.limits.queued_learned;
            push_most(&mut inbox.learned, ids, most, is_closed)
        };
        self.count_dropped(dropped, 0);
    }

    /// They are few; what is dropped is told again after a restart.
    pub(super) fn queue_told(&self, told: Vec<BudgetTold>) {
        let mut inbox = self.inbox();
        let is_closed = inbox.closed;
        push_most(&mut inbox.told, told, QUEUED_TOLD, is_closed);
    }

    pub(super) fn keep_learned_of(&self, canary: i64) {
        self.inbox().canary = Some(canary);
    }

    /// Whose learned ids are kept.
    pub(super) fn canary(&self) -> Option<i64> {
        self.inbox().canary
    }

    /// Counts what was dropped without waking anybody.
    pub(super) fn count_dropped(&self, samples: usize, cells: usize) {
        if samples + cells > 0 {
            self.health.send_if_modified(|health| {
                health.dropped_samples += samples as u64;
                health.dropped_cells += cells as u64;
                false
            });
        }
    }

    pub(super) fn queue_state(&self, row: RolloutRow) {
        let mut inbox = self.inbox();
        if !inbox.closed {
            inbox.states.insert(row.rollout_id.clone(), row);
        }
    }

    pub(super) fn queue_commit(
        &self,
        row: RolloutRow,
        decision: Option<DecisionRow>,
        keep: bool,
    ) -> Receipt {
        let (reply, receipt) = oneshot::channel();
        let commit = Commit {
            row,
            decision,
            keep,
            tried: false,
            reply,
        };
        let refused = {
            let mut inbox = self.inbox();
            if inbox.closed {
                Some((commit, StoreError::Closed))
            } else if inbox.commits.len() >= self.limits.queued_commits {
                Some((commit, StoreError::QueueFull))
            } else {
                inbox.commits.push_back(commit);
                None
            }
        };
        match refused {
            Some((commit, error)) => commit.reply(Err(error)),
            None => self.wake.notify_one(),
        }
        receipt
    }

    /// The oldest waiting commit.
    pub(super) fn next_commit(&self) -> Option<Commit> {
        self.inbox().commits.pop_front()
    }

    /// Puts a commit back to the head of the queue.
    pub(super) fn put_back(&self, commit: Commit) {
        self.inbox().commits.push_front(commit);
    }

    /// Takes out the commits that are tried only once.
    pub(super) fn take_impatient_commits(&self) -> Vec<Commit> {
        let mut inbox = self.inbox();
        let (keep, impatient) = inbox.commits.drain(..).partition(|commit| commit.keep);
        inbox.commits = keep;
        Vec::from(impatient)
    }

    /// The next rows to write together.
    pub(super) fn next_batch(&self) -> Batch {
        let mut inbox = self.inbox();
        let count = inbox.attempts.len().min(self.limits.transaction_rows);
        let learned = inbox.learned.len().min(self.limits.transaction_rows);
        Batch {
            attempts: inbox.attempts.drain(..count).collect(),
            cells: inbox.cells.drain(..).collect(),
            states: std::mem::take(&mut inbox.states).into_values().collect(),
            learned: inbox.learned.drain(..learned).collect(),
            told: inbox.told.drain(..).collect(),
        }
    }

    /// Sleeps until there is a reason to write.
    pub(super) async fn wait_for_work(&self) {
        let enough = {
            let inbox = self.inbox();
            inbox.attempts.len() >= self.limits.flush_rows
        };
        if !enough {
            self.wait_for_call(self.limits.flush_every).await;
        }
    }

    /// Sleeps for `pause`, less if a caller asks for the writer's attention.
    pub(super) async fn wait_for_call(&self, pause: Duration) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let inbox = self.inbox();
        inbox.attempts.is_empty()
            && inbox.cells.is_empty()
            && inbox.states.is_empty()
            && inbox.learned.is_empty()
            && inbox.told.is_empty()
            && inbox.commits.is_empty()
    }

    /// True if attempts are waiting to be written right away.
    pub(super) fn is_busy(&self) -> bool {
        self.inbox().attempts.len() >= self.limits.flush_rows
    }

    /// Asks the writer to store what is queued and to end.
    pub(super) fn begin_to_close(&self) {
        self.inbox()
            .close_by
            .get_or_insert_with(|| Instant::now() + self.limits.close_within);
        self.wake.notify_one();
    }

    /// When the writer must end, once the store is being closed.
    pub(super) fn close_by(&self) -> Option<Instant> {
        self.inbox().close_by
    }

    /// Refuses everything from now on; returns how many attempts and commits are lost.
    pub(super) fn end(&self) -> (usize, usize) {
        let (attempts, commits) = {
            let mut inbox = self.inbox();
            inbox.closed = true;
            inbox.cells.clear();
            inbox.states.clear();
            inbox.learned.clear();
            inbox.told.clear();
            (
                std::mem::take(&mut inbox.attempts),
                std::mem::take(&mut inbox.commits),
            )
        };
        let lost = (attempts.len(), commits.len());
        for commit in commits {
            commit.reply(Err(StoreError::Closed));
        }
        lost
    }

    /// The pool to read from.
    pub(super) fn readers(&self) -> SqlitePool {
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the pool and returns the old one, to be closed.
    pub(super) fn replace_readers(&self, readers: SqlitePool) -> SqlitePool {
        let mut current = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, readers)
    }
}
