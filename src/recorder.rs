//! The way of samples from the data plane to the control plane: batched, bounded, never waited for.
//!
//! Each worker fills a buffer of its own and hands it over when it is full, when a live canary attempt
//! failed (so that the driver wakes at once), or after [`FLUSH_EVERY`]. What the queue cannot take is
//! dropped and counted; the count is shown in `status`.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::arm::Arm;
use crate::sample::{Role, Sample};

/// The longest that a sample stays in a worker's buffer.
pub const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// A buffer of this many samples is handed over at once.
const BATCH: usize = 256;
/// Batches in flight at most: a quarter of a million samples.
const QUEUE: usize = 1_024;

/// The worker's end. Cloned once per worker, never shared between threads.
#[derive(Debug)]
pub struct SampleSink {
    buffer: RefCell<Vec<Sample>>,
    queue: mpsc::Sender<Vec<Sample>>,
    dropped: Arc<AtomicU64>,
    not_empty: Notify,
}

/// Makes sinks; one per program.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Vec<Sample>>,
    dropped: Arc<AtomicU64>,
}

/// The driver's end.
#[derive(Debug)]
pub struct Samples {
    queue: mpsc::Receiver<Vec<Sample>>,
    dropped: Arc<AtomicU64>,
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
        },
    )
}

impl Recorder {
    /// A sink for one worker.
    #[must_use]
    pub fn sink(&self) -> SampleSink {
        SampleSink {
            buffer: RefCell::new(Vec::with_capacity(BATCH)),
            queue: self.queue.clone(),
            dropped: Arc::clone(&self.dropped),
            not_empty: Notify::new(),
        }
    }
}

impl SampleSink {
    /// Takes a sample. Never waits.
    pub fn record(&self, sample: Sample) {
        let urgent = sample.arm == Arm::Canary
            && sample.outcome.is_error()
            && matches!(sample.role, Role::Live | Role::Probe);
        let length = {
            let mut buffer = self.buffer.borrow_mut();
            buffer.push(sample);
            buffer.len()
        };
        if urgent || length >= BATCH {
            self.flush();
        } else if length == 1 {
            self.not_empty.notify_one();
        }
    }

    /// Hands over what is there.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut *buffer, Vec::with_capacity(BATCH));
        let count = batch.len() as u64;
        if self.queue.try_send(batch).is_err() {
            self.dropped.fetch_add(count, Ordering::Relaxed);
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

impl Samples {
    /// The next batch; `None` once every sink and the recorder are gone.
    pub async fn next(&mut self) -> Option<Vec<Sample>> {
        self.queue.recv().await
    }

    /// Samples dropped so far because the queue was full.
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
