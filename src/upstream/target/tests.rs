//! Connections as providers and proxies see them: what TLS says when it fails, and the way through a proxy.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

use super::*;
use crate::arm::Arm;
use crate::config::parse::parse;

/// One answer of a scripted resolver.
#[derive(Debug, Clone)]
pub(in crate::upstream) enum Says {
    Found(Vec<SocketAddr>),
    Fails,
    Hangs,
}

/// A resolver that gives its answers one after the other, the last one for ever.
#[derive(Debug, Clone)]
pub(in crate::upstream) struct Scripted(Arc<Mutex<VecDeque<Says>>>);

impl Scripted {
    pub(in crate::upstream) fn new<const N: usize>(answers: [Says; N]) -> Self {
        Self(Arc::new(Mutex::new(answers.into())))
    }

    pub(super) async fn answer(&self) -> io::Result<Vec<SocketAddr>> {
        let says = {
            let mut left = self.0.lock().unwrap();
            if left.len() > 1 {
                left.pop_front().unwrap()
            } else {
                left.front().unwrap().clone()
            }
        };
        match says {
            Says::Found(found) => Ok(found),
            Says::Fails => Err(io::Error::other("no such name")),
            Says::Hangs => std::future::pending().await,
        }
    }
}

/// The canary of a configuration with these lines in its table.
pub(in crate::upstream) fn arm(base_url: &str, lines: &str) -> ArmConfig {
    let text = format!(
        "[arms.legacy]\nbase-url = \"https://legacy.example\"\n\
         [arms.canary]\nbase-url = \"{base_url}\"\napi-key = \"client\"\n{lines}\n"
    );
    let parsed = parse(&text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
    parsed.config.arms.get(Arm::Canary).clone()
}

/// Nobody needs a proxy.
pub(in crate::upstream) fn direct() -> ProxyEnv {
    ProxyEnv::always("")
}

/// A certificate for `name`, good until `year`, with its file.
struct Identity {
    server: Arc<ServerConfig>,
    ca_file: tempfile::NamedTempFile,
}

impl Identity {
    fn new(name: &str, until_year: i32) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        // As if each had an authority of its own.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::SeqCst);
        let common_name = rcgen::DnType::CommonName;
        params
            .distinguished_name
            .push(common_name, format!("authority {number}"));
        let signing_key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        let made = CertifiedKey { cert, signing_key };
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), made.cert.pem()).unwrap();
        let der = made.signing_key.serialize_der();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der));
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self {
            server: Arc::new(server),
            ca_file,
        }
    }

    fn ca_line(&self) -> String {
        format!("ca-file = \"{}\"", self.ca_file.path().display())
    }

    /// Serves TLS on a port of its own, a greeting on each connection.
    async fn serve(&self) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(mut tls) = acceptor.accept(tcp).await {
                        tls.write_all(b"hello").await.ok();
                        tls.read_u8().await.ok();
                    }
                });
            }
        });
        port
    }
}

const LIMIT: Duration = Duration::from_secs(10);

async fn connect(target: &Target) -> Result<Connected, ConnectError> {
    let addresses = target.resolve().await.unwrap();
    target.connect(&addresses, LIMIT).await
}

/// Reads the greeting, and with it what TLS says after the handshake.
async fn greeting(connected: &mut Connected) -> String {
    let mut said = [0; 5];
    connected.socket.read_exact(&mut said).await.unwrap();
    String::from_utf8(said.to_vec()).unwrap()
}

#[tokio::test]
async fn a_certificate_that_is_not_good_says_why() {
    let good = Identity::new("localhost", 4000);
    for (identity, trusted, expected) in [
        (&Identity::new("localhost", 2020), None, "expired"),
        (&Identity::new("other.example", 4000), None, "other.example"),
        (&Identity::new("localhost", 4000), Some(&good), "ca-file"),
    ] {
        let url = format!("https://localhost:{}", identity.serve().await);
        let lines = trusted.unwrap_or(identity).ca_line();
        let target = Target::new(&arm(&url, &lines), &direct()).unwrap();
        let error = connect(&target).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Tls, "{error:?}");
        assert!(error.message.contains(expected), "{error:?}");
    }
}

#[tokio::test]
async fn a_second_connection_resumes_the_tls_session_of_the_first() {
    let identity = Identity::new("localhost", 4000);
    let url = format!("https://localhost:{}", identity.serve().await);
    let target = Target::new(&arm(&url, &identity.ca_line()), &direct()).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut connected = connect(&target).await.unwrap();
        assert_eq!(greeting(&mut connected).await, "hello");
        let Socket::Tls(tls) = &connected.socket else {
            panic!("no TLS")
        };
        kinds.push(tls.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds[1], HandshakeKind::Resumed, "{kinds:?}");
}

#[tokio::test]
async fn a_provider_without_http_2_is_refused_where_nothing_else_is_allowed() {
    let identity = Identity::new("localhost", 4000);
    let url = format!("https://localhost:{}", identity.serve().await);
    for (http, expected) in [
        ("2", Err(Outcome::Tls)),
        ("auto", Ok(false)),
        ("1", Ok(false)),
    ] {
        let lines = format!("{}\nhttp = \"{http}\"", identity.ca_line());
        let target = Target::new(&arm(&url, &lines), &direct()).unwrap();
        let connected = connect(&target).await;
        let found = connected.map(|c| c.is_http2).map_err(|e| e.outcome);
        assert_eq!(found, expected, "{http}");
    }
}

/// A proxy that answers CONNECT with `answer`, and connects to `to` if that is 200.
async fn proxy(answer: &'static str, to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            client.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains("200") {
                let mut provider = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut client, &mut provider)
                        .await
                        .ok();
                });
            }
        }
    });
    (port, seen)
}

/// A target behind a proxy on this machine, whose name nobody else could resolve.
fn behind(proxy_port: u16, identity: &Identity) -> Target {
    let env = ProxyEnv::always(&format!("http://me:hunter2@127.0.0.1:{proxy_port}"));
    Target::new(&arm("https://provider.invalid", &identity.ca_line()), &env).unwrap()
}

#[tokio::test]
async fn a_proxy_opens_a_tunnel_through_which_tls_verifies_the_provider() {
    let identity = Identity::new("provider.invalid", 4000);
    let provider = identity.serve().await;
    let (port, seen) = proxy(
        "HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n",
        provider,
    )
    .await;
    let target = behind(port, &identity);
    assert_eq!(target.proxy(), Some(format!("http://127.0.0.1:{port}")));
    let mut connected = connect(&target).await.unwrap();
    assert_eq!(greeting(&mut connected).await, "hello");
    let seen = seen.lock().unwrap().concat();
    assert!(
        seen.starts_with("CONNECT provider.invalid:443 HTTP/1.1\r\n"),
        "{seen}"
    );
    // me:hunter2
    assert!(
        seen.contains("proxy-authorization: Basic bWU6aHVudGVyMg==\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_answer_and_without_its_password() {
    let identity = Identity::new("provider.invalid", 4000);
    let gone = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let answers = [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
    ];
    let mut ports = vec![(gone, "refused")];
    for (answer, expected) in answers {
        ports.push((proxy(answer, 0).await.0, expected));
    }
    for (port, expected) in ports {
        let error = connect(&behind(port, &identity)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Connect, "{error:?}");
        let named = format!("proxy http://127.0.0.1:{port}");
        assert!(error.message.contains(&named), "{error:?}");
        assert!(error.message.contains(expected), "{error:?}");
        assert!(!error.message.contains("hunter2"), "{error:?}");
    }
}
