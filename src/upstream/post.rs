//! One message to a receiver that is no arm: a webhook, a collector of traces.
//!
//! A connection of its own for each message, with the TLS roots and the proxy that arms use. It runs on the
//! control runtime. It must never run on a worker, and never show the path or the query of an address:
//! receivers put their secrets there.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use super::target::Target;
use super::via::ProxyEnv;
use crate::config::HttpVersion;
use crate::config::values::{BaseUrl, Secret};

/// Longer answers are cut off: they only explain a status.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// Where messages go.
#[derive(Clone)]
pub struct Receiver {
    target: Target,
    authority: String,
    /// With the query; holds secrets.
    path: Secret,
}

/// What the receiver said.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// How long it wants to be left alone, if it says so in seconds.
    pub retry_after: Option<Duration>,
    /// The beginning of its body; empty if there is none that can be read.
    pub body: Bytes,
}

/// Shows scheme and host alone.
impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/****", self.target)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({self})")
    }
}

impl Receiver {
    /// Prepares a receiver at `url`.
    ///
    /// # Errors
    /// If the address, the CA file or the proxy of the environment cannot be used; repeats no secret.
    pub fn new(url: &Secret, ca_file: Option<&Path>, proxies: &ProxyEnv) -> Result<Self, String> {
        let text = url.expose();
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let rest = text.get(after_scheme..).unwrap_or_default();
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len()) + after_scheme;
        let (origin, path) = text.split_at(path_at);
        let base = BaseUrl::parse(origin)?;
        let path = match path {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        Ok(Self {
            target: Target::at(&base, ca_file, HttpVersion::One, proxies)?,
            authority: base.authority.to_string(),
            path: Secret::new(&path),
        })
    }

    /// Sends `body` as JSON with further headers, all within `limit`.
    ///
    /// # Errors
    /// If no answer came: why, without naming the receiver, which whoever tells of it does. A refusal is an
    /// [`Answer`] with its status.
    pub async fn post(
        &self,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, String> {
        let sent = tokio::time::timeout(limit, self.send(headers, body, limit)).await;
        sent.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            Err(format!("no answer within {limit}"))
        })
    }

    async fn send(
        &self,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, String> {
        let addresses = self.target.resolve().await.map_err(|e| e.to_string())?;
        let connected = self.target.connect(&addresses, limit).await;
        let socket = connected.map_err(|e| e.message)?.socket;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket));
        let (mut sender, connection) = handshake.await.map_err(|e| e.to_string())?;
        let driven = tokio::spawn(connection);
        let answered = async {
            let request = self.request(headers, body)?;
            let response = sender.send_request(request).await;
            let response = response.map_err(|e| e.to_string())?;
            let status = response.status();
            let retry_after = retry_after(response.headers().get(header::RETRY_AFTER));
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES);
            let body = body.collect().await.map(|body| body.to_bytes());
            Ok(Answer {
                status,
                retry_after,
                body: body.unwrap_or_default(),
            })
        };
        let answer = answered.await;
        driven.abort();
        answer
    }

    fn request(
        &self,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let relayed = self.target.relayed_origin();
        let uri = match &relayed {
            Some(origin) => format!(
                "{}://{}{}",
                origin.scheme,
                origin.authority,
                self.path.expose()
            ),
            None => self.path.expose().to_owned(),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::HOST, &self.authority)
            .header(
                header::USER_AGENT,
                concat!("cutover/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(value) = relayed.and_then(|origin| origin.authorization) {
            request = request.header(header::PROXY_AUTHORIZATION, value);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
            .body(Full::new(body))
            .map_err(|_| "the address or a header cannot be sent".to_owned())
    }
}

fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    let seconds = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn receiver(url: &str) -> Result<Receiver, String> {
        Receiver::new(&Secret::new(url), None, &ProxyEnv::read())
    }

    #[tokio::test]
    async fn a_message_arrives_whole_and_the_answer_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"{\"a\":1}") {
                let mut piece = [0; 1024];
                let n = tcp.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..n]);
            }
            let answer =
                "HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nwait";
            tcp.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        });
        let receiver = receiver(&format!("http://{addr}/services/T0/s3cret?k=1")).unwrap();
        let headers = [(header::ACCEPT, HeaderValue::from_static("text/plain"))];
        let body = Bytes::from_static(b"{\"a\":1}");
        let answer = receiver.post(&headers, body, Duration::from_secs(30)).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 429);
        assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer.body, "wait");
        let seen = served.await.unwrap();
        assert!(
            seen.starts_with("POST /services/T0/s3cret?k=1 HTTP/1.1\r\n"),
            "{seen}"
        );
        assert!(seen.contains(&format!("host: {addr}\r\n")), "{seen}");
        assert!(seen.contains("accept: text/plain\r\n"), "{seen}");
    }

    #[tokio::test]
    async fn no_error_shows_the_secret_in_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let receiver = receiver(&format!("http://{closed}/services/s3cret")).unwrap();
        let sent = receiver
            .post(&[], Bytes::new(), Duration::from_secs(30))
            .await;
        let (error, shown) = (sent.unwrap_err(), format!("{receiver:?} {receiver}"));
        assert!(error.contains("Connection refused"), "{error}");
        assert_eq!(shown.matches(&closed.to_string()).count(), 2, "{shown}");
        for text in [error, shown] {
            assert!(!text.contains("s3cret"), "{text}");
        }
        let error = super::tests::receiver("https://me:s3cret@hooks.example.com/x").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn a_receiver_that_hangs_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let receiver = receiver(&format!("http://{addr}?x=1")).unwrap();
        assert_eq!(receiver.path.expose(), "/?x=1");
        let sent = receiver
            .post(&[], Bytes::new(), Duration::from_millis(200))
            .await;
        assert!(sent.unwrap_err().contains("within 200ms"));
    }
}
