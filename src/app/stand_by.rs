//! A process whose data port was handed down begins before the one before it has ended: it proxies with the
//! stored weights, keeps what is measured, and decides nothing until it holds the store's lock.
//!
//! It waits for as long as it takes, and says so. Nothing in here may stop the data plane: a store that
//! cannot be had in the end is tried again and again.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Parts, Running, Shown, begin, open_store, run};
use crate::admin;
use crate::clock::UnixMillis;
use crate::driver::StandBy;
use crate::proxy::listener::DrainBy;
use crate::service;
use crate::store::lock::{Lock, Tried};
use crate::store::{Store, glance};

/// How often the lock is tried.
const TRY_EVERY: Duration = Duration::from_millis(100);
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
    let now = UnixMillis::now();
    match glance::learned(path, stand_by.canary(), now).await {
        Ok(ids) => stand_by.remember(ids, now),
        // Requests that name state of the canary go to legacy, which refuses them, until they are known.
        Err(error) => tracing::warn!(%error, "it is not known yet what lives on the canary"),
    }
    look(stand_by, path).await
}

async fn look(stand_by: &mut StandBy, path: &Path) -> bool {
    match glance::rollouts(path).await {
        Ok(rows) => {
            stand_by.follow(&rows);
            true
        }
        Err(error) => {
            tracing::debug!(%error, "the store cannot be read; the weights stay as they are");
            false
        }
    }
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
        }
    }

    /// Waits for the lock and begins; `None` if this process ends first. The admin port is answered
    /// meanwhile, but not before `admin_after`.
    pub(super) async fn take_over(
        mut self,
        shown: Shown,
        admin_after: Duration,
    ) -> Option<Running> {
        let mut drain_by = self.drain_by.clone();
        let notice = self.notice.subscribe();
        let answering = async {
            tokio::time::sleep(admin_after).await;
            admin::stand_by::serve(&shown.listener, &notice, &shown.ready).await;
        };
        let had = tokio::select! {
            had = self.had_store() => Some(had),
            () = given_up(&mut drain_by) => None,
            () = answering => None,
        };
        let held = self.parts.samples.held();
        let Some((lock, store)) = had else {
            tracing::error!(
                held,
                "this process ends before it could have the store; what it measured is lost"
            );
            return None;
        };
        let stood_by_s = self.began.elapsed().as_secs();
        match begin(self.stand_by, self.parts, store).await {
            Ok(begun) => {
                set_ready(&self.ready, &drain_by);
                tracing::info!(
                    stood_by_s,
                    held,
                    "the store is free: this process decides now"
                );
                service::tell("STATUS=serving");
                Some(run(begun, lock, shown))
            }
            Err(error) => {
                tracing::error!(error, "the driver cannot begin; restart cutover");
                service::tell("STATUS=proxying without a driver; see the log");
                given_up(&mut drain_by).await;
                None
            }
        }
    }

    /// The lock first, then the store.
    async fn had_store(&mut self) -> (Lock, Store) {
        let lock = self.had_lock().await;
        loop {
            let error = match open_store(&self.parts.store, &self.parts.alerts).await {
                Ok(store) => return (lock, store),
                Err(error) => error,
            };
            if self.is_time_to_tell() {
                tracing::error!(
                    %error,
                    weights = self.stand_by.weights(),
                    "the store cannot be opened: traffic goes on with these weights, nothing is decided"
                );
            }
            self.notice
                .send_replace(format!("this process proxies and decides nothing: {error}"));
            self.hold_for(OPEN_EVERY).await;
        }
    }

    async fn had_lock(&mut self) -> Lock {
        let path = self.parts.store.path.clone();
        let mut looked_at = Instant::now();
        loop {
            let holder = match Lock::try_take(&path) {
                Tried::Taken(lock) => {
                    self.told_at = None;
                    return lock;
                }
                Tried::Held(holder) => holder,
            };
            if looked_at.elapsed() >= LOOK_EVERY {
                if look(&mut self.stand_by, &path).await {
                    set_ready(&self.ready, &self.drain_by);
                }
                looked_at = Instant::now();
            }
            self.tell_of(holder);
            self.hold_for(TRY_EVERY).await;
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

    /// Waits, and keeps what is measured meanwhile.
    async fn hold_for(&mut self, pause: Duration) {
        drop(tokio::time::timeout(pause, self.parts.samples.hold()).await);
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
