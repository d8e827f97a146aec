//! Reading an eligible request's body: whole and bounded, or as far as it took to see that it is too large.

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::plane::{Worker, WorkerPlane};
use crate::upstream::alarm::Alarm;
use crate::upstream::pace::Pace;
use crate::upstream::pieces::Pieces;

/// Bodies of one worker that are kept at once, in bytes: however many requests a connection of HTTP/2 carries.
const KEPT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// A worker's account of a body that it keeps; settled when this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    worker: Rc<Worker>,
    bytes: u64,
}

impl Kept {
    const fn nothing(worker: Rc<Worker>) -> Self {
        Self { worker, bytes: 0 }
    }

    /// Puts more on the account. False if that is too much for the worker.
    fn add(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let all = self.worker.kept_bytes.get() + bytes;
        self.worker.kept_bytes.set(all);
        all <= KEPT_BYTES_MAX
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let all = self.worker.kept_bytes.get();
        self.worker.kept_bytes.set(all.saturating_sub(self.bytes));
    }
}

/// What became of reading an eligible request's body.
pub(super) enum ReadBody {
    /// All of it.
    Whole(Bytes, Kept),
    /// Larger than `replay-body`, or more than the worker can keep: not eligible, streamed to legacy.
    TooLargeToKeep {
        read_ahead: Vec<Bytes>,
        bytes: u64,
        rest: Incoming,
    },
    /// Larger than `max-body`.
    TooLarge,
    /// Nothing came for too long.
    Stalled,
    /// The client broke it off.
    Broken,
}

/// Reads the body within the limits of the configuration.
pub(super) async fn read_body(
    mut body: Incoming,
    worker: &Rc<Worker>,
    plane: &WorkerPlane,
) -> ReadBody {
    let proxy = &plane.config.proxy;
    if body.size_hint().lower() > proxy.replay_body_bytes {
        return ReadBody::TooLargeToKeep {
            read_ahead: Vec::new(),
            bytes: 0,
            rest: body,
        };
    }
    let mut kept = Kept::nothing(Rc::clone(worker));
    let mut chunks = Pieces::new();
    let mut bytes = 0u64;
    let (mut alarm, mut pace) = (Alarm::new(), Pace::new(proxy.client_stall));
    while !body.is_end_stream() {
        let due = || pace.due(Instant::now());
        let frame = match alarm.race_patiently(due, body.frame()).await {
            None => return ReadBody::Stalled,
            Some(None) => break,
            Some(Some(Err(_))) => return ReadBody::Broken,
            Some(Some(Ok(frame))) => frame,
        };
        // Trailers of a request carry nothing that an LLM call needs.
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        bytes += chunk.len() as u64;
        pace.came(chunk.len() as u64, Instant::now());
        let has_room = kept.add(chunk.len() as u64);
        chunks.push(chunk);
        if bytes > proxy.max_body_bytes {
            return ReadBody::TooLarge;
        }
        if bytes > proxy.replay_body_bytes || !has_room {
            return ReadBody::TooLargeToKeep {
                read_ahead: chunks.into_list(),
                bytes,
                rest: body,
            };
        }
    }
    // Almost every body is one chunk, and then no byte is copied.
    ReadBody::Whole(chunks.into_whole(), kept)
}
