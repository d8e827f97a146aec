//! One worker's open connections to one arm.
//!
//! Last in, first out, so that quiet connections age and are closed. No lock: a request that finds no
//! connection opens its own. Only where requests may share one (HTTP/2) do they wait for it together, each
//! for its own time at most. The number of connections is bounded by the number of client requests, the
//! number of idle ones by [`MAX_IDLE`].

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::addresses::Addresses;
use super::alarm::Alarm;
use super::breaker::Breaker;
use super::connection::{Connection, Link, Own};
use super::shared::{PING, STREAMS_MAX, Shared, Stream};
use super::target::{ConnectError, Origin, Target};
use super::warm::Warm;
use crate::clock::monotonic_ms;
use crate::outcome::Outcome;

pub mod figures;

/// Idle connections kept at most.
pub const MAX_IDLE: usize = 512;
/// Providers close quiet connections after a minute or more; ours are gone before that.
pub(super) const MAX_IDLE_AGE: Duration = Duration::from_secs(30);
/// A connection that would be too old within this is replaced ahead.
const WARM_FOR: Duration = Duration::from_secs(5);
/// Old connections are replaced so that changes of DNS and load balancers take effect.
pub(super) const MAX_AGE: Duration = Duration::from_secs(600);
/// Heads larger than this are refused by both sides of the proxy.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// One line about connections that cannot be had is enough for so long.
const TELL_EVERY_MS: u64 = 60_000;

/// The connections of one worker to one arm.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    /// What requests over HTTP/2 name, and those over HTTP/1.1 that a proxy reads.
    origin: Rc<Origin>,
    relayed_origin: Option<Rc<Origin>>,
    breaker: Arc<Breaker>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared>>,
    openings: RefCell<Vec<Rc<Opening>>>,
    /// The last handshake led to a connection that cannot be shared: requests open their own.
    speaks_http1: Cell<bool>,
    /// Counts connections that were handed to requests.
    uses: Cell<u64>,
    warm: Cell<Warm>,
    addresses: RefCell<Addresses>,
    told_at_ms: Cell<Option<u64>>,
    dials: figures::Dials,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection that is being opened for several requests.
#[derive(Debug, Default)]
struct Opening {
    riders: Cell<usize>,
    ended: Notify,
    failed: RefCell<Option<ConnectError>>,
}

/// What came of a handshake.
enum Opened {
    Own(Connection),
    Shared(Shared),
}

