//! The driver: the one owner of rollouts and weights. It takes samples, commands and configurations in,
//! asks the pure controller, and performs what comes out.
//!
//! One loop, no locks: `select` an input, apply it, go on. It never waits for the disk: commits run
//! beside the loop and come back as events. What lowers a weight is published at once and recorded as
//! soon as the store can; what raises one is recorded first (invariant 4). The cost of the single owner
//! is that status questions wait for their turn, which takes microseconds.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::alert::Alerts;
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::config::reload::Reloaded;
use crate::config::{ArmConfig, Config, Credential};
use crate::controller::step::{Action, Event};
use crate::proxy::plane::Plane;
use crate::recorder::{Batch, Samples};
use crate::sample::Sample;
use crate::store::{AttemptRow, Health, RolloutKey, Store};
use crate::upstream::target::Target;

pub mod begin;
mod commit;
mod demand;
mod incident;
pub mod live;
pub mod metrics;
pub mod money;
pub mod operate;
mod pace;
mod reload;
mod restore;
mod rollout;
mod shared;
mod stand_by;
pub mod status;
mod tell;
mod traffic;

pub use operate::{Operated, Refusal, Request};
pub use stand_by::StandBy;

use commit::Done;
use metrics::Metrics;
use money::Money;
use operate::Reply;
use rollout::{Rollout, Surroundings};
use shared::Shared;
use status::Status;

/// The controller looks at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Failures of the canary wake the controller, but not more often than this.
const WAKE_AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// Configurations whose late samples can still be told apart.
const EPOCHS_KEPT: usize = 8;
/// Commands that wait for a raise at most; further ones are refused.
const WAITING_MAX: usize = 64;
/// How long the end waits for decisions that are being recorded.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// What the driver listens to.
#[derive(Debug)]
pub struct Inputs {
    /// Finished attempts.
    pub samples: Samples,
    /// Questions and commands.
    pub requests: mpsc::Receiver<Request>,
    /// New configurations.
    pub reloads: mpsc::Receiver<Reloaded>,
}

/// The driver with all that it owns.
#[derive(Debug)]
pub struct Driver {
    config: Arc<Config>,
    config_path: Option<PathBuf>,
    config_loaded_at: UnixMillis,
    config_error: Option<String>,
    config_epoch: u32,
    targets: PerArm<Target>,
    shared: Shared,
    money: Money,
    /// In the order of the configuration.
    rollouts: Vec<Rollout>,
    /// Which rollout a sample of an epoch belongs to.
    epochs: VecDeque<(u32, Vec<RolloutKey>)>,
    planes: watch::Sender<Arc<Plane>>,
    store: Store,
    health: watch::Receiver<Health>,
    store_was_healthy: bool,
    /// As [`Health`] counts them.
    files_replaced: u64,
    /// The corrupt file that people were told of.
    set_aside: Option<PathBuf>,
    inputs: Inputs,
    commits: JoinSet<Done>,
    /// Commands that wait for a raise that is being recorded: milliseconds, if the store is well.
    waiting: VecDeque<Request>,
    alerts: Alerts,
    started_at: Instant,
    metrics: Metrics,
}

impl Driver {
    /// What the data plane follows.
    #[must_use]
    pub fn planes(&self) -> watch::Receiver<Arc<Plane>> {
        self.planes.subscribe()
    }

