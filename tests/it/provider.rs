//! A scripted provider on raw TCP: the model's name selects the fault, so that one serves all tests.
//!
//! `ok` (or any other name) is answered well; `fault-500`, `fault-reset-at-100` and the like fail as
//! [`script::Fault`] says. `fault-500@canary` fails only at the provider called `canary`. Requests
//! without a model take the fault from an `x-fault` header. Answers of the model `state` give out state with
//! ids of its own. Every answer names the provider and the
//! model. It must never be kind: it fails exactly as told, and logs every request byte for byte.

mod body;
mod script;
mod selftest;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::find;
pub(crate) use script::PRIVATE_HEADERS;
use wire::Wire;

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Counts all requests of the provider, from 0.
    pub(crate) order: u64,
    /// Counts all connections of the provider, from 0.
    pub(crate) connection: u64,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// In the order and case they came in.
    pub(crate) headers: Vec<(String, String)>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body, or null if it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    name: String,
    log: Mutex<Vec<Request>>,
    requests: AtomicU64,
    connections: AtomicU64,
    /// Nothing more is written, on any connection.
    mute: AtomicBool,
    /// Answers that the peer did not wait for.
    hung_up: watch::Sender<u64>,
    /// Raised to reset all connections.
    cut: watch::Sender<u64>,
}

/// A running provider. Its connections end with the runtime of the test.
#[derive(Debug)]
pub(crate) struct Provider {
    addr: SocketAddr,
    shared: Arc<Shared>,
    port: tokio::sync::Mutex<Port>,
}

#[derive(Debug)]
enum Port {
    Open(JoinHandle<()>),
    /// Bound but not listening, so that nobody else gets the port.
    Shut(Option<TcpSocket>),
}

impl Provider {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, 0).await
    }

    /// The same at this port, which nobody else may have.
    pub(crate) async fn start_at(name: &str, port: u16) -> Self {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
        let addr = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            log: Mutex::default(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            hung_up: watch::Sender::new(0),
            cut: watch::Sender::new(0),
        });
        let provider = Self {
            addr,
            shared,
            port: tokio::sync::Mutex::new(Port::Shut(Some(socket))),
        };
        provider.revive().await;
        provider
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The requests read so far, in their order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Forgets the requests read so far; numbers go on.
    pub(crate) fn clear(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until peers have hung up on this many answers since the start.
    pub(crate) async fn wait_hung_up(&self, count: u64) {
        let mut hung_up = self.shared.hung_up.subscribe();
        let reached = hung_up.wait_for(|seen| *seen >= count);
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        reached.expect("the peer holds on to the answer").unwrap();
    }

    /// Refuses connections and resets the open ones. Both have happened when this returns.
    pub(crate) async fn kill(&self) {
        let mut port = self.port.lock().await;
        if let Port::Open(accepting) = &mut *port {
            accepting.abort();
            accepting.await.ok();
            *port = Port::Shut(Some(bind(self.addr).unwrap()));
        }
        self.cut_all();
        // With the listener gone no connection can join, so this ends.
        while self.shared.cut.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Takes connections and requests, and writes nothing, on open connections as well.
    pub(crate) fn mute(&self) {
        self.shared.mute.store(true, Ordering::SeqCst);
    }

    /// Ends [`Provider::kill`] and [`Provider::mute`], at the same port. What was muted is reset.
    pub(crate) async fn revive(&self) {
        let mut port = self.port.lock().await;
        if self.shared.mute.swap(false, Ordering::SeqCst) {
            self.cut_all();
        }
        if let Port::Shut(socket) = &mut *port {
            let listener = socket.take().unwrap().listen(1024).unwrap();
            *port = Port::Open(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
        }
    }

    /// Tells the connections to reset themselves.
    fn cut_all(&self) {
        self.shared.cut.send_modify(|round| *round += 1);
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let cut = shared.cut.subscribe();
        tokio::spawn(serve(stream, number, Arc::clone(&shared), cut));
    }
}

async fn serve(stream: TcpStream, number: u64, shared: Arc<Shared>, mut cut: watch::Receiver<u64>) {
    stream.set_nodelay(true).unwrap();
    let mut wire = Wire::new(stream);
    let last = tokio::select! {
        last = converse(&mut wire, number, &shared) => last,
        _ = cut.changed() => Last::Reset,
    };
    match last {
        Last::Reset => wire.reset(),
        Last::Fin => drop(wire),
    }
    // Only now may `kill` stop waiting for this connection.
    drop(cut);
}

/// How the provider ends a connection.
enum Last {
    Fin,
    Reset,
}

async fn converse(wire: &mut Wire, connection: u64, shared: &Shared) -> Last {
    while let Ok(Some(mut request)) = wire.read_request().await {
        request.connection = connection;
        request.order = shared.requests.fetch_add(1, Ordering::SeqCst);
        shared.log.lock().unwrap().push(request.clone());
        let close = request.header("connection") == Some("close");
        match script::play(wire, shared, &request).await {
            Ok(script::After::KeepAlive) if !close => {}
            Ok(script::After::KeepAlive | script::After::Fin) => return Last::Fin,
            Ok(script::After::Reset) => return Last::Reset,
            Err(_) => {
                shared.hung_up.send_modify(|count| *count += 1);
                return Last::Fin;
            }
        }
    }
    Last::Fin
}
