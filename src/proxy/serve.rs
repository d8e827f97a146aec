//! One client connection: TLS if the configuration has a certificate, HTTP/1.1 or HTTP/2 as the client wants.
//!
//! Under TLS both sides agree on the version in the handshake; without it, a client that speaks HTTP/2 says so
//! in its first bytes, which are looked at and left where they are. Nothing here may hold up another
//! connection, and no client may hold on to one without sending a request.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::client_io::ClientIo;
use super::gauges::Load;
use super::handle::handle;
use super::head_timer::HeadTimer;
use super::listener::Accepted;
use super::plane::Worker;
use super::streams::{StreamBody, StreamExec, Streams};
use crate::upstream::pool::MAX_HEAD_BYTES;
use crate::upstream::socket::{Socket, tune};

/// Headers of a request at most.
pub(super) const MAX_HEADERS: usize = 128;
/// From the first byte of a TLS handshake to its last.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How an HTTP/2 connection begins; no HTTP/1 request begins like its first four bytes.
const PREFACE: &[u8; 4] = b"PRI ";
/// A client that sent less of them than that for so long speaks HTTP/1.
const SNIFF_FOR: Duration = Duration::from_secs(1);
/// Requests on one HTTP/2 connection at most. Calls last for minutes, and an application sends all of its
/// calls over one connection.
const STREAMS_MAX: u32 = 1_000;
/// What one request body may have under way, and all of a connection together.
const WINDOWS_BYTES: (u32, u32) = (256 * 1024, 32 * 1024 * 1024);
/// What waits to be sent on one stream: a client that reads slowly makes its provider wait, not memory grow.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// An HTTP/2 client is asked whether it lives after such a silence, and has so long to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a quiet HTTP/1.1 connection is kept when the worker drains, at most: its client may be sending a
/// request just then, which closing would lose. Half of the drain time, if that is less.
const LINGER: Duration = Duration::from_secs(1);
/// How long a client that was told goodbye may take to hang up.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the connections of one worker share.
pub(super) struct Serving {
    pub(super) worker: Rc<Worker>,
    pub(super) load: Arc<Load>,
    /// Raised once, when the worker drains.
    pub(super) drain: Notify,
    pub(super) connection_ended: Notify,
    http1: http1::Builder,
    http2: http2::Builder<StreamExec>,
    streams: StreamExec,
    keep_alive: Duration,
}

impl Serving {
    pub(super) fn new(worker: Worker, load: Arc<Load>) -> Self {
        let streams = StreamExec::default();
        let keep_alive = worker.plane().config.proxy.keep_alive;
        Self {
            worker: Rc::new(worker),
            load,
            drain: Notify::new(),
            connection_ended: Notify::new(),
            http1: http1_settings(keep_alive),
            http2: http2_settings(streams.clone()),
            streams,
            keep_alive,
        }
    }
}

fn http1_settings(keep_alive: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer, hyper ignores the head timeout.
    http.timer(HeadTimer)
        .header_read_timeout(keep_alive)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(false)
        .pipeline_flush(false);
    http
}

fn http2_settings(exec: StreamExec) -> http2::Builder<StreamExec> {
    let mut http = http2::Builder::new(exec);
    // The bounds on streams that are opened only to be reset are h2's own.
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOWS_BYTES.0)
        .initial_connection_window_size(WINDOWS_BYTES.1)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    http
}

/// Serves an accepted connection to its end.
pub(super) async fn serve(serving: Rc<Serving>, accepted: Accepted) {
    let Accepted { tcp, _permit } = accepted;
    match TcpStream::from_std(tcp) {
        Ok(tcp) => {
            tune(&tcp);
            serve_connection(&serving, tcp).await;
        }
        Err(error) => tracing::warn!(%error, "a connection cannot be served"),
    }
    serving.load.0.fetch_sub(1, Ordering::Relaxed);
    serving.connection_ended.notify_one();
}

async fn serve_connection(serving: &Rc<Serving>, tcp: TcpStream) {
    let plane = serving.worker.plane();
    let tls = plane.config.proxy.tls.as_ref();
    let tls = tls.map(|tls| Arc::clone(tls.server()));
    // A connection may outlive many configurations.
    drop(plane);
    let (socket, is_http2) = match tls {
        None => match speaks_http2(serving, &tcp).await {
            Some(is_http2) => (Socket::Plain(tcp), is_http2),
            None => return,
        },
        // Boxed, as the rest that most connections do not need: they all pay for its size.
        Some(tls) => match Box::pin(shake_hands(tls, tcp)).await {
            Some(socket) => {
                let is_http2 = socket.agreed_on_http2();
                (socket, is_http2)
            }
            None => return,
        },
    };
    let ended = if is_http2 {
        Box::pin(serve_http2(serving, socket)).await
    } else {
        serve_http1(serving, socket).await
    };
    if let Err(error) = ended {
        // Clients that hang up, time out or speak no HTTP: of interest only when somebody looks.
        tracing::debug!(%error, "a client connection ended early");
    }
}

