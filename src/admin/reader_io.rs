//! A connection of the admin port, which is cut when its reader takes nothing any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::client_io::Stall;
use crate::upstream::socket::tune;

/// A reader's connection.
#[derive(Debug)]
pub(super) struct ReaderIo {
    tcp: TcpStream,
    stall: Stall,
}

impl ReaderIo {
    /// `limit` is the longest time in which nothing is taken.
    pub(super) fn new(tcp: TcpStream, limit: Duration) -> Self {
        tune(&tcp);
        Self {
            tcp,
            stall: Stall::new(limit),
        }
    }
}

impl AsyncRead for ReaderIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for ReaderIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.stall.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.stall.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
