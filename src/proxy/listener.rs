//! The data port: one thread accepts, each worker serves on a thread of its own.
//!
//! A connection goes to the worker with the fewest connections and stays there. No error of `accept`
//! ends the daemon. On shutdown, accepting stops at once, connections finish what is in flight, and
//! what is left after the drain time is cut.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::gauges::{Gauges, Load, Pools};
use super::places::{Places, Share};
use super::plane::{Plane, Worker, WorkerPlane};
use super::serve::{Serving, serve};
use crate::arm::Arm;
use crate::recorder::{Recorder, SampleSink};
use crate::trace::export::SpanSink;

mod files;

/// Accepted connections that wait for their worker at most.
const HAND_OVER: usize = 1_024;
const ACCEPT_BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether each arm has a connection ready.
const WARM_EVERY: Duration = Duration::from_secs(1);
/// How often quiet upstream connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// When to be gone: `None` while serving.
pub type DrainBy = watch::Receiver<Option<Instant>>;

/// The running data plane.
#[derive(Debug)]
pub struct DataPlane {
    /// The address it listens on.
    pub addr: SocketAddr,
    /// How many connections the workers have.
    pub gauges: Gauges,
    threads: Vec<oneshot::Receiver<()>>,
}

#[derive(Debug, Clone)]
struct WorkerEnd {
    hand_over: mpsc::Sender<Accepted>,
    load: Arc<Load>,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) tcp: StdStream,
    /// Its place among `max-connections`.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl DataPlane {
    /// Starts the accepting thread and one thread per worker.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be made, or the plane holds what no header can carry.
    pub fn start(
        listener: StdListener,
        planes: &watch::Receiver<Arc<Plane>>,
        recorder: &Recorder,
        spans: &SpanSink,
        drain_by: &DrainBy,
    ) -> io::Result<Self> {
        let config = Arc::clone(&planes.borrow().config);
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let mut threads = Vec::new();
        let mut ends = Vec::new();
        let mut gauges = Gauges::default();
        let files::Affordable { connections, calls } =
            files::affordable(config.proxy.max_connections.get());
        let workers = config.proxy.workers.get();
        let places = Arc::new(Places::new(calls, workers));
        for number in 0..workers {
            let (hand_over, accepted) = mpsc::channel(HAND_OVER);
            let (load, pools) = gauges.add_worker();
            let end = WorkerEnd { hand_over, load };
            let plane = WorkerPlane::new(&planes.borrow(), None).map_err(io::Error::other)?;
            drop(plane);
            let inputs = WorkerInputs {
                planes: planes.clone(),
                samples: recorder.sink(),
                spans: spans.clone(),
                accepted,
                drain_by: drain_by.clone(),
                load: Arc::clone(&end.load),
                pools,
                places: Arc::clone(&places),
            };
            threads.push(start_thread(&format!("worker-{number}"), || {
                worker_main(inputs)
            })?);
            ends.push(end);
        }
        let permits = Arc::new(Semaphore::new(connections));
        let drain_by = drain_by.clone();
        let accept = || accept_all(listener, ends, permits, drain_by);
        threads.push(start_thread("listener", accept)?);
        Ok(Self {
            addr,
            gauges,
            threads,
        })
    }

    /// Waits until every thread has finished; they do so at the drain deadline at the latest.
    pub async fn finished(self) {
        for thread in self.threads {
            // An error means that the thread is gone, which is what is waited for.
            drop(thread.await);
        }
    }
}

/// Runs a future on a runtime and a thread of its own; the receiver resolves when both are gone.
fn start_thread<F, R>(name: &str, make: F) -> io::Result<oneshot::Receiver<()>>
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = ()>,
{
    let (done, finished) = oneshot::channel::<()>();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(make()),
                Err(error) => tracing::error!(%error, "a data-plane thread cannot start"),
            }
            // The runtime is dropped by now, with all connections that were left.
            drop(done);
        })?;
    Ok(finished)
}

async fn accept_all(
    listener: StdListener,
    workers: Vec<WorkerEnd>,
    permits: Arc<Semaphore>,
    mut drain_by: DrainBy,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the data port cannot be served");
            return;
        }
    };
    let mut back_off = Duration::ZERO;
    loop {
        // At the cap, further connections wait in the kernel's queue.
        let accepted = async {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let (tcp, _) = listener.accept().await?;
            Ok::<_, io::Error>(Accepted {
                tcp: tcp.into_std()?,
                _permit: permit,
            })
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = drain_by.wait_for(Option::is_some) => return,
        };
        match accepted {
            Ok(accepted) => {
                back_off = Duration::ZERO;
                hand_over(&workers, accepted);
            }
            Err(error) => {
                // Out of descriptors, or a client that left again: neither may end the daemon.
                back_off = (back_off * 2).clamp(Duration::from_millis(5), ACCEPT_BACK_OFF_MAX);
                tracing::warn!(%error, "accept failed; trying again");
                tokio::time::sleep(back_off).await;
            }
        }
    }
}

