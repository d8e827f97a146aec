//! The composition root: a configuration becomes running tasks, in an order that is safe to die in.
//!
//! Start: ports are bound, the store is opened, the driver restores its rollouts, the data plane serves,
//! and only then is the daemon ready. Shutdown: not ready, no new connections, requests finish within
//! the drain time, the driver takes the last samples, the store is flushed and closed, its lock is given up.
//!
//! Where the data port is handed down ([`crate::service`]), a new process may begin before the old one has ended:
//! it stands by ([`stand_by`]) until it holds the store's lock.

use std::net::SocketAddr;
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
use crate::config::parse::Fingerprint;
use crate::config::reload::{self, Reloaded};
use crate::config::{Config, StoreConfig};
use crate::driver::begin::Memory;
use crate::driver::status::Status;
use crate::driver::{Driver, Inputs, Request, StandBy};
use crate::proxy::gauges::Gauges;
use crate::proxy::listener::DataPlane;
use crate::proxy::plane::Plane;
use crate::recorder::{self, Samples};
use crate::service::Sockets;
use crate::store::Store;
use crate::store::lock::{Lock, Tried};
use crate::trace::export::{self, Fates};

mod error;
mod ports;
mod stand_by;

pub use error::StartError;

use error::other;
use ports::listen;
use stand_by::Waiting;

/// Commands and status questions that wait for the driver at most.
const DRIVER_QUEUE: usize = 64;
const RELOAD_QUEUE: usize = 4;
/// The end takes no longer than this after the drain time: a wait for the lock, and the store's last flush.
const ENDED_AFTER: Duration = Duration::from_secs(45);
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
    control: Control,
    alerts: JoinHandle<()>,
    watching: JoinHandle<()>,
    exporter: JoinHandle<()>,
}

/// Who decides.
#[derive(Debug)]
enum Control {
    Running(Running),
    /// Another process does, until it ends; `None` if this one ended first.
    StandingBy(JoinHandle<Option<Running>>),
}

/// The control plane of the process that holds the store.
#[derive(Debug)]
struct Running {
    driver: JoinHandle<()>,
    admin: JoinHandle<()>,
    requests: mpsc::Sender<Request>,
    store: Store,
    /// Given up last.
    lock: Lock,
}

/// What a control plane is made from.
struct Parts {
    config_path: Option<PathBuf>,
    store: StoreConfig,
    samples: Samples,
    reloads: mpsc::Receiver<Reloaded>,
    alerts: Alerts,
}

/// What the admin port shows of the data plane.
struct Shown {
    listener: TcpListener,
    planes: watch::Receiver<Arc<Plane>>,
    ready: watch::Receiver<bool>,
    gauges: Gauges,
    spans: Arc<Fates>,
}

/// Starts everything on ports of its own, see [`start_on`].
///
/// # Errors
/// If a port, the store or a rollout's state cannot be had; nothing keeps running then.
pub async fn start(config: Config, source: Source) -> Result<App, StartError> {
    // Boxed: whoever starts it need not have room for all that the start goes through.
    Box::pin(start_on(config, source, Sockets::default())).await
}

/// Starts everything. Runs on the control runtime; the data plane has threads of its own.
///
/// With a data port that was handed down and a store that another process holds, it proxies at once, with
/// the stored weights, and decides nothing until that process has ended.
///
/// # Errors
/// If a port, the store or a rollout's state cannot be had; nothing keeps running then.
pub async fn start_on(config: Config, source: Source, given: Sockets) -> Result<App, StartError> {
    let (is_given, admin_is_shared) = (given.proxy.is_some(), given.admin.is_some());
    let proxy_listener = listen("proxy.listen", config.proxy.listen, given.proxy)?;
    let admin_listener = listen("admin.listen", config.admin.listen, given.admin)?;
    let admin_addr = admin_listener.local_addr().map_err(other)?;
    let lock = match Lock::try_take(&config.store.path) {
        Tried::Taken(lock) => Some(lock),
        Tried::Held(_) if is_given => None,
        Tried::Held(holder) => {
            let path = config.store.path;
            return Err(StartError::StoreInUse { path, holder });
        }
        Tried::Failed(error) => Some(Lock::none(&config.store.path, &error)),
    };
    let (alerts, alerts_task) = alert::start(&config.alerts);
    let (recorder, samples) = recorder::channel();
    let (reloads, reloaded) = mpsc::channel(RELOAD_QUEUE);
    let parts = Parts {
        config_path: match &source {
            Source::File { path, .. } => Some(path.clone()),
            Source::BuiltIn => None,
        },
        store: config.store.clone(),
        samples,
        reloads: reloaded,
        alerts,
    };
    let stand_by = StandBy::begin(config).map_err(other)?;
    let (outset, planes) = set_out(lock, stand_by, parts).await?;
    let (drain_by, drain_receiver) = watch::channel(None);
    let (spans, span_queue) = export::channel();
    let fates = spans.fates();
    let data_plane = DataPlane::start(proxy_listener, &planes, &recorder, &spans, &drain_receiver)
        .map_err(other)?;
    // From here on only the workers hold sinks: driver and exporter end when the last of them is gone.
    drop((recorder, spans));
    let (ready, is_ready) = watch::channel(!matches!(outset, Outset::Unread(..)));
    let shown = Shown {
        listener: TcpListener::from_std(admin_listener).map_err(other)?,
        planes: planes.clone(),
        ready: is_ready,
        gauges: data_plane.gauges.clone(),
        spans: fates,
    };
    let control = match outset {
        Outset::Deciding(begun, lock) => Control::Running(run(*begun, lock, shown)),
        Outset::StandingBy(stand_by, parts) | Outset::Unread(stand_by, parts) => {
            let waiting = Waiting::new(stand_by, parts, ready.clone(), drain_receiver);
            Control::StandingBy(tokio::spawn(waiting.take_over(shown, admin_is_shared)))
        }
    };
    Ok(App {
        proxy_addr: data_plane.addr,
        admin_addr,
        drain_by,
        ready,
        exporter: tokio::spawn(export::run(span_queue, planes.clone())),
        planes,
        data_plane,
        control,
        alerts: tokio::spawn(alerts_task),
        watching: tokio::spawn(watch_config(source, reloads)),
    })
}

