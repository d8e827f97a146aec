//! What is stored of a rollout between two runs, and how a run begins from it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::kind::OpenAlerts;
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::config::values::BaseUrl;
use crate::config::{Config, Credential, RolloutConfig};
use crate::controller::policy::{Policy, Reset};
use crate::controller::state::State;
use crate::llm;

/// A rollout as it is stored: its state, and what that state was built under.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The canary's address; another one is another rollout.
    pub(super) canary: String,
    /// Model maps and timeouts of both arms; others void the evidence.
    pub(super) routes: String,
    /// Legacy's address and what tells both credentials from others; another one voids the evidence.
    #[serde(default)]
    pub(super) accounts: Option<Accounts>,
    /// The rules.
    pub(super) policy: Policy,
    /// The controller's state.
    pub(super) state: State,
    /// Sticky keys that turned out to be none. Forgotten, they would swing the traffic at each restart.
    #[serde(default)]
    pub(super) constant_keys: Vec<u64>,
    /// What people were told of it and has not ended: told again after a restart, it would be noise.
    #[serde(default)]
    pub(super) open: OpenAlerts,
    /// Since when it has been held without a break.
    #[serde(default)]
    pub(super) held_since: Option<UnixMillis>,
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
            accounts: Some(Accounts::of(config, id)),
            policy: rollout.policy.clone(),
            state: State::new(&rollout.policy, id.to_owned(), now),
            constant_keys: Vec::new(),
            open: OpenAlerts::default(),
            held_since: None,
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
        let accounts = Accounts::of(config, &self.state.rollout_id);
        let same_accounts = self.accounts.as_ref().is_none_or(|it| it.are(&accounts));
        if !leads_where(&self.canary, &config.arms.canary.base_url) {
            Reset::Rollout
        } else if self.routes == routes_of(config) && same_accounts {
            Reset::None
        } else {
            Reset::Ledgers
        }
    }
}

/// True if a stored address leads to the same upstream, however it is written.
fn leads_where(stored: &str, url: &BaseUrl) -> bool {
    BaseUrl::parse(stored).is_ok_and(|stored| stored.leads_where(url))
}

/// What a live reload compares beside the routes, in a form that may be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accounts {
    legacy: String,
    /// See [`mark_of`].
    keys: PerArm<Option<u16>>,
}

impl Accounts {
    pub(super) fn of(config: &Config, rollout_id: &str) -> Self {
        let arms = &config.arms;
        Self {
            legacy: arms.legacy.base_url.to_string(),
            keys: PerArm::from_fn(|arm| mark_of(&arms.get(arm).credential, arm, rollout_id)),
        }
    }

    fn are(&self, now: &Self) -> bool {
        let same_place =
            BaseUrl::parse(&now.legacy).is_ok_and(|url| leads_where(&self.legacy, &url));
        same_place && self.keys == now.keys
    }
}

/// Tells an injected key from another one; `None` for the client's own. Some sixteen bits and no
/// more: no key can be guessed from them, and one of 65,521 other keys looks the same.
fn mark_of(credential: &Credential, arm: Arm, rollout_id: &str) -> Option<u16> {
    let Credential::Key(key) = credential else {
        return None;
    };
    let salted = format!("{rollout_id} {arm} {}", key.expose());
    // Through the remainder of a prime, so that all bits take part.
    u16::try_from(llm::hash_state(&salted) % 65_521).ok()
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

    const CONFIG: &str = r#"
[arms.legacy]
base-url = "https://a.example.com/v1"
api-key = "sk-legacy"
[arms.canary]
base-url = "https://b.example.com/v1"
api-key = "sk-canary"
[[rollout]]
name = "default"
"#;

    fn config(from: &str, to: &str) -> Config {
        assert!(CONFIG.contains(from), "{from}");
        let text = CONFIG.replacen(from, to, 1);
        let text = text.replace("\"sk-", "\"env:sk-");
        let parsed = crate::config::parse::parse(&text, &|name| Some(name.to_owned()));
        parsed.unwrap().config
    }

    /// A restart and a live reload judge each edit alike.
    #[test]
    fn what_changed_while_nothing_ran_is_judged_like_a_live_reload() {
        let old = config("", "");
        let rollout = old.rollouts.first().unwrap();
        let begun = Stored::begin(&old, rollout, "default-1", UnixMillis(1));
        let text = begun.to_json();
        assert!(!text.contains("sk-"), "{text}");
        for (from, to, expected) in [
            ("", "", Reset::None),
            ("b.example.com/v1", "b.example.com", Reset::None),
            ("b.example.com/v1", "B.Example.com:443/v1/", Reset::None),
            ("a.example.com/v1", "A.example.com", Reset::None),
            ("b.example.com", "c.example.com", Reset::Rollout),
            ("b.example.com/v1", "b.example.com/x/v1", Reset::Rollout),
            ("https://b.", "http://b.", Reset::Rollout),
            ("a.example.com", "c.example.com", Reset::Ledgers),
            ("sk-legacy", "sk-other", Reset::Ledgers),
            ("sk-canary", "sk-other", Reset::Ledgers),
            ("\"sk-canary\"", "\"client\"", Reset::Ledgers),
        ] {
            let next = config(from, to);
            let stored = Stored::from_json(&text).unwrap();
            assert_eq!(stored.reset_under(&next), expected, "{from} -> {to}");
            let changes = crate::config::change::compare(&old, &next);
            let live = changes.rollouts.first().map(|change| change.reset);
            assert_eq!(live, Some(expected), "live: {from} -> {to}");
        }
        let other = Accounts::of(&old, "default-2");
        assert_ne!(Some(other.keys), begun.accounts.map(|it| it.keys), "salted");
        assert_ne!(other.keys.legacy, other.keys.canary);
    }
}
