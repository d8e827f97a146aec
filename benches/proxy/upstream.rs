//! The two providers: keep-alive HTTP/1.1 over raw TCP, a JSON answer or a paced event stream.
//!
//! Lives on the bench's one thread. Counts what it is asked and what it sends, so that the clients'
//! counts can be held against it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::answer::{head_end, header};
use crate::pacer::Pacer;

/// The completion that every plain request gets: 800 bytes.
pub(crate) const COMPLETION: &str = concat!(
    r#"{"id":"chatcmpl-BxQ2c7vJ1mR4tY8uW5oP3sD6fG9h","object":"chat.completion","created":1764000000,"#,
    r#""model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"#,
    r#""Your order left our warehouse on Tuesday and is with the carrier by now. The tracking page shows "#,
    r#"it at our regional depot, so it will reach you tomorrow before noon. If nobody is at home the "#,
    r#"driver leaves it with a neighbour next to you.","refusal":null,"annotations":[]},"logprobs":null,"#,
    r#""finish_reason":"stop"}],"usage":{"prompt_tokens":124,"completion_tokens":57,"#,
    r#""total_tokens":181,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"#,
    r#""completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"#,
    r#""accepted_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_8bda4d3a2c0f5"}"#,
);
const _: () = assert!(COMPLETION.len() == 800, "the report says 800 bytes");

/// Response headers that a provider sends besides the framing.
const HEADERS: &str = "content-type: application/json\r\nopenai-organization: org-bench\r\n\
    openai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\n\
    x-ratelimit-remaining-requests: 9999\r\nx-request-id: req_8b1f4c7e2d5a4f0b9c3e\r\n";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    cache-control: no-cache\r\nopenai-processing-ms: 97\r\nx-request-id: req_8b1f4c7e2d5a4f0b9c3e\r\n\
    transfer-encoding: chunked\r\n\r\n";
/// Longest request that is read.
const BUFFER_BYTES: usize = 4 * 1024;

/// Streams that a failed load left behind are gone by then.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);
const SETTLE_LOOK: Duration = Duration::from_millis(200);

/// What one provider was asked and what it sent.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Requests of both kinds.
    pub(crate) requests: Cell<u64>,
    /// The first thing that went wrong.
    pub(crate) fault: RefCell<Option<String>>,
}

/// Both providers.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// Where they listen.
    pub(crate) addresses: [SocketAddr; 2],
    /// What they were asked.
    pub(crate) asked: [Rc<Asked>; 2],
    /// Sends the events of all streams.
    pub(crate) pacer: Rc<Pacer>,
}

impl Upstreams {
    /// Opens both listeners and answers until the runtime ends.
    pub(crate) async fn start(pacer: Pacer) -> io::Result<Self> {
        let pacer = Rc::new(pacer);
        let (first, a) = serve(&pacer).await?;
        let (second, b) = serve(&pacer).await?;
        Ok(Self {
            addresses: [first, second],
            asked: [a, b],
            pacer,
        })
    }

    /// Requests that each provider has had so far.
    pub(crate) fn requests(&self) -> [u64; 2] {
        self.asked.each_ref().map(|asked| asked.requests.get())
    }

    /// Ends what a failed load has left running, so that it does not become the next one's fault.
    pub(crate) async fn settle(&self) {
        self.pacer.finish.set(true);
        let begun = Instant::now();
        while self.pacer.is_running() && begun.elapsed() < SETTLE_LIMIT {
            sleep(SETTLE_LOOK).await;
        }
        sleep(SETTLE_LOOK).await;
        while self.take_fault().is_some() {}
    }

    /// The first fault that a provider noticed, forgotten once told.
    pub(crate) fn take_fault(&self) -> Option<String> {
        self.asked.iter().find_map(|asked| asked.fault.take())
    }
}

async fn serve(pacer: &Rc<Pacer>) -> io::Result<(SocketAddr, Rc<Asked>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let asked = Rc::new(Asked::default());
    let (pacer, shared) = (Rc::clone(pacer), Rc::clone(&asked));
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (pacer, asked) = (Rc::clone(&pacer), Rc::clone(&shared));
            tokio::task::spawn_local(async move {
                if let Err(fault) = converse(socket, &asked, &pacer).await {
                    asked
                        .fault
                        .borrow_mut()
                        .get_or_insert(format!("upstream: {fault}"));
                }
            });
        }
    });
    Ok((address, asked))
}

/// Answers the requests of one connection until the proxy closes it.
async fn converse(socket: TcpStream, asked: &Asked, pacer: &Rc<Pacer>) -> Result<(), String> {
    socket.set_nodelay(true).map_err(|e| e.to_string())?;
    let socket = Rc::new(socket);
    let json = format!(
        "HTTP/1.1 200 OK\r\n{HEADERS}content-length: {}\r\n\r\n{COMPLETION}",
        COMPLETION.len()
    );
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let Some((length, is_stream)) = request(buffer.get(..filled).unwrap_or_default())? else {
            let room = buffer.get_mut(filled..).unwrap_or_default();
            match read(&socket, room).await? {
                // Proxies close pooled connections whenever they like; only half a request is a fault.
                0 if filled == 0 => return Ok(()),
                0 => return Err(format!("connection closed {filled} bytes into a request")),
                n => filled += n,
            }
            continue;
        };
        if length != filled {
            return Err(format!(
                "{filled} bytes came where a request of {length} was expected"
            ));
        }
        filled = 0;
        asked.requests.set(asked.requests.get() + 1);
        if is_stream {
            write(&socket, STREAM_HEAD.as_bytes()).await?;
            pacer.stream(&socket).await?;
        } else {
            write(&socket, json.as_bytes()).await?;
        }
    }
}

/// The length of the request at the start of `bytes`, and whether it asks for a stream; `None` while
/// it is not complete.
fn request(bytes: &[u8]) -> Result<Option<(usize, bool)>, String> {
    let Some(end) = head_end(bytes) else {
        return if bytes.len() < BUFFER_BYTES {
            Ok(None)
        } else {
            Err("endless head".to_owned())
        };
    };
    let (head, body) = bytes.split_at(end);
    let head = std::str::from_utf8(head).map_err(|_| "a head that is not text".to_owned())?;
    let length: usize = header(head, "content-length")
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| format!("a request without content-length: {head:?}"))?;
    if body.len() < length {
        return Ok(None);
    }
    // The flag is the first field of the body that the clients send, or near it behind a rewrite.
    let is_stream = body.windows(13).any(|window| window == br#""stream":true"#);
    Ok(Some((end + length, is_stream)))
}

/// Reads what is there; 0 at the end, also when the peer reset the connection between requests.
pub(crate) async fn read(socket: &TcpStream, room: &mut [u8]) -> Result<usize, String> {
    loop {
        socket.readable().await.map_err(|e| e.to_string())?;
        match socket.try_read(room) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            done => return done.map_err(|e| format!("read: {e}")),
        }
    }
}

/// Writes all of `bytes`; nearly always in one call, as everything here fits the socket's buffer.
pub(crate) async fn write(socket: &TcpStream, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                socket.writable().await.map_err(|e| e.to_string())?;
            }
            Err(e) => return Err(format!("write: {e}")),
        }
    }
    Ok(())
}
