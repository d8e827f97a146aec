//! Where an arm is: addresses, TLS, and one way to connect within one deadline.
//!
//! Immutable and shared by all workers of one configuration, apart from the last good answer of the
//! resolver, which each pool keeps for itself.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::ArmConfig;
use crate::outcome::Outcome;

/// An arm's address and, for `https://`, how to trust it.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Target({}:{}, tls: {})",
            self.host,
            self.port,
            self.tls.is_some()
        )
    }
}

/// Why no connection came about: an outcome for the sample and a text for the log.
#[derive(Debug)]
pub struct ConnectError {
    /// `connect`, `tls` or `timeout-connect`.
    pub outcome: Outcome,
    /// What the system said.
    pub message: String,
}

impl Target {
    /// Prepares an arm's target. Reads its CA file, if it names one.
    ///
    /// # Errors
    /// If the CA file cannot be read or holds no certificate, or the host is no name that TLS can verify.
    pub fn new(arm: &ArmConfig) -> Result<Self, String> {
        let host = arm.base_url.host().to_owned();
        let tls = if arm.base_url.is_tls() {
            let name = ServerName::try_from(host.clone())
                .map_err(|_| format!("{host} is no host name that TLS can verify"))?;
            let config = client_config(arm.ca_file.as_deref())?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self {
            host,
            port: arm.base_url.port,
            tls,
        })
    }

    /// Resolves the name. Blocking resolvers run on the runtime's own pool of threads.
    ///
    /// # Errors
    /// What the resolver said, or that the name has no address.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = self.host.parse() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let addresses: Vec<SocketAddr> = found.collect();
        if addresses.is_empty() {
            return Err(io::Error::other(format!("{} has no address", self.host)));
        }
        Ok(addresses)
    }

    /// Connects to the first address that answers and performs the TLS handshake, all within `limit`.
    ///
    /// # Errors
    /// With the outcome that the failure means for the attempt.
    pub async fn connect(
        &self,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> Result<UpstreamIo, ConnectError> {
        let connecting = async {
            let tcp = connect_any(addresses).await.map_err(|error| ConnectError {
                outcome: Outcome::Connect,
                message: error.to_string(),
            })?;
            tune(&tcp);
            let Some((connector, name)) = &self.tls else {
                return Ok(UpstreamIo::Plain(tcp));
            };
            match connector.connect(name.clone(), tcp).await {
                Ok(tls) => Ok(UpstreamIo::Tls(Box::new(tls))),
                Err(error) => Err(ConnectError {
                    outcome: Outcome::Tls,
                    message: error.to_string(),
                }),
            }
        };
        tokio::time::timeout(limit, connecting)
            .await
            .unwrap_or_else(|_| {
                let message = format!("no connection within {}", humantime::format_duration(limit));
                Err(ConnectError {
                    outcome: Outcome::TimeoutConnect,
                    message,
                })
            })
    }
}

async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no address to connect to");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Small chunks leave at once, and a peer that vanished is noticed within about a minute.
/// A socket that refuses an option still works, so failures are of no interest.
pub fn tune(tcp: &TcpStream) {
    drop(tcp.set_nodelay(true));
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    drop(SockRef::from(tcp).set_tcp_keepalive(&keepalive));
}

fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
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
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A connection to a provider.
#[derive(Debug)]
pub enum UpstreamIo {
    /// `http://`
    Plain(TcpStream),
    /// `https://`; boxed, because it is many times larger.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }
}
