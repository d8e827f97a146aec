//! One request to a stand-in: what is asked, whether it fails, and when which part of the answer leaves.

use std::convert::Infallible;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::body::{Dialect, Question, error};
use super::frames::Frames;
use super::{Fault, Shared, Spread, key_hash};

const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
const REQUEST_LIMIT: u64 = 10_000;
const TOKEN_LIMIT: u64 = 2_000_000;

/// One request on its way to an answer.
struct Turn<'a> {
    shared: &'a Shared,
    number: u64,
    arrived: Instant,
    rng: StdRng,
    fault: Fault,
}

/// Answers one request. Never fails itself: failures are answers or broken bodies.
pub(super) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Frames>, Infallible> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let key = key_of(&head.headers);
    if let Some(key) = key {
        let mut keys = shared
            .counters
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        keys.insert(key_hash(key));
    }
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let number = shared.counters.requests.fetch_add(1, Ordering::Relaxed);
    let turn = Turn {
        shared,
        number,
        arrived,
        rng: shared.rng(number),
        fault: shared.fault(),
    };
    let path = head.uri.path().trim_end_matches('/');
    let dialect = match path {
        "/v1/messages" => Dialect::Messages,
        "/v1/embeddings" => Dialect::Embeddings,
        "/v1/models" if head.headers.contains_key("anthropic-version") => Dialect::Messages,
        _ => Dialect::Chat,
    };
    let Ok(body) = body else {
        return Ok(turn.refuse(dialect, 413, "the request body is too large or broken"));
    };
    if key.is_none() {
        return Ok(turn.refuse(dialect, 401, "you did not provide an API key"));
    }
    let answer = match (&head.method, path) {
        (&Method::GET, "/v1/models") => turn.models(dialect),
        (&Method::POST, "/v1/chat/completions" | "/v1/messages" | "/v1/embeddings") => {
            turn.completion(dialect, &body.to_bytes()).await
        }
        _ => turn.refuse(dialect, 404, "there is nothing at this path"),
    };
    Ok(answer)
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}

