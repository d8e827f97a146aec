//! What stands in for the driver while another process still holds the store: the data plane proxies with
//! the weights that are stored, and follows them.
//!
//! It reads and never decides. A weight is never above the one that was last read: the process that holds
//! the store commits what it raises before it publishes it. A rollout that is not stored, that cannot be
//! read, or that was another canary's stands at 0%, so that legacy answers all of it. While the store
//! cannot be read, the weights stay as they are. What is measured meanwhile is counted later, and is no
//! evidence: a share that two processes split says nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::reload::targets_of;
use super::restore::{Stored, next_id};
use super::shared::Shared;
use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::config::{Config, RolloutConfig};
use crate::controller::policy::Reset;
use crate::proxy::plane::{Plane, RolloutPlane};
use crate::store::{RolloutKey, RolloutRow};
use crate::upstream::target::Target;
use crate::weights::{self, Publisher, Reader, Snapshot};

/// An id is stored so long after it was learned, at most, unless the disk is slow.
const LEARNED_LATE: Duration = Duration::from_secs(15);

/// A data plane's guide without a store. [`super::Driver::take_over`] goes on from it.
#[derive(Debug)]
pub struct StandBy {
    pub(super) config: Arc<Config>,
    pub(super) targets: PerArm<Target>,
    pub(super) shared: Shared,
    pub(super) planes: watch::Sender<Arc<Plane>>,
    /// Which rollout a sample of an epoch belongs to.
    pub(super) epochs: VecDeque<(u32, Vec<RolloutKey>)>,
    /// Of the latest plane.
    pub(super) epoch: u32,
    rollouts: Vec<Followed>,
    /// When the ids that live on the canary were last read.
    learned_at: Option<UnixMillis>,
}

/// One rollout of the configuration.
#[derive(Debug)]
struct Followed {
    key: RolloutKey,
    publisher: Publisher,
    reader: Reader,
}

impl StandBy {
    /// Begins with everything at 0%.
    ///
    /// # Errors
    /// If an arm cannot be reached as configured.
    pub fn begin(config: Config) -> Result<Self, String> {
        let targets = targets_of(&config)?;
        let config = Arc::new(config);
        let shared = Shared::new(&config);
        let rollouts: Vec<_> = config
            .rollouts
            .iter()
            .map(|rollout| Followed::new(rollout, next_id(&rollout.name, &[])))
            .collect();
        let plane = plane_of(&config, &targets, &shared, 0, &rollouts);
        let keys = rollouts.iter().map(|it| it.key.clone()).collect();
        Ok(Self {
            planes: watch::Sender::new(Arc::new(plane)),
            epochs: VecDeque::from([(0, keys)]),
            epoch: 0,
            config,
            targets,
            shared,
            rollouts,
            learned_at: None,
        })
    }

    /// What the data plane follows.
    #[must_use]
    pub fn planes(&self) -> watch::Receiver<Arc<Plane>> {
        self.planes.subscribe()
    }

    /// Whose learned ids are asked for.
    #[must_use]
    pub fn canary(&self) -> u64 {
        self.shared.learned.canary()
    }

    /// The end of all ids that were learned before the last look, but for those that were learned shortly
    /// before it: they are stored with a delay. `None` if none were ever read.
    #[must_use]
    pub fn learned_until(&self) -> Option<UnixMillis> {
        let ttl = self
            .config
            .proxy
            .learned_ids_ttl
            .saturating_sub(LEARNED_LATE);
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Some(self.learned_at?.plus_millis(ttl_ms))
    }

    /// Remembers what lives on the canary, as it was read at `now`: the hashes of ids, and when they end.
    pub fn remember(&mut self, ids: Vec<(u64, UnixMillis)>, now: UnixMillis) {
        for (hash, expires_at) in ids {
            self.shared.learned.remember(hash, expires_at, now);
        }
        self.learned_at = Some(now);
    }

    /// Puts the stored weights in force.
    pub fn follow(&mut self, rows: &[RolloutRow]) {
        let config = Arc::clone(&self.config);
        let mut has_other_ids = false;
        for (followed, rollout) in self.rollouts.iter_mut().zip(&config.rollouts) {
            let (id, stored) = look(&config, rollout, rows);
            if *followed.key.id != *id {
                // Its buckets are salted by its id: workers take up the new one with a plane.
                *followed = Followed::new(rollout, id);
                has_other_ids = true;
            }
            followed.publish(stored.as_ref());
        }
        if has_other_ids {
            self.epoch += 1;
            let keys = self.rollouts.iter().map(|it| it.key.clone()).collect();
            self.epochs.push_back((self.epoch, keys));
            while self.epochs.len() > super::EPOCHS_KEPT {
                self.epochs.pop_front();
            }
            let plane = plane_of(
                &self.config,
                &self.targets,
                &self.shared,
                self.epoch,
                &self.rollouts,
            );
            self.planes.send_replace(Arc::new(plane));
        }
    }

    /// The weights in force, for people: `default 25%, other 0%`.
    #[must_use]
    pub fn weights(&self) -> String {
        let weight = |followed: &Followed| {
            let weight = followed.reader.snapshot().weight;
            format!("{} {weight}", followed.key.name)
        };
        let weights: Vec<_> = self.rollouts.iter().map(weight).collect();
        weights.join(", ")
    }
}

impl Followed {
    fn new(rollout: &RolloutConfig, id: Arc<str>) -> Self {
        let (publisher, reader) = weights::channel();
        let name = rollout.name.as_str().into();
        Self {
            key: RolloutKey { id, name },
            publisher,
            reader,
        }
    }

    fn publish(&self, stored: Option<&Stored>) {
        let nothing = Snapshot {
            weight: Weight::ZERO,
            stage: 0,
            probing: false,
        };
        let snapshot = stored.map_or(nothing, |stored| stored.state.snapshot());
        self.publisher.publish(snapshot);
        self.publisher
            .publish_active(stored.is_some_and(|stored| stored.state.is_active()));
        let keys = stored.map_or(&[][..], |stored| &stored.constant_keys);
        self.publisher.publish_constant_keys(keys);
    }
}

/// The id and the state that a driver would go on with, if it went on with any.
fn look(
    config: &Config,
    rollout: &RolloutConfig,
    rows: &[RolloutRow],
) -> (Arc<str>, Option<Stored>) {
    let taken: Vec<_> = rows.iter().map(|row| row.rollout_id.as_str()).collect();
    let Some(row) = rows.iter().find(|row| row.name == rollout.name) else {
        return (next_id(&rollout.name, &taken), None);
    };
    match Stored::from_json(&row.state) {
        Ok(stored) if stored.reset_under(config) != Reset::Rollout => {
            (row.rollout_id.as_str().into(), Some(stored))
        }
        Ok(_) => (next_id(&rollout.name, &[&row.rollout_id]), None),
        Err(_) => (next_id(&rollout.name, &taken), None),
    }
}

fn plane_of(
    config: &Arc<Config>,
    targets: &PerArm<Target>,
    shared: &Shared,
    config_epoch: u32,
    rollouts: &[Followed],
) -> Plane {
    let rollout = |followed: &Followed| RolloutPlane {
        rollout_id: followed.key.id.to_string(),
        weights: followed.reader.clone(),
    };
    let rollouts = rollouts.iter().map(rollout).collect();
    shared.plane(config_epoch, config, targets, rollouts)
}

#[cfg(test)]
mod tests;
