//! One worker's open connections to one arm.
//!
//! Last in, first out, so that quiet connections age and are closed. No lock, no waiting: a request that
//! finds no idle connection opens its own. The number of connections is bounded by the number of
//! client connections, the number of idle ones by [`MAX_IDLE`].

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::body::UploadBody;
use super::breaker::Breaker;
use super::target::{ConnectError, Target};
use super::warm::Warm;
use crate::clock::monotonic_ms;
use crate::outcome::Outcome;

/// Idle connections kept at most.
pub const MAX_IDLE: usize = 512;
/// Providers close quiet connections after a minute or more; ours are gone before that.
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);
/// A connection that would be too old within this is replaced ahead.
const WARM_FOR: Duration = Duration::from_secs(5);
/// Old connections are replaced so that changes of DNS and load balancers take effect.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long an answer of the resolver serves.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Heads larger than this are refused by both sides of the proxy.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The connections of one worker to one arm.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    breaker: Arc<Breaker>,
    idle: RefCell<Vec<Idle>>,
    /// Counts connections that were handed to requests.
    uses: Cell<u64>,
    warm: Cell<Warm>,
    addresses: RefCell<Rc<[SocketAddr]>>,
    resolved_at: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// An open connection, owned by one attempt until it is put back.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<UploadBody>,
    opened_at: Instant,
    reused: bool,
    /// The task that serves it.
    task: AbortHandle,
    /// An attempt owns it, and its answer was not read to the end yet.
    busy: bool,
}

impl Drop for Connection {
    /// Hangs up at once where an attempt was given up, or answered before it was sent. By itself hyper would first write what is left of the
    /// request, and an upstream that does not read would keep it for ever.
    fn drop(&mut self) {
        if self.busy || !self.sender.is_ready() {
            self.task.abort();
        }
    }
}

impl Connection {
    /// The hyper end of it.
    pub const fn sender(&mut self) -> &mut SendRequest<UploadBody> {
        &mut self.sender
    }

    /// True if it was idle before: it served an earlier request, or was opened ahead.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }
}

impl Pool {
    /// An empty pool. The breaker is shared by the pools of all workers to this arm.
    #[must_use]
    pub fn new(target: Target, breaker: Arc<Breaker>) -> Self {
        Self {
            target,
            breaker,
            idle: RefCell::default(),
            uses: Cell::default(),
            warm: Cell::default(),
            addresses: RefCell::new(Rc::from([])),
            resolved_at: Cell::new(None),
        }
    }

    /// The arm's breaker.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// True if this is the arm's breaker.
    #[must_use]
    pub fn is_watched_by(&self, breaker: &Arc<Breaker>) -> bool {
        Arc::ptr_eq(&self.breaker, breaker)
    }

    /// An idle connection that is still good, if there is one.
    #[must_use]
    pub fn reuse(&self, now: Instant) -> Option<Connection> {
        self.uses.set(self.uses.get().wrapping_add(1));
        let mut idle = self.idle.borrow_mut();
        // Connections whose last answer is still being finished stay where they are.
        let mut from_top = idle.len();
        while let Some(place) = from_top.checked_sub(1) {
            from_top = place;
            let candidate = idle.get(place)?;
            if now.duration_since(candidate.since) > MAX_IDLE_AGE {
                // Everything below is older still.
                idle.drain(..=place);
                return None;
            }
            if candidate.connection.sender.is_closed()
                || now.duration_since(candidate.connection.opened_at) > MAX_AGE
            {
                idle.remove(place);
            } else if candidate.connection.sender.is_ready() {
                let mut connection = idle.remove(place).connection;
                connection.reused = true;
                connection.busy = true;
                return Some(connection);
            }
        }
        None
    }

    /// Opens a new connection within `limit`, name resolution included.
    ///
    /// # Errors
    /// With the outcome that the failure means for the attempt.
    pub async fn open(&self, limit: Duration) -> Result<Connection, ConnectError> {
        let started_at = Instant::now();
        let addresses = self.addresses(limit).await?;
        let left = limit.saturating_sub(started_at.elapsed());
        let io = match self.target.connect(&addresses, left).await {
            Ok(io) => io,
            Err(error) => {
                // The addresses may be why: ask again next time.
                self.resolved_at.set(None);
                return Err(error);
            }
        };
        let handshake = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(128)
            .handshake(TokioIo::new(io))
            .await;
        let (sender, connection) = handshake.map_err(|error| ConnectError {
            outcome: Outcome::Connect,
            message: error.to_string(),
        })?;
        let task = tokio::task::spawn_local(async move {
            // How it ended is told to the request that used it; an idle end is no news.
            drop(connection.await);
        });
        Ok(Connection {
            sender,
            opened_at: Instant::now(),
            reused: false,
            task: task.abort_handle(),
            busy: true,
        })
    }

    /// Opens one connection ahead if none is idle, within `limit`; not while the breaker is open.
    pub async fn keep_warm(&self, limit: Duration) {
        let now = Instant::now();
        let is_ready = self.idle.borrow().iter().any(|idle| {
            let soon = now.duration_since(idle.since) + WARM_FOR;
            soon < MAX_IDLE_AGE && !idle.connection.sender.is_closed()
        });
        let mut warm = self.warm.get();
        let wants_one = warm.wants_one(is_ready, self.uses.get(), monotonic_ms());
        self.warm.set(warm);
        if wants_one
            && self.breaker.is_closed()
            && let Ok(connection) = self.open(limit).await
        {
            self.put_back(connection);
        }
    }

    /// Takes a connection back whose answer was read to its end.
    pub fn put_back(&self, mut connection: Connection) {
        connection.busy = false;
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && !connection.sender.is_closed() {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Closes what has been idle for too long. Called now and then, so that a quiet arm holds nothing.
    pub fn close_stale(&self, now: Instant) {
        self.idle.borrow_mut().retain(|idle| {
            now.duration_since(idle.since) <= MAX_IDLE_AGE && !idle.connection.sender.is_closed()
        });
    }

    async fn addresses(&self, limit: Duration) -> Result<Rc<[SocketAddr]>, ConnectError> {
        let known = Rc::clone(&self.addresses.borrow());
        let fresh = self
            .resolved_at
            .get()
            .is_some_and(|at| at.elapsed() < RESOLVE_EVERY);
        if fresh && !known.is_empty() {
            return Ok(known);
        }
        match tokio::time::timeout(limit, self.target.resolve()).await {
            Ok(Ok(found)) => {
                let found: Rc<[SocketAddr]> = found.into();
                self.addresses.replace(Rc::clone(&found));
                self.resolved_at.set(Some(Instant::now()));
                Ok(found)
            }
            // The last good answer is better than none.
            Ok(Err(_)) | Err(_) if !known.is_empty() => Ok(known),
            Ok(Err(error)) => Err(ConnectError {
                outcome: Outcome::Connect,
                message: error.to_string(),
            }),
            Err(_) => Err(ConnectError {
                outcome: Outcome::TimeoutConnect,
                message: "the name was not resolved in time".to_owned(),
            }),
        }
    }
}
