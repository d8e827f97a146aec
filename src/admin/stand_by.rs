//! The admin port of a process that may not decide yet: it says so, and whether it lives and is ready.
//!
//! It knows neither driver nor store; all else is answered by 503 with the reason.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::{Answer, HEAD_TIMEOUT, MAX_CONNECTIONS, error, text};

/// Serves until the future is dropped; the listener goes on to [`super::serve`]. Each connection gets one
/// answer, so that the next question may meet the whole API.
pub(crate) async fn serve(
    listener: &TcpListener,
    notice: &watch::Receiver<String>,
    ready: &watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "accept failed on the admin port; trying again");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (notice, ready) = (notice.clone(), ready.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let is_get = request.method() == Method::GET;
                let answer = answer(
                    is_get,
                    request.uri().path(),
                    &notice.borrow(),
                    *ready.borrow(),
                );
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(tcp), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended early");
            }
            drop(permit);
        });
    }
}

fn answer(is_get: bool, path: &str, notice: &str, is_ready: bool) -> Answer {
    match path {
        "/healthz" if is_get => text(StatusCode::OK, "ok\n"),
        "/readyz" if is_get && is_ready => text(StatusCode::OK, "ready\n"),
        "/readyz" if is_get => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => error(StatusCode::SERVICE_UNAVAILABLE, notice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_and_readiness_are_answered_and_all_else_says_why_not() {
        for (path, is_ready, status) in [
            ("/healthz", false, 200),
            ("/readyz", false, 503),
            ("/readyz", true, 200),
            ("/api/v1/status", true, 503),
            ("/metrics", true, 503),
            ("/", true, 503),
        ] {
            let answer = answer(true, path, "standing by", is_ready);
            assert_eq!(answer.status(), status, "{path} {is_ready}");
        }
        assert_eq!(answer(false, "/readyz", "standing by", true).status(), 503);
    }
}
