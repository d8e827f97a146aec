//! The request body on its way upstream: kept in memory, or streamed from the client.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::pace::Pace;

/// How an upload that is streamed through ended, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Still running, or complete.
    Sound,
    /// The client owes its next bytes: what does not happen meanwhile is not the upstream's fault.
    Waiting,
    /// The client's side broke: whatever the upstream then does is not its fault.
    ClientBroke,
    /// The client owed its next bytes for too long.
    Stalled,
    /// The client sent more than the limit.
    TooLarge,
}

/// A provider does not give up on an upload before it waited for so long.
const PATIENCE_LEAST: Duration = Duration::from_secs(2);

/// How an upload goes, for whoever waits for the answer.
#[derive(Debug)]
pub struct Progress {
    state: Cell<UploadState>,
    /// When its latest bytes were handed over.
    moved_at: Cell<Option<Instant>>,
    /// How long the client was waited for until then.
    waited: Cell<Duration>,
}

impl Progress {
    /// Nothing was handed over yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Cell::new(UploadState::Sound),
            moved_at: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
        }
    }

    /// How it went so far.
    #[must_use]
    pub const fn state(&self) -> UploadState {
        self.state.get()
    }

    /// True if the client's side ended it.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        !matches!(self.state(), UploadState::Sound | UploadState::Waiting)
    }

    /// Since when the arm may be waited for, as seen now: not while the client owes bytes. `None` if the body
    /// was there from the beginning.
    #[must_use]
    pub fn arm_owes_since(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        match self.state() {
            UploadState::Waiting => Some(now()),
            _ => self.moved_at.get(),
        }
    }

    /// True if an arm that was sent the head at `sent_at` may have lost its patience with the client.
    #[must_use]
    pub fn tries_patience(&self, sent_at: Instant, now: Instant) -> bool {
        let since = self.moved_at.get().unwrap_or(sent_at);
        let waited = self.waited.get() + now.saturating_duration_since(since);
        self.state() == UploadState::Waiting && waited >= PATIENCE_LEAST
    }

    fn moved(&self, now: Instant, waited: Duration) {
        self.moved_at.set(Some(now));
        self.waited.set(waited);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A request body for an upstream connection.
#[derive(Debug)]
pub enum UploadBody {
    /// The whole body; may be sent again.
    Kept(Bytes),
    /// What was read already, then the rest as the client sends it; can be sent once.
    Streamed(Upload),
}

/// The part of a body that is streamed through.
#[derive(Debug)]
pub struct Upload {
    /// Frames that were read before it was clear that the body is too large to keep.
    read_ahead: std::vec::IntoIter<Bytes>,
    rest: Incoming,
    left_bytes: u64,
    progress: Rc<Progress>,
    pace: Pace,
    /// Set when the client was waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// Streams `read_ahead`, then at most `left_bytes` of `rest`; `progress` tells how it goes. A client that
    /// sends nothing for `pause` is given up.
    #[must_use]
    pub fn new(
        read_ahead: Vec<Bytes>,
        rest: Incoming,
        left_bytes: u64,
        progress: Rc<Progress>,
        pause: Duration,
    ) -> Self {
        Self {
            read_ahead: read_ahead.into_iter(),
            rest,
            left_bytes,
            progress,
            pace: Pace::new(pause),
            timer: None,
        }
    }
}

/// Why an upload was cut off.
#[derive(Debug)]
pub struct UploadCut(UploadState);

impl fmt::Display for UploadCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            UploadState::TooLarge => f.write_str("the request body is larger than max-body"),
            UploadState::Stalled => f.write_str("the client stopped sending its request body"),
            UploadState::Sound | UploadState::Waiting | UploadState::ClientBroke => {
                f.write_str("the client broke off its request body")
            }
        }
    }
}

impl std::error::Error for UploadCut {}

impl From<Infallible> for UploadCut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadCut>>> {
        match self.get_mut() {
            Self::Kept(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Kept(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(upload) => upload.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(bytes) => bytes.is_empty(),
            Self::Streamed(upload) => upload.read_ahead.len() == 0 && upload.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(upload) => {
                let ahead: u64 = upload
                    .read_ahead
                    .as_slice()
                    .iter()
                    .map(|b| b.len() as u64)
                    .sum();
                upload
                    .rest
                    .size_hint()
                    .exact()
                    .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + ahead))
            }
        }
    }
}

impl Upload {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadCut>>> {
        if let Some(bytes) = self.read_ahead.next() {
            self.progress.moved(Instant::now(), Duration::ZERO);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) else {
            self.progress.state.set(UploadState::Waiting);
            std::task::ready!(self.poll_due(cx));
            return Poll::Ready(Some(Err(self.cut(UploadState::Stalled))));
        };
        self.progress.state.set(UploadState::Sound);
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => Some(Err(self.cut(UploadState::ClientBroke))),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let now = Instant::now();
                self.pace.came(length, now);
                self.progress.moved(now, self.pace.waited());
                match self.left_bytes.checked_sub(length) {
                    Some(left_bytes) => {
                        self.left_bytes = left_bytes;
                        Some(Ok(frame))
                    }
                    None => Some(Err(self.cut(UploadState::TooLarge))),
                }
            }
        })
    }

    /// The client is waited for. Resolves when that took too long.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.pace.due(Instant::now());
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }

    fn cut(&self, state: UploadState) -> UploadCut {
        self.progress.state.set(state);
        UploadCut(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_waited_for_from_the_last_byte_and_not_while_the_client_owes_one() {
        let progress = Progress::new();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(progress.arm_owes_since(|| at(1)), None);
        progress.state.set(UploadState::Waiting);
        assert_eq!(progress.arm_owes_since(|| at(5)), Some(at(5)));
        progress.state.set(UploadState::Sound);
        progress.moved(at(6), Duration::from_secs(6));
        assert_eq!(progress.arm_owes_since(|| at(9)), Some(at(6)));
    }

    #[test]
    fn only_a_client_that_was_waited_for_explains_an_arm_that_gives_up() {
        let progress = Progress::new();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(!progress.tries_patience(began, at(60)));
        progress.state.set(UploadState::Waiting);
        assert!(
            !progress.tries_patience(began, at(1)),
            "it had no reason yet"
        );
        assert!(progress.tries_patience(began, at(2)));
        // Byte by byte.
        progress.moved(at(30), Duration::from_secs(29));
        assert!(progress.tries_patience(began, at(30)));
        progress.state.set(UploadState::Sound);
        assert!(!progress.tries_patience(began, at(60)), "it has all of it");
    }
}
