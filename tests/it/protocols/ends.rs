//! The other ends of HTTP/2: a client, and a provider's front that speaks nothing else.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A body that is sent as it comes.
#[derive(Debug)]
pub(super) struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|p| Ok(Frame::data(p))))
    }
}

/// A POST whose body is still to come.
pub(super) fn request(target: &str) -> (mpsc::Sender<Bytes>, Request<Pieces>) {
    let (pieces, body) = mpsc::channel(4);
    let request = Request::post(format!("http://test{target}"))
        .header("authorization", "Bearer test")
        .body(Pieces(body));
    (pieces, request.unwrap())
}

/// A POST of JSON.
pub(super) fn plain_request(target: &str, body: &Value) -> Request<Pieces> {
    let (pieces, mut request) = request(target);
    let json = "application/json".parse().unwrap();
    request.headers_mut().insert("content-type", json);
    pieces.try_send(body.to_string().into()).unwrap();
    request
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Clean,
    /// By a reset of its stream.
    Reset,
    /// With its connection.
    Lost,
}

/// An answer read to its end.
#[derive(Debug)]
pub(super) struct H2Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) end: Ended,
}

impl H2Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let (body, end) = read(body).await;
        Self {
            status: head.status,
            headers: head.headers,
            body,
            end,
        }
    }
}

/// The body as far as it came.
pub(super) async fn read(mut body: Incoming) -> (Vec<u8>, Ended) {
    use http_body_util::BodyExt;
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(error) => return (all, ended_by(&error)),
        }
    }
    (all, Ended::Clean)
}

fn ended_by(error: &hyper::Error) -> Ended {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let by_peer = error.is_reset() && error.is_remote();
            return if by_peer { Ended::Reset } else { Ended::Lost };
        }
        source = error.source();
    }
    Ended::Lost
}

/// One HTTP/2 connection to the daemon.
#[derive(Debug)]
pub(super) struct H2Client(http2::SendRequest<Pieces>);

impl H2Client {
    pub(super) async fn connect(port: u16) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::over(tcp).await
    }

    pub(super) async fn connect_tls(port: u16, certificate: &Certificate) -> Self {
        let tls = certificate
            .connect(port, &["h2", "http/1.1"])
            .await
            .unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(tls).await
    }

    async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_max_send_streams(1_000)
            .handshake(TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request; resolves with the head.
    pub(super) fn begin(
        &mut self,
        request: Request<Pieces>,
    ) -> impl Future<Output = Response<Incoming>> + Send + 'static {
        let answer = self.0.send_request(request);
        async move { answer.await.unwrap() }
    }

    pub(super) async fn send(&mut self, request: Request<Pieces>) -> H2Answer {
        let answer = async { H2Answer::of(self.begin(request).await).await };
        crate::harness::in_time("an answer over HTTP/2", answer).await
    }

    pub(super) async fn post(&mut self, target: &str, body: &Value) -> H2Answer {
        self.send(plain_request(target, body)).await
    }

    /// The same, beside whatever else goes on.
    pub(super) fn post_later(&mut self, target: &str, body: &Value) -> JoinHandle<H2Answer> {
        let answer = self.begin(plain_request(target, body));
        tokio::spawn(async move { H2Answer::of(answer.await).await })
    }
}

