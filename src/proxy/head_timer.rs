//! The timer that holds clients to the time for a request's head, without one being made for every request.
//!
//! hyper asks for a timer when it begins to wait for a head and drops it when the head is there. Here such
//! timers are kept by the worker's thread, registered as they are, and taken again by the next who waits.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use crate::upstream::alarm::Alarm;

/// Timers that one thread keeps at most.
const KEPT_MAX: usize = 1_024;

thread_local! {
    /// The latest on top, so that those which ring unheard are few.
    static KEPT: RefCell<Vec<Alarm>> = const { RefCell::new(Vec::new()) };
}

/// Makes timers for the connections of a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadTimer;

/// One wait.
struct HeadSleep {
    at: tokio::time::Instant,
    alarm: Alarm,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        Box::pin(HeadSleep {
            at: deadline.into(),
            alarm: kept.unwrap_or_default(),
        })
    }
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        self.alarm.poll_at(at, cx)
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        let alarm = std::mem::take(&mut self.alarm);
        // While a thread ends, what it kept may be gone already: then this goes as well.
        let _gone = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if alarm.is_set() && kept.len() < KEPT_MAX {
                kept.push(alarm);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        KEPT.with_borrow(Vec::len)
    }

    #[tokio::test]
    async fn the_next_wait_takes_the_timer_of_one_that_is_over() {
        let soon = || Instant::now() + Duration::from_millis(5);
        HeadTimer.sleep_until(soon()).await;
        assert_eq!(kept(), 1);
        let second = HeadTimer.sleep_until(soon());
        assert_eq!(kept(), 0);
        let at = soon();
        let third = HeadTimer.sleep_until(at);
        second.await;
        third.await;
        assert!(Instant::now() >= at);
        assert_eq!(kept(), 2);
        // What nobody waited for was never registered.
        let taken: Vec<_> = (0..3).map(|_| HeadTimer.sleep_until(soon())).collect();
        drop(taken);
        assert_eq!(kept(), 2);
    }
}
