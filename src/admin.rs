//! The admin port: health, status, decisions, and the operator's commands, as JSON.
//!
//! It reads snapshots from the driver and rows from the store, and sends commands to the driver; it
//! changes nothing by itself. It runs on the control runtime and never touches the data plane's threads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::driver::Request as DriverRequest;
use crate::proxy::gauges::Gauges;
use crate::proxy::plane::Plane;
use crate::store::Store;
use crate::trace::export::Fates;

mod api;
mod auth;
mod metrics;

/// Connections at most; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 128;
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
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

/// An answer of the admin port.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves until the task is dropped. No error of `accept` ends it.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&admin, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(64)
                .serve_connection(TokioIo::new(tcp), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended early");
            }
            drop(permit);
        });
    }
}

async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
) -> Result<Answer, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let answer = match (request.method(), path.as_str()) {
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") if *admin.ready.borrow() => text(StatusCode::OK, "ready\n"),
        (&Method::GET, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        (&Method::GET, "/metrics") => metrics::metrics(admin).await,
        (&Method::GET, "/api/v1/status") => api::status(admin).await,
        (&Method::GET, "/api/v1/decisions") => api::decisions(admin, &request).await,
        (&Method::GET, _) => not_found(&path),
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
        return not_found(path);
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
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
    else {
        return error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large or broke off",
        );
    };
    api::operate(admin, &method, rollout, &action, &body.to_bytes()).await
}

fn not_found(path: &str) -> Answer {
    const LATER: [&str; 4] = ["/", "/api/v1/series", "/api/v1/requests", "/api/v1/events"];
    if LATER.contains(&path) {
        error(StatusCode::NOT_FOUND, "not part of this version yet")
    } else {
        error(StatusCode::NOT_FOUND, "no such route")
    }
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    with_type(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(body.as_bytes()),
    )
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, "application/json", body.into()),
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

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
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
