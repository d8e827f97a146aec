//! The answer's body on its way to the client: passed chunk by chunk, metered, within time limits.
//!
//! An upstream that breaks off becomes an error of this body, which makes hyper break the client's
//! connection: a truncated answer never looks complete (invariant 6). Where a stream ends well by its
//! framing but lacks its last event, or fell silent, an error event says so: SDKs take a mere
//! end for success.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::llm::{self, Dialect, ModelEcho};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::upstream::connection::Connection;
use crate::upstream::pool::Pool;

/// What cutover answers with.
#[derive(Debug)]
pub enum Answer {
    /// An answer of cutover's own.
    Own(Bytes),
    /// An arm's answer. Boxed, because most of the time no answer is under way.
    Live(Box<LiveBody>),
}

/// The body of an arm's answer.
#[derive(Debug)]
pub struct LiveBody {
    /// Chunks that were metered already and wait to be passed on.
    held: VecDeque<Bytes>,
    incoming: Incoming,
    /// Goes back to the pool at the end of the body.
    connection: Option<Connection>,
    pool: Rc<Pool>,
    meter: Meter,
    limits: BodyLimits,
    /// Set if more or less than the arm's bytes may be passed on.
    edit: Option<Edit>,
    /// What follows the arm's last chunk.
    last: Option<Bytes>,
    last_chunk_at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    ended: Option<Outcome>,
    /// Set when the body breaks off, if somebody has to know.
    broken: Option<Rc<Cell<bool>>>,
}

/// What may be done to a body on its way. Its length is then not known beforehand.
#[derive(Debug)]
pub struct Edit {
    /// A stream that is cut short ends with an error event of this dialect.
    pub truncation: Option<Dialect>,
    /// The model gets the client's name again.
    pub echo: Option<ModelEcho>,
}

/// Time limits of a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Between two chunks.
    pub idle: Duration,
    /// When the whole answer must be there.
    pub total_at: Option<Instant>,
}

/// Why an answer breaks off.
#[derive(Debug)]
pub struct BrokenOff(Outcome);

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the upstream's answer broke off: {}", self.0)
    }
}

impl std::error::Error for BrokenOff {}

impl From<Infallible> for BrokenOff {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl LiveBody {
    /// Takes over the body of an answer whose head has arrived.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        connection: Connection,
        pool: Rc<Pool>,
        meter: Meter,
        limits: BodyLimits,
        edit: Option<Edit>,
    ) -> Self {
        let mut body = Self {
            held: VecDeque::new(),
            incoming,
            connection: Some(connection),
            pool,
            meter,
            limits,
            edit,
            last: None,
            last_chunk_at: Instant::now(),
            timer: None,
            ended: None,
            broken: None,
        };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    /// Sets `broken` if the body breaks off.
    pub fn tell_when_broken(&mut self, broken: Rc<Cell<bool>>) {
        self.broken = Some(broken);
    }

    /// The attempt's meter.
    pub const fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// How the attempt ended, once it has.
    #[must_use]
    pub const fn ended(&self) -> Option<Outcome> {
        self.ended
    }

    /// Reads one more chunk and holds it back. `Ok(false)` at the end of the body.
    ///
    /// Dropping the future loses nothing: a chunk is held before it resolves.
    ///
    /// # Errors
    /// With the outcome if the answer broke off.
    pub async fn hold_next(&mut self) -> Result<bool, Outcome> {
        let next = poll_fn(|cx| self.poll_chunk(cx)).await;
        match next {
            None => Ok(false),
            Some(Ok(chunk)) => {
                self.held.push_back(chunk);
                Ok(true)
            }
            Some(Err(outcome)) => Err(outcome),
        }
    }

    /// Ends the attempt by what was seen so far, without the rest of its body.
    pub fn give_up(&mut self) -> Outcome {
        let outcome = self.meter.end();
        self.ended = Some(outcome);
        self.connection = None;
        outcome
    }

    /// Bytes that are held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let echo = self.edit.as_ref().and_then(|edit| edit.echo.as_ref());
        let waiting = echo.map_or(0, ModelEcho::held_bytes);
        waiting + self.held.iter().map(Bytes::len).sum::<usize>()
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Outcome>>> {
        loop {
            if self.ended.is_some() {
                return Poll::Ready(self.last.take().map(Ok));
            }
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let outcome = ready!(self.poll_limits(cx));
                    if outcome == Outcome::TimeoutIdle
                        && let Some(event) = self.truncation_event("fell silent")
                    {
                        self.cut(outcome);
                        return Poll::Ready(Some(Ok(event)));
                    }
                    return Poll::Ready(Some(Err(self.break_off(outcome))));
                }
            };
            match frame {
                None => self.end(),
                Some(Err(_)) => {
                    let outcome = self.meter.broke();
                    return Poll::Ready(Some(Err(self.break_off(outcome))));
                }
                Some(Ok(frame)) => {
                    // Trailers end here: no client of these APIs knows any.
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    self.last_chunk_at = Instant::now();
                    self.meter.chunk(&chunk);
                    let chunk = match self.echo() {
                        Some(echo) => echo.feed(&chunk),
                        None => chunk,
                    };
                    if self.incoming.is_end_stream() {
                        self.end();
                    }
                    if chunk.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
            }
        }
    }

