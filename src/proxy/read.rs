//! Reading an eligible request's body: whole and bounded, or as far as it took to see that it is too large.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::plane::WorkerPlane;

/// A client that sends nothing of its body for this long is given up.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// What became of reading an eligible request's body.
pub(super) enum ReadBody {
    /// All of it.
    Whole(Bytes),
    /// Larger than `replay-body`: not eligible, streamed to legacy.
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
pub(super) async fn read_body(mut body: Incoming, plane: &WorkerPlane) -> ReadBody {
    let proxy = &plane.config.proxy;
    if body.size_hint().lower() > proxy.replay_body_bytes {
        return ReadBody::TooLargeToKeep {
            read_ahead: Vec::new(),
            bytes: 0,
            rest: body,
        };
    }
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut bytes = 0u64;
    while !body.is_end_stream() {
        let frame = match tokio::time::timeout(UPLOAD_IDLE, body.frame()).await {
            Err(_) => return ReadBody::Stalled,
            Ok(None) => break,
            Ok(Some(Err(_))) => return ReadBody::Broken,
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers of a request carry nothing that an LLM call needs.
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        bytes += chunk.len() as u64;
        chunks.push(chunk);
        if bytes > proxy.max_body_bytes {
            return ReadBody::TooLarge;
        }
        if bytes > proxy.replay_body_bytes {
            return ReadBody::TooLargeToKeep {
                read_ahead: chunks,
                bytes,
                rest: body,
            };
        }
    }
    // Almost every body is one chunk, and then no byte is copied.
    let single = if chunks.len() == 1 {
        chunks.pop()
    } else {
        None
    };
    ReadBody::Whole(single.unwrap_or_else(|| chunks.concat().into()))
}
