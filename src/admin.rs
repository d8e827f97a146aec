//! The admin port: health, status, history, events, and the operator's commands, as JSON.
//!
//! It reads snapshots from the driver and rows from the store, and sends commands to the driver; it
//! changes nothing by itself. It runs on the control runtime and never touches the data plane's threads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::clock::UnixMillis;
use crate::driver::Request as DriverRequest;
use crate::proxy::gauges::Gauges;
use crate::proxy::plane::Plane;
use crate::store::Store;
use crate::trace::export::Fates;
use events::Feed;
use reader_io::ReaderIo;

mod api;
mod auth;
mod dashboard;
mod events;
mod metrics;
mod query;
mod reader_io;
mod requests;
mod series;

/// Connections at most; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 128;
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// For all of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// A reader that takes nothing of its answer for so long is cut: it holds one of few connections.
const STALL: Duration = Duration::from_secs(30);
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What the admin port works with.
#[derive(Debug, Clone)]
pub struct Admin {
    /// To the driver.
    pub driver: mpsc::Sender<DriverRequest>,
    /// For the decision log.
    pub store: Store,
    /// The configuration in force, for the token.
    pub planes: watch::Receiver<Arc<Plane>>,
    /// True once state is restored and the listener is up; false again while draining.
    pub ready: watch::Receiver<bool>,
    /// How many connections the workers have.
    pub gauges: Gauges,
    /// What becomes of spans.
    pub spans: Arc<Fates>,
}

/// What an answer holds: bytes at hand, or a stream that never ends by itself.
pub(crate) type Content = BoxBody<Bytes, Infallible>;

/// An answer of the admin port.
pub(crate) type Answer = Response<Content>;

/// Serves until the task is dropped. No error of `accept` ends it.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let feed = Arc::new(events::start(admin.clone()));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "accept failed on the admin port; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (admin, feed) = (admin.clone(), Arc::clone(&feed));
        tokio::spawn(async move {
            let hang_up = Arc::new(Notify::new());
            let service = service_fn(|request| answer(&admin, &feed, &hang_up, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(64)
                .max_header_size(MAX_HEAD_BYTES)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(ReaderIo::new(tcp, STALL)), service);
            tokio::select! {
                served = served => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "an admin connection ended early");
                    }
                }
                () = hang_up.notified() => {}
            }
            drop(permit);
        });
    }
}

async fn answer(
    admin: &Admin,
    feed: &Feed,
    hang_up: &Arc<Notify>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query();
    let is_probe = matches!(path.as_str(), "/healthz" | "/readyz");
    if request.method() == Method::GET && !is_probe {
        let token = admin.planes.borrow().config.admin.token.clone();
        if let Err((status, message)) = auth::check_read(request.headers(), token.as_ref()) {
            return Ok(error(status, message));
        }
    }
    let answer = match (request.method(), path.as_str()) {
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") if *admin.ready.borrow() => text(StatusCode::OK, "ready\n"),
        (&Method::GET, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        (&Method::GET, "/metrics") => metrics::metrics(admin).await,
        (&Method::GET, "/api/v1/status") => api::status(admin).await,
        (&Method::GET, "/api/v1/decisions") => api::decisions(admin, query).await,
        (&Method::GET, "/api/v1/series") => series::series(admin, query).await,
        (&Method::GET, "/api/v1/requests") => requests::requests(admin, query).await,
        (&Method::GET, "/api/v1/events") => events::events(feed, query, request.headers(), hang_up),
        (&Method::GET, "/charts.json") => {
            dashboard::charts::answer(admin, query, UnixMillis::now()).await
        }
        (&Method::GET, _) => {
            let file = dashboard::file(&path, request.headers());
            file.unwrap_or_else(not_found)
        }
        (&Method::POST | &Method::PUT, _) => mutate(admin, request, &path).await,
        _ => error(
            StatusCode::METHOD_NOT_ALLOWED,
            "this method is not served here",
        ),
    };
    Ok(answer)
}

async fn mutate(admin: &Admin, request: Request<Incoming>, path: &str) -> Answer {
    let Some((rollout, action)) = api::mutation_of(path) else {
        return not_found();
    };
    let token = admin.planes.borrow().config.admin.token.clone();
    if let Err((status, message)) = auth::check(request.headers(), token.as_ref()) {
        return error(status, message);
    }
    let (rollout, action, method) = (
        rollout.to_owned(),
        action.to_owned(),
        request.method().clone(),
    );
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large or broke off",
            );
        }
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body does not arrive"),
    };
    api::operate(admin, &method, rollout, &action, &body.to_bytes()).await
}

fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "no such route")
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", whole(body))
}

/// Content that is at hand.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Content {
    Full::new(bytes.into()).boxed()
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, "application/json", whole(body)),
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer cannot be written\n",
        ),
    }
}

/// An error as JSON: `{"error": {"message": …}}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    json(
        status,
        &serde_json::json!({ "error": { "message": message } }),
    )
}

/// An answer of this type, which nobody may keep.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Content) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}
