//! The client's socket, which ends with a reset when an answer broke off.
//!
//! In HTTP/1.1 the framing shows that something is missing. In HTTP/1.0, which proxies in front still
//! speak, a body ends where the connection ends, and a plain close would make a cut answer look complete.
//!
//! A client that takes nothing of what it asked for is cut after a while: it holds on to the provider's
//! answer as well.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::upstream::socket::Socket;

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientIo {
    socket: Socket,
    broken: Rc<Cell<bool>>,
    stall: Stall,
}

/// Ends the wait for a peer that takes nothing.
#[derive(Debug)]
pub(crate) struct Stall {
    limit: Duration,
    /// Set while nothing is taken.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// `limit` is the longest time in which nothing is taken.
    pub(crate) const fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// What a write came to, or an error if none has got anywhere for too long.
    pub(crate) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl ClientIo {
    /// Wraps the socket; `broken` is looked at when it closes. A client that takes nothing for `stall` is cut.
    pub(super) const fn new(socket: Socket, broken: Rc<Cell<bool>>, stall: Duration) -> Self {
        Self {
            socket,
            broken,
            stall: Stall::new(stall),
        }
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        if self.broken.get() {
            // Closing with a linger of zero sends a reset. A socket that is gone needs none.
            drop(SockRef::from(self.socket.tcp()).set_linger(Some(Duration::ZERO)));
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.stall.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.stall.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.get() {
            // An orderly end would be sent before the reset.
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let ended = Pin::new(&mut this.socket).poll_shutdown(cx);
        this.stall.watch(cx, ended)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.stall.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
