//! What all workers share of the arms, as the driver sees it: breakers, limits of concurrency, gauges of
//! the providers' rate limits, and what was learned of an arm and of its ids; and who may use the proxy.
//!
//! It makes them, hands them to the data plane, and reads breakers and gauges. It must never open or close
//! a breaker.

use std::sync::Arc;

use crate::alert::Alert;
use crate::alert::kind::AlertKind;
use crate::arm::{Arm, PerArm};
use crate::clock::{UnixMillis, monotonic_ms};
use crate::config::Config;
use crate::config::values::BaseUrl;
use crate::learned::{LearnedId, LearnedIds};
use crate::llm;
use crate::proxy::clients::Clients;
use crate::proxy::plane::{Plane, RolloutPlane, same_place};
use crate::upstream::breaker::{Breaker, Phase};
use crate::upstream::habits::Habits;
use crate::upstream::headroom::{Gauges, Rooms};
use crate::upstream::limit::Limit;
use crate::upstream::target::Target;

/// Ids are forgotten at the end of an hour.
const SWEEP_EVERY_MS: i64 = 600_000;

/// From so many ids on the rest waits for the next second.
const TOLD_AT_ONCE: usize = 5_000;

/// Breakers, limits, habits and gauges of both arms, and what lives on the canary.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) breakers: PerArm<Arc<Breaker>>,
    pub(super) limits: PerArm<Option<Arc<Limit>>>,
    pub(super) habits: PerArm<Arc<Habits>>,
    pub(super) headroom: PerArm<Arc<Gauges>>,
    pub(super) learned: Arc<LearnedIds>,
    pub(super) clients: Arc<Clients>,
    /// The same of the canary before: whoever moves it may move it back.
    learned_before: Option<Arc<LearnedIds>>,
    /// From which place on the store still has to be told of `learned`; `None`: it knows.
    untold_from: Option<usize>,
    /// What was last told of the breakers.
    told: PerArm<Phase>,
    swept_at: UnixMillis,
}

impl Shared {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            breakers: PerArm::default(),
            habits: PerArm::default(),
            headroom: PerArm::default(),
            limits: limits_of(config, &PerArm::default()),
            learned: Arc::new(LearnedIds::new(hash_of(&config.arms.canary.base_url))),
            clients: Arc::new(Clients::new(&config.proxy.clients, &Clients::default())),
            learned_before: None,
            untold_from: None,
            told: PerArm::default(),
            swept_at: UnixMillis::default(),
        }
    }

    /// A plane of the data path, with all that is shared.
    pub(super) fn plane(
        &self,
        config_epoch: u32,
        config: &Arc<Config>,
        targets: &PerArm<Target>,
        rollouts: Vec<RolloutPlane>,
    ) -> Plane {
        Plane {
            config_epoch,
            config: Arc::clone(config),
            targets: targets.clone(),
            breakers: self.breakers.clone(),
            limits: self.limits.clone(),
            habits: self.habits.clone(),
            headroom: self.headroom.clone(),
            rollouts,
            learned: Arc::clone(&self.learned),
            clients: Arc::clone(&self.clients),
        }
    }

    /// How the breakers stand.
    pub(super) fn phases(&self) -> PerArm<Phase> {
        PerArm::from_fn(|arm| self.breakers.get(arm).phase(monotonic_ms()))
    }

    /// What is left of the rate limits.
    pub(super) fn rooms(&self) -> PerArm<Rooms> {
        PerArm::from_fn(|arm| self.headroom.get(arm).rooms(monotonic_ms()))
    }

    /// One line when an arm cannot be reached any more, one when it can again; and what receivers are told.
    pub(super) fn tell(&mut self) -> Vec<Alert> {
        let phases = self.phases();
        let mut alerts = Vec::new();
        for arm in Arm::BOTH {
            let was_closed = *self.told.get(arm) == Phase::Closed;
            let is_closed = *phases.get(arm) == Phase::Closed;
            if was_closed && !is_closed {
                let kind = AlertKind::ArmUnreachable;
                tracing::error!(
                    alert = kind.as_str(),
                    %arm,
                    "connections to this arm fail; it is dialled only for single probes until one succeeds"
                );
                let text = "it is dialled only for single probes until one succeeds";
                alerts.push(Alert::new(kind, text.to_owned()).about(arm.to_string()));
            } else if is_closed && !was_closed {
                let kind = AlertKind::ArmReachable;
                tracing::info!(alert = kind.as_str(), %arm, "this arm can be reached again");
                let alert = Alert::new(kind, String::new()).about(arm.to_string());
                alerts.push(alert.ends(vec![AlertKind::ArmUnreachable]));
            }
        }
        self.told = phases;
        alerts
    }

    /// Clears away what was learned too long ago, now and then.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        if now.millis_since(self.swept_at).abs() >= SWEEP_EVERY_MS {
            self.swept_at = now;
            for learned in [Some(&self.learned), self.learned_before.as_ref()] {
                learned.into_iter().for_each(|ids| ids.sweep(now));
            }
        }
    }

    /// The store has another file, or has forgotten: it is told of all ids anew, page by page.
    pub(super) fn tell_learned_anew(&mut self) {
        self.untold_from = Some(0);
    }

    /// The next ids that the store must be told of; empty when it knows all.
    pub(super) fn untold_learned(&mut self, now: UnixMillis) -> Vec<LearnedId> {
        let mut untold = Vec::new();
        while let Some(from) = self.untold_from.filter(|_| untold.len() < TOLD_AT_ONCE) {
            let (ids, next) = self.learned.page(from, now);
            self.untold_from = next;
            untold.extend(ids);
        }
        untold
    }

    /// Goes on with the ids of a canary. Those of the one before stay at hand; those of earlier ones come back
    /// with a restart, if the store still has them.
    fn turn_to(&mut self, canary: u64) {
        let before = self.learned_before.take();
        let next = match before.filter(|ids| ids.canary() == canary) {
            Some(before) => {
                // The store keeps ids of a canary that is left for a day only.
                self.tell_learned_anew();
                before
            }
            None => Arc::new(LearnedIds::new(canary)),
        };
        self.learned_before = Some(std::mem::replace(&mut self.learned, next));
    }

    /// An arm that moved begins with a closed breaker; workers keep their pools by the same rule. Behind
    /// another base URL nothing is known of its habits. One that moved or has another key has other rate
    /// limits. Limits that did not change live on with their slots taken. What was learned of one canary is
    /// nothing to another: answers of the old one that are still under way are learned into the old table.
    pub(super) fn renew(&mut self, old: &Config, next: &Config) {
        for arm in Arm::BOTH {
            let (old, next) = (old.arms.get(arm), next.arms.get(arm));
            let moved = !same_place(old, next);
            if moved {
                *self.breakers.get_mut(arm) = Arc::default();
            }
            if !old.base_url.leads_where(&next.base_url) {
                *self.habits.get_mut(arm) = Arc::default();
            }
            if moved || old.credential != next.credential {
                *self.headroom.get_mut(arm) = Arc::default();
            }
        }
        self.limits = limits_of(next, &self.limits);
        self.clients = Arc::new(Clients::new(&next.proxy.clients, &self.clients));
        let (old, next) = (&old.arms.canary.base_url, &next.arms.canary.base_url);
        if !old.leads_where(next) {
            self.turn_to(hash_of(next));
        }
    }
}

