//! Where an arm is: addresses, TLS, the proxy on the way, and one way to connect within one deadline.
//!
//! Immutable and shared by all workers of one configuration, apart from the last good answer of the
//! resolver, which each pool keeps for itself.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, Scheme};
use tokio_rustls::TlsConnector;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

use super::dial::dial;
use super::socket::{Socket, tune};
use super::via::{ProxyEnv, Via};
use crate::config::values::BaseUrl;
use crate::config::{ArmConfig, HttpVersion};
use crate::outcome::Outcome;

/// An arm's address and, for `https://`, how to trust it.
#[derive(Clone)]
pub struct Target {
    scheme: Scheme,
    authority: Authority,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    http: HttpVersion,
    via: Option<Via>,
    /// Answers of the resolver, one for each question; tests only.
    #[cfg(test)]
    pub(super) resolver: Option<tests::Scripted>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self}, http: {})", self.http.as_str())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Why no connection came about: an outcome for the sample and a text for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError {
    /// `connect`, `tls` or `timeout-connect`; `over-limit` if this machine had no room for a connection.
    pub outcome: Outcome,
    /// What the system said.
    pub message: String,
    /// Somebody else's attempt to connect, which several requests waited for: its breaker has been told.
    pub is_shared: bool,
}

impl ConnectError {
    pub(super) const fn new(outcome: Outcome, message: String) -> Self {
        Self {
            outcome,
            message,
            is_shared: false,
        }
    }
}

/// A connection that is ready for HTTP.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) socket: Socket,
    /// HTTP/2 is to be spoken.
    pub(super) is_http2: bool,
    /// So many addresses were tried before the one that answered.
    pub(super) passed_over: usize,
}

/// How a request names where it goes, where its path alone would not do.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// For a proxy that reads every request.
    pub(super) authorization: Option<HeaderValue>,
}

impl Target {
    /// Prepares an arm's target. Reads its CA file, if it names one.
    ///
    /// # Errors
    /// If the CA file cannot be read or holds no certificate, the host is no name that TLS can verify, or
    /// the environment names a proxy that cannot be used.
    pub fn new(arm: &ArmConfig, proxies: &ProxyEnv) -> Result<Self, String> {
        Self::at(&arm.base_url, arm.ca_file.as_deref(), arm.http, proxies)
    }