impl Turn<'_> {
    async fn completion(mut self, dialect: Dialect, body: &Bytes) -> Response<Frames> {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return self.refuse(dialect, 400, "the request body is not valid JSON");
        };
        let profile = &self.shared.profile;
        let question = Question::read(dialect, &body, profile, self.shared.created);
        if question.stream {
            self.shared.counters.streams.fetch_add(1, Ordering::Relaxed);
        }
        if !profile.models.is_empty() && !profile.models.contains(&question.model) {
            let message = format!("the model `{}` does not exist", question.model);
            return self.refuse(dialect, 404, &message);
        }
        if let Some(status) = self.failure(dialect) {
            self.wait_ms(5.0).await;
            return self.refuse(dialect, status, "the stand-in was told to fail");
        }
        let first_token_ms = self.draw_ms(profile.first_token);
        if question.stream {
            self.stream(&question, first_token_ms).await
        } else {
            self.plain(&question, first_token_ms).await
        }
    }

    /// The status of this request's failure, if it is to fail.
    fn failure(&mut self, dialect: Dialect) -> Option<u16> {
        let share = match self.fault {
            Fault::Status(status) => return Some(status),
            Fault::ErrorRate(share) => share,
            Fault::Healthy | Fault::Refuse | Fault::Reset | Fault::Slow(_) => {
                self.shared.profile.error_rate
            }
        };
        // Draw both always, so that the times that follow do not depend on the fault.
        let (chance, kind) = (self.rng.random::<f64>(), self.rng.random::<bool>());
        let status = match (dialect, kind) {
            (_, true) => 500,
            (Dialect::Messages, false) => 529,
            (Dialect::Chat | Dialect::Embeddings, false) => 503,
        };
        (chance < share).then_some(status)
    }

    fn draw_ms(&mut self, spread: Spread) -> f64 {
        let ms = spread.draw_ms(&mut self.rng);
        match self.fault {
            Fault::Slow(factor) => ms * factor.max(0.0),
            _ => ms,
        }
    }

    async fn wait_ms(&self, after_arrival_ms: f64) {
        sleep_until(self.arrived + duration_ms(after_arrival_ms)).await;
    }

    async fn plain(mut self, question: &Question, first_token_ms: f64) -> Response<Frames> {
        let mut total_ms = first_token_ms;
        if question.dialect != Dialect::Embeddings {
            for _ in 1..question.tokens() {
                total_ms += self.draw_ms(self.shared.profile.token_gap);
            }
        }
        self.wait_ms(total_ms).await;
        let whole = question.plain();
        let (sender, frames) = Frames::channel();
        let response = self.head(200, question.dialect, frames, Some(whole.len()));
        if self.fault == Fault::Reset {
            self.count_failure();
            let half = whole.slice(..whole.len() / 2);
            tokio::spawn(send(sender, vec![(0.0, half), (5.0, Bytes::new())], true));
        } else {
            tokio::spawn(send(sender, vec![(0.0, whole)], false));
        }
        response
    }

    async fn stream(mut self, question: &Question, first_token_ms: f64) -> Response<Frames> {
        let (start, tokens, end) = question.events();
        // The head leaves with the first events, shortly before the first token.
        self.wait_ms(first_token_ms * 0.9).await;
        let mut parts: Vec<(f64, Bytes)> = start.into_iter().map(|event| (0.0, event)).collect();
        let mut gap_ms = first_token_ms * 0.1;
        for token in tokens {
            parts.push((gap_ms, token));
            gap_ms = self.draw_ms(self.shared.profile.token_gap);
        }
        parts.extend(end.into_iter().map(|event| (0.0, event)));
        let reset = self.fault == Fault::Reset;
        if reset {
            self.count_failure();
            parts.truncate(parts.len() / 2);
            parts.push((5.0, Bytes::new()));
        }
        let (sender, frames) = Frames::channel();
        tokio::spawn(send(sender, parts, reset));
        self.head(200, question.dialect, frames, None)
    }

    fn models(&self, dialect: Dialect) -> Response<Frames> {
        let entry = |model: &String| {
            if dialect == Dialect::Messages {
                json!({"type": "model", "id": model, "display_name": model,
                    "created_at": "2026-01-01T00:00:00Z"})
            } else {
                json!({"object": "model", "id": model, "created": self.shared.created,
                    "owned_by": self.shared.profile.name})
            }
        };
        let models = &self.shared.profile.models;
        let data: Vec<Value> = models.iter().map(entry).collect();
        let list = if dialect == Dialect::Messages {
            json!({"data": data, "has_more": false,
                "first_id": models.first(), "last_id": models.last()})
        } else {
            json!({"object": "list", "data": data})
        };
        self.at_once(200, dialect, Bytes::from(list.to_string()))
    }

    fn refuse(&self, dialect: Dialect, status: u16, message: &str) -> Response<Frames> {
        self.count_failure();
        let mut response = self.at_once(status, dialect, error(dialect, status, message));
        if status == 429 {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn count_failure(&self) {
        let failures = &self.shared.counters.failures;
        failures.fetch_add(1, Ordering::Relaxed);
    }

    fn at_once(&self, status: u16, dialect: Dialect, body: Bytes) -> Response<Frames> {
        let (sender, frames) = Frames::channel();
        let length = body.len();
        // An empty channel of four places takes one part.
        sender.try_send(Ok(body)).ok();
        self.head(status, dialect, frames, Some(length))
    }

    /// Status and headers as the real ones send them; without a length it is an event stream.
    fn head(
        &self,
        status: u16,
        dialect: Dialect,
        frames: Frames,
        length: Option<usize>,
    ) -> Response<Frames> {
        let mut response = Response::new(frames);
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        match length {
            Some(length) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                put(headers, "content-type", "application/json");
            }
            None => {
                put(headers, "content-type", "text/event-stream; charset=utf-8");
                put(headers, "cache-control", "no-cache");
            }
        }
        let id = format!("req_{}_{:06}", self.shared.profile.name, self.number);
        let requests_left = (REQUEST_LIMIT - 1 - self.number % 100).to_string();
        let tokens_left = (TOKEN_LIMIT - self.number % 1_000).to_string();
        let limits = if dialect == Dialect::Messages {
            put(headers, "request-id", &id);
            "anthropic-ratelimit"
        } else {
            put(headers, "x-request-id", &id);
            put(headers, "openai-version", "2020-10-01");
            let spent_ms = self.arrived.elapsed().as_millis().to_string();
            put(headers, "openai-processing-ms", &spent_ms);
            "x-ratelimit"
        };
        for (what, limit, left) in [
            ("requests", REQUEST_LIMIT, requests_left),
            ("tokens", TOKEN_LIMIT, tokens_left),
        ] {
            let name = |part: &str| match limits {
                "x-ratelimit" => format!("{limits}-{part}-{what}"),
                _ => format!("{limits}-{what}-{part}"),
            };
            put(headers, &name("limit"), &limit.to_string());
            put(headers, &name("remaining"), &left);
        }
        response
    }
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    // All names are fixed above; a value can only be wrong if a profile has an odd name.
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

fn duration_ms(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default()
}

/// Sends parts, each some milliseconds after the one before, and then a failure if asked. Ends early
/// when the caller has gone.
async fn send(sender: mpsc::Sender<io::Result<Bytes>>, parts: Vec<(f64, Bytes)>, reset: bool) {
    // Absolute times: a timer that fires late must not make the whole answer late.
    let mut at = Instant::now();
    for (gap_ms, part) in parts {
        at += duration_ms(gap_ms);
        if gap_ms > 0.0 {
            sleep_until(at).await;
        }
        if !part.is_empty() && sender.send(Ok(part)).await.is_err() {
            return;
        }
    }
    if reset {
        // If nobody waits for the failure, the caller has gone already.
        sender
            .send(Err(io::ErrorKind::ConnectionReset.into()))
            .await
            .ok();
    }
}
