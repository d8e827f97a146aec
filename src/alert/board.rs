//! What `status` and metrics say of each receiver: counts and the last error.
//!
//! Counters are atomic words; the one lock is held for the copy of a sentence, on the control runtime only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::config::WebhookFormat;

/// One receiver in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookStatus {
    /// Scheme and host of its address: the rest is secret.
    pub webhook: String,
    /// `slack`, `pagerduty` or `json`.
    pub format: &'static str,
    /// Messages that it took since the start.
    pub sent: u64,
    /// Messages that it refused for good.
    pub failed: u64,
    /// Messages that were given up undelivered: too many, or too old.
    pub dropped: u64,
    /// Messages that wait or are under way.
    pub queued: u64,
    /// Why the last try failed; `null` after one that succeeded.
    pub last_error: Option<String>,
}

/// The counts of one receiver.
#[derive(Debug)]
pub(super) struct Board {
    webhook: String,
    format: WebhookFormat,
    pub(super) sent: AtomicU64,
    pub(super) failed: AtomicU64,
    dropped: AtomicU64,
    pub(super) queued: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Board {
    pub(super) fn new(webhook: String, format: WebhookFormat) -> Self {
        Self {
            webhook,
            format,
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// Its address as people may see it.
    pub(super) fn webhook(&self) -> &str {
        &self.webhook
    }

    /// Counts messages that are given up. The first one is told in the log: nothing else would tell of it.
    pub(super) fn drop_some(&self, count: u64) {
        let before = self.dropped.fetch_add(count, Ordering::Relaxed);
        if before == 0 && count > 0 {
            let webhook = &self.webhook;
            tracing::error!(
                webhook,
                "alerts are dropped: too many wait for this receiver"
            );
        }
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        // A sentence is whole or not there: a panic elsewhere cannot spoil it.
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = error;
    }

    fn status(&self) -> WebhookStatus {
        let last = self.last_error.lock();
        let last_error = last.unwrap_or_else(PoisonError::into_inner).clone();
        WebhookStatus {
            webhook: self.webhook.clone(),
            format: self.format.as_str(),
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            last_error,
        }
    }
}

/// The boards of all receivers, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Boards(Arc<Mutex<Vec<Arc<Board>>>>);

impl Boards {
    pub(super) fn set(&self, boards: Vec<Arc<Board>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = boards;
    }

    pub(super) fn status(&self) -> Vec<WebhookStatus> {
        let boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        boards.iter().map(|board| board.status()).collect()
    }
}
