//! How long an arm may take: its limits, those of single models, and which of them a request has.
//!
//! Plain values. Looking a request's limits up allocates nothing, and costs nothing without patterns.

use std::num::NonZeroU32;
use std::time::Duration;

use super::values::Glob;

/// A client may state any `max_tokens`; more than this adds no further time.
const TOKENS_MOST: u64 = 1_000_000;
/// Requests seldom take more tokens than this; those that do are not waited for in the counts.
const TOKENS_USUAL: u64 = 32_000;

/// Time limits of one arm, or of some of its models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub connect: Duration,
    /// To the first byte of a streamed answer's head.
    pub first_byte_stream: Duration,
    /// To the first byte of a plain answer's head, when the file sets `first-byte`.
    pub first_byte_plain: Option<Duration>,
    /// Between two chunks.
    pub idle: Duration,
    /// A whole streamed answer, when the file sets `total`.
    pub total_stream: Option<Duration>,
    /// A whole plain answer.
    pub total_plain: Duration,
    /// A request that states the most tokens it takes has so much longer than `total` as they need at this
    /// speed.
    pub tokens_per_second: Option<NonZeroU32>,
}

/// Limits for the models whose names, as clients write them, match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTimeouts {
    /// Which models.
    pub models: Glob,
    /// Their limits, complete: what the file does not name is the arm's.
    pub timeouts: Timeouts,
}

impl Timeouts {
    /// The limits of a request for `model`: those of the first pattern that matches, else the arm's.
    #[must_use]
    pub fn for_model<'a>(&'a self, models: &'a [ModelTimeouts], model: Option<&str>) -> &'a Self {
        let Some(model) = model.filter(|_| !models.is_empty()) else {
            return self;
        };
        let found = models.iter().find(|entry| entry.models.matches(model));
        found.map_or(self, |entry| &entry.timeouts)
    }

    /// The time to the first byte of an answer's head; `None` if only the whole answer is limited.
    #[must_use]
    pub const fn first_byte(&self, streamed: bool) -> Option<Duration> {
        if streamed {
            Some(self.first_byte_stream)
        } else {
            self.first_byte_plain
        }
    }

    /// The time for a whole answer of at most `max_tokens`; `None` if that is not limited.
    #[must_use]
    pub fn total(&self, streamed: bool, max_tokens: Option<u64>) -> Option<Duration> {
        let total = if streamed {
            self.total_stream?
        } else {
            self.total_plain
        };
        let (Some(speed), Some(tokens)) = (self.tokens_per_second, max_tokens) else {
            return Some(total);
        };
        let extra_ms = tokens.min(TOKENS_MOST) * 1_000 / u64::from(speed.get());
        Some(total.saturating_add(Duration::from_millis(extra_ms)))
    }

    /// No attempt under these limits is silent for longer than this, if it takes no more tokens than is usual.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let waits = [
            Some(self.first_byte_stream),
            self.first_byte_plain,
            Some(self.idle),
            self.total(true, Some(TOKENS_USUAL)),
            self.total(false, Some(TOKENS_USUAL)),
        ];
        let longest = waits.into_iter().flatten().max().unwrap_or_default();
        self.connect.saturating_add(longest)
    }
}

/// Puts the longest pattern first, so that the most special one that matches counts; of two that are as
/// long, the one that comes first in the alphabet.
pub(super) fn sort(models: &mut [ModelTimeouts]) {
    models.sort_by(|a, b| {
        let (a, b) = (a.models.as_str(), b.models.as_str());
        b.len().cmp(&a.len()).then_with(|| a.cmp(b))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn timeouts(total_s: u64, speed: u32) -> Timeouts {
        Timeouts {
            connect: s(2),
            first_byte_stream: s(60),
            first_byte_plain: None,
            idle: s(300),
            total_stream: None,
            total_plain: s(total_s),
            tokens_per_second: NonZeroU32::new(speed),
        }
    }

    #[test]
    fn the_longest_pattern_that_matches_counts() {
        let arm = timeouts(1, 0);
        let mut models: Vec<ModelTimeouts> = ["*", "o3*", "o3-pro", "o1*"]
            .into_iter()
            .zip(10..)
            .map(|(pattern, total_s)| ModelTimeouts {
                models: Glob::new(pattern),
                timeouts: timeouts(total_s, 0),
            })
            .collect();
        sort(&mut models);
        let check = |models: &[ModelTimeouts], model, expected_s| {
            let found = arm.for_model(models, model).total_plain;
            assert_eq!(found, s(expected_s), "{model:?}");
        };
        check(&models, Some("o3-pro"), 12);
        check(&models, Some("o3-mini"), 11);
        check(&models, Some("o1"), 13);
        check(&models, Some("gpt-4.1"), 10);
        check(&models, None, 1);
        models.retain(|entry| entry.models.as_str() != "*");
        check(&models, Some("gpt-4.1"), 1);
        check(&[], Some("o3-pro"), 1);
    }

    #[test]
    fn the_tokens_that_a_request_may_take_make_its_total_longer() {
        let check = |limits: Timeouts, streamed, tokens, expected| {
            assert_eq!(limits.total(streamed, tokens), expected, "{tokens:?}");
        };
        check(timeouts(30, 20), false, None, Some(s(30)));
        check(timeouts(30, 20), false, Some(0), Some(s(30)));
        check(timeouts(30, 20), false, Some(4_000), Some(s(230)));
        check(timeouts(30, 0), false, Some(4_000), Some(s(30)));
        check(timeouts(30, 20), true, Some(4_000), None);
        let both = Timeouts {
            total_stream: Some(s(30)),
            ..timeouts(30, 20)
        };
        check(both, true, Some(4_000), Some(s(230)));
        // Whatever a client states, its request ends.
        let most = Some(s(30 + TOKENS_MOST));
        check(timeouts(30, 1), false, Some(u64::MAX), most);
        assert_eq!(timeouts(30, 1).longest(), s(32 + TOKENS_USUAL));
        // Half an hour at the usual speeds, not half a day.
        assert_eq!(timeouts(300, 20).longest(), s(302 + 1_600));
        assert_eq!(timeouts(30, 0).longest(), s(302));
    }
}
