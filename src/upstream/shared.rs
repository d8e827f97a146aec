//! HTTP/2 connections, each shared by many requests of one worker.
//!
//! The windows are wide enough for all streams at once: with less, a few clients that stop reading would
//! stall every other answer on the connection. What a request drops is reset alone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::body::UploadBody;
use super::pool::{MAX_AGE, MAX_HEAD_BYTES, MAX_IDLE_AGE};
use super::socket::Socket;

/// Requests on one connection at most; providers allow 100 and more.
pub(super) const STREAMS_MAX: usize = 100;
/// What one answer may have under way: 2.6 MB/s over a distance of 100 ms, far more than tokens need.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// All streams together, with room to spare: nobody who does not read takes it from the others.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// After so long without news, a connection with streams is asked whether it lives; if it does not answer
/// for so long, it ends with all of its streams.
pub(super) const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Streams that were reset here are remembered, so that what still arrives for them is no error.
const RESETS_REMEMBERED: usize = 1_000;

/// Runs hyper's tasks on the thread of the connection.
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F: Future + 'static> Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(async move {
            drop(future.await);
        }));
    }
}

type Driver = http2::Connection<TokioIo<Socket>, UploadBody, LocalExec>;

/// One connection.
#[derive(Debug)]
pub(super) struct Shared {
    sender: http2::SendRequest<UploadBody>,
    state: Rc<State>,
    opened_at: Instant,
}

struct State {
    /// `None` once it has ended. Borrowed while it is polled and for one question, never both at once.
    driver: RefCell<Option<Driver>>,
    streams: Cell<usize>,
    quiet_since: Cell<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} streams)", self.streams.get())
    }
}

/// A request's place on a shared connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sender: http2::SendRequest<UploadBody>,
    state: Rc<State>,
    /// Nobody else was on the connection, so it may have died unnoticed.
    pub(super) was_quiet: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.state.streams.get().saturating_sub(1);
        self.state.streams.set(left);
        if left == 0 {
            self.state.quiet_since.set(Instant::now());
        }
    }
}

impl Shared {
    /// Begins HTTP/2 on a connection that was made; `ping` as [`PING`].
    pub(super) async fn begin(socket: Socket, ping: (Duration, Duration)) -> hyper::Result<Self> {
        let max_head = u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX);
        let (sender, driver) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(STREAMS_MAX)
            .max_header_list_size(max_head)
            .max_concurrent_reset_streams(RESETS_REMEMBERED)
            .keep_alive_interval(ping.0)
            .keep_alive_timeout(ping.1)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(socket))
            .await?;
        let state = Rc::new(State {
            driver: RefCell::new(Some(driver)),
            streams: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
        });
        tokio::task::spawn_local(drive(Rc::clone(&state)));
        Ok(Self {
            sender,
            state,
            opened_at: Instant::now(),
        })
    }

    /// True if it may take requests, now or when one of its streams ends. What may not is dropped, and ends
    /// with its last stream.
    pub(super) fn is_good(&self, now: Instant) -> bool {
        !self.sender.is_closed()
            && now.duration_since(self.opened_at) <= MAX_AGE
            && self.idle_for(now) <= MAX_IDLE_AGE
    }

    /// How long nobody has used it.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        if self.state.streams.get() > 0 {
            return Duration::ZERO;
        }
        now.saturating_duration_since(self.state.quiet_since.get())
    }

    /// A place on it, unless it is full by the peer's limit or ours.
    pub(super) fn stream(&self) -> Option<Stream> {
        let allowed = {
            let driver = self.state.driver.borrow();
            driver.as_ref()?.current_max_send_streams().min(STREAMS_MAX)
        };
        let streams = self.state.streams.get();
        if streams >= allowed {
            return None;
        }
        self.state.streams.set(streams + 1);
        Some(Stream {
            sender: self.sender.clone(),
            state: Rc::clone(&self.state),
            was_quiet: streams == 0,
        })
    }
}

async fn drive(state: Rc<State>) {
    poll_fn(|cx| match state.driver.borrow_mut().as_mut() {
        // How it ended is told to the requests that used it; an idle end is no news.
        Some(driver) => Pin::new(driver).poll(cx).map(drop),
        None => Poll::Ready(()),
    })
    .await;
    drop(state.driver.take());
}
