//! The clients: closed loops of plain requests, and readers of event streams.
//!
//! They send what the OpenAI Python SDK sends and check every byte that comes back. Anything but the
//! whole right answer ends the bench.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::answer::{Body, head_end};
use crate::events::Reader;
use crate::pacer::Token;
use crate::peers::PATH;
use crate::upstream::{COMPLETION, read, write};

/// A load that does not end by itself within this time has lost an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest part of an answer that is read at once.
const BUFFER_BYTES: usize = 4 * 1024;

/// What the clients of one load have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whole right answers.
    pub(crate) answers: Cell<u64>,
    /// Events of streams.
    pub(crate) events: Cell<u64>,
    /// Bytes of these events.
    pub(crate) bytes: Cell<u64>,
    /// Streams that have begun, or connections that are ready.
    pub(crate) open: Cell<u64>,
    /// True while gaps between events and latencies are to be kept.
    pub(crate) timed: Cell<bool>,
    /// What the gaps between two events grew by on their way, in nanoseconds.
    pub(crate) gaps: RefCell<Vec<i64>>,
    /// From when a request was due to its answer, or to a stream's first content; nanoseconds.
    pub(crate) latencies: RefCell<Vec<i64>>,
    /// Set to end a load of plain requests.
    pub(crate) stop: Cell<bool>,
    fault: RefCell<Option<String>>,
}

impl Seen {
    /// True once a client has failed.
    pub(crate) fn has_fault(&self) -> bool {
        self.fault.borrow().is_some()
    }
}

/// A load in progress; dropping it ends its clients.
#[derive(Debug)]
pub(crate) struct Load {
    /// What it has seen.
    pub(crate) seen: Rc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `connections` clients that ask, wait for the answer and ask again.
    pub(crate) fn plain(address: SocketAddr, path: &'static str, connections: u32) -> Self {
        Self::start(connections, move |seen, n| async move {
            let mut connection = Connection::open(address).await?;
            let mut request = Request::new(path, n, false);
            while !seen.stop.get() {
                connection.ask(request.next()).await?;
                connection.completion().await?;
                seen.answers.set(seen.answers.get() + 1);
            }
            Ok(())
        })
    }

    /// `streams` clients that read one stream each to its end; they start within `ramp`.
    pub(crate) fn streams(
        address: SocketAddr,
        path: &'static str,
        streams: u32,
        ramp: Duration,
        token: Token,
    ) -> Self {
        Self::start(streams, move |seen, n| async move {
            sleep(ramp * n / streams).await;
            let mut connection = Connection::open(address).await?;
            connection.ask(Request::new(path, n, true).next()).await?;
            connection.events(&seen, &token).await?;
            seen.answers.set(seen.answers.get() + 1);
            Ok(())
        })
    }

    /// Starts so many clients; each is told its number.
    pub(crate) fn start<F>(clients: u32, client: impl Fn(Rc<Seen>, u32) -> F) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        let seen = Rc::new(Seen::default());
        let spawn = |n| {
            let (work, seen) = (client(Rc::clone(&seen), n), Rc::clone(&seen));
            tokio::task::spawn_local(async move {
                if let Err(fault) = work.await {
                    seen.fault
                        .borrow_mut()
                        .get_or_insert(format!("client {n}: {fault}"));
                }
            })
        };
        let clients = (0..clients).map(spawn).collect();
        Self { seen, clients }
    }

    /// Waits for all clients.
    ///
    /// # Errors
    /// The first fault of any client, or that some never came to their end.
    pub(crate) async fn end(mut self) -> Result<Rc<Seen>, String> {
        self.seen.stop.set(true);
        for client in &mut self.clients {
            // Others may wait for ever for what the one that failed has broken.
            if self.seen.has_fault() {
                break;
            }
            match timeout(PATIENCE, client).await {
                Ok(done) => done.map_err(|e| e.to_string())?,
                Err(_) => {
                    let late = format!("a client waited {PATIENCE:?} for its answer");
                    self.seen.fault.borrow_mut().get_or_insert(late);
                }
            }
        }
        match self.seen.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(Rc::clone(&self.seen)),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}

/// Asks once, to learn whether a proxy serves already.
pub(crate) async fn ask_once(address: SocketAddr) -> Result<(), String> {
    let mut connection = Connection::open(address).await?;
    connection.ask(Request::new(PATH, 0, false).next()).await?;
    connection.completion().await
}

