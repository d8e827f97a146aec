//! A stand-in LLM provider on the loopback interface: answers like one, fails when told to.
//!
//! Speaks chat completions and embeddings as OpenAI does and messages as Anthropic does, plain and as
//! streams. What it says depends on the question alone, so the same question gets the same bytes
//! twice; when it says it is drawn from the seed and the number of the request. It may open one socket
//! on 127.0.0.1 and must never reach out, keep a prompt, or show a key: it keeps hashes.

mod answer;
mod body;
mod frames;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A lognormal spread of times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of the times are below.
    pub median_ms: f64,
    /// Standard deviation of the logarithm: 0 is always the median, 0.5 is lively, 1 has a long tail.
    pub sigma: f64,
}

impl Spread {
    /// Draws one time in milliseconds, at most an hour.
    fn draw_ms(self, rng: &mut StdRng) -> f64 {
        // Box and Muller. 1 - u keeps zero out of the logarithm.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
        (self.median_ms * (self.sigma * normal).exp()).clamp(0.0, 3_600_000.0)
    }
}

/// How a stand-in behaves while nothing is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Shown in its headers and fingerprints, as `legacy` or `canary`.
    pub name: String,
    /// Same seed and same order of requests: same times and same failures.
    pub seed: u64,
    /// From the request to the first token.
    pub first_token: Spread,
    /// From one token to the next.
    pub token_gap: Spread,
    /// Median length of an answer in tokens.
    pub tokens: f64,
    /// Share of requests that fail although all is well, 0.0 to 1.0.
    pub error_rate: f64,
    /// The models it knows; others are refused with 404. Empty: any model.
    pub models: Vec<String>,
}

impl Profile {
    /// A lively provider: first token after 60 ms, 3 ms per token, about 20 tokens, no errors.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            first_token: Spread {
                median_ms: 60.0,
                sigma: 0.4,
            },
            token_gap: Spread {
                median_ms: 3.0,
                sigma: 0.3,
            },
            tokens: 20.0,
            error_rate: 0.0,
            models: Vec::new(),
        }
    }
}

/// What is wrong with a stand-in at present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    Healthy,
    /// Nobody listens, and open connections were reset.
    Refuse,
    /// Every request is answered with this status and an error body.
    Status(u16),
    /// Every answer is cut by a reset after its first part.
    Reset,
    /// All times are multiplied by this factor.
    Slow(f64),
    /// This share of requests fails, instead of the profile's.
    ErrorRate(f64),
}

/// What a stand-in has seen since it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Requests, good and bad ones.
    pub requests: u64,
    /// Those of them that asked for a stream.
    pub streams: u64,
    /// Requests answered with a failure, the drawn and the injected ones.
    pub failures: u64,
    /// Hashes of the keys that callers showed, see [`key_hash`].
    pub keys: BTreeSet<u64>,
}

/// The hash under which [`Seen::keys`] notes a key.
#[must_use]
pub fn key_hash(key: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key.as_bytes())
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    streams: AtomicU64,
    failures: AtomicU64,
    keys: Mutex<BTreeSet<u64>>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    profile: Profile,
    /// Unix seconds of the start; the `created` of every answer, so that answers repeat.
    created: u64,
    fault: Mutex<Fault>,
    counters: Counters,
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chance of one request: a stream of draws of its own, whatever runs beside it.
    fn rng(&self, number: u64) -> StdRng {
        StdRng::seed_from_u64(
            self.profile.seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )
    }
}

#[derive(Debug)]
enum Port {
    Open(JoinHandle<()>),
    /// Bound but not listening: callers are refused, and nobody else is given the port.
    Shut(TcpSocket),
    /// A change of the port failed half-way.
    Lost,
}

/// A running stand-in. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct StandIn {
    addr: SocketAddr,
    shared: Arc<Shared>,
    port: tokio::sync::Mutex<Port>,
    /// Raised to reset the open connections; its end closes them as well.
    cut: watch::Sender<u64>,
}

impl StandIn {
    /// Binds a free port of 127.0.0.1 and serves it on the current runtime.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start(profile: Profile) -> io::Result<Self> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = socket.local_addr()?;
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let shared = Arc::new(Shared {
            profile,
            created,
            fault: Mutex::new(Fault::Healthy),
            counters: Counters::default(),
        });
        let cut = watch::Sender::new(0);
        let accepting = accept(socket, Arc::clone(&shared), cut.subscribe())?;
        Ok(Self {
            addr,
            shared,
            port: tokio::sync::Mutex::new(Port::Open(accepting)),
            cut,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a configuration calls its `base-url`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Breaks or heals it. When this returns, [`Fault::Refuse`] has closed the port and reset all
    /// connections, and any other fault has the same port open again.
    ///
    /// # Errors
    /// If the port cannot be bound again.
    pub async fn set_fault(&self, fault: Fault) -> io::Result<()> {
        *self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fault;
        let mut port = self.port.lock().await;
        *port = match (std::mem::replace(&mut *port, Port::Lost), fault) {
            (Port::Open(accepting), Fault::Refuse) => {
                accepting.abort();
                // Only its end closes the listener. It was cancelled, so there is no result to look at.
                accepting.await.ok();
                self.cut.send_modify(|round| *round += 1);
                Port::Shut(bind(self.addr)?)
            }
            (port @ Port::Open(_), _) | (port @ Port::Shut(_), Fault::Refuse) => port,
            (Port::Shut(socket), _) => self.reopen(socket)?,
            (Port::Lost, _) => self.reopen(bind(self.addr)?)?,
        };
        Ok(())
    }

    fn reopen(&self, socket: TcpSocket) -> io::Result<Port> {
        accept(socket, Arc::clone(&self.shared), self.cut.subscribe()).map(Port::Open)
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let counters = &self.shared.counters;
        Seen {
            requests: counters.requests.load(Ordering::Relaxed),
            streams: counters.streams.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            keys: counters
                .keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Port::Open(accepting) = self.port.get_mut() {
            accepting.abort();
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the former listener may still linger in the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn accept(
    socket: TcpSocket,
    shared: Arc<Shared>,
    cut: watch::Receiver<u64>,
) -> io::Result<JoinHandle<()>> {
    let listener = socket.listen(1024)?;
    Ok(tokio::spawn(accept_loop(listener, shared, cut)))
}

async fn accept_loop(listener: TcpListener, shared: Arc<Shared>, cut: watch::Receiver<u64>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&shared), cut.clone()));
            }
            // Out of file descriptors, most likely: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, mut cut: watch::Receiver<u64>) {
    // Without it small events wait for acknowledgements; a failure costs only speed.
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        Box::pin(async move { answer::answer(&shared, request).await })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let ended_well = tokio::select! {
        done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => done.is_ok(),
        _ = cut.changed() => false,
    };
    let stream = connection.into_parts().io.into_inner();
    if !ended_well {
        // The caller must see a reset and not a clean end. If the socket is gone, it is gone.
        stream.set_zero_linger().ok();
    }
}

#[cfg(test)]
mod tests;