    /// Runs until every worker is gone, then stores what is left.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wake_at: Option<Instant> = None;
        loop {
            let woken = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batch = self.inputs.samples.next() => match batch {
                    Some(batch) => {
                        if self.absorb(batch) && wake_at.is_none() {
                            wake_at = Some(Instant::now() + WAKE_AT_MOST_EVERY);
                        }
                    }
                    None => break,
                },
                () = woken => {
                    wake_at = None;
                    self.look_at_all();
                }
                _ = tick.tick() => {
                    self.tell_arms();
                    let now = UnixMillis::now();
                    self.money.end_days(now);
                    self.tell_money();
                    self.shared.sweep(now);
                    self.store.record_learned(self.shared.untold_learned(now));
                    self.look_at_all();
                }
                Some(request) = self.inputs.requests.recv() => self.answer(request),
                Some(reloaded) = self.inputs.reloads.recv() => self.reload(reloaded),
                Some(done) = self.commits.join_next() => {
                    self.committed(done);
                    self.answer_waiting();
                }
                Ok(()) = self.health.changed() => self.tell_health(),
            }
        }
        self.finish().await;
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            now: UnixMillis::now(),
            store_healthy: self.health.borrow().healthy,
            breakers: self.shared.phases(),
            rooms: self.shared.rooms(),
            is_one_account: self.config.arms.canary.credential != Credential::Client,
        }
    }

    /// Takes a batch in; true if the canary failed in it.
    fn absorb(&mut self, batch: Batch) -> bool {
        let now = UnixMillis::now();
        for (routing, count) in &batch.routed {
            let key = self.key_at(routing.config_epoch, routing.rollout);
            let place = key.and_then(|key| self.place_of(&key.id));
            if let Some(rollout) = place.and_then(|place| self.rollouts.get_mut(place)) {
                rollout.count(routing, *count);
            }
        }
        let at_canary = |sample: &&Sample| sample.arm == Arm::Canary;
        let canary_attempts = batch.samples.iter().filter(at_canary).count() as u64;
        for rollout in &mut self.rollouts {
            rollout.count_canary(canary_attempts, now);
        }
        let mut failed = false;
        let mut rows = Vec::with_capacity(batch.samples.len());
        let mut events = Vec::new();
        for sample in batch.samples {
            let key = sample
                .rollout
                .and_then(|at| self.key_at(sample.config_epoch, at));
            let (cost_usd, bill) = self.money.book(&self.config, &sample);
            self.metrics.record(&self.config, &sample, cost_usd);
            let place = key.as_ref().and_then(|key| self.place_of(&key.id));
            if let Some((place, rollout)) =
                place.and_then(|place| Some((place, self.rollouts.get_mut(place)?)))
            {
                failed |= sample.is_evidence() && sample.outcome.is_error();
                let event = rollout.record(&sample, cost_usd, now);
                events.extend(event.map(|event| (place, event)));
            }
            rows.push(AttemptRow {
                rollout: key,
                sample,
                cost_usd,
                bill,
            });
        }
        // Before the costs that led to it: killed in between, cutover would tell it twice.
        self.tell_money();
        self.store.record_attempts(rows);
        self.store.record_learned(batch.learned);
        for (place, event) in events {
            self.look_at(place, Some(event), None);
        }
        failed
    }

    fn key_at(&self, config_epoch: u32, rollout: u16) -> Option<RolloutKey> {
        let mut epochs = self.epochs.iter();
        let (_, keys) = epochs.find(|(epoch, _)| *epoch == config_epoch)?;
        keys.get(usize::from(rollout)).cloned()
    }

    fn place_of(&self, id: &str) -> Option<usize> {
        self.rollouts
            .iter()
            .position(|rollout| &*rollout.key.id == id)
    }

    fn look_at_all(&mut self) {
        for place in 0..self.rollouts.len() {
            self.look_at(place, None, None);
        }
        self.tell_of_time(self.surroundings());
        let now = UnixMillis::now();
        for rollout in self.rollouts.iter_mut().filter(|rollout| rollout.is_dirty) {
            rollout.is_dirty = false;
            self.store.save_state(rollout.row(&rollout.stored, now));
        }
    }

    /// One look of the controller at one rollout, with what follows from it.
    fn look_at(&mut self, place: usize, event: Option<Event>, reply: Option<Reply>) {
        let around = self.surroundings();
        let Some(rollout) = self.rollouts.get_mut(place) else {
            return;
        };
        let looked = rollout.look(event, around);
        self.store.record_cells(looked.cells);
        // A refused command changes nothing, but the same look may have decided something else.
        let reply = match (looked.refusal, reply) {
            (Some(why), Some(reply)) => {
                let refusal = if around.store_healthy {
                    Refusal::NotNow(why)
                } else {
                    Refusal::StoreFailing(why)
                };
                operate::refuse(Some(reply), refusal);
                None
            }
            (_, reply) => reply,
        };
        self.perform(place, looked.effects, reply);
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => {
                // A caller that went away needs no answer.
                drop(reply.send(self.status()));
            }
            Request::Metrics(reply) => drop(reply.send(self.snapshot())),
            Request::Operate {
                rollout,
                command,
                reply,
            } => {
                let only = self.rollouts.len() == 1 && rollout.is_empty();
                let named = |known: &Rollout| only || *known.key.name == *rollout;
                match self.rollouts.iter().position(named) {
                    Some(place) if self.must_wait(place, command.action) => {
                        self.waiting.push_back(Request::Operate {
                            rollout,
                            command,
                            reply,
                        });
                    }
                    Some(place) => {
                        self.look_at(place, Some(Event::Operator(command)), Some(reply));
                    }
                    None => {
                        let names: Vec<_> =
                            self.rollouts.iter().map(|known| &*known.key.name).collect();
                        let refusal = Refusal::UnknownRollout(names.join(", "));
                        operate::refuse(Some(reply), refusal);
                    }
                }
            }
        }
    }

    /// A command that may raise waits while another raise is being recorded, rather than be refused for
    /// a race that no person can see. Not `promote`: it means the stage above the one that was seen.
    fn must_wait(&self, place: usize, action: Action) -> bool {
        let Some(state) = self.rollouts.get(place).map(|known| &known.stored.state) else {
            return false;
        };
        let may_raise = match action {
            Action::SetWeight(weight) => weight > state.snapshot().weight,
            Action::Resume | Action::Retry => true,
            Action::Hold | Action::Promote | Action::Rollback => false,
        };
        may_raise && state.outstanding().is_some() && self.waiting.len() < WAITING_MAX
    }

    /// Takes up the commands that waited.
    fn answer_waiting(&mut self) {
        for request in std::mem::take(&mut self.waiting) {
            self.answer(request);
        }
    }

    fn status(&self) -> Status {
        let around = self.surroundings();
        status::of(status::Parts {
            rollouts: &self.rollouts,
            around,
            uptime_s: self.started_at.elapsed().as_secs(),
            health: &self.health.borrow(),
            dropped_in_queue: self.inputs.samples.dropped(),
            config_path: self.config_path.as_deref(),
            config_loaded_at: self.config_loaded_at,
            config_error: self.config_error.as_deref(),
            learned: &self.shared.learned,
            clients: &self.shared.clients,
            budgets: self.money.status(&self.config, around.now),
            alerts: self.alerts.status(),
            alerts_overflowed: self.alerts.overflowed(),
        })
    }

    /// Tells the data plane about rollouts and configuration. Samples carry the epoch from then on.
    fn publish_plane(&mut self) {
        let now = UnixMillis::now();
        let longest_ms = longest_timeout_ms(&self.config);
        for rollout in &mut self.rollouts {
            rollout.begin_epoch(self.config_epoch, longest_ms, now);
        }
        let keys = self
            .rollouts
            .iter()
            .map(|rollout| rollout.key.clone())
            .collect();
        self.epochs.push_back((self.config_epoch, keys));
        while self.epochs.len() > EPOCHS_KEPT {
            self.epochs.pop_front();
        }
        let rollouts = self.rollouts.iter().map(Rollout::plane).collect();
        let (config, targets) = (&self.config, &self.targets);
        let plane = self
            .shared
            .plane(self.config_epoch, config, targets, rollouts);
        self.planes.send_replace(Arc::new(plane));
    }

    async fn finish(mut self) {
        self.look_at_all();
        let rest = async {
            while let Some(done) = self.commits.join_next().await {
                self.committed(done);
            }
        };
        if tokio::time::timeout(FINISH_WITHIN, rest).await.is_err() {
            tracing::warn!("some decisions were not confirmed by the store before the end");
        }
        let now = UnixMillis::now();
        for rollout in &self.rollouts {
            self.store.save_state(rollout.row(&rollout.stored, now));
        }
    }
}

/// No attempt is silent for longer than this, see [`crate::config::Timeouts::longest`].
fn longest_timeout_ms(config: &Config) -> i64 {
    let arms = [&config.arms.legacy, &config.arms.canary];
    let longest = arms.map(ArmConfig::longest_wait).into_iter().max();
    i64::try_from(longest.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
