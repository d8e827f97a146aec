//! HTTP/1.1 by hand: reads requests of any framing, writes exactly the bytes it is told to.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Request;
use crate::client::find;

#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The next request, or `None` if the peer has ended the connection between two.
    pub(super) async fn read_request(&mut self) -> io::Result<Option<Request>> {
        let length = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..length).collect();
        // Header values need not be UTF-8, but tests that look at them are.
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let mut word = || first.next().unwrap_or_default().to_owned();
        let (method, target) = (word(), word());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        if find(&headers, "expect").is_some() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = if find(&headers, "transfer-encoding").is_some() {
            self.read_chunked().await?
        } else {
            let length = find(&headers, "content-length").map_or(Ok(0), str::parse);
            let length = length.map_err(|_| io::ErrorKind::InvalidData)?;
            self.take(length).await?
        };
        Ok(Some(Request {
            order: 0,
            connection: 0,
            method,
            target,
            headers,
            body,
        }))
    }

    async fn read_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                break;
            }
            body.extend(self.take(size).await?);
            self.take(2).await?;
        }
        // Trailers, up to an empty line.
        while !self.take_line().await?.is_empty() {}
        Ok(body)
    }

    async fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.take(at + 2).await?;
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Does nothing until the peer has hung up, and says so as an error.
    pub(super) async fn stall(&mut self) -> io::Result<()> {
        while self.fill().await? {}
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// True if the peer has ended its side meanwhile. Waits for nothing.
    pub(super) fn peer_has_gone(&mut self) -> bool {
        let mut next = [0; 1024];
        match self.stream.try_read(&mut next) {
            Ok(0) => true,
            Ok(read) => {
                self.buffer.extend(&next[..read]);
                false
            }
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Ends the connection by RST.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}
