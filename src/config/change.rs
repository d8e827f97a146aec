//! What differs between two configurations, and what each difference costs in evidence.
//!
//! Pure. Decides nothing by itself: the driver applies a [`Reset`], the log prints the lines. Never
//! prints a secret, only that it changed.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use super::{ArmConfig, Config, Credential, RolloutConfig};
use crate::arm::Arm;
use crate::controller::policy::Reset;

mod facts;

/// All that differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Every rollout of either configuration, those of the new one first, in its order.
    pub rollouts: Vec<RolloutChange>,
    /// Keys that differ and keep their running value until the next start, as `proxy.listen`.
    pub restart_needed: Vec<String>,
    /// Each difference for people: `rollout.default.guards.error-rate.max: 5% -> 3%`.
    pub lines: Vec<String>,
}

impl Changes {
    /// True if the two configurations say the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// What becomes of one rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutChange {
    /// Its name.
    pub name: String,
    /// Whether it comes, goes or stays.
    pub fate: Fate,
    /// True if its rules for the controller differ. False for one that comes or goes.
    pub policy_changed: bool,
    /// What it loses. [`Reset::None`] for one that comes or goes.
    pub reset: Reset,
}

/// Whether a rollout comes, goes or stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Only the new configuration has it.
    Added,
    /// Only the old configuration has it.
    Removed,
    /// Both have it.
    Kept,
}

/// Compares the running configuration with the next one.
#[must_use]
pub fn compare(old: &Config, new: &Config) -> Changes {
    Changes {
        rollouts: rollouts(old, new),
        restart_needed: restart_needed(old, new),
        lines: facts::differences(old, new),
    }
}

/// `new` with the running values of all keys that need a restart.
#[must_use]
pub fn keep_running_values(old: &Config, mut new: Config) -> Config {
    new.proxy.listen = old.proxy.listen;
    new.proxy.workers = old.proxy.workers;
    new.proxy.max_connections = old.proxy.max_connections;
    new.proxy.keep_alive = old.proxy.keep_alive;
    new.admin.listen = old.admin.listen;
    new.store.path.clone_from(&old.store.path);
    new
}

/// Asks of a configuration with running values what was asked of the file: its ports stay open where they
/// are, while clients and token change at once.
///
/// # Errors
/// In one sentence with its remedy: a port that others reach would ask nobody for anything.
pub fn check_kept_ports(kept: &Config) -> Result<(), String> {
    let (proxy, admin) = (&kept.proxy, &kept.admin);
    let lends_key = |arm: &Arm| matches!(kept.arms.get(*arm).credential, Credential::Key(_));
    let is_open =
        !proxy.listen.ip().is_loopback() && proxy.clients.is_empty() && !proxy.danger_open_relay;
    if let Some(arm) = Arm::BOTH.into_iter().find(lends_key).filter(|_| is_open) {
        return Err(format!(
            "proxy.listen stays {} until a restart, and there it would be an open relay: everybody who can \
             reach it would use the key of arms.{arm}; restart cutover, or keep the clients until then",
            proxy.listen
        ));
    }
    if !admin.listen.ip().is_loopback() && admin.token.is_none() {
        return Err(format!(
            "admin.listen stays {} until a restart, and there it would ask for no token; restart cutover, or \
             keep the token until then",
            admin.listen
        ));
    }
    Ok(())
}

fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let keys = [
        ("proxy.listen", old.proxy.listen != new.proxy.listen),
        ("proxy.workers", old.proxy.workers != new.proxy.workers),
        (
            "proxy.max-connections",
            old.proxy.max_connections != new.proxy.max_connections,
        ),
        (
            "proxy.keep-alive",
            old.proxy.keep_alive != new.proxy.keep_alive,
        ),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("store.url", old.store.path != new.store.path),
    ];
    let changed = keys.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(key, _)| key.to_owned()).collect()
}

fn rollouts(old: &Config, new: &Config) -> Vec<RolloutChange> {
    let of_arms = reset_by_arms(old, new);
    let find = |config: &'_ Config, name: &str| -> Option<RolloutConfig> {
        let mut rollouts = config.rollouts.iter();
        rollouts.find(|rollout| rollout.name == name).cloned()
    };
    let names = new.rollouts.iter().chain(&old.rollouts).map(|r| &r.name);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut changes = Vec::new();
    for name in names.filter(|name| seen.insert(name.as_str())) {
        let (before, after) = (find(old, name), find(new, name));
        let (fate, policy_changed, reset) = match (before, after) {
            (Some(before), Some(after)) => (
                Fate::Kept,
                before.policy != after.policy,
                of_arms.max(reset_by_rollout(&before, &after)),
            ),
            (None, _) => (Fate::Added, false, Reset::None),
            (Some(_), None) => (Fate::Removed, false, Reset::None),
        };
        changes.push(RolloutChange {
            name: name.clone(),
            fate,
            policy_changed,
            reset,
        });
    }
    changes
}

/// What every rollout loses because its arms are no longer the ones that were measured.
fn reset_by_arms(old: &Config, new: &Config) -> Reset {
    if !old
        .arms
        .canary
        .base_url
        .leads_where(&new.arms.canary.base_url)
    {
        return Reset::Rollout;
    }
    let same = |old: &ArmConfig, new: &ArmConfig| {
        old.base_url.leads_where(&new.base_url)
            && old.credential == new.credential
            && old.models == new.models
            && old.timeouts == new.timeouts
            && old.model_timeouts == new.model_timeouts
            && old.http == new.http
    };
    if Arm::BOTH
        .into_iter()
        .all(|arm| same(old.arms.get(arm), new.arms.get(arm)))
    {
        Reset::None
    } else {
        Reset::Ledgers
    }
}

/// What one rollout loses because it is measured by other limits, or on other traffic.
fn reset_by_rollout(old: &RolloutConfig, new: &RolloutConfig) -> Reset {
    let same = old.policy.guards == new.policy.guards
        && old.match_models == new.match_models
        && old.match_paths == new.match_paths;
    if same { Reset::None } else { Reset::Ledgers }
}

#[cfg(test)]
mod tests;