/// One client connection.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, String> {
        let socket = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_BYTES],
            body: Vec::with_capacity(1024),
        })
    }

    /// Sends a request.
    pub(crate) async fn ask(&self, request: &[u8]) -> Result<(), String> {
        write(&self.socket, request).await
    }

    /// Reads one plain answer and compares it with what the provider sent.
    pub(crate) async fn completion(&mut self) -> Result<(), String> {
        self.body.clear();
        let body = &mut self.body;
        answer(&self.socket, &mut self.buffer, |bytes| {
            body.extend_from_slice(bytes);
        })
        .await?;
        if self.body == COMPLETION.as_bytes() {
            return Ok(());
        }
        let got = String::from_utf8_lossy(&self.body);
        Err(format!(
            "a body of {} bytes that the provider did not send: {got}",
            got.len()
        ))
    }

    /// Reads one stream to its end; returns when its first content came. What comes before it says nothing
    /// to a reader, and a proxy may keep it back while another provider could still answer.
    pub(crate) async fn events(&mut self, seen: &Seen, token: &Token) -> Result<Instant, String> {
        let mut reader = Reader::default();
        let (mut is_open, mut first) = (false, None);
        answer(&self.socket, &mut self.buffer, |bytes| {
            if !is_open && !bytes.is_empty() {
                is_open = true;
                seen.open.set(seen.open.get() + 1);
            }
            reader.take(bytes, seen, token);
            if first.is_none() && reader.has_content() {
                first = Some(Instant::now());
            }
        })
        .await?;
        reader.end()?;
        first.ok_or_else(|| "a stream without content".to_owned())
    }
}

/// Reads one answer off a connection and hands the bytes of its body to `sink`.
async fn answer(
    socket: &TcpStream,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]),
) -> Result<(), String> {
    let mut filled = 0;
    let (mut body, end) = loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        match read(socket, room).await? {
            0 => return Err(format!("connection closed {filled} bytes into the head")),
            n => filled += n,
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        if let Some(end) = head_end(bytes) {
            break (Body::of_answer(bytes.get(..end).unwrap_or_default())?, end);
        }
    };
    let mut left = body
        .feed(buffer.get(end..filled).unwrap_or_default(), &mut sink)?
        .len();
    while !body.is_done() {
        match read(socket, buffer).await? {
            0 => return Err("connection closed within the body".to_owned()),
            n => {
                let bytes = buffer.get(..n).unwrap_or_default();
                left = body.feed(bytes, &mut sink)?.len();
            }
        }
    }
    if left > 0 {
        return Err(format!("{left} bytes behind the end of an answer"));
    }
    Ok(())
}

/// A request that names another user each time, as a sticky split must see many users.
pub(crate) struct Request {
    bytes: Vec<u8>,
    user_at: usize,
    user: u64,
}

/// Digits of the user's name that change.
const USER_DIGITS: usize = 16;

impl Request {
    /// The requests of one client to one path.
    pub(crate) fn new(path: &str, client: u32, is_stream: bool) -> Self {
        let mark = "0".repeat(USER_DIGITS);
        let body = format!(
            "{{\"model\":\"gpt-4o-mini\",\"stream\":{is_stream},\"user\":\"{mark}\",\"messages\":[\
             {{\"role\":\"system\",\"content\":\"You answer customers of a shop for garden tools. Be \
             brief, be friendly, name the order number when you know it, and hand over to a person \
             whenever somebody asks for one or is upset.\"}},{{\"role\":\"user\",\"content\":\"Hello, \
             I ordered a hedge trimmer ten days ago, order 4711-0815, and it has not arrived. The \
             tracking page has said the same thing since Tuesday. Where is it, and when will I get \
             it? The hedge will not wait any longer and neither will my neighbour.\"}}],\"temperature\":0.2,\"max_tokens\":256}}"
        );
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: llm.internal\r\naccept: application/json\r\n\
             accept-encoding: gzip, deflate\r\nauthorization: Bearer sk-bench-0123456789abcdef0123\r\n\
             content-type: application/json\r\nuser-agent: OpenAI/Python 1.109.1\r\n\
             x-stainless-arch: x64\r\nx-stainless-lang: python\r\nx-stainless-os: Linux\r\n\
             x-stainless-package-version: 1.109.1\r\nx-stainless-retry-count: 0\r\n\
             x-stainless-runtime: CPython\r\nx-stainless-runtime-version: 3.12.3\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let user_at = request
            .find(&format!("\"user\":\"{mark}"))
            .unwrap_or_default()
            + 8;
        // Spread over the whole range, so that no two clients count through the same names.
        let user = u64::from(client).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            bytes: request.into_bytes(),
            user_at,
            user,
        }
    }

    /// The next one, of the next user.
    pub(crate) fn next(&mut self) -> &[u8] {
        self.user = self.user.wrapping_add(1);
        let digits = self.bytes.iter_mut().skip(self.user_at).take(USER_DIGITS);
        for (n, digit) in digits.enumerate() {
            let four_bits = (self.user >> (4 * n)) & 0xf;
            *digit = b"0123456789abcdef"
                .get(usize::try_from(four_bits).unwrap_or(0))
                .copied()
                .unwrap_or(b'0');
        }
        &self.bytes
    }
}