/// Resolves when the worker drains, at once if it does already.
async fn told_to_drain(serving: &Serving) {
    let told = serving.drain.notified();
    if !serving.worker.draining.get() {
        told.await;
    }
}

/// Looks at the first bytes without taking them; `None` if none came in time, or the client left.
async fn speaks_http2(serving: &Serving, tcp: &TcpStream) -> Option<bool> {
    tokio::select! {
        biased;
        sniffed = tokio::time::timeout(serving.keep_alive, sniff(tcp)) => sniffed.ok()?,
        // Nothing was asked yet: HTTP/1 says goodbye without a word.
        () = told_to_drain(serving) => Some(false),
    }
}

async fn sniff(tcp: &TcpStream) -> Option<bool> {
    let mut first = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    let mut give_up_at = None;
    loop {
        let seen = tcp.peek(&mut first).await.ok()?;
        if seen == 0 {
            return None;
        }
        if seen == PREFACE.len() || first.get(..seen) != PREFACE.get(..seen) {
            return Some(first == *PREFACE);
        }
        // A part of it, or of an HTTP/1 method like POST: what was seen once keeps the socket readable.
        let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + SNIFF_FOR);
        if Instant::now() >= give_up_at {
            return Some(false);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn shake_hands(tls: Arc<ServerConfig>, tcp: TcpStream) -> Option<Socket> {
    let accepting = TlsAcceptor::from(tls).accept(tcp);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await {
        Ok(Ok(tls)) => return Some(Socket::Tls(Box::new(TlsStream::Server(tls)))),
        Ok(Err(error)) => tracing::debug!(%error, "a client's TLS handshake failed"),
        Err(_) => tracing::debug!("a client's TLS handshake took too long"),
    }
    None
}

async fn serve_http1(serving: &Rc<Serving>, socket: Socket) -> hyper::Result<()> {
    let broken = Rc::new(Cell::new(false));
    let service = service_fn(|request| {
        // Boxed, because a connection keeps the place of its request's future for as long as it lives.
        let answering = Box::pin(handle(
            Rc::clone(&serving.worker),
            request,
            Rc::clone(&broken),
        ));
        async move {
            let mut answer = answering.await?;
            if serving.worker.draining.get() {
                let headers = answer.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let stall = serving.worker.plane().config.proxy.client_stall;
    let io = TokioIo::new(ClientIo::new(socket, Rc::clone(&broken), stall));
    let mut connection = pin!(serving.http1.serve_connection(io, service));
    match until_drain(serving, connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            let linger = LINGER.min(serving.worker.plane().config.proxy.drain / 2);
            if let Ok(ended) = tokio::time::timeout(linger, connection.as_mut()).await {
                return ended;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// What the connection comes to, or `None` when the worker drains first. A request that is here already is
/// answered. The drain wakes the task once; each other time that it runs, a look at the flag is enough.
async fn until_drain<C: Future>(
    serving: &Serving,
    mut connection: Pin<&mut C>,
) -> Option<C::Output> {
    let mut told = pin!(told_to_drain(serving));
    let mut is_listening = false;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        let is_told = !is_listening && told.as_mut().poll(cx).is_ready();
        is_listening = true;
        if is_told || serving.worker.draining.get() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

async fn serve_http2(serving: &Rc<Serving>, socket: Socket) -> hyper::Result<()> {
    let streams = Rc::new(Streams::new());
    let worker = Rc::clone(&serving.worker);
    let stall = worker.plane().config.proxy.client_stall;
    let service = service_fn(|request| {
        let (worker, place) = (Rc::clone(&worker), Streams::place(&streams));
        serving.streams.expect(&place, stall);
        async move {
            // An answer that breaks off resets its stream: nobody else has to know.
            let answer = handle(worker, request, Rc::default()).await?;
            Ok::<_, Infallible>(answer.map(|answer| StreamBody::new(answer, place)))
        }
    });
    let io = TokioIo::new(ClientIo::new(socket, Rc::default(), stall));
    let mut connection = pin!(serving.http2.serve_connection(io, service));
    let is_idle = tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = told_to_drain(serving) => false,
        () = streams.quiet_for(serving.keep_alive) => true,
    };
    connection.as_mut().graceful_shutdown();
    if !is_idle {
        return connection.await;
    }
    let ended = tokio::time::timeout(GOODBYE, connection).await;
    ended.unwrap_or(Ok(()))
}
