//! A connection as one request uses it: its own (HTTP/1.1), or a place on a shared one (HTTP/2).
//!
//! Knows what each of them wants a request to look like, and what the end of one says about the request:
//! whether it may be sent again without doing anything twice.

use std::error::Error as _;
use std::pin::pin;
use std::rc::Rc;

use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::body::UploadBody;
use super::shared::Stream;
use super::target::Origin;

/// An open connection, owned by one attempt until it is put back.
#[derive(Debug)]
pub struct Connection {
    pub(super) link: Link,
    /// What a request names in its address; `None`: its path is enough.
    pub(super) origin: Option<Rc<Origin>>,
    pub(super) opened_at: Instant,
    pub(super) reused: bool,
    /// Times what is sent over it, one request after the other.
    pub(super) alarm: Alarm,
}

/// What a request goes over.
#[derive(Debug)]
pub(super) enum Link {
    /// A connection of its own.
    Http1(Own),
    /// A place on a shared one.
    Http2(Stream),
}

/// A connection that serves one request at a time.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) sender: http1::SendRequest<UploadBody>,
    /// The task that serves it.
    pub(super) task: AbortHandle,
    /// An attempt owns it, and its answer was not read to the end yet.
    pub(super) busy: bool,
}

impl Drop for Own {
    /// Hangs up at once where an attempt was given up, or answered before it was sent. By itself hyper would
    /// first write what is left of the request, and an upstream that does not read would keep it for ever.
    fn drop(&mut self) {
        if self.busy || !self.sender.is_ready() {
            self.task.abort();
        }
    }
}

/// Why no answer came. It says what became of the request.
#[derive(Debug)]
pub enum SendError {
    /// It was never written: here it is.
    Unsent(Box<Request<UploadBody>>),
    /// It was sent, and the peer says that it did nothing with it.
    Unprocessed,
    /// The connection had been idle before and was closed without an answer; most likely the peer closed
    /// it before the request came.
    Stale,
    /// Nobody knows.
    Lost,
}

impl Connection {
    /// True if it was there before: it served an earlier request, or was opened ahead.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Says whether an attempt owns it.
    pub(super) const fn set_busy(&mut self, busy: bool) {
        if let Link::Http1(own) = &mut self.link {
            own.busy = busy;
        }
    }

    /// True if a forward proxy passes each request on, and may answer in the arm's place.
    #[must_use]
    pub const fn is_relayed(&self) -> bool {
        self.origin.is_some() && matches!(self.link, Link::Http1(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.link {
            Link::Http1(own) => own.sender.is_closed(),
            Link::Http2(stream) => stream.sender.is_closed(),
        }
    }

    /// Sends a request with its path as address and with its `Host`, and waits for the answer's head: until
    /// that moment, or `None`. `later` may then name a later one. Dropping the future gives up the request, and
    /// nothing else on the connection.
    ///
    /// # Errors
    /// Says whether the request may be sent again.
    pub async fn send_by(
        &mut self,
        mut at: Instant,
        request: Request<UploadBody>,
        mut later: impl FnMut() -> Option<Instant>,
    ) -> Option<Result<Response<Incoming>, SendError>> {
        let mut alarm = self.take_alarm();
        let answer = {
            let mut sending = pin!(self.send(request));
            loop {
                if let Some(answer) = alarm.race(at, sending.as_mut()).await {
                    break Some(answer);
                }
                match later() {
                    Some(next) => at = next,
                    None => break None,
                }
            }
        };
        self.alarm = alarm;
        answer
    }

    /// Lends its timer to whoever waits for what comes over it.
    pub const fn take_alarm(&mut self) -> Alarm {
        std::mem::replace(&mut self.alarm, Alarm::new())
    }

    /// Takes the timer back.
    pub fn return_alarm(&mut self, alarm: Alarm) {
        self.alarm = alarm;
    }

    pub(super) async fn send(
        &mut self,
        mut request: Request<UploadBody>,
    ) -> Result<Response<Incoming>, SendError> {
        if self.origin.is_some() || request.uri().scheme().is_some() {
            self.address(&mut request);
        }
        let answer = match &mut self.link {
            Link::Http1(own) => own.sender.try_send_request(request).await,
            Link::Http2(stream) => stream.sender.try_send_request(request).await,
        };
        answer.map_err(|error| self.what_became(error))
    }

    /// Puts into the request where it goes, in the way that the connection wants it.
    fn address(&self, request: &mut Request<UploadBody>) {
        let path = request.uri().path_and_query().cloned();
        let Some(path) = path else { return };
        let Some(origin) = &self.origin else {
            // It was meant for another connection.
            if let Some(authority) = request.uri().authority().cloned()
                && let Ok(host) = HeaderValue::from_str(authority.as_str())
            {
                request.headers_mut().insert(header::HOST, host);
            }
            *request.uri_mut() = Uri::from(path);
            return;
        };
        let uri = Uri::builder()
            .scheme(origin.scheme.clone())
            .authority(origin.authority.clone())
            .path_and_query(path)
            .build();
        // All parts were valid, so the whole is; the fallback only keeps this free of panics.
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        if matches!(self.link, Link::Http2(_)) {
            // HTTP/2 says it in the address.
            request.headers_mut().remove(header::HOST);
        }
        if let Some(value) = &origin.authorization {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, value.clone());
        }
    }

    fn what_became(&self, mut error: TrySendError<Request<UploadBody>>) -> SendError {
        if let Some(request) = error.take_message() {
            return SendError::Unsent(Box::new(request));
        }
        let was_idle = match &self.link {
            Link::Http1(_) => self.reused,
            // On a connection in use, an end is no matter of idleness: it took others with it.
            Link::Http2(stream) => self.reused && stream.was_quiet,
        };
        if is_unprocessed(error.error()) {
            SendError::Unprocessed
        } else if was_idle {
            SendError::Stale
        } else {
            SendError::Lost
        }
    }
}

/// True if the peer promises that it did nothing with the request (RFC 9113, 8.7): it refused the stream, or
/// said goodbye and named an earlier one as its last.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = error.source();
    }
    false
}
