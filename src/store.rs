//! What outlives a restart: decisions, the rollouts' states, counts, and rows of single attempts.
//!
//! One SQLite file in WAL mode. One task ([`writer`]) owns the only connection that writes; reads go
//! through a small pool of their own and never hold it up. Everything that is written passes a bounded
//! queue ([`inbox`]), so no caller ever waits for the disk, save [`Store::commit`], whose purpose it is.
//!
//! **Trouble.** While the disk is full, the file locked, read-only, vanished or corrupt, the writer
//! keeps what is queued, says so once in [`Store::health`], and tries again with a growing pause.
//! Attempts and cells beyond the queue's bounds are dropped and counted; decisions handed to
//! [`Store::submit`] stay until they are stored. Recovery needs no restart: a vanished file is made
//! anew with the states last known, a corrupt one is set aside (never deleted) and replaced.
//!
//! **Versions.** A rollout's version counts its decisions. [`Store::commit`] and [`Store::submit`]
//! store a state only on top of the version that it was built on and raise it by one;
//! [`Store::save_state`] keeps the version, and a save that a decision has overtaken is discarded.
//!
//! No SQL exists outside this folder, and nothing in here decides anything. Bodies, credentials and raw
//! sticky keys never reach it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::config::StoreConfig;
use crate::controller::evidence::Cell;
use crate::sample::Sample;

mod aggregate;
mod batch;
mod cost;
mod doubt;
mod error;
mod health;
mod history;
mod inbox;
mod intervals;
mod learned;
mod read;
mod requests;
mod retention;
mod series;
mod sqlite;
#[cfg(test)]
mod tests;
mod told;
mod write;
mod writer;

pub use aggregate::{Measured, Times, Totals};
pub use cost::{Bill, DayCost, Spent, date_of, day_of};
pub use error::StoreError;
pub use health::Health;
pub use history::{History, Moment, ProbeRow};
pub use requests::{RequestFilter, RequestPage, StoredRequest};
pub use series::{SeriesPoint, finest_step_ms};
pub use told::BudgetTold;

use inbox::{Limits, Shared};

/// A rollout as rows name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RolloutKey {
    /// Its id: another canary is another rollout under the same name.
    pub id: Arc<str>,
    /// Its name in the configuration.
    pub name: Arc<str>,
}

/// One finished attempt to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// The rollout that covered it; `None` for pinned requests outside every rollout, which get a row
    /// but enter no count.
    pub rollout: Option<RolloutKey>,
    /// The attempt.
    pub sample: Sample,
    /// What it cost in US dollars, where its model has a price and the answer stated all its tokens.
    pub cost_usd: Option<f64>,
    /// Where it stands in the account of costs; `None` if it cost nothing.
    pub bill: Option<Bill>,
}

impl AttemptRow {
    /// The cost if it is a number: SQLite has no other.
    fn price(&self) -> Option<f64> {
        self.cost_usd.filter(|cost| cost.is_finite())
    }
}

/// One closed cell of evidence to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct CellRow {
    /// The rollout.
    pub rollout_id: Arc<str>,
    /// The block of evidence that the cell belongs to.
    pub block: i64,
    /// The counts.
    pub cell: Cell,
}

/// The state of a rollout as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRow {
    /// Its id.
    pub rollout_id: String,
    /// Its name in the configuration.
    pub name: String,
    /// The version in the store on which this state was built: 0 for a rollout that was never
    /// committed, else what [`Store::load_rollouts`] or the last [`Committed`] said.
    pub version: i64,
    /// The controller's state, JSON.
    pub state: String,
    /// When it was taken.
    pub updated_at: UnixMillis,
}

