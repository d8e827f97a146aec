//! A process whose data port was handed down begins before the one before it has ended: it proxies with the
//! stored weights, keeps what is measured, and decides nothing until it holds the store's lock.
//!
//! It waits for as long as it takes, and says so. An edit of the configuration waits with it. Nothing in here may stop the data plane: a store that
//! cannot be had in the end is tried again and again.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Parts, Running, Shown, begin, open_store, run};
use crate::admin;
use crate::clock::UnixMillis;
use crate::config::reload::Reloaded;
use crate::driver::StandBy;
use crate::driver::begin::Memory;
use crate::proxy::listener::DrainBy;
use crate::service;
use crate::store::lock::{self, Lock};
use crate::store::{Store, glance};

/// How often the stored weights are read: a trip of the other process reaches this one within that time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the log says what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// A store that cannot be opened is tried again so often.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// After its own drain time this process waits so long for the lock before it gives its samples up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// Puts in force what is stored; false if the store cannot be read.
pub(super) async fn restore(stand_by: &mut StandBy, path: &Path) -> bool {
    let is_read = look(stand_by, path).await;
    if stand_by.learned_until().is_none() {
        // Requests that name state of the canary go to legacy, which refuses them, until they are known.
        tracing::warn!("it is not known yet what lives on the canary");
    }
    is_read
}

async fn look(stand_by: &mut StandBy, path: &Path) -> bool {
    match glance::rollouts(path).await {
        Ok(rows) => stand_by.follow(&rows),
        Err(error) => {
            tracing::debug!(%error, "the store cannot be read; the weights stay as they are");
            return false;
        }
    }
    let now = UnixMillis::now();
    let learned = match stand_by.learned_until() {
        None => glance::learned(path, stand_by.canary(), now).await,
        // What the other process has learned since.
        Some(end) => glance::learned_until_after(path, stand_by.canary(), end).await,
    };
    match learned {
        Ok(ids) => stand_by.remember(ids, now),
        Err(error) => tracing::debug!(%error, "what lives on the canary cannot be read"),
    }
    true
}

/// A control plane that may not begin yet.
pub(super) struct Waiting {
    stand_by: StandBy,
    parts: Parts,
    ready: watch::Sender<bool>,
    drain_by: DrainBy,
    began: Instant,
    told_at: Option<Instant>,
    /// What the admin port says.
    notice: watch::Sender<String>,
    has_lock: watch::Sender<bool>,
    /// The latest configuration that came meanwhile.
    reloaded: Option<Reloaded>,
}

impl Waiting {
    pub(super) fn new(
        stand_by: StandBy,
        parts: Parts,
        ready: watch::Sender<bool>,
        drain_by: DrainBy,
    ) -> Self {
        Self {
            stand_by,
            parts,
            ready,
            drain_by,
            began: Instant::now(),
            told_at: None,
            notice: watch::Sender::new(String::new()),
            has_lock: watch::Sender::new(false),
            reloaded: None,
        }
    }

    /// Waits for the lock and begins; `None` if this process ends first. The admin port is answered
    /// meanwhile; one that both processes listen on is the other's for as long as that holds the lock.
    pub(super) async fn take_over(
        mut self,
        shown: Shown,
        admin_is_shared: bool,
    ) -> Option<Running> {
        let mut drain_by = self.drain_by.clone();
        let (notice, mut has_lock) = (self.notice.subscribe(), self.has_lock.subscribe());
        let answering = async {
            // The sender is this waiting's own: it cannot be gone.
            drop(has_lock.wait_for(|has| *has || !admin_is_shared).await);
            admin::stand_by::serve(&shown.listener, &notice, &shown.ready).await;
        };
        let had = tokio::select! {
            had = self.had_store() => Some(had),
            () = given_up(&mut drain_by) => None,
            () = answering => None,
        };
        let held = self.parts.samples.held();
        let Some((lock, store, memory)) = had else {
            tracing::error!(
                held,
                "this process ends before it could have the store; what it measured is lost"
            );
            return None;
        };
        let stood_by_s = self.began.elapsed().as_secs();
        let mut begun = begin(self.stand_by, self.parts, store, &memory);
        set_ready(&self.ready, &drain_by);
        tracing::info!(
            stood_by_s,
            held,
            "the store is free: this process decides now"
        );
        if let Some(reloaded) = self.reloaded {
            begun.0.reload(reloaded);
        }
        service::tell("STATUS=serving");
        Some(run(begun, lock, shown))
    }

