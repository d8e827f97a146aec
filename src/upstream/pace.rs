//! How long the next bytes of a client's body may be waited for.
//!
//! Only the time counts in which nothing but the client was waited for. A client that sends a byte now and
//! then is no better than one that sends none: beyond its first pause it has to keep a pace, slow enough for
//! any line that an application runs over.

use std::time::Duration;

use tokio::time::Instant;

/// What a body brings in a second at least, averaged over the time in which it was waited for.
const BYTES_PER_SECOND_LEAST: u64 = 1_024;

/// Times a client while its body comes.
#[derive(Debug)]
pub struct Pace {
    /// Without a byte at most, and before the pace counts.
    pause: Duration,
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// Nothing is waited for yet; `pause` is the longest time without a byte.
    #[must_use]
    pub const fn new(pause: Duration) -> Self {
        Self {
            pause,
            bytes: 0,
            waited: Duration::ZERO,
            since: None,
        }
    }

    /// The client is waited for from now on, unless it is already. Resolves when its next bytes are due.
    pub fn due(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let earned = Duration::from_secs(self.bytes / BYTES_PER_SECOND_LEAST);
        let left = (self.pause + earned).saturating_sub(self.waited);
        since + left.min(self.pause)
    }

    /// How long the client was waited for until its latest bytes came.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// So many bytes came.
    pub fn came(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(60);

    /// A client that sends `bytes` after every `gap`: how long until it is given up, if it is.
    fn given_up_after(bytes: u64, gap: Duration) -> Option<Duration> {
        let mut pace = Pace::new(PAUSE);
        let began = Instant::now();
        let mut now = began;
        for _ in 0..10_000 {
            let due = pace.due(now);
            if due < now + gap {
                return Some(due - began);
            }
            now += gap;
            pace.came(bytes, now);
        }
        None
    }

    #[test]
    fn a_client_is_given_up_when_it_pauses_too_long_or_never_gets_anywhere() {
        let s = Duration::from_secs;
        let check = |bytes, gap, expected| assert_eq!(given_up_after(bytes, gap), expected);
        check(1, s(61), Some(s(60)));
        check(1 << 20, s(61), Some(s(60)));
        check(1, s(10), Some(s(60)));
        check(1_024, s(10), Some(s(66)));
        check(10 * 1_024, s(10), None);
        check(1 << 20, s(59), None);
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_client_is_not_its_own() {
        let mut pace = Pace::new(PAUSE);
        let mut now = Instant::now();
        for _ in 0..100 {
            assert!(pace.due(now) > now);
            pace.came(1, now);
            // The arm does not take it.
            now += PAUSE;
        }
    }
}
