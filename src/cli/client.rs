//! The command line's way to the admin API: one request, one JSON answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{AdminArgs, Failure};
use crate::config::parse;

const TIMEOUT: Duration = Duration::from_secs(15);
/// What may be wrong when nobody ever answered.
pub(super) const HINT: &str = "; is `cutover run` running, and is --config or --admin right?";
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// The daemon is not there, or cannot answer now: asking again may help.
    Gone(Failure),
    /// It refuses this.
    Refused(Failure),
}

impl Asked {
    /// What the command ends with.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Gone(failure) | Self::Refused(failure) => failure,
        }
    }
}

/// Where the admin API is, and the key to it.
pub(super) struct AdminClient {
    addr: String,
    token: Option<String>,
}

impl AdminClient {
    /// From the arguments, else from the configuration.
    pub(super) fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let from_env = std::env::var("CUTOVER_ADMIN_TOKEN").ok();
        if let Some(addr) = &args.admin {
            return Ok(Self {
                addr: addr.clone(),
                token: from_env,
            });
        }
        // Whoever looks from another shell need not have the providers' keys there.
        let path = &args.config.config;
        let parsed = parse::load(path)
            .or_else(|error| parse::load_without_secrets(path).map_err(|_| error))
            .map_err(|error| Failure::Unreachable(format!("{error}\nor name it with --admin")))?;
        let admin = parsed.config.admin;
        let mut addr = admin.listen;
        if addr.ip().is_unspecified() {
            addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let token = admin
            .token
            .map(|token| token.expose().to_owned())
            .filter(|token| token != parse::UNSET)
            .or(from_env);
        Ok(Self {
            addr: addr.to_string(),
            token,
        })
    }

    /// The address, for people.
    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    /// Asks and reads the answer.
    pub(super) fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.try_ask(method, path, body).map_err(Asked::failure)
    }

    /// The same for those who ask again.
    pub(super) fn try_ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Asked> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Asked::Refused(Failure::Failed(error.to_string())))?;
        runtime.block_on(self.asked_within(TIMEOUT, method, path, body))
    }

    /// The same on the caller's runtime.
    pub(super) async fn asked_within(
        &self,
        limit: Duration,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Asked> {
        let (status, answer) = tokio::time::timeout(limit, self.send(method, path, body))
            .await
            .unwrap_or_else(|_| Err(self.unreachable("it does not answer")))
            .map_err(Asked::Gone)?;
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.pointer("/error/message").and_then(Value::as_str);
        let message = message.unwrap_or("the daemon refused").to_owned();
        if status == StatusCode::GATEWAY_TIMEOUT {
            // It took the request and did not say what became of it: no refusal.
            return Err(Asked::Gone(Failure::Unreachable(message)));
        }
        let refused = Failure::Refused(message);
        if status.is_server_error() {
            Err(Asked::Gone(refused))
        } else {
            Err(Asked::Refused(refused))
        }
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failure> {
        let tcp = TcpStream::connect(&self.addr)
            .await
            .map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
            .await
            .map_err(|e| self.unreachable(e))?;
        let driven = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.addr)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Failure::Failed(e.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| self.unreachable(e))?;
        driven.abort();
        let answer = serde_json::from_slice(&answer.to_bytes()).map_err(|e| self.unreachable(e))?;
        Ok((status, answer))
    }

    fn unreachable(&self, error: impl std::fmt::Display) -> Failure {
        Failure::Unreachable(format!("no daemon at {}: {error}{HINT}", self.addr))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ConfigArg;
    use super::*;

    #[test]
    fn an_operator_needs_no_provider_keys_to_find_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cutover.toml");
        let text = "[admin]\nlisten = \"127.0.0.1:9999\"\ntoken = \"env:CUTOVER_TEST_UNSET_TOKEN\"\n\
            [arms.legacy]\nbase-url = \"https://a.example.com\"\n\
            [arms.canary]\nbase-url = \"https://b.example.com\"\napi-key = \"env:CUTOVER_TEST_UNSET_KEY\"\n";
        std::fs::write(&config, text).unwrap();
        let args = |config| AdminArgs {
            config: ConfigArg { config },
            admin: None,
            json: false,
        };
        let client = AdminClient::new(&args(config.clone())).ok().unwrap();
        assert_eq!(client.addr, "127.0.0.1:9999");
        assert_ne!(client.token.as_deref(), Some(parse::UNSET));
        std::fs::write(&config, text.replace("api-key", "api-kee")).unwrap();
        assert!(
            AdminClient::new(&args(config)).is_err(),
            "a fault is still told"
        );
    }
}
