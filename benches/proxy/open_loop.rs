//! Requests on a fixed schedule: a late answer delays no later request, and every latency counts from
//! the moment that the schedule named.
//!
//! A closed loop would ask less while the proxy is slow, and so leave out just what is to be measured
//! ("coordinated omission"). The schedule is kept to the microsecond by a task that never sleeps.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::clients::{Connection, Load, Request, Seen};
use crate::pacer::Token;

/// What the first requests of a plan take is not counted: they open connections.
const WARM_UP: Duration = Duration::from_millis(500);
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// A schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Requests per second.
    pub(crate) rate: u32,
    /// Connections that take turns.
    pub(crate) connections: u32,
    /// How long it is measured.
    pub(crate) time: Duration,
    /// The clock of the events, if the requests ask for streams.
    pub(crate) streams: Option<Token>,
}

impl Plan {
    /// Requests on the schedule, those that are not counted included.
    pub(crate) fn requests(&self) -> u32 {
        let all = (WARM_UP + self.time).as_nanos() * u128::from(self.rate) / 1_000_000_000;
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

/// Plays `plan`; what was seen has a latency for each counted request, for a stream up to its first
/// event.
///
/// # Errors
/// The first fault of any client.
pub(crate) async fn play(
    address: SocketAddr,
    path: &'static str,
    plan: Plan,
) -> Result<Rc<Seen>, String> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..plan.connections).map(|_| unbounded_channel()).unzip();
    let receivers = RefCell::new(receivers);
    let load = Load::start(plan.connections, |seen, n| {
        let schedule = receivers.borrow_mut().pop();
        client(address, path, plan, seen, n, schedule)
    });
    let begun = Instant::now();
    while load.seen.open.get() < u64::from(plan.connections) {
        if begun.elapsed() > OPEN_LIMIT || load.seen.has_fault() {
            let open = load.seen.open.get();
            let fault = load.end().await.err().unwrap_or_default();
            return Err(format!("only {open} connections came to be: {fault}"));
        }
        sleep(Duration::from_millis(1)).await;
    }
    dispatch(&load.seen, plan, &senders).await;
    drop(senders);
    load.end().await
}

/// Tells each client when its requests are due, at that moment and never before.
async fn dispatch(seen: &Seen, plan: Plan, senders: &[UnboundedSender<Instant>]) {
    let begun = Instant::now();
    let turns = senders.iter().cycle();
    for (n, sender) in (0..plan.requests()).zip(turns) {
        let offset = u64::from(n) * 1_000_000_000 / u64::from(plan.rate);
        let due = begun + Duration::from_nanos(offset);
        while Instant::now() < due {
            yield_now().await;
        }
        seen.timed.set(begun + WARM_UP <= due);
        // Its client has ended by a fault, which is told at the end.
        if sender.send(due).is_err() {
            return;
        }
    }
}

async fn client(
    address: SocketAddr,
    path: &'static str,
    plan: Plan,
    seen: Rc<Seen>,
    n: u32,
    schedule: Option<UnboundedReceiver<Instant>>,
) -> Result<(), String> {
    let mut connection = Connection::open(address).await?;
    let mut request = Request::new(path, n, false);
    connection.ask(request.next()).await?;
    connection.completion().await?;
    seen.open.set(seen.open.get() + 1);
    let mut request = Request::new(path, n, plan.streams.is_some());
    let mut schedule = schedule.ok_or("no schedule")?;
    while let Some(due) = schedule.recv().await {
        let counts = seen.timed.get();
        connection.ask(request.next()).await?;
        let at = match &plan.streams {
            None => {
                connection.completion().await?;
                Instant::now()
            }
            Some(token) => connection.events(&seen, token).await?,
        };
        seen.answers.set(seen.answers.get() + 1);
        if counts {
            seen.latencies
                .borrow_mut()
                .push(i64::try_from((at - due).as_nanos()).unwrap_or(i64::MAX));
        }
    }
    Ok(())
}