/// A decision to be stored with the state that follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRow {
    /// The rollout's name.
    pub rollout: String,
    /// The rollout's id.
    pub rollout_id: String,
    /// When it was taken.
    pub at: UnixMillis,
    /// `promote`, `hold`, `trip`, `roll-back` ...
    pub kind: String,
    /// The effective weight before.
    pub weight_from: Weight,
    /// The effective weight after.
    pub weight_to: Weight,
    /// The stage in which it was decided, from 0.
    pub stage: i64,
    /// `controller`, `operator` or `config`.
    pub by: String,
    /// One sentence for people.
    pub reason: String,
    /// The numbers it rests on.
    pub evidence: serde_json::Value,
}

/// A decision that is stored. Serialized with the fields of the admin API.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredDecision {
    /// Its number, rising in time.
    pub id: i64,
    /// When it was taken; RFC 3339 in the API.
    #[serde(serialize_with = "as_time")]
    pub at: UnixMillis,
    /// The rollout's name.
    pub rollout: String,
    /// The rollout's id.
    pub rollout_id: String,
    /// `promote`, `hold`, `trip`, `roll-back` ...
    pub kind: String,
    /// The effective weight before; a fraction in the API.
    #[serde(serialize_with = "as_fraction")]
    pub weight_from: Weight,
    /// The effective weight after; a fraction in the API.
    #[serde(serialize_with = "as_fraction")]
    pub weight_to: Weight,
    /// The stage in which it was decided, from 0; from 1 in the API, as everywhere that people look.
    #[serde(serialize_with = "from_one")]
    pub stage: i64,
    /// `controller`, `operator` or `config`.
    pub by: String,
    /// One sentence for people.
    pub reason: String,
    /// The numbers it rests on.
    pub evidence: serde_json::Value,
}

fn as_time<S: Serializer>(at: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

fn as_fraction<S: Serializer>(weight: &Weight, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(weight.fraction())
}

fn from_one<S: Serializer>(stage: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(stage.saturating_add(1))
}

/// The receipt for a commit: both rows are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The rollout's version from now on.
    pub version: i64,
    /// The number of the decision, if there was one.
    pub decision_id: Option<i64>,
}

/// Where the result of [`Store::submit`] arrives.
pub type Receipt = oneshot::Receiver<Result<Committed, StoreError>>;

/// What [`Store::open`] found and made.
#[derive(Debug)]
pub struct Opened {
    /// The store, ready.
    pub store: Store,
    /// True if the file was made by this call.
    pub created: bool,
    /// Where a corrupt file was set aside, if the path held one.
    pub set_aside: Option<PathBuf>,
}

/// The handle to the store. Clones share one writer; when the last one goes, the writer stores what is
/// queued and ends. Use inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct Store(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.begin_to_close();
    }
}

impl Store {
    /// Opens the file or makes it, brings its schema up to date and starts the writer. A corrupt file is
    /// renamed to `<file>.corrupt-<time>` and a new one made.
    ///
    /// # Errors
    /// When the folder does not exist, the schema is newer than this binary's, or SQLite cannot open
    /// the file.
    pub async fn open(config: &StoreConfig, now: UnixMillis) -> Result<Opened, StoreError> {
        Self::open_with(config, now, Limits::default()).await
    }

    async fn open_with(
        config: &StoreConfig,
        now: UnixMillis,
        limits: Limits,
    ) -> Result<Opened, StoreError> {
        let folder = health::folder_of(&config.path);
        if !folder.is_dir() {
            let folder = folder.to_owned();
            return Err(StoreError::NoFolder { folder });
        }
        let created = !config.path.exists();
        let (connection, known, set_aside) =
            sqlite::open_or_set_aside(config, &limits, now).await?;
        let readers = sqlite::readers(&config.path, &limits);
        let health = Health::new(now, set_aside.clone());
        let shared = Arc::new(Shared::new(config.clone(), limits, health, readers));
        let writer = writer::Writer::new(Arc::clone(&shared), connection, known);
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        Ok(Opened {
            store: Self(Arc::new(Owner { shared, writer })),
            created,
            set_aside,
        })
    }

    /// Records attempts. Never waits: what the queue cannot take is dropped and counted.
    pub fn record_attempts(&self, rows: Vec<AttemptRow>) {
        self.0.shared.queue_attempts(rows);
    }

