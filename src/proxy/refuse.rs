//! Requests that are turned away before any arm sees them, and answers of cutover's own.
//!
//! What hyper lets through but a strict proxy must not: no or several `Host`, transfer codings that
//! would be lost, tunnels. Every refusal is an error body in the client's dialect.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::answer::Answer;
use super::serve::MAX_HEADERS;
use crate::config::ProxyConfig;
use crate::llm::{self, Dialect};
use crate::outcome::Outcome;

/// Why cutover answered by itself.
const X_CUTOVER_ERROR: HeaderName = HeaderName::from_static("x-cutover-error");

/// Whether the official SDKs try again by themselves; they obey it both ways.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// True if an answer asks its reader not to try again.
#[must_use]
pub fn says_no_retry(headers: &HeaderMap) -> bool {
    headers
        .get(X_SHOULD_RETRY)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"false"))
}

/// An error answer of cutover's own. What may pass by itself says so, and when.
#[must_use]
pub fn answer(
    dialect: Option<Dialect>,
    status: StatusCode,
    kind: &'static str,
    message: &str,
) -> Response<Answer> {
    let body = llm::error_body(dialect, status.as_u16(), kind, message);
    let mut response = Response::new(Answer::Own(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(X_CUTOVER_ERROR, HeaderValue::from_static(kind));
    let (should_retry, after) = match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => ("true", Some("1")),
        // The time was waited already.
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ("true", None),
        _ => ("false", None),
    };
    headers.insert(X_SHOULD_RETRY, HeaderValue::from_static(should_retry));
    if let Some(after) = after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after));
    }
    response
}

/// The answer when no arm gave one.
#[must_use]
pub fn unanswered(dialect: Option<Dialect>, outcome: Outcome) -> Response<Answer> {
    let status = match outcome {
        Outcome::TimeoutConnect
        | Outcome::TimeoutFirstByte
        | Outcome::TimeoutIdle
        | Outcome::TimeoutTotal => StatusCode::GATEWAY_TIMEOUT,
        Outcome::OverLimit => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    let message = if outcome == Outcome::OverLimit {
        "too many requests are under way; try again in a moment"
    } else {
        "the provider gave no answer"
    };
    answer(dialect, status, outcome.as_str(), message)
}

/// Checks what can be told from the head alone.
///
/// # Errors
/// With the answer for a request that must not go on.
pub fn check_head(
    request: &Request<Incoming>,
    dialect: Option<Dialect>,
    config: &ProxyConfig,
) -> Result<(), Box<Response<Answer>>> {
    let refused = |status, kind, message| {
        let mut answer = answer(dialect, status, kind, message);
        // Who sends this may read the end of a request differently: nothing that follows it is served.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
        Err(Box::new(answer))
    };
    let headers = request.headers();
    if !names_one_host(request) {
        return refused(
            StatusCode::BAD_REQUEST,
            "bad-host",
            "exactly one Host header is needed",
        );
    }
    if headers.len() > MAX_HEADERS {
        // HTTP/1.1 is not read so far; HTTP/2 packs thousands of small headers into a few bytes.
        let message = "there are more than 128 headers";
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return refused(status, "too-many-headers", message);
    }
    if *request.method() == Method::CONNECT {
        return refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "no-tunnels",
            "CONNECT is not served",
        );
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let only_chunked = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if !only_chunked {
        let message = "the only transfer coding that is served is chunked";
        return refused(
            StatusCode::NOT_IMPLEMENTED,
            "bad-transfer-encoding",
            message,
        );
    }
    if hyper::body::Body::size_hint(request.body()).lower() > config.max_body_bytes {
        return Err(Box::new(too_large(dialect)));
    }
    Ok(())
}

/// HTTP/1 names the host in a header; HTTP/2 in its address, and may repeat it in the header.
fn names_one_host(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let authority = match request.version() {
        Version::HTTP_2 => request.uri().authority(),
        _ => None,
    };
    match (host, authority) {
        (Some(host), Some(authority)) => {
            let authority = authority.as_str().as_bytes();
            another.is_none() && host.as_bytes().eq_ignore_ascii_case(authority)
        }
        (host, authority) => another.is_none() && (host.is_some() || authority.is_some()),
    }
}

/// The answer to a body that is larger than `max-body`.
#[must_use]
pub fn too_large(dialect: Option<Dialect>) -> Response<Answer> {
    let message = "the request body is larger than proxy.max-body";
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    answer(dialect, status, "body-too-large", message)
}

/// The answer to a body that no longer comes, or hardly.
#[must_use]
pub fn stalled_body(dialect: Option<Dialect>) -> Response<Answer> {
    let message = "the request body stopped arriving";
    answer(
        dialect,
        StatusCode::REQUEST_TIMEOUT,
        "body-stalled",
        message,
    )
}

/// The answer to a body whose framing is wrong, or that lacks its end.
#[must_use]
pub fn broken_body(dialect: Option<Dialect>) -> Response<Answer> {
    let message = "the request body broke off";
    answer(dialect, StatusCode::BAD_REQUEST, "body-broken", message)
}
