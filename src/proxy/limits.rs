//! The limits in time of one attempt, and the clock that holds the arm to them.
//!
//! The arm is timed only while it is waited for. A client that does not take what is there stops the
//! reading from the arm as well, and that time counts neither as idle nor towards the total.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Call;
use crate::arm::Arm;
use crate::outcome::Outcome;
use crate::upstream::alarm::Alarm;

/// The limits of one attempt, for its model and its size.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect.
    pub connect: Duration,
    /// To the head; `None`: it has as long as the whole answer.
    first_byte: Option<Duration>,
    /// Between two chunks.
    idle: Duration,
    /// When the whole answer must be there, if the client takes it as it comes.
    total_at: Option<Instant>,
    /// How long the rest is read after the client went away; zero: not at all.
    pub after_disconnect: Duration,
}

impl Limits {
    /// Those of an attempt on `arm` that begins now.
    #[must_use]
    pub fn of(call: &Call<'_>, arm: Arm, now: Instant) -> Self {
        let arm = call.plane.config.arms.get(arm);
        let timeouts = arm.timeouts.for_model(&arm.model_timeouts, call.model);
        let total = timeouts.total(call.streamed, call.max_tokens);
        Self {
            connect: timeouts.connect,
            first_byte: timeouts.first_byte(call.streamed),
            idle: timeouts.idle,
            total_at: total.map(|total| now + total),
            after_disconnect: call.plane.config.proxy.drain_after_disconnect,
        }
    }

    /// No limit for the whole any more, only between two chunks.
    pub const fn drop_total(&mut self) {
        self.total_at = None;
    }

    /// The same for an upload that took so long: the arm's time begins at its end.
    #[must_use]
    pub fn after_upload(mut self, took: Duration) -> Self {
        self.total_at = self.total_at.map(|at| at + took);
        self
    }

    /// When the head of a request that is sent now must be there, and what it is if it is not.
    #[must_use]
    pub fn head_by(&self, now: Instant) -> (Instant, Outcome) {
        let first_byte = self.first_byte.map(|limit| now + limit);
        let first_byte = first_byte.map(|at| (at, Outcome::TimeoutFirstByte));
        let total = self.total_at.map(|at| (at, Outcome::TimeoutTotal));
        let both = first_byte.into_iter().chain(total);
        // A stream has the one, a plain answer the other, whatever is configured.
        let nearest = both.min_by_key(|(at, _)| *at);
        nearest.unwrap_or((now + self.idle, Outcome::TimeoutFirstByte))
    }
}

/// Times an arm while its body comes.
#[derive(Debug)]
pub struct ArmClock {
    limits: Limits,
    /// Since when the arm's next chunk is waited for, if it is.
    awaited_since: Option<Instant>,
    /// When the client was last given something, unless it has come for more.
    handed_at: Option<Instant>,
    alarm: Alarm,
    /// The arm's first chunk was asked for.
    has_asked: bool,
}

impl ArmClock {
    /// Nothing is waited for yet.
    #[must_use]
    pub const fn new(limits: Limits, alarm: Alarm) -> Self {
        Self {
            limits,
            awaited_since: None,
            handed_at: None,
            alarm,
            has_asked: false,
        }
    }

    /// Gives its timer away; with it goes the clock's use.
    pub const fn take_alarm(&mut self) -> Alarm {
        std::mem::replace(&mut self.alarm, Alarm::new())
    }

    /// What it holds the arm to. The total is later by what the client has cost.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The client was given something.
    pub fn handed_over(&mut self) {
        if self.limits.total_at.is_some() {
            self.handed_at = Some(Instant::now());
        }
    }

    /// The client comes for more. It does so only when it could get rid of what it has.
    pub fn asked_for_more(&mut self) {
        if let Some(total_at) = &mut self.limits.total_at
            && let Some(handed_at) = self.handed_at.take()
        {
            *total_at += handed_at.elapsed();
        }
    }

