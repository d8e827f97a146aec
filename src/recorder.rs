//! The way of samples from the data plane to the control plane: batched, bounded, never waited for.
//!
//! Each worker fills a buffer of its own and hands it over when it is full, when a live canary attempt
//! failed (so that the driver wakes at once), or after [`FLUSH_EVERY`]. What the queue cannot take is
//! dropped and counted; the count is shown in `status`.
//!
//! A request speaks twice: it is counted when it is routed ([`SampleSink::routed`]), and its attempts leave
//! samples when they end. Its count reaches the driver before its sample, or with it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use crate::arm::Arm;
use crate::learned::LearnedId;
use crate::sample::{Role, Routing, Sample};

/// The longest that a sample stays in a worker's buffer.
pub const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// A buffer of this many samples is handed over at once.
const BATCH: usize = 256;
/// Batches in flight at most: a quarter of a million samples.
const QUEUE: usize = 1_024;
/// So many different ways in which requests were routed are handed over at once.
const ROUTINGS: usize = 64;
/// A request is looked for among this many of the latest ways; if it is not there, it is one more.
const ROUTINGS_SEEN: usize = 8;

/// Samples (and counts of routing) that are kept for a driver that has not begun, at most.
const HELD: usize = 65_536;

/// What a worker hands over at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// Attempts that ended.
    pub samples: Vec<Sample>,
    /// Live first attempts that were routed, with how many of each kind; kinds may repeat.
    pub routed: Vec<(Routing, u32)>,
    /// State that the canary gave out.
    pub learned: Vec<LearnedId>,
}

/// The worker's end. Cloned once per worker, never shared between threads.
#[derive(Debug)]
pub struct SampleSink {
    buffer: RefCell<Batch>,
    queue: mpsc::Sender<Batch>,
    dropped: Arc<AtomicU64>,
    not_empty: Notify,
}

/// Makes sinks; one per program.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Batch>,
    dropped: Arc<AtomicU64>,
}

/// The driver's end.
#[derive(Debug)]
pub struct Samples {
    queue: mpsc::Receiver<Batch>,
    dropped: Arc<AtomicU64>,
    held: Held,
}

/// What came before anybody could count it.
#[derive(Debug, Default)]
struct Held {
    batches: VecDeque<Batch>,
    /// What all of them hold.
    room: usize,
}

/// A recorder and the end that receives from it.
#[must_use]
pub fn channel() -> (Recorder, Samples) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    (
        Recorder {
            queue: sender,
            dropped: Arc::clone(&dropped),
        },
        Samples {
            queue: receiver,
            dropped,
            held: Held::default(),
        },
    )
}

impl Recorder {
    /// A sink for one worker.
    #[must_use]
    pub fn sink(&self) -> SampleSink {
        SampleSink {
            buffer: RefCell::new(Batch::with_capacity()),
            queue: self.queue.clone(),
            dropped: Arc::clone(&self.dropped),
            not_empty: Notify::new(),
        }
    }
}

impl Batch {
    fn with_capacity() -> Self {
        Self {
            samples: Vec::with_capacity(BATCH),
            routed: Vec::with_capacity(ROUTINGS),
            learned: Vec::new(),
        }
    }

    const fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.routed.is_empty() && self.learned.is_empty()
    }
}

impl SampleSink {
    /// Counts a live first attempt that begins now. Never waits; a few comparisons, seldom more.
    pub fn routed(&self, routing: Routing) {
        let length = {
            let mut buffer = self.buffer.borrow_mut();
            let mut latest = buffer.routed.iter_mut().rev().take(ROUTINGS_SEEN);
            if let Some((_, count)) = latest.find(|(known, _)| *known == routing) {
                *count = count.saturating_add(1);
                return;
            }
            buffer.routed.push((routing, 1));
            buffer.routed.len()
        };
        if length >= ROUTINGS {
            self.flush();
        } else if length == 1 {
            self.not_empty.notify_one();
        }
    }

    /// Takes a sample. Never waits.
    pub fn record(&self, sample: Sample) {
        let urgent = sample.arm == Arm::Canary
            && sample.outcome.is_error()
            && matches!(sample.role, Role::Live | Role::Probe);
        let length = {
            let mut buffer = self.buffer.borrow_mut();
            buffer.samples.push(sample);
            buffer.samples.len()
        };
        if urgent || length >= BATCH {
            self.flush();
        } else if length == 1 {
            self.not_empty.notify_one();
        }
    }

    /// Takes ids that were learned and that the store shall keep. Never waits.
    pub fn learned(&self, ids: impl Iterator<Item = LearnedId>) {
        let length = {
            let mut buffer = self.buffer.borrow_mut();
            buffer.learned.extend(ids);
            buffer.learned.len()
        };
        if length >= BATCH {
            self.flush();
        } else if length > 0 {
            self.not_empty.notify_one();
        }
    }

    /// Hands over what is there.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut *buffer, Batch::with_capacity());
        let (TrySendError::Full(lost) | TrySendError::Closed(lost)) =
            match self.queue.try_send(batch) {
                Ok(()) => return,
                Err(error) => error,
            };
        let count = (lost.samples.len() + lost.learned.len()) as u64;
        self.dropped.fetch_add(count, Ordering::Relaxed);
        // The counts are small and go with the next batch: without them the driver would take requests
        // that it then sees end for others that began in the same second.
        if lost.routed.len() < ROUTINGS {
            buffer.routed = lost.routed;
        }
    }

    /// Flushes for as long as the worker lives, and sleeps while there is nothing to flush.
    pub async fn flush_now_and_then(&self) {
        loop {
            self.not_empty.notified().await;
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush();
        }
    }
}

impl Held {
    /// Quiet times make small batches: they are joined, so that each does not keep room for a big one.
    fn push(&mut self, batch: Batch) {
        match self.batches.back_mut() {
            Some(last) if last.samples.len() + batch.samples.len() <= BATCH => {
                last.samples.extend(batch.samples);
                last.routed.extend(batch.routed);
                last.learned.extend(batch.learned);
            }
            _ => self.batches.push_back(batch),
        }
    }
}

impl Samples {
    /// The next batch; `None` once every sink and the recorder are gone.
    pub async fn next(&mut self) -> Option<Batch> {
        if let Some(batch) = self.held.batches.pop_front() {
            return Some(batch);
        }
        self.queue.recv().await
    }

    /// Keeps what comes for [`Samples::next`] until it is dropped, while nobody can count it. What
    /// is over [`HELD`] samples is dropped and counted.
    pub async fn hold(&mut self) {
        while let Some(batch) = self.queue.recv().await {
            let count = batch.samples.len() + batch.learned.len();
            // Counts of routing are few, but they take room as well.
            let room = count + batch.routed.len();
            if self.held.room + room > HELD {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
            } else {
                self.held.room += room;
                self.held.push(batch);
            }
        }
        std::future::pending::<()>().await;
    }

    /// How much is kept.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held.room
    }

    /// Batches that wait now, and how many may.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queue.max_capacity())
    }

    /// Samples, and records of learned ids, dropped so far because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for SampleSink {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
