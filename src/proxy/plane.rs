//! What the data plane knows of the world: one immutable value per configuration and rollout state.
//!
//! The driver publishes a [`Plane`]; each worker turns it into a [`WorkerPlane`] of its own, so that a
//! request reads nothing that another thread writes, apart from the weights (one atomic word each). Only
//! requests that name state read the table of ids, and answers that give some out write it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use rand::rngs::SmallRng;

use super::assign;
use super::budget::Budget;
use super::clients::{Clients, Gate};
use super::learner::Learner;
use super::places::Share;
use super::rewrite::ArmRewrite;
use crate::arm::{Arm, PerArm, Weight};
use crate::clock::UnixMillis;
use crate::config::{ArmConfig, Config, RolloutConfig};
use crate::learned::LearnedIds;
use crate::recorder::SampleSink;
use crate::trace::export::SpanSink;
use crate::upstream::breaker::Breaker;
use crate::upstream::habits::Habits;
use crate::upstream::headroom::Gauges;
use crate::upstream::limit::Limit;
use crate::upstream::pool::Pool;
use crate::upstream::target::Target;
use crate::weights;

/// What the driver publishes to every worker, whole, whenever the configuration or a rollout's id changes.
#[derive(Debug)]
pub struct Plane {
    /// Counts published planes; samples carry it.
    pub config_epoch: u32,
    /// The configuration that is in force.
    pub config: Arc<Config>,
    /// Where the arms are.
    pub targets: PerArm<Target>,
    /// Whether to dial them; shared by all workers.
    pub breakers: PerArm<Arc<Breaker>>,
    /// How many requests may be under way at them; shared by all workers.
    pub limits: PerArm<Option<Arc<Limit>>>,
    /// What was learned of them; shared by all workers.
    pub habits: PerArm<Arc<Habits>>,
    /// How much of their rate limits is left; shared by all workers.
    pub headroom: PerArm<Arc<Gauges>>,
    /// One for each of `config.rollouts`, in the same order.
    pub rollouts: Vec<RolloutPlane>,
    /// What lives on the canary; shared by all workers. Another canary has another one.
    pub learned: Arc<LearnedIds>,
    /// Who may use the proxy; shared by all workers.
    pub clients: Arc<Clients>,
}

/// The data plane's view of one rollout.
#[derive(Debug, Clone)]
pub struct RolloutPlane {
    /// Identifies the rollout, and salts its buckets.
    pub rollout_id: String,
    /// Its weight, live.
    pub weights: weights::Reader,
}

/// One worker's own copy of a [`Plane`], with everything prepared that a request needs.
#[derive(Debug)]
pub struct WorkerPlane {
    /// See [`Plane::config_epoch`].
    pub config_epoch: u32,
    /// The worker's own copy of the configuration.
    pub config: Config,
    /// How to reach the arms.
    pub arms: PerArm<ArmPlane>,
    /// The rollouts in order of matching.
    pub rollouts: Vec<WorkerRollout>,
    /// What lives on the canary.
    pub learner: Rc<Learner>,
    /// Who may use the proxy.
    pub gate: Gate,
}

/// One arm as a worker uses it.
#[derive(Debug)]
pub struct ArmPlane {
    /// How requests are rewritten.
    pub rewrite: ArmRewrite,
    /// How many requests may be under way, if that is limited; shared by all workers.
    pub limit: Option<Arc<Limit>>,
    /// What was learned of it; shared by all workers.
    pub habits: Arc<Habits>,
    /// How much of its rate limits is left; shared by all workers.
    pub headroom: Arc<Gauges>,
    /// Open connections; kept over reloads that leave the address alone.
    pub pool: Rc<Pool>,
}

/// One rollout as a worker uses it.
#[derive(Debug)]
pub struct WorkerRollout {
    /// Salt of its buckets.
    pub salt: u64,
    /// Its name, ready to be sent.
    pub name: HeaderValue,
    /// Its weight, live.
    pub weights: weights::Reader,
}

/// One worker: the only owner of what its requests share.
#[derive(Debug)]
pub struct Worker {
    plane: RefCell<Rc<WorkerPlane>>,
    /// Where samples go.
    pub samples: SampleSink,
    /// Where spans go.
    pub spans: SpanSink,
    /// Draws for requests without a sticky key.
    pub rng: RefCell<SmallRng>,
    /// How much more than its clients it may ask for.
    pub budget: RefCell<Budget>,
    /// How many attempts it may have under way.
    pub places: Rc<Share>,
    /// Bytes of the bodies that its requests keep.
    pub kept_bytes: Cell<u64>,
    /// Set once the daemon shuts down.
    pub draining: Cell<bool>,
    /// Answers that are read on although their clients went away.
    pub drains: Cell<usize>,
}