    /// The arm gave something.
    pub const fn arrived(&mut self) {
        self.awaited_since = None;
    }

    /// True if what arrived is too late all the same: an arm that floods is never waited for.
    #[must_use]
    pub fn is_too_late(&self) -> bool {
        let at = self.limits.total_at;
        at.is_some_and(|at| Instant::now() >= at)
    }

    /// The arm is waited for. Resolves with the outcome of the limit that has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if !self.has_asked {
            // What came with the head is handed over when it is asked for, and is there at the next turn.
            self.has_asked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let since = *self.awaited_since.get_or_insert_with(Instant::now);
        let idle_at = since + self.limits.idle;
        let (at, outcome) = match self.limits.total_at {
            Some(total_at) if total_at < idle_at => (total_at, Outcome::TimeoutTotal),
            _ => (idle_at, Outcome::TimeoutIdle),
        };
        ready!(self.alarm.poll_at(at, cx));
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(5);

    fn clock(idle: Duration, total: Option<Duration>) -> ArmClock {
        let limits = Limits {
            connect: SHORT,
            first_byte: None,
            idle,
            total_at: total.map(|total| Instant::now() + total),
            after_disconnect: Duration::ZERO,
        };
        ArmClock::new(limits, Alarm::new())
    }

    async fn check(mut clock: ArmClock, expected: Outcome) {
        assert_eq!(poll_fn(|cx| clock.poll(cx)).await, expected);
    }

    #[tokio::test]
    async fn the_nearer_limit_ends_the_wait() {
        check(clock(SHORT, Some(LONG)), Outcome::TimeoutIdle).await;
        check(clock(LONG, Some(SHORT)), Outcome::TimeoutTotal).await;
        check(clock(SHORT, None), Outcome::TimeoutIdle).await;
    }

    #[test]
    fn the_head_of_a_plain_answer_has_as_long_as_the_whole_unless_it_is_told() {
        let now = Instant::now();
        let check = |first_byte, total: Option<Duration>, expected| {
            let mut limits = clock(LONG, None).limits();
            limits.first_byte = first_byte;
            limits.total_at = total.map(|total| now + total);
            let (at, outcome) = limits.head_by(now);
            assert_eq!((at - now, outcome), expected);
        };
        check(Some(LONG), None, (LONG, Outcome::TimeoutFirstByte));
        check(None, Some(LONG), (LONG, Outcome::TimeoutTotal));
        let both = (SHORT, Outcome::TimeoutFirstByte);
        check(Some(SHORT), Some(LONG), both);
        check(Some(LONG), Some(SHORT), (SHORT, Outcome::TimeoutTotal));
    }

    #[tokio::test]
    async fn a_chunk_begins_a_new_wait_but_no_new_total() {
        let mut late = clock(LONG, Some(Duration::ZERO));
        late.awaited_since = Some(Instant::now());
        late.arrived();
        assert!(late.is_too_late());
        assert_eq!(late.awaited_since, None);
        let early = clock(LONG, Some(LONG));
        assert!(!early.is_too_late());
        assert!(!clock(LONG, None).is_too_late());
    }

    #[tokio::test]
    async fn time_that_the_client_takes_is_not_the_arms() {
        let mut slow = clock(LONG, Some(Duration::ZERO));
        slow.handed_over();
        // As if the client had been given its last chunk a minute ago.
        slow.handed_at = slow.handed_at.and_then(|at| at.checked_sub(LONG / 60));
        slow.asked_for_more();
        assert!(!slow.is_too_late());
        assert_eq!(slow.handed_at, None);
        let moved = slow.limits().total_at;
        slow.asked_for_more();
        assert_eq!(slow.limits().total_at, moved, "it is counted once");
        // The time to the next chunk begins when the client is back.
        slow.limits.idle = SHORT;
        check(slow, Outcome::TimeoutIdle).await;
    }
}