    /// Records closed cells of evidence. Never waits: what the queue cannot take is dropped and counted.
    pub fn record_cells(&self, rows: Vec<CellRow>) {
        self.0.shared.queue_cells(rows);
    }

    /// Stores the state of a rollout some time soon. Only the latest one of each rollout is kept in the
    /// queue. The version stays what it is; if it is not the one in the store by then, the save is
    /// discarded, because a decision with a newer state has overtaken it. Never waits.
    pub fn save_state(&self, row: RolloutRow) {
        self.0.shared.queue_state(row);
    }

    /// Stores a state and the decision behind it in one transaction and waits until both are safe from
    /// a loss of power. Tried once: with the store in trouble it fails within seconds, and nothing is
    /// stored later behind the caller's back. For what must not happen unrecorded.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the store holds another version, [`StoreError::Unavailable`] when
    /// it does not work, [`StoreError::Refused`] when the rows break a rule.
    pub async fn commit(
        &self,
        row: RolloutRow,
        decision: Option<DecisionRow>,
    ) -> Result<Committed, StoreError> {
        let receipt = self.0.shared.queue_commit(row, decision, false);
        receipt.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same, but kept and tried again until it is stored: for what has already happened. Commits
    /// are stored in the order in which they were handed in, so the next one may build on
    /// `row.version + 1` at once. Never waits; the receipt may be thrown away.
    pub fn submit(&self, row: RolloutRow, decision: Option<DecisionRow>) -> Receipt {
        self.0.shared.queue_commit(row, decision, true)
    }

    /// All stored rollouts, by name, the latest first among those of one name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn load_rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        self.read(async |pool| read::rollouts(&pool).await).await
    }

    /// Stored decisions, newest first, at most `limit`; of one rollout name, or of all; with ids below
    /// `before`, for paging.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn decisions(
        &self,
        rollout: Option<&str>,
        limit: u32,
        before: Option<i64>,
    ) -> Result<Vec<StoredDecision>, StoreError> {
        let rollout = rollout.map(str::to_owned);
        self.read(async move |pool| read::decisions(&pool, rollout, limit, before).await)
            .await
    }

    /// Stored decisions of all rollouts with ids above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn decisions_after(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredDecision>, StoreError> {
        self.read(async move |pool| read::decisions_after(&pool, after, limit).await)
            .await
    }

    /// Cumulative counts of one rollout's live traffic, as far as they are stored.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn totals(&self, rollout_id: &str) -> Result<PerArm<Totals>, StoreError> {
        let rollout_id = rollout_id.to_owned();
        self.read(async move |pool| read::totals(&pool, rollout_id).await)
            .await
    }

    /// Whether records are being kept.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.shared.health.subscribe()
    }

    /// Stores everything that is queued, for five seconds at most, and closes the file. Later calls on
    /// clones drop their rows or fail with [`StoreError::Closed`].
    ///
    /// # Errors
    /// Says what could not be stored.
    pub async fn close(self) -> Result<(), StoreError> {
        self.0.shared.begin_to_close();
        let writer = {
            let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.take().ok_or(StoreError::Closed)?
        };
        // Its last transaction and the closing of the file come on top of what storing may take.
        let within = self.0.shared.limits.close_within + Duration::from_secs(5);
        // The writer itself is never cancelled: only this wait for it ends.
        match tokio::time::timeout(within, writer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable {
                reason: "the store did not close in time".to_owned(),
            }),
        }
    }

    /// Runs a read on a task of its own: a caller that goes away must not cut a query short.
    async fn read<T, F, R>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(sqlx::SqlitePool) -> R,
        R: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let pool = self.0.shared.readers();
        match tokio::spawn(query(pool)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(self.0.shared.doubt.read_failed(&error)),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

/// The states that the store is known to hold, by rollout id.
type Known = BTreeMap<String, RolloutRow>;
