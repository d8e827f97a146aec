//! The requests under way on one HTTP/2 connection, so that one without any can be closed.
//!
//! HTTP/2 has no timeout of its own for a client that connects and asks nothing.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::answer::{Answer, BrokenOff};

/// Counts the streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    open: Cell<usize>,
    quiet_since: Cell<Instant>,
}

/// One request under way; its end is the drop of this.
#[derive(Debug)]
pub(super) struct Place(Rc<Streams>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.quiet_since.set(Instant::now());
    }
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            open: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
        }
    }

    pub(super) fn place(this: &Rc<Self>) -> Place {
        this.open.set(this.open.get() + 1);
        Place(Rc::clone(this))
    }

    /// Resolves when there was no request for so long.
    pub(super) async fn quiet_for(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let since = if self.open.get() > 0 {
                now
            } else {
                self.quiet_since.get()
            };
            let at = since + limit;
            if now >= at {
                return;
            }
            tokio::time::sleep_until(at).await;
        }
    }
}

/// An answer that holds its place to its end.
#[derive(Debug)]
pub(super) struct StreamBody {
    answer: Answer,
    _place: Place,
}

impl StreamBody {
    pub(super) const fn new(answer: Answer, place: Place) -> Self {
        Self {
            answer,
            _place: place,
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.get_mut().answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_quiet_only_while_no_request_is_under_way() {
        let streams = Rc::new(Streams::new());
        let limit = Duration::from_millis(20);
        let began = Instant::now();
        let place = Streams::place(&streams);
        let ends = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            drop(place);
        };
        tokio::join!(ends, streams.quiet_for(limit));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(80), "{took:?}");
    }
}
