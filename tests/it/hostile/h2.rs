//! HTTP/2 frame by frame, so that it can be spoken as wrongly as one likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::in_time;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The bytes of a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Headers without any compression, each with a length of less than 127.
pub(super) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A whole request of `path` with these headers further to those that it must have.
pub(super) fn get(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let flags = END_STREAM | END_HEADERS;
    frame(HEADERS, flags, stream, &block(&head("GET", path, more)))
}

/// The head of a request whose body is to follow.
pub(super) fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS,
        stream,
        &block(&head("POST", path, more)),
    )
}

fn head<'a>(
    method: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let must = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
    ];
    [&must, more].concat()
}

/// A connection.
#[derive(Debug)]
pub(super) struct Raw {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects, with these settings as (id, value).
    pub(super) async fn connect(port: u16, settings: &[(u16, u32)]) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::begin(tcp, settings).await
    }

    /// The same for a client that takes next to nothing before it reads.
    pub(super) async fn connect_narrow(port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::begin(socket.connect(address).await.unwrap(), &[]).await
    }

    async fn begin(tcp: TcpStream, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self {
            tcp,
            buffer: Vec::new(),
        };
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let first = [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat();
        raw.tcp.write_all(&first).await.unwrap();
        raw
    }

    /// Sends as much of this as the other side takes; false if it has hung up.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        in_time("the other side to read", self.tcp.write_all(bytes))
            .await
            .is_ok()
    }

    /// The next frame; `None` at the end of the connection. Pings are answered.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.whole_frame() {
                if frame.kind == PING && frame.flags & ACK == 0 {
                    self.send(&self::frame(PING, ACK, 0, &frame.payload)).await;
                    continue;
                }
                return Some(frame);
            }
            let read = in_time("a frame or an end", self.tcp.read_buf(&mut self.buffer));
            if !matches!(read.await, Ok(1..)) {
                return None;
            }
        }
    }

    fn whole_frame(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.buffer.get(..9)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let end = 9 + usize::try_from(length).unwrap();
        let payload = self.buffer.get(9..end)?.to_vec();
        self.buffer.drain(..end);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The next frame of this kind, and of this stream.
    pub(super) async fn wait(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if (frame.kind, frame.stream) == (kind, stream) {
                return Some(frame);
            }
        }
    }

    /// Everything up to the answer to a ping, or to the end; true if the connection lives.
    pub(super) async fn until_pong(&mut self) -> (Vec<Frame>, bool) {
        let mut frames = Vec::new();
        self.send(&frame(PING, 0, 0, b"are you?")).await;
        while let Some(frame) = self.next().await {
            if frame.kind == PING {
                return (frames, true);
            }
            frames.push(frame);
        }
        (frames, false)
    }

    /// Reads and drops what comes, for as long as nothing ends it.
    pub(super) async fn drain(&mut self, quiet: Duration) -> bool {
        while let Ok(next) = tokio::time::timeout(quiet, self.next()).await {
            if next.is_none() {
                return false;
            }
        }
        true
    }
}
