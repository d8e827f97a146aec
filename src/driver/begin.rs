//! A run begins: rollouts are restored from the store, or begun.

use std::collections::VecDeque;
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
use crate::clock::UnixMillis;
use crate::config::{Config, RolloutConfig};
use crate::store::{RolloutKey, RolloutRow, Store, day_of};

impl Driver {
    /// Restores every rollout of `config` from the store, or begins it, and publishes the first plane.
    ///
    /// # Errors
    /// If the store cannot be read, or an arm cannot be reached as configured.
    pub async fn restore(
        config: Config,
        config_path: Option<PathBuf>,
        store: Store,
        inputs: Inputs,
        alerts: Alerts,
    ) -> Result<Self, String> {
        let stand_by = StandBy::begin(config)?;
        Self::take_over(stand_by, config_path, store, inputs, alerts).await
    }

    /// The same for a data plane that is under way: it goes on with the driver's planes.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn take_over(
        stand_by: StandBy,
        config_path: Option<PathBuf>,
        store: Store,
        inputs: Inputs,
        alerts: Alerts,
    ) -> Result<Self, String> {
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
        let rows = driver
            .store
            .load_rollouts()
            .await
            .map_err(|error| error.to_string())?;
        // Yesterday's last answers may still be under way.
        let costs = driver
            .store
            .costs_since(day_of(now) - 1)
            .await
            .map_err(|error| error.to_string())?;
        let told = driver
            .store
            .told_since(day_of(now) - 1)
            .await
            .map_err(|error| error.to_string())?;
        driver.money = Money::restore(&config, &costs, &told, now);
        driver.tell_money();
        for rollout in &config.rollouts {
            driver.begin_or_restore(rollout, &rows, now).await?;
        }
        driver.restore_learned(now).await?;
        driver.metrics.loaded += 1;
        driver.publish_plane();
        tell_begun(&driver.alerts);
        driver.tell_gone(&rows, now);
        Ok(driver)
    }

    /// Brings back what lives on the canary, those that end last first.
    async fn restore_learned(&self, now: UnixMillis) -> Result<(), String> {
        let learned = &self.shared.learned;
        self.store.keep_learned_of(learned.canary());
        let stored = self.store.learned(learned.canary(), now).await;
        for (hash, expires_at) in stored.map_err(|error| error.to_string())? {
            learned.remember(hash, expires_at, now);
        }
        Ok(())
    }

    async fn begin_or_restore(
        &mut self,
        rollout: &RolloutConfig,
        rows: &[RolloutRow],
        now: UnixMillis,
    ) -> Result<(), String> {
        let config = Arc::clone(&self.config);
        // The latest of a name comes first.
        let row = rows.iter().find(|row| row.name == rollout.name);
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
            let taken: Vec<_> = rows.iter().map(|row| row.rollout_id.as_str()).collect();
            self.begin(rollout, &taken, now);
            return Ok(());
        };
        let totals = self
            .store
            .totals(&row.rollout_id)
            .await
            .map_err(|e| e.to_string())?;
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
            Live::new(totals),
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
        Ok(())
    }
}