/// The same for addresses that lead to the same place. Stored: it must be the same in every release.
fn hash_of(url: &BaseUrl) -> u64 {
    let host = url.host().to_ascii_lowercase();
    llm::hash_state(&format!(
        "{}://{host}:{}{}",
        url.scheme, url.port, url.prefix
    ))
}

fn limits_of(config: &Config, before: &PerArm<Option<Arc<Limit>>>) -> PerArm<Option<Arc<Limit>>> {
    PerArm::from_fn(|arm| {
        let rule = config.arms.get(arm).concurrency?;
        let before = before.get(arm).as_ref();
        let same = before.filter(|limit| limit.rule() == rule);
        Some(same.map_or_else(|| Arc::new(Limit::new(rule)), Arc::clone))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::parse;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn config(canary: &str) -> Config {
        let text = format!(
            "[arms.legacy]\nbase-url = \"https://a.example.com\"\n[arms.canary]\nbase-url = \"https://{canary}\"\n\
             api-key = \"client\"\n"
        );
        parse(&text, &|_| None).unwrap().config
    }

    #[test]
    fn a_canary_that_comes_back_finds_its_ids_and_no_others() {
        let (b, c, d) = (config("b.com"), config("c.com"), config("d.com"));
        let mut shared = Shared::new(&b);
        shared.learned.learn(1, NOW, 7_200_000);
        shared.learned.learn(100_000, NOW, 7_200_000);
        shared.renew(&b, &c);
        assert!(!shared.learned.knows(1, NOW));
        shared.learned.learn(2, NOW, 7_200_000);
        assert!(shared.untold_learned(NOW).is_empty());
        shared.renew(&c, &config("B.com/v1"));
        assert!(shared.learned.knows(1, NOW) && !shared.learned.knows(2, NOW));
        let told: Vec<u64> = shared
            .untold_learned(NOW)
            .iter()
            .map(|id| id.hash)
            .collect();
        assert_eq!(told, [1, 100_000], "the store may have forgotten them");
        assert!(shared.untold_learned(NOW).is_empty());
        shared.renew(&b, &c);
        assert!(shared.learned.knows(2, NOW));
        // Only the last two are kept.
        shared.renew(&c, &d);
        shared.renew(&d, &b);
        assert_eq!(shared.learned.known(), 0);
    }
}