/// A certificate with its files.
#[derive(Debug)]
pub(crate) struct Certificate {
    name: String,
    der: CertificateDer<'static>,
    key: Vec<u8>,
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        Self::of("localhost")
    }

    pub(crate) fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(folder.path().join("key.pem"), key).unwrap();
        Self {
            name: name.to_owned(),
            der: made.cert.der().clone(),
            key: made.signing_key.serialize_der(),
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Puts its files in place of another's.
    pub(crate) fn replace(&self, other: &Self) {
        for name in ["cert.pem", "key.pem"] {
            std::fs::copy(self.path(name), other.path(name)).unwrap();
        }
    }

    /// Spoils the key's file.
    pub(crate) fn spoil(&self) {
        std::fs::write(self.path("key.pem"), "nonsense").unwrap();
    }

    /// The line of `[proxy]`.
    pub(crate) fn as_listener(&self) -> String {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        format!("tls = {{ cert = \"{cert}\", key = \"{key}\" }}")
    }

    /// The line of an arm.
    pub(crate) fn as_authority(&self) -> String {
        format!("ca-file = \"{}\"", self.path("cert.pem"))
    }

    fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Connects as somebody who trusts nothing but this certificate.
    pub(crate) async fn connect(
        &self,
        port: u16,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from(self.name.clone()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }
}

/// What the connections of a front are told.
#[derive(Debug, Clone, Copy)]
enum Told {
    Nothing,
    Goodbye,
    Cut,
}

#[derive(Debug)]
struct Shared {
    to_port: u16,
    connections: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    heads: Mutex<Vec<Parts>>,
    told: watch::Sender<Told>,
}

/// Speaks HTTP/2 and passes requests on to a provider. Ends with the runtime of the test.
#[derive(Debug)]
pub(crate) struct H2End {
    port: u16,
    certificate: Option<Certificate>,
    shared: Arc<Shared>,
}

impl H2End {
    pub(super) async fn plain(to_port: u16) -> Self {
        Self::start(to_port, None).await
    }

    pub(super) async fn with_tls(to_port: u16) -> Self {
        Self::with_certificate(to_port, Certificate::new()).await
    }

    pub(crate) async fn with_certificate(to_port: u16, certificate: Certificate) -> Self {
        Self::start(to_port, Some(certificate)).await
    }

    async fn start(to_port: u16, certificate: Option<Certificate>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to_port,
            connections: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            heads: Mutex::default(),
            told: watch::Sender::new(Told::Nothing),
        });
        let acceptor = certificate
            .as_ref()
            .map(|c| TlsAcceptor::from(Arc::new(c.server())));
        let all = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&all));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(tcp, shared).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                serve(tls, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            port,
            certificate,
            shared,
        }
    }

    /// Lines of `[arms.canary]`, and its base URL.
    pub(super) fn as_canary(&self) -> (String, String) {
        match &self.certificate {
            None => (
                "http = \"2\"".to_owned(),
                format!("http://127.0.0.1:{}/v1", self.port),
            ),
            Some(certificate) => (
                format!("http = \"2\"\n{}", certificate.as_authority()),
                format!("https://localhost:{}/v1", self.port),
            ),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Requests under way now.
    pub(super) fn at_once(&self) -> usize {
        self.shared.at_once.load(Ordering::SeqCst)
    }

    pub(super) fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }

    /// Heads of all requests.
    pub(super) fn heads(&self) -> Vec<Parts> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Sends GOAWAY on all connections; what runs may finish.
    pub(super) fn say_goodbye(&self) {
        self.shared.told.send_replace(Told::Goodbye);
    }

    /// Closes all connections at once.
    pub(super) fn cut(&self) {
        self.shared.told.send_replace(Told::Cut);
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + 'static, shared: Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let mut told = shared.told.subscribe();
    let service = service_fn(|request| pass_on(Arc::clone(&shared), request));
    let mut connection = std::pin::pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(200)
            .serve_connection(TokioIo::new(io), service)
    );
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            changed = told.changed() => {
                changed.unwrap();
                match *told.borrow_and_update() {
                    Told::Nothing => {}
                    Told::Goodbye => connection.as_mut().graceful_shutdown(),
                    Told::Cut => return,
                }
            }
        }
    }
}

/// A request under way, until its answer has passed.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn new(shared: Arc<Shared>) -> Self {
        let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Passing {
    body: Incoming,
    _under_way: UnderWay,
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

async fn pass_on(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Passing>, Box<dyn std::error::Error + Send + Sync>> {
    let under_way = UnderWay::new(Arc::clone(&shared));
    let (mut head, body) = request.into_parts();
    shared.heads.lock().unwrap().push(head.clone());
    let tcp = TcpStream::connect(("127.0.0.1", shared.to_port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let host = head.uri.authority().unwrap().as_str().parse().unwrap();
    head.headers.insert("host", host);
    head.uri = head.uri.path_and_query().unwrap().clone().into();
    head.version = http::Version::HTTP_11;
    let answer = sender.send_request(Request::from_parts(head, body)).await?;
    Ok(answer.map(|body| Passing {
        body,
        _under_way: under_way,
    }))
}
