//! A provider that keeps every byte it is sent, and reads requests more strictly than any real one.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::wait_until;

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

/// One connection as it came.
#[derive(Debug, Clone, Default)]
struct Seen {
    bytes: Vec<u8>,
    ended: bool,
}

/// What one connection brought, read strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    /// This many whole requests, and nothing else.
    Whole(usize),
    /// The beginning of a request after as many whole ones, and then the end of the connection.
    CutAfter(usize),
    /// What no request may look like.
    Unclean(String),
}

/// The provider.
#[derive(Debug)]
pub(super) struct Sink {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Sink {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut all = shared.lock().unwrap();
                all.push(Seen::default());
                tokio::spawn(keep(stream, Arc::clone(&shared), all.len() - 1));
            }
        });
        Self { port, seen }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Forgets what open connections brought so far.
    pub(super) fn clear(&self) {
        for seen in self.seen.lock().unwrap().iter_mut() {
            seen.bytes.clear();
        }
    }

    /// What was sent, once every begun request is whole or cut; with the raw bytes.
    pub(super) async fn settled(&self) -> (Vec<Read>, String) {
        let reads = || {
            let seen = self.seen.lock().unwrap();
            let used = seen.iter().filter(|seen| !seen.bytes.is_empty());
            used.map(|seen| (read(&seen.bytes), seen.ended))
                .collect::<Vec<_>>()
        };
        wait_until("the provider is left in peace", || {
            let is_open =
                |(read, ended): &(Read, bool)| matches!(read, Read::CutAfter(_)) && !ended;
            !reads().iter().any(is_open)
        })
        .await;
        let raw: Vec<u8> = {
            let seen = self.seen.lock().unwrap();
            seen.iter().flat_map(|seen| seen.bytes.clone()).collect()
        };
        let reads = reads().into_iter().map(|(read, _)| read).collect();
        (reads, String::from_utf8_lossy(&raw).into_owned())
    }
}

/// Keeps what comes, and answers every whole request.
async fn keep(mut stream: TcpStream, shared: Arc<Mutex<Vec<Seen>>>, at: usize) {
    let mut buffer = Vec::new();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        let is_whole = {
            let mut all = shared.lock().unwrap();
            let seen = &mut all[at].bytes;
            seen.append(&mut buffer);
            matches!(read(seen), Read::Whole(_))
        };
        if is_whole && stream.write_all(answer.as_bytes()).await.is_err() {
            break;
        }
    }
    shared.lock().unwrap()[at].ended = true;
}

/// Reads as strictly as can be: one way to write each thing, and no other.
fn read(mut bytes: &[u8]) -> Read {
    let mut whole = 0;
    while !bytes.is_empty() {
        match request(bytes) {
            Ok(Some(length)) => bytes = &bytes[length..],
            Ok(None) => return Read::CutAfter(whole),
            Err(why) => return Read::Unclean(why),
        }
        whole += 1;
    }
    Read::Whole(whole)
}

/// The length of the first request; `None`: more of it has to come.
fn request(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let first: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let is_token = |text: &str| {
        let marks = b"!#$%&'*+-.^_`|~";
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || marks.contains(&b))
    };
    let [method, target, "HTTP/1.1"] = first[..] else {
        return Err(format!("{first:?} begins no request"));
    };
    if !is_token(method)
        || !target.starts_with('/')
        || !target.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(format!("{method} {target}"));
    }
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| line.to_owned())?;
        let is_plain = value.bytes().all(|b| b >= 0x20 && b != 0x7f);
        if !is_token(name) || !is_plain {
            return Err(format!("{line:?}"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" if length.is_none() && value.bytes().all(|b| b.is_ascii_digit()) => {
                length = value.parse::<usize>().ok();
            }
            "transfer-encoding" if !chunked && value == "chunked" => chunked = true,
            "content-length" | "transfer-encoding" | "connection" | "upgrade" | "expect" | "te"
            | "trailer" | "keep-alive" | "proxy-connection" => {
                return Err(line.to_owned());
            }
            _ => {}
        }
    }
    let body = end + 4;
    match (hosts, length, chunked) {
        (1, None, true) => chunks(bytes, body),
        (1, length, false) => {
            let whole = body + length.unwrap_or(0);
            Ok((bytes.len() >= whole).then_some(whole))
        }
        framing => Err(format!("hosts, length, chunked: {framing:?}")),
    }
}

/// Where a chunked body ends that begins at `at`.
fn chunks(bytes: &[u8], mut at: usize) -> Result<Option<usize>, String> {
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let size = String::from_utf8_lossy(&rest[..line]);
        let is_hex = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(&size, 16).ok().filter(|_| is_hex);
        let size = size.ok_or_else(|| format!("{:?} is no size", &rest[..line]))?;
        let end = at + line + 2 + size + 2;
        let Some(chunk) = bytes.get(at..end) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end, or a trailer".to_owned());
        }
        if size == 0 {
            return Ok(Some(end));
        }
        at = end;
    }
}
