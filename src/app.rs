//! The composition root: a configuration becomes running tasks, in an order that is safe to die in.
//!
//! Start: ports are bound, the store is opened, the driver restores its rollouts, the data plane serves,
//! and only then is the daemon ready. Shutdown: not ready, no new connections, requests finish within
//! the drain time, the driver takes the last samples, the store is flushed and closed.

use std::fmt;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admin::{self, Admin};
use crate::alert::kind::AlertKind;
use crate::alert::{self, Alert, Alerts};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::config::parse::Fingerprint;
use crate::config::reload::{self, Reloaded};
use crate::driver::status::Status;
use crate::driver::{Driver, Inputs, Request};
use crate::proxy::listener::DataPlane;
use crate::proxy::plane::Plane;
use crate::recorder;
use crate::store::Store;
use crate::trace::export;

/// Commands and status questions that wait for the driver at most.
const DRIVER_QUEUE: usize = 64;
const RELOAD_QUEUE: usize = 4;
/// How long the end waits for spans that are being sent.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(2);

/// Where the configuration came from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file that is watched for changes.
    File {
        /// Its path.
        path: PathBuf,
        /// Of its content when it was parsed.
        fingerprint: Fingerprint,
    },
    /// Built in; never changes.
    BuiltIn,
}

/// Why the daemon cannot start.
#[derive(Debug)]
pub enum StartError {
    /// A port cannot be listened on.
    Listen {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        addr: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Anything else, in one sentence with its remedy.
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { key, addr, error } => {
                write!(
                    f,
                    "cannot listen on {addr}: {error}; free the port or change {key}"
                )
            }
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for StartError {}

/// The running daemon.
#[derive(Debug)]
pub struct App {
    /// Where clients connect.
    pub proxy_addr: SocketAddr,
    /// Where the admin API listens.
    pub admin_addr: SocketAddr,
    drain_by: watch::Sender<Option<Instant>>,
    ready: watch::Sender<bool>,
    planes: watch::Receiver<Arc<Plane>>,
    data_plane: DataPlane,
    driver: JoinHandle<()>,
    alerts: JoinHandle<()>,
    side_tasks: Vec<JoinHandle<()>>,
    requests: mpsc::Sender<Request>,
    store: Store,
    exporter: JoinHandle<()>,
}

/// Starts everything. Runs on the control runtime; the data plane has threads of its own.
///
/// # Errors
/// If a port, the store or a rollout's state cannot be had; nothing keeps running then.
pub async fn start(config: Config, source: Source) -> Result<App, StartError> {
    let proxy_listener = bind("proxy.listen", config.proxy.listen)?;
    let admin_listener = bind("admin.listen", config.admin.listen)?;
    let admin_addr = admin_listener.local_addr().map_err(other)?;
    let (alerts, alerts_task) = alert::start(&config.alerts);
    let store = open_store(&config, &alerts).await?;
    let (recorder, samples) = recorder::channel();
    let (requests, driver_requests) = mpsc::channel(DRIVER_QUEUE);
    let (reloads, reloaded) = mpsc::channel(RELOAD_QUEUE);
    let config_path = match &source {
        Source::File { path, .. } => Some(path.clone()),
        Source::BuiltIn => None,
    };
    let inputs = Inputs {
        samples,
        requests: driver_requests,
        reloads: reloaded,
    };
    let driver = Driver::restore(config, config_path, store.clone(), inputs, alerts)
        .await
        .map_err(other)?;
    let planes = driver.planes();
    let (drain_by, drain_receiver) = watch::channel(None);
    let (spans, span_queue) = export::channel();
    let fates = spans.fates();
    let data_plane = DataPlane::start(proxy_listener, &planes, &recorder, &spans, &drain_receiver)
        .map_err(other)?;
    // From here on only the workers hold sinks: driver and exporter end when the last of them is gone.
    drop((recorder, spans));
    let (ready, is_ready) = watch::channel(true);
    let admin = Admin {
        driver: requests.clone(),
        store: store.clone(),
        planes: planes.clone(),
        ready: is_ready,
        gauges: data_plane.gauges.clone(),
        spans: fates,
    };
    let admin_listener = TcpListener::from_std(admin_listener).map_err(other)?;
    let side_tasks = vec![
        tokio::spawn(admin::serve(admin_listener, admin)),
        tokio::spawn(watch_config(source, reloads)),
    ];
    Ok(App {
        proxy_addr: data_plane.addr,
        admin_addr,
        drain_by,
        ready,
        exporter: tokio::spawn(export::run(span_queue, planes.clone())),
        planes,
        data_plane,
        driver: tokio::spawn(driver.run()),
        alerts: tokio::spawn(alerts_task),
        side_tasks,
        requests,
        store,
    })
}

impl App {
    /// The live status, as the admin API gives it; `None` once the driver has ended.
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The store, for reading.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Drains and ends: no new connections, at most the drain time for what is in flight, all records
    /// written. Dropping the future ends without waiting.
    pub async fn shut_down(self) {
        self.ready.send_replace(false);
        let drain = self.planes.borrow().config.proxy.drain;
        self.drain_by.send_replace(Some(Instant::now() + drain));
        self.data_plane.finished().await;
        // All sinks are gone: the driver takes what is queued, saves its state and ends.
        if let Err(error) = self.driver.await {
            tracing::error!(%error, "the driver did not end well");
        }
        // The last spans are on their way; a collector that hangs holds nobody up.
        let exported = tokio::time::timeout(LAST_SPANS_WITHIN, self.exporter).await;
        if exported.is_err() {
            tracing::warn!("the last spans did not reach their collector before the end");
        }
        for task in self.side_tasks {
            task.abort();
        }
        // The driver's end is gone: the last alerts get two seconds, while the store is closed.
        let (closed, told) = tokio::join!(self.store.close(), self.alerts);
        if let Err(error) = closed {
            tracing::error!(%error, "the store was not closed well");
        }
        if let Err(error) = told {
            tracing::error!(%error, "the alerts did not end well");
        }
    }
}

async fn open_store(config: &Config, alerts: &Alerts) -> Result<Store, StartError> {
    let opened = Store::open(&config.store, UnixMillis::now())
        .await
        .map_err(other)?;
    if let Some(aside) = &opened.set_aside {
        let kind = AlertKind::StoreCorrupt;
        tracing::error!(
            alert = kind.as_str(),
            set_aside = %aside.display(),
            "the database was corrupt: it was set aside and a new one was begun at 0%"
        );
        let text = format!("set aside as {}; all begins anew at 0%", aside.display());
        alerts.hand(Alert::new(kind, text));
    }
    Ok(opened.store)
}

async fn watch_config(source: Source, reloads: mpsc::Sender<Reloaded>) {
    match source {
        Source::File { path, fingerprint } => reload::watch(path, fingerprint, reloads).await,
        // The sender stays alive, so that the driver never sees a closed channel.
        Source::BuiltIn => reloads.closed().await,
    }
}

fn bind(key: &'static str, addr: SocketAddr) -> Result<StdListener, StartError> {
    let bind = || {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        // A restart must not wait for connections of the process before it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4_096)?;
        Ok(StdListener::from(socket))
    };
    bind().map_err(|error| StartError::Listen { key, addr, error })
}

fn other(error: impl fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}