impl WorkerPlane {
    /// Prepares a worker's copy; pools of `before` live on where the arm's address is the same.
    ///
    /// # Errors
    /// If a value of the configuration cannot stand in a header.
    pub fn new(plane: &Plane, before: Option<&Self>) -> Result<Self, String> {
        let config = Config::clone(&plane.config);
        let arm = |which: Arm| {
            let config = config.arms.get(which);
            let before = before.map(|b| (b.config.arms.get(which), b.arms.get(which)));
            let breaker = plane.breakers.get(which);
            let pool = match before {
                // A worker may miss a plane: an arm that went and came back has another breaker.
                Some((old, arm)) if same_place(old, config) && arm.pool.is_watched_by(breaker) => {
                    Rc::clone(&arm.pool)
                }
                _ => {
                    let target = plane.targets.get(which).clone();
                    Rc::new(Pool::new(target, Arc::clone(breaker)))
                }
            };
            Ok::<_, String>(ArmPlane {
                rewrite: ArmRewrite::new(config)?,
                limit: plane.limits.get(which).clone(),
                habits: Arc::clone(plane.habits.get(which)),
                headroom: Arc::clone(plane.headroom.get(which)),
                pool,
            })
        };
        let arms = PerArm {
            legacy: arm(Arm::Legacy)?,
            canary: arm(Arm::Canary)?,
        };
        let rollouts = plane
            .rollouts
            .iter()
            .zip(&config.rollouts)
            .map(|(rollout, config)| WorkerRollout::new(rollout, config))
            .collect::<Result<_, _>>()?;
        let ttl_ms = i64::try_from(config.proxy.learned_ids_ttl.as_millis()).unwrap_or(i64::MAX);
        Ok(Self {
            config_epoch: plane.config_epoch,
            config,
            arms,
            rollouts,
            learner: Rc::new(Learner::new(Arc::clone(&plane.learned), ttl_ms)),
            gate: Gate::new(&plane.clients),
        })
    }
}

/// True if connections to one serve the other as well: pools and breakers live on.
#[must_use]
pub fn same_place(a: &ArmConfig, b: &ArmConfig) -> bool {
    a.base_url.scheme == b.base_url.scheme
        && a.base_url.authority == b.base_url.authority
        && a.ca_file == b.ca_file
        && a.http == b.http
}

impl WorkerRollout {
    fn new(rollout: &RolloutPlane, config: &RolloutConfig) -> Result<Self, String> {
        let name = HeaderValue::from_str(&config.name)
            .map_err(|_| format!("rollout {} cannot stand in a header", config.name))?;
        Ok(Self {
            salt: assign::salt_of(&rollout.rollout_id),
            name,
            weights: rollout.weights.clone(),
        })
    }

    /// True if its next request may go to `arm`, so that a connection should be ready.
    #[must_use]
    pub fn keeps_warm(&self, arm: Arm) -> bool {
        match arm {
            Arm::Legacy => self.weights.snapshot().weight < Weight::FULL,
            Arm::Canary => self.weights.is_active(),
        }
    }
}

impl Worker {
    /// A worker with its first plane.
    #[must_use]
    pub fn new(plane: WorkerPlane, samples: SampleSink, spans: SpanSink, share: Share) -> Self {
        Self {
            plane: RefCell::new(Rc::new(plane)),
            samples,
            spans,
            rng: RefCell::new(rand::make_rng()),
            budget: RefCell::new(Budget::new(UnixMillis::now())),
            places: Rc::new(share),
            kept_bytes: Cell::new(0),
            draining: Cell::new(false),
            drains: Cell::new(0),
        }
    }

    /// The plane that a new request uses to its end.
    #[must_use]
    pub fn plane(&self) -> Rc<WorkerPlane> {
        Rc::clone(&self.plane.borrow())
    }

    /// Puts a new plane in force for the requests that follow.
    pub fn replace_plane(&self, plane: WorkerPlane) {
        drop(self.plane.replace(Rc::new(plane)));
    }
}
