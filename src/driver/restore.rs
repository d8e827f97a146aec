//! What is stored of a rollout between two runs, and how a run begins from it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::config::{Config, RolloutConfig};
use crate::controller::policy::{Policy, Reset};
use crate::controller::state::State;

/// A rollout as it is stored: its state, and what that state was built under.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The canary's address; another one is another rollout.
    pub(super) canary: String,
    /// Model maps and timeouts of both arms; others void the evidence.
    pub(super) routes: String,
    /// The rules.
    pub(super) policy: Policy,
    /// The controller's state.
    pub(super) state: State,
    /// Sticky keys that turned out to be none. Forgotten, they would swing the traffic at each restart.
    #[serde(default)]
    pub(super) constant_keys: Vec<u64>,
}

impl Stored {
    /// A rollout that begins.
    pub(super) fn begin(
        config: &Config,
        rollout: &RolloutConfig,
        id: &str,
        now: UnixMillis,
    ) -> Self {
        Self {
            canary: config.arms.canary.base_url.to_string(),
            routes: routes_of(config),
            policy: rollout.policy.clone(),
            state: State::new(&rollout.policy, id.to_owned(), now),
            constant_keys: Vec::new(),
        }
    }

    /// The text that the store keeps.
    pub(super) fn to_json(&self) -> String {
        // Plain structs without foreign keys always serialise; an empty text would be refused on reading.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Stored::to_json`] wrote.
    ///
    /// # Errors
    /// If it is of another format.
    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let stored: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if stored.state.format == State::FORMAT {
            Ok(stored)
        } else {
            Err(format!(
                "format {} is not {}",
                stored.state.format,
                State::FORMAT
            ))
        }
    }

    /// What a configuration that changed while nothing ran means for the evidence.
    pub(super) fn reset_under(&self, config: &Config) -> Reset {
        if self.canary != config.arms.canary.base_url.to_string() {
            Reset::Rollout
        } else if self.routes == routes_of(config) {
            Reset::None
        } else {
            Reset::Ledgers
        }
    }
}

/// Model maps, timeouts and versions of HTTP, in a text that only has to be equal when they are.
pub(super) fn routes_of(config: &Config) -> String {
    let arms = &config.arms;
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        arms.legacy.models,
        arms.legacy.timeouts,
        arms.legacy.model_timeouts,
        arms.canary.models,
        arms.canary.timeouts,
        arms.canary.model_timeouts,
        arms.legacy.http,
        arms.canary.http
    )
}

/// The id of the first or the next rollout of a name: `default-1`, `default-2`.
pub(super) fn next_id(name: &str, taken: &[&str]) -> Arc<str> {
    let number =
        |id: &&str| -> Option<u64> { id.strip_prefix(name)?.strip_prefix('-')?.parse().ok() };
    let last = taken.iter().filter_map(number).max().unwrap_or(0);
    format!("{name}-{}", last + 1).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_never_repeat() {
        assert_eq!(&*next_id("default", &[]), "default-1");
        assert_eq!(
            &*next_id("default", &["default-1", "default-9", "other-12"]),
            "default-10"
        );
        assert_eq!(&*next_id("a-1", &["a-1", "a-1-3"]), "a-1-4");
    }
}
