//! An answer whose client went away, read on for a while: its usage comes last, and it is paid for anyway.
//!
//! A task of the worker's own per answer, [`DRAINS_MOST`] of them at once; beyond that, and during shutdown,
//! the arm is hung up on at once, as it is without `drain-after-disconnect`. An attempt whose answer has no
//! head yet is never read on. Nothing here touches a client.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ArmClock, Edit, LiveBody, Pieces};
use crate::proxy::plane::Worker;

/// Answers of one worker that are read on at once.
const DRAINS_MOST: usize = 256;

/// A place among the answers that are read on; given back when it is dropped.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let taken = worker.drains.get();
        if taken >= DRAINS_MOST {
            return None;
        }
        worker.drains.set(taken + 1);
        Some(Self(Rc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.drains.set(self.0.drains.get().saturating_sub(1));
    }
}

/// Takes what is left out of a body that is being dropped, and reads it in a task of its own. The arm's
/// limits hold on: idle, total, and its place under `max-concurrency` until the end.
pub(super) fn hand_over(dropped: &mut LiveBody) {
    let Some(place) = Place::take(dropped.meter.worker()) else {
        return;
    };
    let Some(meter) = dropped.meter.read_on() else {
        return;
    };
    let mut limits = dropped.clock.limits();
    let until = Instant::now() + limits.after_disconnect;
    // What is dropped in turn is gone for good.
    limits.after_disconnect = Duration::ZERO;
    let rest = LiveBody {
        held: Pieces::new(),
        incoming: dropped.incoming.take(),
        connection: dropped.connection.take(),
        pool: Rc::clone(&dropped.pool),
        meter,
        clock: ArmClock::new(limits, dropped.clock.take_alarm()),
        edit: dropped.edit.take().and_then(Edit::for_the_meter),
        last: None,
        ended: None,
        broken: None,
    };
    tokio::task::spawn_local(async move {
        // Out of time, what is left is dropped, and with it the connection.
        drop(tokio::time::timeout_at(until, read(rest)).await);
        drop(place);
    });
}

/// Reads to the end, whatever that is. The meter takes note of it.
async fn read(mut rest: LiveBody) {
    while let Ok(true) = rest.hold_next().await {
        drop(std::mem::take(&mut rest.held));
    }
}