impl Pool {
    /// An empty pool. The breaker is shared by the pools of all workers to this arm.
    #[must_use]
    pub fn new(target: Target, breaker: Arc<Breaker>) -> Self {
        Self {
            origin: Rc::new(target.origin()),
            relayed_origin: target.relayed_origin().map(Rc::new),
            speaks_http1: Cell::new(!target.may_share()),
            target,
            breaker,
            idle: RefCell::default(),
            shared: RefCell::default(),
            openings: RefCell::default(),
            uses: Cell::default(),
            warm: Cell::default(),
            addresses: RefCell::default(),
            told_at_ms: Cell::default(),
            dials: figures::Dials::default(),
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

    /// A connection that is there and still good, if there is one: a place on a shared one, or an idle one.
    #[must_use]
    pub fn reuse(&self, now: Instant) -> Option<Connection> {
        self.uses.set(self.uses.get().wrapping_add(1));
        self.at_hand(now).map(|mut connection| {
            connection.reused = true;
            connection
        })
    }

    fn at_hand(&self, now: Instant) -> Option<Connection> {
        let mut shared = self.shared.borrow_mut();
        if !shared.is_empty() {
            shared.retain(|shared| shared.is_good(now));
            // The first one with room, so that those behind it fall quiet and are closed.
            if let Some(stream) = shared.iter().find_map(Shared::stream) {
                return Some(self.on_shared(stream));
            }
        }
        let mut idle = self.idle.borrow_mut();
        // Connections whose last answer is still being finished stay where they are.
        let mut from_top = idle.len();
        while from_top > 0 {
            let place = from_top - 1;
            from_top = place;
            let candidate = idle.get(place)?;
            if now.duration_since(candidate.since) > MAX_IDLE_AGE {
                // Everything below is older still.
                idle.drain(..=place);
                return None;
            }
            let Link::Http1(Own { sender, .. }) = &candidate.connection.link else {
                idle.remove(place);
                continue;
            };
            if sender.is_closed() || now.duration_since(candidate.connection.opened_at) > MAX_AGE {
                idle.remove(place);
            } else if sender.is_ready() {
                let mut connection = idle.remove(place).connection;
                connection.set_busy(true);
                return Some(connection);
            }
        }
        None
    }

    fn on_shared(&self, stream: Stream) -> Connection {
        Connection {
            link: Link::Http2(stream),
            origin: Some(Rc::clone(&self.origin)),
            opened_at: Instant::now(),
            reused: false,
            alarm: Alarm::new(),
        }
    }

    /// A new connection within `limit`, name resolution included; or a place on a new one that several
    /// requests have waited for.
    ///
    /// # Errors
    /// With the outcome that the failure means for the attempt.
    pub async fn open(self: &Rc<Self>, limit: Duration) -> Result<Connection, ConnectError> {
        let started_at = Instant::now();
        while !self.speaks_http1.get() {
            let (opening, began) = self.board(limit);
            let left = limit.saturating_sub(started_at.elapsed());
            let waited = tokio::time::timeout(left, opening.ended.notified()).await;
            let late = "no connection became ready in time";
            let failed = match waited {
                Ok(()) => opening.failed.borrow().clone(),
                Err(_) => Some(ConnectError::new(Outcome::TimeoutConnect, late.to_owned())),
            };
            if let Some(error) = failed {
                let is_shared = !began;
                return Err(ConnectError { is_shared, ..error });
            }
            if let Some(connection) = self.at_hand(Instant::now()) {
                return Ok(connection);
            }
        }
        let left = limit.saturating_sub(started_at.elapsed());
        match self.establish(left).await? {
            Opened::Own(connection) => Ok(connection),
            Opened::Shared(shared) => {
                // The provider offers HTTP/2 by now.
                let stream = shared.stream();
                self.admit(Opened::Shared(shared));
                stream.map(|s| self.on_shared(s)).ok_or_else(|| {
                    let message = "the provider allows no request on a connection";
                    ConnectError::new(Outcome::Connect, message.to_owned())
                })
            }
        }
    }

    /// Joins those who wait for a new connection, or begins to open one (true). It is opened by a task of its own:
    /// nobody's connection depends on the client of somebody else.
    fn board(self: &Rc<Self>, limit: Duration) -> (Rc<Opening>, bool) {
        let mut openings = self.openings.borrow_mut();
        let with_room = openings.iter().find(|o| o.riders.get() < STREAMS_MAX);
        if let Some(opening) = with_room {
            opening.riders.set(opening.riders.get() + 1);
            return (Rc::clone(opening), false);
        }
        let opening = Rc::new(Opening::default());
        opening.riders.set(1);
        openings.push(Rc::clone(&opening));
        let (pool, ends) = (Rc::clone(self), Rc::clone(&opening));
        tokio::task::spawn_local(async move {
            match pool.establish(limit).await {
                Ok(opened) => pool.admit(opened),
                Err(error) => drop(ends.failed.replace(Some(error))),
            }
            let mut openings = pool.openings.borrow_mut();
            openings.retain(|opening| !Rc::ptr_eq(opening, &ends));
            ends.ended.notify_waiters();
        });
        (opening, true)
    }

    fn admit(&self, opened: Opened) {
        match opened {
            Opened::Own(connection) => {
                self.speaks_http1.set(true);
                self.put_back(connection, Instant::now());
            }
            Opened::Shared(shared) => {
                self.speaks_http1.set(false);
                self.shared.borrow_mut().push(shared);
            }
        }
    }

    /// Makes a connection and begins the HTTP that both sides agree on.
    async fn establish(&self, limit: Duration) -> Result<Opened, ConnectError> {
        let established = self.establish_quietly(limit).await;
        self.dials.count(established.is_ok());
        if let Err(error) = &established {
            // The addresses may be why: ask again soon.
            self.addresses.borrow_mut().doubt(monotonic_ms());
            self.tell(error);
        }
        established
    }

    async fn establish_quietly(&self, limit: Duration) -> Result<Opened, ConnectError> {
        let started_at = Instant::now();
        let addresses = self.addresses(limit).await?;
        let left = limit.saturating_sub(started_at.elapsed());
        let connected = self.target.connect(&addresses, left).await?;
        if let Some(losers @ [_, ..]) = addresses.get(..connected.passed_over) {
            self.addresses.borrow_mut().lost(losers);
        }
        let failed = |error: hyper::Error| ConnectError::new(Outcome::Connect, error.to_string());
        if connected.is_http2 {
            let left = limit.saturating_sub(started_at.elapsed());
            let begun = tokio::time::timeout(left, Shared::begin(connected.socket, PING)).await;
            let begun = begun.map_err(|_| {
                ConnectError::new(
                    Outcome::TimeoutConnect,
                    "HTTP/2 did not begin in time".to_owned(),
                )
            })?;
            return begun.map(Opened::Shared).map_err(failed);
        }
        let handshake = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(128)
            .handshake(TokioIo::new(connected.socket))
            .await;
        let (sender, connection) = handshake.map_err(failed)?;
        let task = tokio::task::spawn_local(async move {
            // How it ended is told to the request that used it; an idle end is no news.
            drop(connection.await);
        });
        Ok(Opened::Own(Connection {
            link: Link::Http1(Own {
                sender,
                task: task.abort_handle(),
                busy: true,
            }),
            origin: self.relayed_origin.clone(),
            opened_at: Instant::now(),
            reused: false,
            alarm: Alarm::new(),
        }))
    }

    /// Opens one connection ahead if none is ready, within `limit`; not while the breaker is open.
    pub async fn keep_warm(self: &Rc<Self>, limit: Duration) {
        let now = Instant::now();
        let lasts = |idle_for: Duration| idle_for + WARM_FOR < MAX_IDLE_AGE;
        let is_ready = self
            .idle
            .borrow()
            .iter()
            .any(|idle| lasts(now.duration_since(idle.since)) && !idle.connection.is_closed())
            || self
                .shared
                .borrow()
                .iter()
                .any(|shared| shared.is_good(now) && lasts(shared.idle_for(now)));
        let mut warm = self.warm.get();
        let wants_one = warm.wants_one(is_ready, self.uses.get(), monotonic_ms());
        self.warm.set(warm);
        if wants_one
            && self.breaker.is_closed()
            && let Ok(connection) = self.open(limit).await
        {
            self.put_back(connection, Instant::now());
        }
    }

    /// Takes a connection back whose answer was read to its end by now.
    pub fn put_back(&self, mut connection: Connection, now: Instant) {
        connection.set_busy(false);
        if connection.is_closed() || matches!(connection.link, Link::Http2(_)) {
            // A place on a shared connection is given back by dropping it.
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                since: now,
            });
        }
    }

