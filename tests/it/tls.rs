//! Providers behind TLS: a certificate authority of one's own is trusted when it is named, and only then.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::CertifiedKey;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::harness::{CHAT, Finished, Rig, Setup, ask, served_by};
use crate::provider::Provider;

/// A TLS end in front of a provider. Ends with the runtime of the test.
pub(crate) struct TlsEnd {
    pub(crate) port: u16,
    /// Its own certificate, as a file.
    ca_file: String,
    _folder: TempDir,
}

impl TlsEnd {
    pub(crate) async fn start(to_port: u16) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, cert.pem()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (outer, _) = listener.accept().await.unwrap();
                tokio::spawn(pass_on(acceptor.clone(), outer, to_port));
            }
        });
        Self {
            port,
            ca_file: ca_file.display().to_string(),
            _folder: folder,
        }
    }
}

async fn pass_on(acceptor: TlsAcceptor, outer: TcpStream, to_port: u16) {
    // A client that does not trust the certificate ends here.
    let Ok(mut outer) = acceptor.accept(outer).await else {
        return;
    };
    let inner = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, to_port)));
    let mut inner = inner.await.unwrap();
    tokio::io::copy_bidirectional(&mut outer, &mut inner)
        .await
        .ok();
}

/// Which certificate the configuration names as an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trusts {
    Own,
    Another,
    None,
}

/// The daemon with its canary behind TLS, asked twice: who answered, what was recorded, and how many
/// requests came through.
async fn ask_behind_tls(host: &str, trusts: Trusts) -> (Vec<String>, Finished, usize) {
    let behind = Provider::start("canary").await;
    let end = TlsEnd::start(behind.port()).await;
    let another = TlsEnd::start(behind.port()).await;
    let canary = match trusts {
        Trusts::Own => format!("ca-file = \"{}\"", end.ca_file),
        Trusts::Another => format!("ca-file = \"{}\"", another.ca_file),
        Trusts::None => String::new(),
    };
    let canary_url = Some(format!("https://{host}:{}/v1", end.port));
    let rig = Rig::with(Setup {
        canary,
        canary_url,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let mut arms = Vec::new();
    for stream in [false, true] {
        let answer = rig.post(CHAT, &ask("ok", stream)).await;
        assert_eq!(answer.head.status, 200, "{}", answer.text());
        arms.push(served_by(&answer).to_owned());
    }
    (arms, rig.finish().await, behind.requests().len())
}

#[tokio::test]
async fn a_certificate_of_a_named_authority_is_trusted() {
    let (arms, finished, came_through) = ask_behind_tls("localhost", Trusts::Own).await;
    assert_eq!((arms, came_through), (vec!["canary".to_owned(); 2], 2));
    assert!(
        finished.rows.iter().all(|row| row.outcome == "ok"),
        "{:?}",
        finished.rows
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_verified_is_a_failure_that_legacy_rescues() {
    // Unknown to the system, issued by another authority, or for another name.
    for (host, trusts) in [
        ("localhost", Trusts::None),
        ("localhost", Trusts::Another),
        ("127.0.0.1", Trusts::Own),
    ] {
        let (arms, finished, came_through) = ask_behind_tls(host, trusts).await;
        assert_eq!(
            (arms, came_through),
            (vec!["legacy".to_owned(); 2], 0),
            "{host} {trusts:?}"
        );
        let outcomes: Vec<_> = finished
            .rows
            .iter()
            .map(|row| (row.arm.as_str(), row.outcome.as_str()))
            .collect();
        let each = [("canary", "tls"), ("legacy", "ok")];
        assert_eq!(outcomes, [each, each].concat(), "{host} {trusts:?}");
    }
}
