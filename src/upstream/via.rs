//! The proxy on the way to an arm, as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name it.
//!
//! The environment of a process stays as it was at the start. To an `https://` arm the proxy opens a tunnel (CONNECT) and sees
//! nothing of the traffic; a request to an `http://` arm is handed to it with its whole address, as curl does.
//! An arm on this machine is never reached through a proxy. The proxy's credentials are never shown.

use std::fmt;
use std::net::IpAddr;

use http::uri::{Authority, Uri};
use http::{HeaderValue, StatusCode};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::target::ConnectError;
use crate::config::values::BaseUrl;
use crate::outcome::Outcome;

/// Longer answers to CONNECT are no answers.
const ANSWER_MAX_BYTES: usize = 8 * 1024;

/// What the environment says about proxies.
#[derive(Debug)]
pub struct ProxyEnv(Matcher);

impl ProxyEnv {
    /// Reads the environment.
    #[must_use]
    pub fn read() -> Self {
        Self(Matcher::from_env())
    }

    /// One proxy for all that is not on this machine.
    #[cfg(test)]
    pub(super) fn always(proxy: &str) -> Self {
        Self(Matcher::builder().all(proxy).build())
    }

    /// The proxy for `url`, if there is one.
    ///
    /// # Errors
    /// If it is of a kind that is not served.
    pub(super) fn proxy_for(&self, url: &BaseUrl) -> Result<Option<Via>, String> {
        if is_this_machine(url.host()) {
            return Ok(None);
        }
        let uri = Uri::builder()
            .scheme(url.scheme.clone())
            .authority(url.authority.clone())
            .path_and_query("/")
            .build()
            .map_err(|error| error.to_string())?;
        let Some(found) = self.0.intercept(&uri) else {
            return Ok(None);
        };
        let (proxy, scheme) = (found.uri(), found.uri().scheme_str().unwrap_or("http"));
        let authority = proxy.authority().cloned();
        let authority = authority.ok_or("the environment names a proxy without a host")?;
        if scheme != "http" {
            return Err(format!(
                "the environment names the proxy {scheme}://{authority}, and only http:// proxies are \
                 served; name another one in HTTPS_PROXY or HTTP_PROXY, or this host in NO_PROXY"
            ));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        let authorization = found.basic_auth().cloned();
        Ok(Some(Via {
            host,
            port,
            authority,
            authorization,
        }))
    }
}

/// True for addresses that only this machine can mean.
fn is_this_machine(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().map_or_else(
        |_| name == "localhost" || name.ends_with(".localhost"),
        |ip| ip.is_loopback(),
    )
}

/// A proxy.
#[derive(Clone)]
pub(super) struct Via {
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    authority: Authority,
    /// What it wants to be told, marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl Via {
    /// Makes of `tcp`, which leads to the proxy, a connection to `to`.
    pub(super) async fn tunnel(&self, tcp: &mut TcpStream, to: &str) -> Result<(), ConnectError> {
        let failed = |message: String| {
            ConnectError::new(Outcome::Connect, format!("proxy {self}: {message}"))
        };
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n").into_bytes();
        if let Some(value) = &self.authorization {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let told = tcp.write_all(&request).await;
        told.map_err(|error| failed(error.to_string()))?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            // Byte by byte: what follows the head belongs to somebody else. It happens once a connection.
            let byte = tcp.read_u8().await;
            answer.push(byte.map_err(|_| failed("it hung up on CONNECT".to_owned()))?);
            if answer.len() > ANSWER_MAX_BYTES {
                return Err(failed("its answer to CONNECT has no end".to_owned()));
            }
        }
        match status_of(&answer) {
            Some(status) if status.is_success() => Ok(()),
            Some(status) => Err(failed(format!("it answered CONNECT {to} with {status}"))),
            None => Err(failed("it does not speak HTTP".to_owned())),
        }
    }
}

/// The status in the first line.
fn status_of(answer: &[u8]) -> Option<StatusCode> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    StatusCode::from_bytes(rest.get(2..5)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(all: &str, no: &str) -> ProxyEnv {
        ProxyEnv(Matcher::builder().all(all).no(no).build())
    }

    #[test]
    fn an_arm_elsewhere_is_reached_through_the_proxy_and_one_on_this_machine_is_not() {
        let env = env(
            "http://me:hunter2@proxy.example:3128",
            "near.example,10.0.0.0/8",
        );
        for (url, expected) in [
            ("https://api.example.com/v1", true),
            ("http://api.example.com:8080", true),
            ("https://near.example", false),
            ("https://a.near.example", false),
            ("https://10.1.2.3", false),
            ("http://127.0.0.1:9000", false),
            ("http://[::1]:9000", false),
            ("http://localhost:9000", false),
            ("http://a.localhost", false),
        ] {
            let via = env.proxy_for(&BaseUrl::parse(url).unwrap()).unwrap();
            assert_eq!(via.is_some(), expected, "{url}");
            if let Some(via) = via {
                assert_eq!((via.host.as_str(), via.port), ("proxy.example", 3128));
                assert_eq!(via.to_string(), "http://proxy.example:3128");
                assert!(via.authorization.unwrap().is_sensitive());
            }
        }
        assert!(!format!("{env:?}").contains("hunter2"));
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_with_a_remedy() {
        for proxy in ["socks5://me:hunter2@proxy:1080", "https://me:hunter2@proxy"] {
            let url = BaseUrl::parse("https://api.example.com").unwrap();
            let error = env(proxy, "").proxy_for(&url).err().unwrap();
            assert!(error.contains("NO_PROXY"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_status_of_an_answer_to_connect_is_read() {
        for (answer, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            (
                "HTTP/1.0 407 Proxy Authentication Required\r\n\r\n",
                Some(407),
            ),
            ("HTTP/2 200\r\n\r\n", None),
            ("nonsense\r\n\r\n", None),
        ] {
            let found = status_of(answer.as_bytes()).map(|status| status.as_u16());
            assert_eq!(found, expected, "{answer}");
        }
    }
}
