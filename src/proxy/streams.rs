//! The requests under way on one HTTP/2 connection: one without any can be closed, and one whose client
//! takes nothing of its answer is reset.
//!
//! HTTP/2 has no timeout of its own for a client that connects and asks nothing, nor for one that asks and
//! gives an answer no room: it can live and read everything else. hyper runs each request as a task, which
//! its executor is handed right after the request was; the task ends here, and that resets its stream alone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep};

use super::answer::{Answer, BrokenOff};

/// Counts the streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    open: Cell<usize>,
    quiet_since: Cell<Instant>,
}

/// One request under way; its end is the drop of this.
#[derive(Debug)]
pub(super) struct Place {
    streams: Rc<Streams>,
    taken: Rc<Taken>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let streams = &self.streams;
        streams.open.set(streams.open.get().saturating_sub(1));
        streams.quiet_since.set(Instant::now());
    }
}

/// How far the client is with one answer.
#[derive(Debug, Default)]
struct Taken {
    /// Since when it has something to take, and has not come for more.
    waits_since: Cell<Option<Instant>>,
}

/// Runs the requests of one worker's HTTP/2 connections, each until its client takes nothing any more.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamExec {
    /// Between the two calls of hyper's.
    next: Rc<RefCell<Option<Next>>>,
}

/// The request whose task comes next, and how long its client may take nothing.
type Next = (Rc<Taken>, Duration);

impl StreamExec {
    /// The next task is the one of this request.
    pub(super) fn expect(&self, place: &Place, stall: Duration) {
        *self.next.borrow_mut() = Some((Rc::clone(&place.taken), stall));
    }
}

impl<F: Future + 'static> Executor<F> for StreamExec {
    fn execute(&self, task: F) {
        let next = self.next.borrow_mut().take();
        drop(tokio::task::spawn_local(async move {
            match next {
                Some((taken, stall)) => taken_or_cut(task, &taken, stall).await,
                None => drop(task.await),
            }
        }));
    }
}

/// Runs the task to its end, or until its answer waits for the client for longer than `stall`.
async fn taken_or_cut(task: impl Future, taken: &Taken, stall: Duration) {
    let mut task = pin!(task);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Most of the time the arm is waited for, and no timer is needed.
        let Some(since) = taken.waits_since.get() else {
            return Poll::Pending;
        };
        let at = since + stall;
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(cx));
        tracing::debug!("a client took nothing of its answer for too long; its stream is reset");
        Poll::Ready(())
    })
    .await;
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
        Place {
            streams: Rc::clone(this),
            taken: Rc::default(),
        }
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

/// A piece of an answer at most. hyper takes each whole where there is room for a byte of it, and the last
/// one ends the task: so much may wait for a client that nothing waits for any more.
const PIECE_BYTES: usize = 16 * 1024;

/// An answer that holds its place to its end.
#[derive(Debug)]
pub(super) struct StreamBody {
    answer: Answer,
    /// What is left of a larger chunk.
    rest: Bytes,
    place: Place,
}

impl StreamBody {
    pub(super) const fn new(answer: Answer, place: Place) -> Self {
        let rest = Bytes::new();
        Self {
            answer,
            rest,
            place,
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
        let this = self.get_mut();
        let waits_since = &this.place.taken.waits_since;
        waits_since.set(None);
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.answer).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => this.rest = chunk,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        waits_since.set(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let answer = self.answer.size_hint().exact();
        answer.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + rest))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_task_ends_when_its_client_takes_nothing_and_not_while_the_arm_is_waited_for() {
        let stall = Duration::from_millis(20);
        let taken = Taken::default();
        let endless = taken_or_cut(pending::<()>(), &taken, stall);
        let waited = tokio::time::timeout(Duration::from_millis(60), endless).await;
        assert!(waited.is_err(), "nothing waits for the client");
        taken.waits_since.set(Some(Instant::now()));
        taken_or_cut(pending::<()>(), &taken, stall).await;
    }

    #[tokio::test]
    async fn an_answer_is_handed_over_in_small_pieces_and_only_the_last_ends_it() {
        let whole = Bytes::from(vec![b'x'; 2 * PIECE_BYTES + 1]);
        let place = Streams::place(&Rc::new(Streams::new()));
        let mut body = StreamBody::new(Answer::Own(whole), place);
        let mut left = 2 * PIECE_BYTES as u64 + 1;
        for expected in [PIECE_BYTES, PIECE_BYTES, 1] {
            assert!(!body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(left));
            let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let piece = next.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece.len(), expected);
            left -= expected as u64;
            assert!(body.place.taken.waits_since.get().is_some());
        }
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }

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
