//! What one receiver has not taken yet: in order, bounded, and when to try again.
//!
//! Pure: `now` (milliseconds that never go back) and chance come in. What is being sent is out of the box;
//! it comes back if it failed.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::time::Duration;

/// Further messages push the oldest out.
pub(super) const MOST: usize = 100;
/// News of yesterday is none.
const OLDEST_MS: u64 = 24 * 3_600_000;
const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 300_000;
/// A receiver may ask for more, but not for silence.
const ASKED_MOST_MS: u64 = 3_600_000;

/// A message with the time at which it came.
#[derive(Debug, PartialEq)]
pub(super) struct Waiting<T> {
    pub(super) message: T,
    since_ms: u64,
}

/// The messages of one receiver.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    queue: VecDeque<Waiting<T>>,
    /// Tries of the oldest that failed in a row.
    tries: u32,
    due_ms: u64,
}

impl<T> Outbox<T> {
    pub(super) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            tries: 0,
            due_ms: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When to look again; `None`: when something comes.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (!self.queue.is_empty()).then_some(self.due_ms)
    }

    /// Adds a message; tells how many were pushed out for it.
    pub(super) fn push(&mut self, message: T, now_ms: u64) -> u64 {
        self.queue.push_back(Waiting {
            message,
            since_ms: now_ms,
        });
        self.crowd_out()
    }

    fn crowd_out(&mut self) -> u64 {
        let mut out = 0;
        while self.queue.len() > MOST {
            self.queue.pop_front();
            out += 1;
        }
        out
    }

    /// The oldest message if it is due, and how many were thrown away because they are too old.
    pub(super) fn take(&mut self, now_ms: u64) -> (Option<Waiting<T>>, u64) {
        let mut old = 0;
        while let Some(first) = self.queue.front()
            && now_ms.saturating_sub(first.since_ms) > OLDEST_MS
        {
            self.queue.pop_front();
            old += 1;
        }
        let is_due = now_ms >= self.due_ms;
        let taken = if is_due { self.queue.pop_front() } else { None };
        (taken, old)
    }

    /// What was taken is over: delivered, or refused for good. The next one may go at once.
    pub(super) fn over(&mut self) {
        self.tries = 0;
        self.due_ms = 0;
    }

    /// What was taken could not be delivered: it comes first again, after a wait that doubles, or that the
    /// receiver asked for. `draw` from 0 to 1 spreads the waits. Tells how many were pushed out.
    pub(super) fn put_back(
        &mut self,
        waiting: Waiting<T>,
        asked: Option<Duration>,
        draw: f64,
        now_ms: u64,
    ) -> u64 {
        let doubled = FIRST_WAIT_MS.saturating_mul(1 << self.tries.min(16));
        self.tries = self.tries.saturating_add(1);
        let asked_ms = asked.map_or(0, |asked| {
            u64::try_from(asked.as_millis()).unwrap_or(u64::MAX)
        });
        let wait_ms = jittered(doubled.min(LONGEST_WAIT_MS), draw);
        self.due_ms = now_ms.saturating_add(wait_ms.max(asked_ms.min(ASKED_MOST_MS)));
        self.queue.push_front(waiting);
        self.crowd_out()
    }

    /// The end is near: what waits may go at once.
    pub(super) fn hurry(&mut self) {
        self.due_ms = 0;
    }
}

/// Up to a fifth less: those that failed together must not come back together.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "at most five minutes, never negative"
)]
fn jittered(wait_ms: u64, draw: f64) -> u64 {
    (wait_ms as f64 * (1.0 - 0.2 * draw.clamp(0.0, 1.0))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(outbox: &mut Outbox<u32>, now_ms: u64) -> Option<u32> {
        outbox.take(now_ms).0.map(|taken| taken.message)
    }

    #[test]
    fn messages_go_in_order_and_one_that_fails_holds_up_those_behind_it() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.due_ms(), None);
        for message in 1..=3 {
            assert_eq!(outbox.push(message, 0), 0);
        }
        assert_eq!(take(&mut outbox, 0), Some(1));
        outbox.over();
        let second = outbox.take(10).0.unwrap();
        assert_eq!(outbox.put_back(second, None, 0.0, 10), 0);
        assert_eq!(outbox.due_ms(), Some(1_010));
        assert_eq!(take(&mut outbox, 1_009), None);
        assert_eq!(take(&mut outbox, 1_010), Some(2));
        outbox.over();
        assert_eq!(take(&mut outbox, 1_010), Some(3));
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_begin_anew_after_a_success() {
        let mut outbox = Outbox::new();
        outbox.push((), 0);
        let mut now_ms = 0;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let taken = outbox.take(now_ms).0.unwrap();
            outbox.put_back(taken, None, 0.0, now_ms);
            let due_ms = outbox.due_ms().unwrap();
            waits.push((due_ms - now_ms) / 1_000);
            now_ms = due_ms;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        outbox.take(now_ms).0.unwrap();
        outbox.over();
        outbox.push((), now_ms);
        let taken = outbox.take(now_ms).0.unwrap();
        outbox.put_back(taken, None, 1.0, now_ms);
        assert_eq!(outbox.due_ms(), Some(now_ms + 800), "spread by a fifth");
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait_but_not_for_silence() {
        let check = |asked_s: u64, expected_ms: u64| {
            let mut outbox = Outbox::new();
            outbox.push((), 0);
            let taken = outbox.take(0).0.unwrap();
            outbox.put_back(taken, Some(Duration::from_secs(asked_s)), 0.0, 0);
            assert_eq!(outbox.due_ms(), Some(expected_ms), "asked for {asked_s}s");
        };
        check(0, 1_000);
        check(7, 7_000);
        check(u64::MAX, ASKED_MOST_MS);
    }

    #[test]
    fn the_oldest_make_room_and_news_of_yesterday_is_dropped() {
        let mut outbox = Outbox::new();
        for message in 0..150 {
            let out = outbox.push(message, 0);
            assert_eq!(out, u64::from(message >= 100), "{message}");
        }
        let oldest = outbox.take(0).0.unwrap();
        assert_eq!(oldest.message, 50);
        outbox.push(150, 0);
        // The box filled up while it was on its way: it is the oldest, and goes.
        assert_eq!(outbox.put_back(oldest, None, 0.0, 0), 1);
        assert_eq!(outbox.len(), MOST);
        outbox.push(151, OLDEST_MS);
        outbox.hurry();
        let (taken, old) = outbox.take(OLDEST_MS + 1);
        assert_eq!((taken.map(|taken| taken.message), old), (Some(151), 99));
    }
}
