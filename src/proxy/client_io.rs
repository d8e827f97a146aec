//! The client's socket, which ends with a reset when an answer broke off.
//!
//! In HTTP/1.1 the framing shows that something is missing. In HTTP/1.0, which proxies in front still
//! speak, a body ends where the connection ends, and a plain close would make a cut answer look complete.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::socket::Socket;

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientIo {
    socket: Socket,
    broken: Rc<Cell<bool>>,
}

impl ClientIo {
    /// Wraps the socket; `broken` is looked at when it closes.
    pub(super) const fn new(socket: Socket, broken: Rc<Cell<bool>>) -> Self {
        Self { socket, broken }
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
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.get() {
            // An orderly end would be sent before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
