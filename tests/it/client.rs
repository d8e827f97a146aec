//! A raw HTTP/1.1 client: sends the bytes it is given and tells how exactly an answer ended.
//!
//! Knows no retries, no decoding and no kindness. It must never take an aborted answer for a whole one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A test that waits longer than this waits in vain.
const PATIENCE: Duration = Duration::from_secs(20);

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Where its framing said, or by FIN if it had no framing.
    Clean,
    /// By FIN before its framing was fulfilled.
    Closed,
    /// By RST.
    Reset,
}

/// Status line and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// In the order and case they came in.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// The value of the first header called `name`.
pub(crate) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// An answer read to its end, however that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    /// Bytes that are still to come.
    Length(usize),
    Chunked,
    UntilFin,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// Bytes read but not yet handed out.
    buffer: Vec<u8>,
    framing: Framing,
    head_only: bool,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = timeout(PATIENCE, TcpStream::connect(addr)).await??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            framing: Framing::None,
            head_only: false,
        })
    }

    /// A client whose kernel takes in only a little before it reads.
    pub(crate) async fn connect_narrow(port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 * 1024)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = timeout(PATIENCE, socket.connect(addr)).await??;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            framing: Framing::None,
            head_only: false,
        })
    }

    /// Sends exactly these bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await?
    }

    /// Sends a request with `host`, `content-length` (unless the body is empty) and these headers.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        self.head_only = method == "HEAD";
        self.send(&[request.as_bytes(), body].concat()).await
    }

    /// Reads the next head, an interim one included.
    pub(crate) async fn head(&mut self) -> Result<Head, End> {
        let length = loop {
            let found = self.buffer.windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(at) = found {
                break at + 4;
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..length).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let head = Head { status, headers };
        self.framing = if status < 200 || status == 204 || status == 304 || self.head_only {
            Framing::None
        } else if head.header("transfer-encoding").is_some() {
            Framing::Chunked
        } else if let Some(length) = head.header("content-length") {
            Framing::Length(length.parse().unwrap())
        } else {
            Framing::UntilFin
        };
        Ok(head)
    }

    /// The next part of the body: a whole chunk, or what has arrived. `None` at its clean end.
    pub(crate) async fn part(&mut self) -> Result<Option<Vec<u8>>, End> {
        match self.framing {
            Framing::None | Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.buffer.is_empty() {
                    self.fill().await?;
                }
                let take = left.min(self.buffer.len());
                self.framing = Framing::Length(left - take);
                Ok(Some(self.buffer.drain(..take).collect()))
            }
            Framing::UntilFin => {
                if self.buffer.is_empty() {
                    match self.fill().await {
                        Ok(()) => {}
                        Err(End::Closed) => return Ok(None),
                        Err(end) => return Err(end),
                    }
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
            Framing::Chunked => self.chunk().await,
        }
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let line_end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            self.fill().await?;
        };
        let line = String::from_utf8(self.buffer[..line_end].to_vec()).unwrap();
        let size = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
        let whole = line_end + 2 + size + 2;
        while self.buffer.len() < whole {
            self.fill().await?;
        }
        let chunk: Vec<u8> = self.buffer.drain(..whole).collect();
        assert!(chunk.ends_with(b"\r\n"), "a chunk is longer than it says");
        if size == 0 {
            self.framing = Framing::None;
            return Ok(None);
        }
        Ok(Some(chunk[line_end + 2..line_end + 2 + size].to_vec()))
    }

    /// Reads the body to its end.
    pub(crate) async fn body(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            match self.part().await {
                Ok(Some(part)) => body.extend(part),
                Ok(None) => return (body, End::Clean),
                // An open chunk's bytes were received, too.
                Err(end) => return (body, end),
            }
        }
    }

    /// Reads a head and its body; an error if not even the head came.
    pub(crate) async fn answer(&mut self) -> Result<Answer, End> {
        let head = self.head().await?;
        let (body, end) = self.body().await;
        Ok(Answer { head, body, end })
    }

    /// Reads and drops whatever comes next; false at the end of the connection, however that is.
    pub(crate) async fn read_any(&mut self) -> bool {
        self.buffer.clear();
        self.fill().await.is_ok()
    }

    /// True if nothing arrives for this long. Only ever wrong by saying yes.
    pub(crate) async fn is_silent_for(&mut self, quiet: Duration) -> bool {
        self.buffer.is_empty() && timeout(quiet, self.stream.readable()).await.is_err()
    }

    async fn fill(&mut self) -> Result<(), End> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        match read.expect("no byte came in all the time a test may take") {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }
}

/// One POST of JSON over a connection of its own.
pub(crate) async fn post(port: u16, target: &str, body: &Value) -> Result<Answer, End> {
    let mut client = Client::connect(port).await.map_err(|_| End::Reset)?;
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer test"),
    ];
    client
        .request("POST", target, &headers, body.to_string().as_bytes())
        .await
        .map_err(|_| End::Reset)?;
    client.answer().await
}
