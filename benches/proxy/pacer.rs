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
const TOKEN: &str = r#"{"content":" neighbour"},"logprobs":null,"finish_reason":null"#;
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
    /// Streams that share the period between them.
    streams: u32,
    /// Time between two events of one stream.
    period: Duration,
    /// How events fall; set before each load.
    pub(crate) pace: Cell<Pace>,
    /// Events with content per stream; set before each load.
    pub(crate) events_per_stream: Cell<u32>,
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
    done: oneshot::Sender<Result<(), String>>,
}

impl Pacer {
    /// A pacer for so many streams, each with one event per `period`.
    pub(crate) fn new(streams: u32, period: Duration) -> Self {
        Self {
            streams,
            period,
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

    /// The next slot of the stream at `index`: the period is divided evenly between all streams.
    fn first_slot(&self, index: usize) -> Instant {
        let share = u32::try_from(index).unwrap_or_default() % self.streams;
        let mut offset = self.period * share / self.streams;
        if self.pace.get() == Pace::Bursts {
            offset -= Duration::from_nanos((offset.subsec_nanos() % 1_000_000).into());
        }
        let mut due = self.started + offset;
        let behind = due.elapsed().as_nanos() / self.period.as_nanos();
        due += self.period * (u32::try_from(behind).unwrap_or(u32::MAX) + 1);
        due
    }

    async fn run(self: Rc<Self>) {
        let token = event(TOKEN);
        while let Some(next) = self.next() {
            if next.due <= Instant::now() {
                self.queue.borrow_mut().pop();
                self.serve(next, &token);
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
    fn serve(&self, slot: Slot, token: &[u8]) {
        let mut sockets = self.sockets.borrow_mut();
        let Some(place) = sockets.get_mut(slot.index) else {
            return;
        };
        let Some(stream) = place else { return };
        let sent = if stream.left > 0 {
            self.send(&stream.socket, token)
        } else {
            self.finish(&stream.socket)
        };
        if sent.is_ok() && stream.left > 0 {
            stream.left -= 1;
            let due = slot.due + self.period;
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

/// One event of about 220 bytes in its chunk, as providers send them.
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
