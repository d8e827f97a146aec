//! Sends the events of all streams to the microsecond: evenly spread, or in bursts.
//!
//! Timers of the runtime tick in milliseconds and would always send bursts, which let a proxy forward
//! many events for the price of one wake-up. The pacer therefore never sleeps while streams run: it
//! has the bench's core to itself.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::oneshot;

const ROLE: &str =
    r#"{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null"#;
/// The zeros are replaced by the event's number and the moment when it was sent.
const TOKEN: &str = r#"{"content":"0000000000000000000"},"logprobs":null,"finish_reason":null"#;
/// Digits of the number within the stream, and of it and the moment together.
const NUMBER_DIGITS: usize = 6;
pub(crate) const STAMP_DIGITS: usize = 19;
const FINISH: &str = r#"{},"logprobs":null,"finish_reason":"stop""#;

/// How the events of different streams fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// No two together: what a proxy sees that is far from its limit.
    Spread,
    /// All those of one millisecond together: what it sees when it is busy.
    Bursts,
}

/// How the streams run, and what they have sent.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Streams that share the period between them; set before each load.
    pub(crate) streams: Cell<u32>,
    /// Time between two events of one stream; set before each load.
    pub(crate) period: Cell<Duration>,
    /// Set to let streams without a number of events end at their next one.
    pub(crate) finish: Cell<bool>,
    /// How events fall; set before each load.
    pub(crate) pace: Cell<Pace>,
    /// Events with content per stream; set before each load.
    pub(crate) events_per_stream: Cell<u32>,
    /// The event with content, and the clock that stamps it.
    pub(crate) token: Token,
    /// Events sent, the first and last ones included.
    pub(crate) events: Cell<u64>,
    /// Bytes of these events.
    pub(crate) bytes: Cell<u64>,
    queue: RefCell<BinaryHeap<Reverse<Slot>>>,
    sockets: RefCell<Vec<Option<Stream>>>,
    started: Instant,
    running: Cell<bool>,
}

/// When a stream is due. The order of the fields is the order in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    due: Instant,
    index: usize,
}

#[derive(Debug)]
struct Stream {
    socket: Rc<TcpStream>,
    left: u32,
    number: u64,
    done: oneshot::Sender<Result<(), String>>,
}

impl Pacer {
    /// A pacer that has yet to be told what to do.
    pub(crate) fn new() -> Self {
        Self {
            streams: Cell::new(1),
            period: Cell::new(Duration::from_secs(1)),
            finish: Cell::new(false),
            token: Token::new(),
            pace: Cell::new(Pace::Spread),
            events_per_stream: Cell::new(0),
            events: Cell::new(0),
            bytes: Cell::new(0),
            queue: RefCell::default(),
            sockets: RefCell::default(),
            started: Instant::now(),
            running: Cell::new(false),
        }
    }

