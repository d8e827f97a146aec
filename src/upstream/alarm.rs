//! One timer that goes from one wait to the next.
//!
//! To register a timer and to cancel it again costs more than the wait of most requests is worth. An alarm
//! stays registered: it is moved only where it would ring too late, or when it has rung too early. It never
//! rings before the moment that is asked for.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for one wait after the other.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// An alarm that nobody has waited for yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// True if somebody waited for it before.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Resolves at that moment, or soon after. The clock is read only when the timer rings.
    pub fn poll_at(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at || sleep.is_elapsed() {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }

    /// What the future comes to, if it does so before it is due. What is on its way already needs no timer:
    /// only where nothing came by the task's next turn is it asked when it is due.
    pub async fn race_patiently<F: Future>(
        &mut self,
        due: impl FnOnce() -> Instant,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut has_turned = self.is_set();
        let (mut due, mut at) = (Some(due), None);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if !has_turned {
                has_turned = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(due) = due.take() {
                at = Some(due());
            }
            at.map_or(Poll::Pending, |at| self.poll_at(at, cx).map(|()| None))
        })
        .await
    }

    /// What the future comes to, if it does so before that moment.
    pub async fn race<F: Future>(&mut self, at: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_at(at, cx).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_each_moment_that_is_asked_for_and_never_before() {
        let mut alarm = Alarm::new();
        for wait_ms in [20, 5, 5, 40, 1, 0, 10] {
            let at = Instant::now() + Duration::from_millis(wait_ms);
            assert_eq!(alarm.race(at, pending::<()>()).await, None);
            assert!(Instant::now() >= at, "{wait_ms}");
        }
    }

    /// Begins to wait and gives up.
    async fn begin(alarm: &mut Alarm, at: Instant) {
        let is_early = poll_fn(|cx| Poll::Ready(alarm.poll_at(at, cx).is_pending()));
        assert!(is_early.await && alarm.is_set());
    }

    #[tokio::test]
    async fn a_later_moment_that_was_given_up_holds_up_no_nearer_one() {
        let mut alarm = Alarm::new();
        begin(&mut alarm, Instant::now() + Duration::from_secs(3_600)).await;
        // Would it ring at the far one, this test would never end.
        let near = Instant::now() + Duration::from_millis(5);
        assert_eq!(alarm.race(near, pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn a_nearer_moment_that_was_given_up_shortens_no_later_one() {
        let mut alarm = Alarm::new();
        begin(&mut alarm, Instant::now() + Duration::from_millis(10)).await;
        let far = Instant::now() + Duration::from_millis(50);
        assert_eq!(alarm.race(far, pending::<()>()).await, None);
        assert!(Instant::now() >= far);
    }

    #[tokio::test]
    async fn what_is_ready_or_comes_at_once_needs_no_timer() {
        let mut alarm = Alarm::new();
        assert_eq!(alarm.race(Instant::now(), ready(7)).await, Some(7));
        let limit = Duration::from_secs(3_600);
        let next_turn = async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(
            alarm
                .race_patiently(|| Instant::now() + limit, next_turn)
                .await,
            Some(7)
        );
        assert!(!alarm.is_set());
    }

    #[tokio::test]
    async fn patience_ends() {
        let mut alarm = Alarm::new();
        for _ in 0..3 {
            let began = Instant::now();
            let limit = Duration::from_millis(5);
            assert_eq!(
                alarm
                    .race_patiently(|| Instant::now() + limit, pending::<()>())
                    .await,
                None
            );
            assert!(began.elapsed() >= limit);
        }
    }
}
