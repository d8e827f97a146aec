//! A run begins: rollouts are restored from the store, or begun.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::live::Live;
use super::metrics::Metrics;
use super::money::Money;
use super::restore::Stored;
use super::rollout::Rollout;
use super::stand_by::StandBy;
use super::tell::tell_begun;
use super::{Driver, Inputs};
use crate::alert::kind::AlertKind;
use crate::alert::{Alert, Alerts};
use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::config::RolloutConfig;
use crate::store::{
    BudgetTold, DayCost, RolloutKey, RolloutRow, Store, StoreError, Totals, day_of,
};

/// What is stored and a run goes on from. Read before anything of the run begins, so that a read that fails
/// can be tried again.
#[derive(Debug)]
pub struct Memory {
    rows: Vec<RolloutRow>,
    /// Of the rollouts of the configuration that are stored, by id.
    totals: BTreeMap<String, PerArm<Totals>>,
    costs: Vec<DayCost>,
    told: Vec<BudgetTold>,
    learned: Vec<(u64, UnixMillis)>,
}

impl Memory {
    /// Reads what a driver needs that takes over from `stand_by`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read(stand_by: &StandBy, store: &Store) -> Result<Self, StoreError> {
        let now = UnixMillis::now();
        let rows = store.load_rollouts().await?;
        let mut totals = BTreeMap::new();
        for rollout in &stand_by.config.rollouts {
            if let Some(row) = latest(&rows, &rollout.name) {
                let of_row = store.totals(&row.rollout_id).await?;
                totals.insert(row.rollout_id.clone(), of_row);
            }
        }
        Ok(Self {
            rows,
            totals,
            // Yesterday's last answers may still be under way.
            costs: store.costs_since(day_of(now) - 1).await?,
            told: store.told_since(day_of(now) - 1).await?,
            learned: store.learned(stand_by.canary(), now).await?,
        })
    }
}

/// The latest of a name comes first.
fn latest<'a>(rows: &'a [RolloutRow], name: &str) -> Option<&'a RolloutRow> {
    rows.iter().find(|row| row.name == name)
}

impl Driver {
    /// Goes on with a data plane that is under way and with its planes: every rollout of its configuration is
    /// restored, or begun.
    #[must_use]
    pub fn take_over(
        stand_by: StandBy,
        memory: &Memory,
        config_path: Option<PathBuf>,
        store: Store,
        inputs: Inputs,
        alerts: Alerts,
    ) -> Self {
        let now = UnixMillis::now();
        let config = Arc::clone(&stand_by.config);
        let mut driver = Self {
            config: Arc::clone(&config),
            config_path,
            config_loaded_at: now,
            config_error: None,
            config_epoch: stand_by.epoch + 1,
            targets: stand_by.targets,
            shared: stand_by.shared,
            money: Money::default(),
            rollouts: Vec::new(),
            epochs: stand_by.epochs,
            planes: stand_by.planes,
            // Who opened the store has told of what it set aside.
            set_aside: store.health().borrow().set_aside.clone(),
            health: store.health(),
            store,
            store_was_healthy: true,
            files_replaced: 0,
            inputs,
            commits: JoinSet::new(),
            waiting: VecDeque::new(),
            alerts,
            started_at: Instant::now(),
            metrics: Metrics::begin(now),
        };
        driver.money = Money::restore(&config, &memory.costs, &memory.told, now);
        driver.tell_money();
        for rollout in &config.rollouts {
            driver.begin_or_restore(rollout, memory, now);
        }
        driver.restore_learned(&memory.learned, now);
        driver.metrics.loaded += 1;
        driver.publish_plane();
        tell_begun(&driver.alerts);
        driver.tell_gone(&memory.rows, now);
        driver
    }

    /// Brings back what lives on the canary, those that end last first.
    fn restore_learned(&self, stored: &[(u64, UnixMillis)], now: UnixMillis) {
        let learned = &self.shared.learned;
        self.store.keep_learned_of(learned.canary());
        for (hash, expires_at) in stored {
            learned.remember(*hash, *expires_at, now);
        }
    }

    fn begin_or_restore(&mut self, rollout: &RolloutConfig, memory: &Memory, now: UnixMillis) {
        let config = Arc::clone(&self.config);
        let row = latest(&memory.rows, &rollout.name);
        let found = row.and_then(|row| match Stored::from_json(&row.state) {
            Ok(stored) => Some((row, stored)),
            Err(error) => {
                let kind = AlertKind::StateUnreadable;
                tracing::error!(
                    alert = kind.as_str(),
                    rollout = rollout.name,
                    error,
                    "the stored state cannot be read; the rollout begins anew at 0%"
                );
                let text = format!("the rollout begins anew at 0% · {error}");
                self.alerts
                    .hand(Alert::new(kind, text).of_rollout(&rollout.name));
                None
            }
        });
        let Some((row, stored)) = found else {
            let rows = memory.rows.iter();
            let taken: Vec<_> = rows.map(|row| row.rollout_id.as_str()).collect();
            self.begin(rollout, &taken, now);
            return;
        };
        let totals = memory.totals.get(&row.rollout_id).cloned();
        let key = RolloutKey {
            id: row.rollout_id.as_str().into(),
            name: rollout.name.as_str().into(),
        };
        let reset = stored.reset_under(&config);
        let state = stored.state.snapshot();
        let restored = Rollout::new(
            key,
            stored,
            row.version,
            Live::new(totals.unwrap_or_default()),
            self.config_epoch,
            now,
        );
        tracing::info!(
            rollout = rollout.name,
            weight = %state.weight,
            stage = state.stage + 1,
            "rollout restored"
        );
        self.rollouts.push(restored);
        self.change(self.rollouts.len() - 1, rollout, reset, now);
    }
}