    /// Closes what has been idle for too long. Called now and then, so that a quiet arm holds nothing.
    pub fn close_stale(&self, now: Instant) {
        self.idle.borrow_mut().retain(|idle| {
            now.duration_since(idle.since) <= MAX_IDLE_AGE && !idle.connection.is_closed()
        });
        self.shared
            .borrow_mut()
            .retain(|shared| shared.is_good(now));
    }

    async fn addresses(&self, limit: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
        let (is_due, has_some) = {
            let addresses = self.addresses.borrow();
            (addresses.is_due(monotonic_ms()), !addresses.is_empty())
        };
        if is_due {
            // A resolver that hangs must leave time to connect to what is known.
            let patience = if has_some { limit / 2 } else { limit };
            let found = tokio::time::timeout(patience, self.target.resolve()).await;
            let mut addresses = self.addresses.borrow_mut();
            match found {
                Ok(Ok(found)) => addresses.found(found, monotonic_ms()),
                // The last good answer is better than none.
                _ if has_some => addresses.not_found(monotonic_ms()),
                Ok(Err(error)) => {
                    return Err(ConnectError::new(Outcome::Connect, error.to_string()));
                }
                Err(_) => {
                    return Err(ConnectError::new(
                        Outcome::TimeoutConnect,
                        "the name was not resolved in time".to_owned(),
                    ));
                }
            }
        }
        Ok(self.addresses.borrow_mut().in_turn())
    }

    /// A line for people, seldom.
    fn tell(&self, error: &ConnectError) {
        let now_ms = monotonic_ms();
        let told_at_ms = self.told_at_ms.get();
        if told_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= TELL_EVERY_MS) {
            self.told_at_ms.set(Some(now_ms));
            tracing::warn!(
                to = %self.target,
                outcome = %error.outcome,
                error = error.message,
                "no connection; further failures within a minute are not told"
            );
        }
    }
}

#[cfg(test)]
mod tests;