/// How a control plane sets out.
enum Outset {
    /// It holds the store.
    Deciding(Box<Begun>, Lock),
    /// Another process does; the stored weights are in force.
    StandingBy(StandBy, Parts),
    /// Another process does, and the store cannot be read: legacy answers everything.
    Unread(StandBy, Parts),
}

async fn set_out(
    lock: Option<Lock>,
    mut stand_by: StandBy,
    parts: Parts,
) -> Result<(Outset, watch::Receiver<Arc<Plane>>), StartError> {
    let planes = stand_by.planes();
    let outset = match lock {
        Some(lock) => {
            let store = open_store(&parts.store, &parts.alerts).await?;
            let memory = Memory::read(&stand_by, &store).await.map_err(other)?;
            Outset::Deciding(Box::new(begin(stand_by, parts, store, &memory)), lock)
        }
        None => {
            if stand_by::restore(&mut stand_by, &parts.store.path).await {
                Outset::StandingBy(stand_by, parts)
            } else {
                Outset::Unread(stand_by, parts)
            }
        }
    };
    Ok((outset, planes))
}

/// A driver with the way to it and its store.
type Begun = (Driver, mpsc::Sender<Request>, Store);

fn begin(stand_by: StandBy, parts: Parts, store: Store, memory: &Memory) -> Begun {
    let (requests, driver_requests) = mpsc::channel(DRIVER_QUEUE);
    let inputs = Inputs {
        samples: parts.samples,
        requests: driver_requests,
        reloads: parts.reloads,
    };
    let (path, alerts) = (parts.config_path, parts.alerts);
    let driver = Driver::take_over(stand_by, memory, path, store.clone(), inputs, alerts);
    (driver, requests, store)
}

fn run((driver, requests, store): Begun, lock: Lock, shown: Shown) -> Running {
    let admin = Admin {
        driver: requests.clone(),
        store: store.clone(),
        planes: shown.planes,
        ready: shown.ready,
        gauges: shown.gauges,
        spans: shown.spans,
    };
    Running {
        driver: tokio::spawn(driver.run()),
        admin: tokio::spawn(admin::serve(shown.listener, admin)),
        requests,
        store,
        lock,
    }
}

impl App {
    /// The live status, as the admin API gives it; `None` while another process decides, and once the
    /// driver has ended.
    pub async fn status(&self) -> Option<Status> {
        let Control::Running(running) = &self.control else {
            return None;
        };
        let (reply, answer) = oneshot::channel();
        running.requests.send(Request::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The store, for reading; `None` if another process held it at the start.
    #[must_use]
    pub const fn store(&self) -> Option<&Store> {
        match &self.control {
            Control::Running(running) => Some(&running.store),
            Control::StandingBy(_) => None,
        }
    }

    /// True while requests may be sent: state is restored, and the end has not begun.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// True if another process decides, or did so at the start.
    #[must_use]
    pub const fn stood_by(&self) -> bool {
        matches!(self.control, Control::StandingBy(_))
    }

    /// How long [`Self::shut_down`] may take.
    #[must_use]
    pub fn longest_end(&self) -> Duration {
        self.planes.borrow().config.proxy.drain + ENDED_AFTER
    }

    /// Drains and ends: no new connections, at most the drain time for what is in flight, all records
    /// written. Dropping the future ends without waiting.
    pub async fn shut_down(self) {
        let drain = self.planes.borrow().config.proxy.drain;
        self.drain_by.send_replace(Some(Instant::now() + drain));
        self.ready.send_replace(false);
        self.data_plane.finished().await;
        let running = match self.control {
            Control::Running(running) => Some(running),
            // The other process may be about to end: what was measured here is counted then.
            Control::StandingBy(task) => task.await.ok().flatten(),
        };
        self.watching.abort();
        let Some(running) = running else {
            return;
        };
        // All sinks are gone: the driver takes what is queued, saves its state and ends.
        if let Err(error) = running.driver.await {
            tracing::error!(%error, "the driver did not end well");
        }
        // The last spans are on their way; a collector that hangs holds nobody up.
        let exported = tokio::time::timeout(LAST_SPANS_WITHIN, self.exporter).await;
        if exported.is_err() {
            tracing::warn!("the last spans did not reach their collector before the end");
        }
        running.admin.abort();
        // The driver's end is gone: the last alerts get two seconds, while the store is closed.
        let (closed, told) = tokio::join!(running.store.close(), self.alerts);
        if let Err(error) = closed {
            tracing::error!(%error, "the store was not closed well");
        }
        if let Err(error) = told {
            tracing::error!(%error, "the alerts did not end well");
        }
        drop(running.lock);
    }
}

async fn open_store(config: &StoreConfig, alerts: &Alerts) -> Result<Store, StartError> {
    let opened = Store::open(config, UnixMillis::now())
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