    /// Resolves with the outcome of the limit that has passed.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let idle_at = self.last_chunk_at + self.limits.idle;
            let (at, outcome) = match self.limits.total_at {
                Some(total_at) if total_at < idle_at => (total_at, Outcome::TimeoutTotal),
                _ => (idle_at, Outcome::TimeoutIdle),
            };
            // One timer for the whole body: it is moved only when it fires, not at every chunk.
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(outcome);
            }
            timer.as_mut().reset(at);
        }
    }

    fn end(&mut self) {
        let outcome = self.meter.end();
        self.ended = Some(outcome);
        let rest = self.echo().map(ModelEcho::end);
        let event = (outcome == Outcome::Truncated).then(|| self.truncation_event("ended"));
        let rest = rest.filter(|rest| !rest.is_empty());
        self.last = match (rest, event.flatten()) {
            (Some(rest), Some(event)) => Some([rest, event].concat().into()),
            (rest, event) => rest.or(event),
        };
        if let Some(connection) = self.connection.take() {
            self.pool.put_back(connection);
        }
    }

    /// The event that tells the client that its stream is no whole answer, if one has to.
    fn truncation_event(&self, what: &str) -> Option<Bytes> {
        let dialect = self.edit.as_ref()?.truncation?;
        self.meter.is_cut_short().then(|| {
            let message = format!("the provider's stream {what} before the answer was complete");
            llm::error_event(dialect, &message)
        })
    }

    fn echo(&mut self) -> Option<&mut ModelEcho> {
        self.edit.as_mut()?.echo.as_mut()
    }

    /// Hangs up on the arm. A line that has not arrived whole is of no use to anybody.
    fn cut(&mut self, outcome: Outcome) {
        self.edit = None;
        self.meter.fail(outcome);
        self.ended = Some(outcome);
        self.connection = None;
    }

    fn break_off(&mut self, outcome: Outcome) -> Outcome {
        self.cut(outcome);
        if let Some(broken) = &self.broken {
            broken.set(true);
        }
        outcome
    }

    fn is_over(&self) -> bool {
        self.held.is_empty() && self.last.is_none() && self.ended.is_some()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Live(body) => {
                if let Some(chunk) = body.held.pop_front() {
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                let chunk = ready!(body.poll_chunk(cx));
                Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data).map_err(BrokenOff)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Live(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Live(body) if body.ended.is_some() => {
                let last = body.last.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact((body.held_bytes() + last) as u64)
            }
            Self::Live(body) if body.edit.is_some() => SizeHint::default(),
            Self::Live(body) => body
                .incoming
                .size_hint()
                .exact()
                .map_or_else(SizeHint::default, |rest| {
                    SizeHint::with_exact(rest + body.held_bytes() as u64)
                }),
        }
    }
}
