//! One request over a kept connection, and the verdict of a strict caller on its answer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::arm::Arm;

/// How a request failed in the eyes of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection broke before the head of an answer.
    NoAnswer,
    /// An answer that is not 200.
    Status(u16),
    /// The connection broke within the answer.
    Broken,
    /// A stream that ended without its last event.
    Truncated,
    /// An error within an answer of status 200.
    InBand,
    /// An answer that is not what was asked for.
    Malformed,
    /// No end in time.
    Timeout,
    /// Not sent, because thousands were open already.
    Flooded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("no connection"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Broken => f.write_str("broken off"),
            Self::Truncated => f.write_str("truncated stream"),
            Self::InBand => f.write_str("error within the answer"),
            Self::Malformed => f.write_str("malformed answer"),
            Self::Timeout => f.write_str("timeout"),
            Self::Flooded => f.write_str("too many open"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Messages,
    Embeddings,
}

impl Api {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Embeddings => "/v1/embeddings",
        }
    }
}

/// Idle connections to one address, the most recently used on top.
#[derive(Debug)]
pub(super) struct Connections {
    base: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Connections {
    pub(super) fn to(base: SocketAddr) -> Self {
        Self {
            base,
            idle: Mutex::new(Vec::new()),
        }
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn give_back(&self, connection: SendRequest<Full<Bytes>>) {
        if !connection.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(connection);
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.base)
            .await
            .map_err(|_| Failure::Connect)?;
        // Costs only speed when it fails.
        stream.set_nodelay(true).ok();
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::Connect)?;
        // Ends with the sender or the socket; what went wrong reaches the request itself.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// One request, ready to send.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) stream: bool,
    pub(super) key: String,
    pub(super) body: Bytes,
}

impl Call {
    /// Sends it and judges the answer. `saw_arm` hears who answered, `first_byte` that the body began.
    pub(super) async fn make(
        self,
        connections: &Connections,
        saw_arm: impl FnOnce(Arm),
        first_byte: impl FnOnce(),
    ) -> Result<(), Failure> {
        let mut request = self.request(connections.base)?;
        // A kept connection may have been closed while it was idle. hyper gives a request back if not
        // a byte of it was sent, so taking the next connection is no retry.
        let (mut connection, response) = loop {
            let (mut connection, kept) = match connections.take() {
                Some(connection) => (connection, true),
                None => (connections.open().await?, false),
            };
            match connection.try_send_request(request).await {
                Ok(response) => break (connection, response),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if kept => request = unsent,
                    _ => return Err(Failure::NoAnswer),
                },
            }
        };
        let (head, body) = response.into_parts();
        if let Some(arm) = arm_of(&head.headers) {
            saw_arm(arm);
        }
        let body = read(body, first_byte).await?;
        if connection.ready().await.is_ok() {
            connections.give_back(connection);
        }
        if head.status != StatusCode::OK {
            return Err(Failure::Status(head.status.as_u16()));
        }
        self.judge(&body)
    }

    fn request(&self, base: SocketAddr) -> Result<Request<Full<Bytes>>, Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.api.path())
            .header(header::HOST, base.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        let request = match self.api {
            Api::Messages => request
                .header("x-api-key", &self.key)
                .header("anthropic-version", "2023-06-01"),
            Api::Chat | Api::Embeddings => {
                request.header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            }
        };
        // Only a key that is no header value can fail here.
        request
            .body(Full::new(self.body.clone()))
            .map_err(|_| Failure::Malformed)
    }

    fn judge(&self, body: &[u8]) -> Result<(), Failure> {
        if !self.stream {
            let body: Value = serde_json::from_slice(body).map_err(|_| Failure::Malformed)?;
            return judge_plain(self.api, &body);
        }
        let text = std::str::from_utf8(body).map_err(|_| Failure::Malformed)?;
        let mut ended = false;
        let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
        for data in events.map(str::trim) {
            if data == "[DONE]" {
                ended |= self.api == Api::Chat;
                continue;
            }
            let event: Value = serde_json::from_str(data).map_err(|_| Failure::Malformed)?;
            let kind = event.get("type").and_then(Value::as_str);
            if kind == Some("error") || event.get("error").is_some_and(|error| !error.is_null()) {
                return Err(Failure::InBand);
            }
            ended |= self.api == Api::Messages && kind == Some("message_stop");
        }
        if ended {
            Ok(())
        } else {
            Err(Failure::Truncated)
        }
    }
}

fn judge_plain(api: Api, body: &Value) -> Result<(), Failure> {
    if body.get("error").is_some_and(|error| !error.is_null()) {
        return Err(Failure::InBand);
    }
    let field = match api {
        Api::Chat => "choices",
        Api::Messages => "content",
        Api::Embeddings => "data",
    };
    match body.get(field).and_then(Value::as_array) {
        Some(parts) if !parts.is_empty() => Ok(()),
        _ => Err(Failure::Malformed),
    }
}

async fn read(mut body: Incoming, first_byte: impl FnOnce()) -> Result<Vec<u8>, Failure> {
    let mut first_byte = Some(first_byte);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::Broken)?;
        if let Some(data) = frame.data_ref() {
            if let Some(first_byte) = first_byte.take() {
                first_byte();
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole)
}

fn arm_of(headers: &HeaderMap) -> Option<Arm> {
    Arm::from_word(headers.get("x-cutover-arm")?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_strictly() {
        let check = |api, stream, body: &str, expected: Result<(), Failure>| {
            let call = Call {
                api,
                stream,
                key: String::new(),
                body: Bytes::new(),
            };
            assert_eq!(call.judge(body.as_bytes()), expected, "{api:?} {body}");
        };
        let (ok, truncated) = (Ok(()), Err(Failure::Truncated));
        let (in_band, malformed) = (Err(Failure::InBand), Err(Failure::Malformed));
        check(Api::Chat, false, r#"{"choices":[{}]}"#, ok);
        check(Api::Chat, false, r#"{"choices":[]}"#, malformed);
        check(Api::Chat, false, r#"{"error":{"code":1}}"#, in_band);
        check(Api::Chat, false, "<html>", malformed);
        check(Api::Messages, false, r#"{"content":[{}]}"#, ok);
        check(Api::Embeddings, false, r#"{"data":[{}]}"#, ok);
        check(Api::Chat, true, "data: {}\n\ndata: [DONE]\n\n", ok);
        check(
            Api::Chat,
            true,
            ": hm\r\n\r\ndata:{}\r\n\r\ndata:[DONE]\r\n\r\n",
            ok,
        );
        check(Api::Chat, true, "data: {}\n\n", truncated);
        check(Api::Chat, true, "", truncated);
        check(
            Api::Chat,
            true,
            "data: {\"error\":{}}\n\ndata: [DONE]\n\n",
            in_band,
        );
        check(Api::Chat, true, "data: {\n\ndata: [DONE]\n\n", malformed);
        let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        check(Api::Messages, true, stop, ok);
        check(Api::Messages, true, "data: [DONE]\n\n", truncated);
        check(
            Api::Messages,
            true,
            "data: {\"type\":\"error\"}\n\n",
            in_band,
        );
    }
}