    /// The same for any address.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn at(
        url: &BaseUrl,
        ca_file: Option<&Path>,
        http: HttpVersion,
        proxies: &ProxyEnv,
    ) -> Result<Self, String> {
        let host = url.host().to_owned();
        let tls = if url.is_tls() {
            let name = ServerName::try_from(host.clone())
                .map_err(|_| format!("{host} is no host name that TLS can verify"))?;
            let config = client_config(ca_file, http)?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self {
            scheme: url.scheme.clone(),
            authority: url.authority.clone(),
            host,
            port: url.port,
            tls,
            http,
            via: proxies.proxy_for(url)?,
            #[cfg(test)]
            resolver: None,
        })
    }

    /// The proxy on the way, without credentials.
    #[must_use]
    pub fn proxy(&self) -> Option<String> {
        self.via.as_ref().map(ToString::to_string)
    }

    /// True if requests may share a connection.
    pub(super) fn may_share(&self) -> bool {
        match self.http {
            HttpVersion::One => false,
            HttpVersion::Two => true,
            HttpVersion::Auto => self.tls.is_some(),
        }
    }

    /// What a request over HTTP/2 names.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            scheme: self.scheme.clone(),
            authority: self.authority.clone(),
            authorization: None,
        }
    }

    /// What a request over HTTP/1.1 has to name, if it is handed to a proxy.
    pub(super) fn relayed_origin(&self) -> Option<Origin> {
        let via = self.via.as_ref().filter(|_| !self.is_tunnelled())?;
        Some(Origin {
            authorization: via.authorization.clone(),
            ..self.origin()
        })
    }

    /// HTTP/2 cannot be handed to a proxy request by request.
    fn is_tunnelled(&self) -> bool {
        self.tls.is_some() || self.http == HttpVersion::Two
    }

    /// Resolves the name, or the proxy's. Blocking resolvers run on the runtime's own pool of threads.
    ///
    /// # Errors
    /// What the resolver said, or that the name has no address.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        #[cfg(test)]
        if let Some(resolver) = &self.resolver {
            return resolver.answer().await;
        }
        let (host, port) = match &self.via {
            Some(via) => (via.host.as_str(), via.port),
            None => (self.host.as_str(), self.port),
        };
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|error| io::Error::other(format!("{host}: {error}")))?;
        let addresses: Vec<SocketAddr> = found.collect();
        if addresses.is_empty() {
            return Err(io::Error::other(format!("{host} has no address")));
        }
        Ok(addresses)
    }

    /// Connects to the first address that answers, through the proxy if there is one, and performs the TLS
    /// handshake, all within `limit`.
    ///
    /// # Errors
    /// With the outcome that the failure means for the attempt.
    pub(super) async fn connect(
        &self,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> Result<Connected, ConnectError> {
        let connecting = tokio::time::timeout(limit, self.connect_at_leisure(addresses));
        connecting.await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            Err(ConnectError::new(
                Outcome::TimeoutConnect,
                format!("no connection{} within {limit}", self.by_the_way()),
            ))
        })
    }

    async fn connect_at_leisure(
        &self,
        addresses: &[SocketAddr],
    ) -> Result<Connected, ConnectError> {
        let dialled = dial(addresses).await;
        let (mut tcp, passed_over) = dialled.map_err(|failed| {
            let message = format!("no connection{}: {}", self.by_the_way(), failed.error);
            ConnectError::new(failed.outcome, message)
        })?;
        tune(&tcp);
        if let Some(via) = self.via.as_ref().filter(|_| self.is_tunnelled()) {
            let to = format!("{}:{}", self.authority.host(), self.port);
            via.tunnel(&mut tcp, &to).await?;
        }
        let Some((connector, name)) = &self.tls else {
            return Ok(Connected {
                socket: Socket::Plain(tcp),
                is_http2: self.http == HttpVersion::Two,
                passed_over,
            });
        };
        let shaken = connector.connect(name.clone(), tcp).await;
        let tls = shaken.map_err(|error| tls_failed(&error))?;
        let socket = Socket::Tls(Box::new(TlsStream::Client(tls)));
        let is_http2 = socket.agreed_on_http2();
        if self.http == HttpVersion::Two && !is_http2 {
            return Err(ConnectError::new(
                Outcome::Tls,
                "the provider does not offer HTTP/2, and http = \"2\" allows nothing else"
                    .to_owned(),
            ));
        }
        Ok(Connected {
            socket,
            is_http2,
            passed_over,
        })
    }

    fn by_the_way(&self) -> String {
        let via = self.via.as_ref();
        via.map_or_else(String::new, |via| format!(" to the proxy {via}"))
    }
}

/// What to say of a handshake that failed; who runs an authority of his own is told where to name it.
fn tls_failed(error: &io::Error) -> ConnectError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let unknown = matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    );
    let remedy = if unknown {
        "; if the authority is your own, name it with ca-file"
    } else {
        ""
    };
    ConnectError::new(Outcome::Tls, format!("{error}{remedy}"))
}

fn client_config(ca_file: Option<&Path>, http: HttpVersion) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // The compiled-in roots serve where the system has none, as in a minimal container.
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let shown = path.display();
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("ca-file {shown}: {error}"))?;
        if certificates.is_empty() {
            return Err(format!("ca-file {shown} holds no certificate in PEM form"));
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| format!("ca-file {shown}: {error}"))?;
        }
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (one, two) = (b"http/1.1".to_vec(), b"h2".to_vec());
    config.alpn_protocols = match http {
        HttpVersion::One => vec![one],
        HttpVersion::Two => vec![two],
        HttpVersion::Auto => vec![two, one],
    };
    Ok(config)
}

#[cfg(test)]
pub(super) mod tests;
