//! The certificate that clients see, ready to be served: `proxy.tls`.
//!
//! Right by construction: the chain is there, and the key belongs to it. Never shows the key. Reads no
//! files: `parse` does.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use xxhash_rust::xxh3::Xxh3;

/// A certificate chain with its key, and where they came from.
#[derive(Clone)]
pub struct ListenerTls {
    /// The file of the chain.
    pub cert: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// Of both contents: a renewed certificate is another one.
    hash: u128,
    server: Arc<ServerConfig>,
}

/// Which of the two files is wrong, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

/// A file with its content.
pub(super) type Pem = (PathBuf, Vec<u8>);

impl ListenerTls {
    /// Takes the contents of both files.
    pub(super) fn new(cert: Pem, key: Pem) -> Result<Self, Unfit> {
        let mut hash = Xxh3::new();
        hash.update(&cert.1);
        hash.update(&key.1);
        let chain = CertificateDer::pem_slice_iter(&cert.1)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| Unfit {
                key: "cert",
                problem: format!("{} holds no certificate in PEM form", cert.0.display()),
                remedy: "name the chain, the server's own certificate first",
            })?;
        let private = PrivateKeyDer::from_pem_slice(&key.1).map_err(|_| Unfit {
            key: "key",
            problem: format!("{} holds no private key in PEM form", key.0.display()),
            remedy: "name the certificate's key, without a passphrase",
        })?;
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, private);
        let mut server = server.map_err(|error| Unfit {
            key: "key",
            problem: format!(
                "{} does not fit {}: {error}",
                key.0.display(),
                cert.0.display()
            ),
            remedy: "name the key that the certificate was issued for",
        })?;
        // A client that names nothing of this is turned away, and old ones name their version, too.
        let offered: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];
        server.alpn_protocols = offered.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            cert: cert.0,
            key: key.0,
            hash: hash.digest128(),
            server: Arc::new(server),
        })
    }

    /// What a TLS acceptor needs; offers HTTP/2 and HTTP/1.1.
    #[must_use]
    pub const fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// A text that differs when the contents do.
    pub(super) fn content(&self) -> String {
        format!("{:032x}", self.hash)
    }
}

impl PartialEq for ListenerTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.cert, &self.key, self.hash) == (&other.cert, &other.key, other.hash)
    }
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ListenerTls({}, {})",
            self.cert.display(),
            self.key.display()
        )
    }
}
