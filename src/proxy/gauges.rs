//! What the workers show of their connections: the one place where the control plane looks at them.
//!
//! Each worker writes words of its own, on cache lines of their own, once a second; client connections are
//! counted as they come and go. No request reads or writes any of this. How many upstream connections carry
//! a request is not counted: over HTTP/1.1 those are the requests under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::arm::{Arm, PerArm};
use crate::upstream::pool::figures::Figures;

/// Connections of one worker, on a cache line of their own; touched per connection, never per request.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Load(pub(super) AtomicUsize);

/// What one worker last said of its pools.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Pools(PerArm<[AtomicU64; 4]>);

/// The gauges of all workers.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    workers: Vec<(Arc<Load>, Arc<Pools>)>,
}

/// All workers together at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Threads that serve.
    pub workers: u64,
    /// Open connections of clients.
    pub clients: u64,
    /// Connections to the arms, at most a second old.
    pub upstream: PerArm<Figures>,
}

impl Pools {
    /// Says how many connections the worker has to an arm.
    pub(super) fn publish(&self, arm: Arm, figures: Figures) {
        let values = [figures.idle, figures.shared, figures.opened, figures.failed];
        for (word, value) in self.0.get(arm).iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn read(&self, arm: Arm) -> Figures {
        let [idle, shared, opened, failed] = self.0.get(arm);
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Figures {
            idle: read(idle),
            shared: read(shared),
            opened: read(opened),
            failed: read(failed),
        }
    }
}

impl Gauges {
    /// The gauges of one more worker.
    pub(super) fn add_worker(&mut self) -> (Arc<Load>, Arc<Pools>) {
        let worker = <(Arc<Load>, Arc<Pools>)>::default();
        self.workers
            .push((Arc::clone(&worker.0), Arc::clone(&worker.1)));
        worker
    }

    /// Adds all workers up.
    #[must_use]
    pub fn read(&self) -> Connections {
        let mut all = Connections::default();
        for (load, pools) in &self.workers {
            all.workers += 1;
            all.clients += load.0.load(Ordering::Relaxed) as u64;
            for arm in Arm::BOTH {
                let (sum, one) = (all.upstream.get_mut(arm), pools.read(arm));
                sum.idle += one.idle;
                sum.shared += one.shared;
                sum.opened += one.opened;
                sum.failed += one.failed;
            }
        }
        all
    }
}
