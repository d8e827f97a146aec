//! A new configuration arrives: rollouts are begun, changed or stopped.

use std::sync::Arc;

use super::Driver;
use super::live::Live;
use super::restore::{Accounts, Stored, next_id};
use super::rollout::Rollout;
use crate::alert::Alert;
use crate::alert::kind::AlertKind;
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::config::change::{Changes, Fate, check_kept_ports, compare, keep_running_values};
use crate::config::parse::render_all;
use crate::config::reload::Reloaded;
use crate::config::{Config, RolloutConfig};
use crate::controller::adopt::{Reset, adopt, stop};
use crate::controller::policy;
use crate::store::RolloutKey;
use crate::upstream::target::Target;
use crate::upstream::via::ProxyEnv;

impl Driver {
    pub(super) fn begin(&mut self, rollout: &RolloutConfig, taken: &[&str], now: UnixMillis) {
        let id = next_id(&rollout.name, taken);
        let stored = Stored::begin(&self.config, rollout, &id, now);
        let key = RolloutKey {
            id,
            name: rollout.name.as_str().into(),
        };
        tracing::info!(
            rollout = rollout.name,
            id = &*key.id,
            warm_up_requests = rollout.policy.warm_up_requests,
            stages = rollout.policy.stages.len(),
            "rollout begins"
        );
        let live = Live::default();
        self.rollouts
            .push(Rollout::new(key, stored, 0, live, self.config_epoch, now));
    }

    /// Puts new rules in force for a rollout under way.
    pub(super) fn change(
        &mut self,
        place: usize,
        to: &RolloutConfig,
        reset: policy::Reset,
        now: UnixMillis,
    ) {
        let config = Arc::clone(&self.config);
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        let reset = match reset {
            policy::Reset::None => Reset::None,
            policy::Reset::Ledgers => Reset::Ledgers,
            policy::Reset::Rollout => {
                let id = next_id(&to.name, &[&rollout.key.id]);
                rollout.restart_as(Arc::clone(&id));
                Reset::Rollout { id: id.to_string() }
            }
        };
        let before = &rollout.stored;
        let step = adopt(
            &before.policy,
            &to.policy,
            before.state.clone(),
            &reset,
            now,
        );
        rollout.stored = Stored {
            canary: config.arms.canary.base_url.to_string(),
            routes: super::restore::routes_of(&config),
            accounts: Some(Accounts::of(&config, &step.state.rollout_id)),
            policy: to.policy.clone(),
            state: step.state,
            constant_keys: before.constant_keys.clone(),
            open: before.open.clone(),
            held_since: before.held_since,
        };
        rollout.is_dirty = true;
        rollout.publish(now);
        self.perform(place, step.effects, None);
    }

    /// A new configuration, or the faults of one that is not taken.
    pub(crate) fn reload(&mut self, reloaded: Reloaded) {
        let now = UnixMillis::now();
        let config = match reloaded {
            Reloaded::Config(config, warnings) => {
                for warning in warnings {
                    tracing::warn!(%warning, "configuration");
                }
                *config
            }
            Reloaded::Rejected(faults) => {
                let file = self
                    .config_path
                    .as_deref()
                    .map(|path| path.display().to_string());
                return self.reject(render_all(&faults, &file.unwrap_or_default()));
            }
            Reloaded::Unreadable(why) => return self.reject(why),
        };
        let targets = match targets_of(&config) {
            Ok(targets) => targets,
            Err(error) => return self.reject(error),
        };
        let changes = compare(&self.config, &config);
        let config = keep_running_values(&self.config, config);
        if let Err(error) = check_kept_ports(&config) {
            return self.reject(error);
        }
        for line in &changes.lines {
            tracing::info!(change = line, "configuration changed");
        }
        for key in &changes.restart_needed {
            tracing::warn!(key, "this change needs a restart; the running value stays");
        }
        self.shared.renew(&self.config, &config);
        self.store.keep_learned_of(self.shared.learned.canary());
        self.money.reconfigure(&self.config, &config, now);
        self.tell_money();
        self.alerts.configure(&config.alerts);
        self.config = Arc::new(config);
        self.targets = targets;
        self.config_loaded_at = now;
        if self.config_error.take().is_some() {
            let kind = AlertKind::ConfigAccepted;
            tracing::info!(alert = kind.as_str(), "the configuration is right again");
            let alert = Alert::new(kind, "the file is in force as it stands".to_owned());
            self.alerts
                .hand(alert.ends(vec![AlertKind::ConfigRejected]));
        }
        self.metrics.loaded += 1;
        self.config_epoch += 1;
        self.rearrange(&changes, now);
        self.publish_plane();
        tracing::info!(changes = changes.lines.len(), "configuration applied");
    }

