//! How many requests may be under way at an arm at once, and the short queue before it.
//!
//! One per arm that has `max-concurrency`, shared by all workers; arms without it pay nothing. Bounded: so
//! many slots, so many waiting, and nobody waits longer than [`WAIT_MAX`]. A new limit counts from zero:
//! requests that are under way then hold slots of the old one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Concurrency;

/// The longest wait for a slot.
pub const WAIT_MAX: Duration = Duration::from_secs(1);

/// One arm's limit.
#[derive(Debug)]
pub struct Limit {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    rule: Concurrency,
}

/// Leave to be under way; given back when it is dropped.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// One who waits; leaves the queue when it is dropped, so also when its client goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limit {
    /// A limit with all slots free.
    #[must_use]
    pub fn new(rule: Concurrency) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(rule.max.get())),
            waiting: AtomicUsize::new(0),
            rule,
        }
    }

    /// What it was made from.
    #[must_use]
    pub const fn rule(&self) -> Concurrency {
        self.rule
    }

    /// Takes a slot, if need be after a wait; `None` if the queue is full or the wait was in vain.
    pub async fn enter(&self) -> Option<Slot> {
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(Slot(permit));
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= self.rule.queue {
            return None;
        }
        let slot = Arc::clone(&self.slots).acquire_owned();
        let slot = tokio::time::timeout(WAIT_MAX, slot).await;
        drop(waiting);
        slot.ok()?.ok().map(Slot)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn limit(max: usize, queue: usize) -> Limit {
        let max = NonZeroUsize::new(max).unwrap();
        Limit::new(Concurrency { max, queue })
    }

    #[tokio::test]
    async fn who_waits_gets_the_slot_that_is_given_back() {
        let limit = limit(1, 1);
        let first = limit.enter().await.unwrap();
        let (second, ()) = tokio::join!(limit.enter(), async {
            assert!(limit.enter().await.is_none(), "the queue is full");
            drop(first);
        });
        assert!(second.is_some());
        assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn without_a_queue_nobody_waits_and_in_one_nobody_waits_for_long() {
        for queue in [0, 1] {
            let limit = limit(1, queue);
            let slot = limit.enter().await;
            assert!(slot.is_some() && limit.enter().await.is_none(), "{queue}");
            drop(slot);
            assert!(limit.enter().await.is_some(), "{queue}");
        }
    }

    #[tokio::test]
    async fn who_leaves_the_queue_makes_room_in_it() {
        let limit = limit(1, 1);
        let slot = limit.enter().await.unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(5), limit.enter());
        assert!(gone.await.is_err());
        let (next, ()) = tokio::join!(limit.enter(), async { drop(slot) });
        assert!(next.is_some());
    }
}