    /// Sends one whole stream; its head is on the wire already.
    pub(crate) async fn stream(self: &Rc<Self>, socket: &Rc<TcpStream>) -> Result<(), String> {
        self.send(socket, &event(ROLE))?;
        let (done, end) = oneshot::channel();
        let left = self.events_per_stream.get();
        let index = {
            let mut sockets = self.sockets.borrow_mut();
            let free = sockets
                .iter()
                .position(Option::is_none)
                .unwrap_or(sockets.len());
            let stream = Some(Stream {
                socket: Rc::clone(socket),
                left,
                number: 0,
                done,
            });
            match sockets.get_mut(free) {
                Some(place) => *place = stream,
                None => sockets.push(stream),
            }
            free
        };
        let due = self.first_slot(index);
        self.queue.borrow_mut().push(Reverse(Slot { due, index }));
        if !self.running.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).run());
        }
        end.await.map_err(|_| "the pacer is gone".to_owned())?
    }

    /// True while a stream runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get()
    }

    /// The next slot of the stream at `index`: the period is divided evenly between all streams.
    fn first_slot(&self, index: usize) -> Instant {
        let (streams, period) = (self.streams.get(), self.period.get());
        let share = u32::try_from(index).unwrap_or_default() % streams;
        let mut offset = period * share / streams;
        if self.pace.get() == Pace::Bursts {
            offset -= Duration::from_nanos((offset.subsec_nanos() % 1_000_000).into());
        }
        let mut due = self.started + offset;
        let behind = due.elapsed().as_nanos() / period.as_nanos();
        due += period * (u32::try_from(behind).unwrap_or(u32::MAX) + 1);
        due
    }

    async fn run(self: Rc<Self>) {
        let mut token = event(TOKEN);
        while let Some(next) = self.next() {
            if next.due <= Instant::now() {
                self.queue.borrow_mut().pop();
                self.serve(next, &mut token);
            } else {
                tokio::task::yield_now().await;
            }
        }
        self.running.set(false);
    }

    fn next(&self) -> Option<Slot> {
        self.queue.borrow().peek().map(|Reverse(slot)| *slot)
    }

    /// Sends what a stream is due: one more event, or its end.
    fn serve(&self, slot: Slot, token: &mut [u8]) {
        let mut sockets = self.sockets.borrow_mut();
        let Some(place) = sockets.get_mut(slot.index) else {
            return;
        };
        let Some(stream) = place else { return };
        if self.finish.get() {
            stream.left = 0;
        }
        let sent = if stream.left > 0 {
            self.token.stamp(token, stream.number);
            stream.number += 1;
            self.send(&stream.socket, token)
        } else {
            self.finish(&stream.socket)
        };
        if sent.is_ok() && stream.left > 0 {
            stream.left -= 1;
            let due = slot.due + self.period.get();
            self.queue.borrow_mut().push(Reverse(Slot { due, ..slot }));
        } else if let Some(stream) = place.take() {
            // The connection's task is gone only when the bench ends.
            drop(stream.done.send(sent));
        }
    }

    fn finish(&self, socket: &TcpStream) -> Result<(), String> {
        self.send(socket, &event(FINISH))?;
        self.send(socket, b"e\r\ndata: [DONE]\n\n\r\n")?;
        whole(socket, b"0\r\n\r\n")
    }

    /// Sends one event in its chunk and counts it.
    fn send(&self, socket: &TcpStream, chunk: &[u8]) -> Result<(), String> {
        whole(socket, chunk)?;
        self.events.set(self.events.get() + 1);
        // The line with the size, and the line end behind the data.
        let framing = chunk
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or_default()
            + 3;
        let payload = u64::try_from(chunk.len() - framing).map_err(|e| e.to_string())?;
        self.bytes.set(self.bytes.get() + payload);
        Ok(())
    }
}

/// Where the stamp of an event with content is, and the clock behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    origin: Instant,
    chunk_bytes: usize,
    stamp_at: usize,
}

/// Bytes of the line in front of a chunk of this size, and of the line end behind it.
const SIZE_LINE: usize = 4;
const CHUNK_END: usize = 2;

impl Token {
    fn new() -> Self {
        let template = event(TOKEN);
        let zeros = [b'0'; STAMP_DIGITS];
        let at = template.windows(STAMP_DIGITS).position(|w| w == zeros);
        Self {
            origin: Instant::now(),
            chunk_bytes: template.len(),
            stamp_at: at.unwrap_or_default(),
        }
    }

    /// Length of the event, without the framing of its chunk.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.chunk_bytes - SIZE_LINE - CHUNK_END
    }

    /// Where in it the stamp is.
    pub(crate) fn stamp_in_payload(&self) -> usize {
        self.stamp_at - SIZE_LINE
    }

    /// A moment on the clock of the stamps.
    pub(crate) fn nanoseconds(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.origin);
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    /// Number and moment of a stamp.
    pub(crate) fn read(stamp: &str) -> Option<(u64, i64)> {
        let (number, moment) = stamp.split_at_checked(NUMBER_DIGITS)?;
        Some((number.parse().ok()?, moment.parse().ok()?))
    }

    fn stamp(&self, chunk: &mut [u8], number: u64) {
        let width = STAMP_DIGITS - NUMBER_DIGITS;
        let now = self.nanoseconds(Instant::now());
        let stamp = format!("{number:0NUMBER_DIGITS$}{now:0width$}");
        let place = chunk.iter_mut().skip(self.stamp_at);
        for (place, digit) in place.zip(stamp.bytes()) {
            *place = digit;
        }
    }
}

/// One event of about 230 bytes in its chunk, as providers send them.
fn event(choice: &str) -> Vec<u8> {
    let data = format!(
        "data: {{\"id\":\"chatcmpl-BxQ2c7vJ1mR4tY8uW5oP3sD6fG9h\",\"object\":\"chat.completion.chunk\",\
         \"created\":1764000000,\"model\":\"gpt-4o-mini-2024-07-18\",\
         \"choices\":[{{\"index\":0,\"delta\":{choice}}}]}}\n\n"
    );
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// Writes all of `bytes` at once: a proxy that reads as it should leaves room for one event.
fn whole(socket: &TcpStream, bytes: &[u8]) -> Result<(), String> {
    match socket.try_write(bytes) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(n) => Err(format!(
            "only {n} of {} bytes of an event could be sent",
            bytes.len()
        )),
        Err(e) => Err(format!("an event could not be sent: {e}")),
    }
}