    /// Brings the rollouts into the order of the new configuration; what it does not name any more stops.
    fn rearrange(&mut self, changes: &Changes, now: UnixMillis) {
        let config = Arc::clone(&self.config);
        for change in changes
            .rollouts
            .iter()
            .filter(|change| change.fate == Fate::Removed)
        {
            self.stop(&change.name, now);
        }
        for (place, to) in config.rollouts.iter().enumerate() {
            let change = changes
                .rollouts
                .iter()
                .find(|change| change.name == to.name);
            match self
                .rollouts
                .iter()
                .position(|known| *known.key.name == *to.name)
            {
                Some(old_place) => {
                    let rollout = self.rollouts.remove(old_place);
                    self.rollouts
                        .insert(place.min(self.rollouts.len()), rollout);
                    let reset = change.map_or(policy::Reset::None, |change| change.reset);
                    self.change(place, to, reset, now);
                }
                None => {
                    // Ids of earlier rollouts of this name are in the store; a time tells them apart.
                    let earlier = format!("{}-{}", to.name, now.0 / 1_000);
                    self.begin(to, &[&earlier], now);
                    let last = self.rollouts.len() - 1;
                    let begun = self.rollouts.remove(last);
                    self.rollouts.insert(place.min(last), begun);
                }
            }
        }
    }

    fn stop(&mut self, name: &str, now: UnixMillis) {
        let Some(place) = self
            .rollouts
            .iter()
            .position(|known| *known.key.name == *name)
        else {
            return;
        };
        if let Some(rollout) = self.rollouts.get_mut(place) {
            let before = &rollout.stored;
            let reason = "no longer in the configuration";
            let step = stop(&before.policy, before.state.clone(), reason, now);
            rollout.stored.state = step.state;
            rollout.publish(now);
            self.perform(place, step.effects, None);
        }
        drop(self.rollouts.remove(place));
    }

    fn reject(&mut self, message: String) {
        let kind = AlertKind::ConfigRejected;
        tracing::error!(
            alert = kind.as_str(),
            "the configuration was rejected, the one before stays in force\n{message}"
        );
        // Who mends a file may need some tries; receivers hear of the first and of the end.
        if self.config_error.is_none() {
            let text = format!("the one before stays in force\n{message}");
            self.alerts.hand(Alert::new(kind, text));
        }
        self.config_error = Some(message);
        self.metrics.rejected += 1;
    }
}

/// Prepares where both arms are.
pub(super) fn targets_of(config: &Config) -> Result<PerArm<Target>, String> {
    let proxies = ProxyEnv::read();
    let target = |arm: Arm| {
        let target = Target::new(config.arms.get(arm), &proxies)
            .map_err(|error| format!("arms.{arm}: {error}"))?;
        if let Some(proxy) = target.proxy() {
            tracing::info!(%arm, proxy, "this arm is reached through a proxy");
        }
        Ok::<_, String>(target)
    };
    Ok(PerArm {
        legacy: target(Arm::Legacy)?,
        canary: target(Arm::Canary)?,
    })
}
