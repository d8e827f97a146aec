//! The answer's body on its way to the client: passed chunk by chunk, metered, within time limits.
//!
//! An upstream that breaks off becomes an error of this body, which makes hyper break the client's
//! connection: a truncated answer never looks complete (invariant 6). Where a stream ends well by its
//! framing but lacks its last event, or fell silent, an error event says so: SDKs take a mere
//! end for success. A compressed body is decoded first of all; while pieces of what has arrived are left,
//! nothing more is asked for.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::edit::Edit;
use super::inflate::{Corrupt, Inflate};
use super::limits::{ArmClock, Limits};
use crate::llm;
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::upstream::connection::Connection;
use crate::upstream::pieces::Pieces;
use crate::upstream::pool::Pool;

mod drain;

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
    held: Pieces,
    /// `None` once the rest is read by somebody else, see [`drain`].
    incoming: Option<Incoming>,
    /// Goes back to the pool at the end of the body.
    connection: Option<Connection>,
    pool: Rc<Pool>,
    meter: Meter,
    clock: ArmClock,
    /// Set if more or less than the arm's bytes may be passed on.
    edit: Option<Edit>,
    /// What follows the arm's last chunk.
    last: Option<Bytes>,
    ended: Option<Outcome>,
    /// Set when the body breaks off, if somebody has to know.
    broken: Option<Rc<Cell<bool>>>,
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
        mut connection: Connection,
        pool: Rc<Pool>,
        meter: Meter,
        limits: Limits,
        edit: Option<Edit>,
    ) -> Self {
        let clock = ArmClock::new(limits, connection.take_alarm());
        let mut body = Self {
            held: Pieces::new(),
            incoming: Some(incoming),
            connection: Some(connection),
            pool,
            meter,
            clock,
            edit,
            last: None,
            ended: None,
            broken: None,
        };
        if body.is_read() {
            body.end(Instant::now());
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
                self.held.push(chunk);
                Ok(true)
            }
            Some(Err(outcome)) => Err(outcome),
        }
    }

    /// Ends the attempt by what was seen so far, without the rest of its body.
    pub fn give_up(&mut self) -> Outcome {
        let outcome = self.meter.end(Instant::now());
        self.ended = Some(outcome);
        self.connection = None;
        outcome
    }

    /// Bytes that are held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let waiting = self.edit.as_ref().map_or(0, Edit::held_bytes);
        waiting + self.held.bytes()
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Outcome>>> {
        loop {
            if self.ended.is_some() {
                return Poll::Ready(self.last.take().map(Ok));
            }
            match self.decoded() {
                Ok(None) => {}
                Ok(Some(piece)) => match self.pass(piece) {
                    Some(chunk) => return Poll::Ready(Some(Ok(chunk))),
                    None => continue,
                },
                // What follows a stream's last word is of no use to anybody.
                Err(Corrupt) if self.meter.is_terminated() => {
                    self.connection = None;
                    self.end(Instant::now());
                    continue;
                }
                Err(Corrupt) => return Poll::Ready(Some(Err(self.garbled()))),
            }
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(None);
            };
            let frame = match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let outcome = ready!(self.clock.poll(cx));
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
                // HTTP/2 can end a stream well before all that was announced is there.
                None if self.lacks_bytes() => {
                    return Poll::Ready(Some(Err(self.lost())));
                }
                // A stream whose last word has gone by is whole, also where its coding lacks its end.
                None if self.is_decoded_whole() || self.meter.is_terminated() => {
                    self.end(Instant::now());
                }
                None => return Poll::Ready(Some(Err(self.garbled()))),
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(self.lost())));
                }
                Some(Ok(frame)) => {
                    // Trailers end here: no client of these APIs knows any.
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    self.clock.arrived();
                    if let Some(inflate) = self.inflate() {
                        inflate.feed(chunk);
                        if !self.is_read() && self.clock.is_too_late() {
                            return Poll::Ready(Some(Err(self.break_off(Outcome::TimeoutTotal))));
                        }
                        continue;
                    }
                    let passed = self.pass(chunk);
                    if self.is_read() {
                        self.end(Instant::now());
                    } else if self.clock.is_too_late() {
                        return Poll::Ready(Some(Err(self.break_off(Outcome::TimeoutTotal))));
                    }
                    if let Some(chunk) = passed {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
            }
        }
    }

    /// The connection ended under the answer.
    fn lost(&mut self) -> Outcome {
        let outcome = self.meter.broke(Outcome::Reset);
        self.break_off(outcome)
    }

    /// Meters a chunk, and gives what of it may pass now.
    fn pass(&mut self, chunk: Bytes) -> Option<Bytes> {
        self.meter.chunk(&chunk);
        let chunk = match &mut self.edit {
            Some(edit) => edit.feed(chunk),
            None => chunk,
        };
        (!chunk.is_empty()).then_some(chunk)
    }

    fn inflate(&mut self) -> Option<&mut Inflate> {
        self.edit.as_mut()?.inflate.as_deref_mut()
    }

    /// The next piece of a compressed body, of what has arrived of it.
    fn decoded(&mut self) -> Result<Option<Bytes>, Corrupt> {
        self.inflate().map_or(Ok(None), Inflate::next_piece)
    }

    fn is_decoded_whole(&mut self) -> bool {
        self.inflate().is_none_or(|inflate| inflate.is_whole())
    }

    /// The body is not what its coding says, or less.
    fn garbled(&mut self) -> Outcome {
        let outcome = self.meter.broke(Outcome::SoftError);
        self.break_off(outcome)
    }

    fn end(&mut self, now: Instant) {
        let outcome = self.meter.end(now);
        self.ended = Some(outcome);
        let rest = self.edit.as_mut().map(Edit::end);
        let event = (outcome == Outcome::Truncated).then(|| self.truncation_event("ended"));
        let rest = rest.filter(|rest| !rest.is_empty());
        self.last = match (rest, event.flatten()) {
            (Some(rest), Some(event)) => Some([rest, event].concat().into()),
            (rest, event) => rest.or(event),
        };
        if let Some(mut connection) = self.connection.take() {
            connection.return_alarm(self.clock.take_alarm());
            self.pool.put_back(connection, now);
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

    /// True if nothing more will come from the arm. Where the length is known, its last byte is the end: over
    /// HTTP/2 the end itself may come later, when a client that has all of it asks no more.
    fn is_read(&self) -> bool {
        let body = self.incoming.as_ref();
        body.is_none_or(|body| body.is_end_stream() || body.size_hint().exact() == Some(0))
    }

    /// True if the arm announced more than has come.
    fn lacks_bytes(&self) -> bool {
        let left = self.incoming.as_ref().map(|body| body.size_hint().exact());
        left.flatten().is_some_and(|left| left > 0)
    }

    /// What the client gets next.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Outcome>>> {
        self.clock.asked_for_more();
        let next = match self.held.pop() {
            Some(chunk) => Some(Ok(chunk)),
            None => ready!(self.poll_chunk(cx)),
        };
        if self.ended.is_none() {
            self.clock.handed_over();
        }
        Poll::Ready(next)
    }

    fn is_over(&self) -> bool {
        self.held.is_empty() && self.last.is_none() && self.ended.is_some()
    }
}

impl Drop for LiveBody {
    fn drop(&mut self) {
        if self.ended.is_none() && !self.clock.limits().after_disconnect.is_zero() {
            drain::hand_over(self);
        }
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
                let chunk = ready!(body.poll_next(cx));
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
                .as_ref()
                .and_then(|incoming| incoming.size_hint().exact())
                .map_or_else(SizeHint::default, |rest| {
                    SizeHint::with_exact(rest + body.held_bytes() as u64)
                }),
        }
    }
}
