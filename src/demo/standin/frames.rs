//! The body of an answer: parts that come from a task, the last of which may be a failure.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// An answer's body. An error among the parts makes the server drop the connection.
#[derive(Debug)]
pub(super) struct Frames(mpsc::Receiver<io::Result<Bytes>>);

impl Frames {
    pub(super) fn channel() -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Self(receiver))
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(cx)
            .map(|part| part.map(|part| part.map(Frame::data)))
    }
}