fn hand_over(workers: &[WorkerEnd], accepted: Accepted) {
    let idlest = workers
        .iter()
        .min_by_key(|worker| worker.load.0.load(Ordering::Relaxed));
    let Some(worker) = idlest else { return };
    worker.load.0.fetch_add(1, Ordering::Relaxed);
    if worker.hand_over.try_send(accepted).is_err() {
        // The worker does not keep up at all; a closed connection tells the client so at once.
        worker.load.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct WorkerInputs {
    planes: watch::Receiver<Arc<Plane>>,
    samples: SampleSink,
    spans: SpanSink,
    accepted: mpsc::Receiver<Accepted>,
    drain_by: DrainBy,
    load: Arc<Load>,
    pools: Arc<Pools>,
    places: Arc<Places>,
}

async fn worker_main(mut inputs: WorkerInputs) {
    let first = Arc::clone(&inputs.planes.borrow_and_update());
    let plane = match WorkerPlane::new(&first, None) {
        Ok(plane) => plane,
        Err(error) => return tracing::error!(error, "a worker cannot start"),
    };
    let share = Share::new(inputs.places);
    let worker = Worker::new(plane, inputs.samples, inputs.spans, share);
    let serving = Rc::new(Serving::new(worker, inputs.load));
    let worker = Rc::clone(&serving.worker);
    tokio::task::spawn_local(async move { worker.samples.flush_now_and_then().await });
    tokio::task::spawn_local(follow_planes(Rc::clone(&serving.worker), inputs.planes));
    tokio::task::spawn_local(sweep_pools(Rc::clone(&serving.worker)));
    for arm in Arm::BOTH {
        let (worker, pools) = (Rc::clone(&serving.worker), Arc::clone(&inputs.pools));
        tokio::task::spawn_local(keep_warm(worker, arm, pools));
    }
    loop {
        tokio::select! {
            accepted = inputs.accepted.recv() => match accepted {
                Some(accepted) => {
                    tokio::task::spawn_local(serve(Rc::clone(&serving), accepted));
                }
                None => break,
            },
            _ = inputs.drain_by.wait_for(Option::is_some) => break,
        }
    }
    serving.worker.draining.set(true);
    serving.drain.notify_waiters();
    // The listener ends as well. What it accepted before counts as load, so it is waited for: left in
    // the queue it would hold the end up for the whole drain time.
    while let Some(accepted) = inputs.accepted.recv().await {
        tokio::task::spawn_local(serve(Rc::clone(&serving), accepted));
    }
    let deadline = inputs.drain_by.borrow().unwrap_or_else(Instant::now);
    all_ended(&serving, deadline).await;
}

async fn all_ended(serving: &Serving, deadline: Instant) {
    loop {
        let ended = serving.connection_ended.notified();
        let left = serving.load.0.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep_until(deadline) => {
                return tracing::warn!(connections = left, "the drain time is over; cutting");
            }
        }
    }
}

async fn follow_planes(worker: Rc<Worker>, mut planes: watch::Receiver<Arc<Plane>>) {
    while planes.changed().await.is_ok() {
        let next = Arc::clone(&planes.borrow_and_update());
        match WorkerPlane::new(&next, Some(&worker.plane())) {
            Ok(plane) => worker.replace_plane(plane),
            Err(error) => tracing::error!(error, "a new configuration cannot be served"),
        }
    }
}

/// An arm that a rollout may send the next request to has a connection ready, and how many there are is told. One task per arm, so that
/// one that does not answer holds up no other.
async fn keep_warm(worker: Rc<Worker>, arm: Arm, pools: Arc<Pools>) {
    while !worker.draining.get() {
        let plane = worker.plane();
        if plane.rollouts.iter().any(|rollout| rollout.keeps_warm(arm)) {
            let limit = plane.config.arms.get(arm).timeouts.connect;
            plane.arms.get(arm).pool.keep_warm(limit).await;
        }
        pools.publish(arm, plane.arms.get(arm).pool.figures());
        drop(plane);
        tokio::time::sleep(WARM_EVERY).await;
    }
}

async fn sweep_pools(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let (plane, now) = (worker.plane(), Instant::now());
        plane.arms.legacy.pool.close_stale(now);
        plane.arms.canary.pool.close_stale(now);
    }
}
