//! What the daemon takes from the world around it: certificates that are renewed, proxies in its environment.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use super::process::Daemon;
use super::scene::Scene;
use crate::protocols::ends::{Certificate, H2End};

const HALF: &str = "warm-up = 0\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";

/// One exchange over a connection that is kept; true if it was answered well.
async fn is_served(tls: &mut TlsStream<TcpStream>) -> bool {
    let asked = tls.write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n");
    asked.await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    tls.read_exact(&mut body).await.unwrap();
    head.starts_with("http/1.1 200")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_never() {
    let scene = Scene::new(HALF).await;
    let (served, renewed) = (Certificate::new(), Certificate::new());
    let original = Certificate::new();
    original.replace(&served);
    scene.edit(
        "workers = 2",
        &format!("workers = 2\n{}", served.as_listener()),
    );
    let daemon = scene.start().await;
    let mut before = original.connect(daemon.proxy, &[]).await.unwrap();
    assert!(is_served(&mut before).await);
    assert!(renewed.connect(daemon.proxy, &[]).await.is_err());

    renewed.replace(&served);
    daemon.signal("HUP");
    daemon
        .line("applies", |line| line.contains("configuration applied"))
        .await;
    let mut after = renewed.connect(daemon.proxy, &[]).await.unwrap();
    assert!(is_served(&mut after).await);
    assert!(original.connect(daemon.proxy, &[]).await.is_err());
    assert!(is_served(&mut before).await, "the renewal cut a connection");

    served.spoil();
    daemon
        .until_status("told", |status| status["config"]["error"].is_string())
        .await;
    let error = daemon.status().await["config"]["error"].to_string();
    assert!(error.contains("proxy.tls.key"), "{error}");
    assert!(daemon.count("config-rejected") >= 1);
    let mut still = renewed.connect(daemon.proxy, &[]).await.unwrap();
    assert!(is_served(&mut still).await);
    renewed.replace(&served);
    daemon
        .until_status("mended", |status| status["config"]["error"].is_null())
        .await;
}

/// A greeting that says it is TLS 1.`minor`, and nothing of newer versions; all else fits either.
fn hello(minor: u8) -> Vec<u8> {
    // One cipher suite of TLS 1.2 and one of before; then curves, point formats and signatures.
    let suites = [0, 4, 0xc0, 0x2b, 0xc0, 0x09];
    let extensions = [
        [0, 10, 0, 6, 0, 4, 0, 29, 0, 23].as_slice(),
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let body = [
        [3, minor + 1].as_slice(),
        &[7; 32],
        &[0],
        &suites,
        &[1, 0],
        &[0, length(&extensions)],
        &extensions,
    ]
    .concat();
    let head = [22, 3, 1, 0, length(&body) + 4, 1, 0, 0, length(&body)];
    [head.as_slice(), &body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_a_tls_that_is_broken_are_turned_away() {
    let scene = Scene::new(HALF).await;
    let served = Certificate::new();
    scene.edit(
        "workers = 2",
        &format!("workers = 2\n{}", served.as_listener()),
    );
    let daemon = scene.start().await;
    // A fatal alert at once, or the server's own greeting.
    for (minor, expected) in [(0, 21), (1, 21), (2, 22)] {
        let mut client = TcpStream::connect(("127.0.0.1", daemon.proxy))
            .await
            .unwrap();
        client.write_all(&hello(minor)).await.unwrap();
        let mut head = [0; 5];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], expected, "TLS 1.{minor}: {head:?}");
    }
    let mut today = served.connect(daemon.proxy, &[]).await.unwrap();
    assert!(is_served(&mut today).await);
}

/// A proxy that leads every tunnel to `to`; gives its port and what it was asked.
async fn proxy(to: u16) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                asked.send(String::from_utf8(head).unwrap()).ok();
                let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
                client.write_all(answer).await.unwrap();
                let mut behind = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut behind)
                    .await
                    .ok();
            });
        }
    });
    (port, heads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_leads_to_the_provider_and_never_to_this_machine() {
    let scene = Scene::new(HALF).await;
    let certificate = Certificate::of("provider.invalid");
    let arm = format!("{}\nhttp = \"auto\"", certificate.as_authority());
    let end = H2End::with_certificate(scene.canary.port(), certificate).await;
    let (port, mut asked) = proxy(end.port()).await;
    let url = "https://provider.invalid/v1";
    scene.edit(&scene.canary.base_url(), url);
    scene.edit("api-key =", &format!("{arm}\napi-key ="));
    let value = format!("http://me:hunter2@127.0.0.1:{port}");
    let env = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].map(|name| (name, value.as_str()));
    let env = [&env[..], &[("NO_PROXY", ""), ("no_proxy", "")]].concat();
    let daemon = Daemon::start_in(&scene.path(), "json", &env).await;
    let load = super::load::Load::start(daemon.proxy);
    load.answers(60).await;
    load.stop_without_failures().await;
    assert!(!scene.canary.requests().is_empty() && !scene.legacy.requests().is_empty());
    assert!(end.connections() >= 1);
    let head = asked.recv().await.unwrap();
    assert!(
        head.starts_with("CONNECT provider.invalid:443 HTTP/1.1\r\n"),
        "{head}"
    );
    // me:hunter2
    assert!(head.contains("Basic bWU6aHVudGVyMg=="), "{head}");
    while let Ok(head) = asked.try_recv() {
        assert!(head.starts_with("CONNECT provider.invalid:443 "), "{head}");
    }
    let log = daemon.lines().join("\n");
    assert!(log.contains(&format!("http://127.0.0.1:{port}")), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("bWU6"), "{log}");
}