    /// The lock first, then the store and what it holds.
    async fn had_store(&mut self) -> (Lock, Store, Memory) {
        let lock = self.had_lock().await;
        self.has_lock.send_replace(true);
        loop {
            let error = match self.read_store().await {
                Ok((store, memory)) => return (lock, store, memory),
                Err(error) => error,
            };
            if self.is_time_to_tell() {
                tracing::error!(
                    error,
                    weights = self.stand_by.weights(),
                    "the store cannot be had: traffic goes on with these weights, nothing is decided"
                );
            }
            self.notice
                .send_replace(format!("this process proxies and decides nothing: {error}"));
            let pause = tokio::time::sleep(OPEN_EVERY);
            meanwhile(&mut self.parts, &mut self.reloaded, pause).await;
        }
    }

    async fn read_store(&mut self) -> Result<(Store, Memory), String> {
        let (config, alerts) = (self.parts.store.clone(), self.parts.alerts.clone());
        let stand_by = &self.stand_by;
        let had = async {
            let store = open_store(&config, &alerts)
                .await
                .map_err(|error| error.to_string())?;
            match Memory::read(stand_by, &store).await {
                Ok(memory) => Ok((store, memory)),
                Err(error) => {
                    if let Err(error) = store.close().await {
                        tracing::debug!(%error, "the store was not closed well");
                    }
                    Err(error.to_string())
                }
            }
        };
        meanwhile(&mut self.parts, &mut self.reloaded, had).await
    }

    async fn had_lock(&mut self) -> Lock {
        let path = self.parts.store.path.clone();
        let mut waiting = Lock::wait(&path);
        loop {
            self.tell_of(lock::holder(&path));
            let next = tokio::time::timeout(LOOK_EVERY, &mut waiting);
            match meanwhile(&mut self.parts, &mut self.reloaded, next).await {
                Ok(Ok(lock)) => {
                    self.told_at = None;
                    return lock;
                }
                Ok(Err(_)) => {
                    let pause = tokio::time::sleep(LOOK_EVERY);
                    meanwhile(&mut self.parts, &mut self.reloaded, pause).await;
                    waiting = Lock::wait(&path);
                }
                Err(_) => {}
            }
            let look = look(&mut self.stand_by, &path);
            if meanwhile(&mut self.parts, &mut self.reloaded, look).await {
                set_ready(&self.ready, &self.drain_by);
            }
        }
    }

    fn tell_of(&mut self, holder: Option<u32>) {
        let stood_by_s = self.began.elapsed().as_secs();
        let weights = self.stand_by.weights();
        let whose = holder.map_or_else(String::new, |holder| format!(" (process {holder})"));
        let notice = format!(
            "standing by for {stood_by_s} s: another cutover{whose} holds the store; this one proxies \
             with the stored weights ({weights}) and decides when that one has ended"
        );
        if self.is_time_to_tell() {
            tracing::warn!(
                stood_by_s,
                holder,
                weights,
                held = self.parts.samples.held(),
                "another cutover holds the store: proxying with the stored weights until it ends"
            );
            service::tell(&format!("STATUS={notice}"));
        }
        self.notice.send_replace(notice);
    }

    fn is_time_to_tell(&mut self) -> bool {
        let is_time = self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_time {
            self.told_at = Some(Instant::now());
        }
        is_time
    }
}

/// Goes on with `work`; keeps what is measured and the latest configuration meanwhile.
async fn meanwhile<T>(
    parts: &mut Parts,
    latest: &mut Option<Reloaded>,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            // It never ends.
            () = parts.samples.hold() => {}
            Some(reloaded) = parts.reloads.recv() => {
                tracing::warn!("the configuration was edited: that takes effect when this process decides");
                *latest = Some(reloaded);
            }
        }
    }
}

/// State is restored, unless the end has begun.
fn set_ready(ready: &watch::Sender<bool>, drain_by: &DrainBy) {
    ready.send_replace(true);
    // The end may have begun just now; it comes last.
    if drain_by.borrow().is_some() {
        ready.send_replace(false);
    }
}

/// Resolves some time after this process had to end.
async fn given_up(drain_by: &mut DrainBy) {
    let by = match drain_by.wait_for(Option::is_some).await {
        Ok(by) => *by,
        Err(_) => None,
    };
    tokio::time::sleep_until(by.unwrap_or_else(Instant::now) + GIVE_UP_AFTER).await;
}
