//! The record of one attempt: what the data plane tells the rest of the program.
//!
//! Plain data. It never holds a body, a credential or a raw sticky key.

use serde::{Deserialize, Serialize};

use crate::arm::{Arm, Weight};
use crate::clock::UnixMillis;
use crate::llm::Dialect;
use crate::outcome::Outcome;

/// Why an attempt was made, and so what it may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The first attempt of an assigned request: the only role that is evidence.
    Live,
    /// The same request on the other arm after the first attempt failed.
    Rescue,
    /// The same request on the same arm after the first attempt failed.
    Retry,
    /// The same request on the other arm because the first had reached its `max-concurrency`.
    Overflow,
    /// A live request sent to a tripped canary to see whether it is back.
    Probe,
    /// The arm was forced by a header.
    Override,
    /// Not eligible, or tied to provider-side state: the canary if the state is known to be its own, else
    /// legacy.
    Pinned,
}

impl Role {
    /// The word used in the store and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Rescue => "rescue",
            Self::Retry => "retry",
            Self::Overflow => "overflow",
            Self::Probe => "probe",
            Self::Override => "override",
            Self::Pinned => "pinned",
        }
    }

    /// The inverse of [`Role::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Live,
            Self::Rescue,
            Self::Retry,
            Self::Overflow,
            Self::Probe,
            Self::Override,
            Self::Pinned,
        ]
        .into_iter()
        .find(|role| role.as_str() == word)
    }
}

/// Tokens as the answer stated them, in one meaning for all dialects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All input tokens, those read from or written to a prompt cache included.
    pub input_tokens: u32,
    /// The part of `input_tokens` that was read from a prompt cache.
    pub cached_input_tokens: u32,
    /// The part of `input_tokens` that was written to a prompt cache.
    pub cache_write_tokens: u32,
    /// All output tokens, reasoning included.
    pub output_tokens: u32,
    /// The part of `cache_write_tokens` that is kept for an hour instead of minutes, at a price of its own.
    pub cache_write_1h_tokens: u32,
}

/// How a live first attempt was routed: what is counted at that moment, long before its sample exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// As in [`Sample::rollout`].
    pub rollout: u16,
    /// As in [`Sample::config_epoch`].
    pub config_epoch: u32,
    /// The effective weight that the arm was chosen under.
    pub weight: Weight,
    /// The arm that the bucket of the sticky key names.
    pub assigned: Arm,
    /// The arm that was asked.
    pub arm: Arm,
    /// The second in which the attempt began, see [`Sample::second`].
    pub second: i64,
}

/// One finished attempt. Exactly one exists per attempt, on every way out.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When the attempt began.
    pub started_at: UnixMillis,
    /// The rollout that covered the request, as its place in the configuration of `config_epoch`;
    /// `None` for pinned requests outside every rollout.
    pub rollout: Option<u16>,
    /// Counts configurations since start; a sample never enters evidence of another epoch.
    pub config_epoch: u32,
    /// The arm that was asked.
    pub arm: Arm,
    /// The arm that the bucket of the sticky key names.
    pub assigned: Arm,
    /// The effective weight when the request was assigned.
    pub weight: Weight,
    /// The stage when the request was assigned, from 0.
    pub stage: u16,
    /// What the attempt may be used for.
    pub role: Role,
    /// 1 for the first attempt of a request, 2 for its rescue, 2 and 3 for retries.
    pub attempt: u8,
    /// What became of it.
    pub outcome: Outcome,
    /// The upstream's status, or 0 when none came.
    pub status: u16,
    /// From the start of the attempt to its end, in microseconds. With `client-gone`, a timeout or a
    /// reset this is a lower bound of what the answer would have taken.
    pub latency_us: u64,
    /// From the start of the attempt to the first content token, in microseconds. Streams only.
    pub ttft_us: Option<u64>,
    /// The request asked for a stream.
    pub streamed: bool,
    /// The answer reached its terminal marker or its full length.
    pub complete: bool,
    /// The attempt's connection was open before: it had served an earlier request, or was kept warm.
    pub conn_reused: bool,
    /// The client's SDK marked the request as a retry of its own.
    pub client_retry: bool,
    /// How it calls a model, whether or not its body was read: it may cost money. `None`: it calls none.
    pub dialect: Option<Dialect>,
    /// The model that the client named, at most [`Sample::MODEL_MAX_BYTES`] bytes of it.
    pub model: Option<Box<str>>,
    /// Tokens, where the answer stated them.
    pub usage: Option<Usage>,
    /// The upstream's id of the request, at most [`Sample::REQUEST_ID_MAX_BYTES`] bytes of it.
    pub upstream_request_id: Option<Box<str>>,
    /// Hash of the sticky key; 0 when the request had none.
    pub key_hash: u64,
    /// Hash of the request's body, to tell repeats; 0 when it was not read. Never stored.
    pub body_hash: u64,
    /// What the provider itself says that the answer cost, in US dollars: finite, from 0 to
    /// [`Sample::REPORTED_COST_MAX_USD`].
    pub reported_cost_usd: Option<f64>,
    /// What the header that `proxy.tag-header` names says, at most [`Sample::TAG_MAX_BYTES`] bytes.
    pub tag: Option<Box<str>>,
    /// The role of the request's first attempt; its own, if it is that. Never stored.
    pub first_role: Role,
}

impl Sample {
    /// Bound on a stored model name.
    pub const MODEL_MAX_BYTES: usize = 96;
    /// Bound on a stored upstream request id.
    pub const REQUEST_ID_MAX_BYTES: usize = 96;
    /// A longer tag is none.
    pub const TAG_MAX_BYTES: usize = 64;
    /// No single answer costs more: a larger number is a mistake of the provider.
    pub const REPORTED_COST_MAX_USD: f64 = 100_000.0;

    /// The tag that the bytes of a header's value are; `None` for one that is too long, empty, or not
    /// visible ASCII.
    #[must_use]
    pub fn tag_of(value: &[u8]) -> Option<Box<str>> {
        let tag = std::str::from_utf8(value).ok()?.trim();
        let is_tag = !tag.is_empty()
            && tag.len() <= Self::TAG_MAX_BYTES
            && tag.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        is_tag.then(|| tag.into())
    }

    /// The second since 1970 in which the attempt began.
    #[must_use]
    pub const fn second(&self) -> i64 {
        second_of(self.started_at)
    }

    /// When the attempt ended; a little early, for setting up a connection is not part of its latency.
    #[must_use]
    pub fn ended_at(&self) -> UnixMillis {
        let millis = i64::try_from(self.latency_us / 1_000).unwrap_or(i64::MAX);
        self.started_at.plus_millis(millis)
    }

    /// True if the sample may enter live evidence: a first attempt, of no retry by the client's SDK,
    /// with an outcome that says something about the arm.
    #[must_use]
    pub const fn is_evidence(&self) -> bool {
        matches!(self.role, Role::Live) && !self.client_retry && self.outcome.is_evidence()
    }

    /// Time per output token after the first, in microseconds (TPOT): from the first content to the end,
    /// over the output tokens but one. Of streamed answers that ended well and stated at least two.
    #[must_use]
    pub fn tpot_us(&self) -> Option<f64> {
        let output = self.usage?.output_tokens;
        if self.outcome != Outcome::Ok || !self.streamed || output < 2 {
            return None;
        }
        let generating_us = self.latency_us.checked_sub(self.ttft_us?)?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "times below 285 years are exact"
        )]
        let generating_us = generating_us as f64;
        Some(generating_us / f64::from(output - 1))
    }

    /// Output tokens per second of the whole answer, the wait for the first one included. Of plain and
    /// streamed answers that ended well and stated at least one.
    #[must_use]
    pub fn tokens_per_s(&self) -> Option<f64> {
        let output = self.usage?.output_tokens;
        if self.outcome != Outcome::Ok || output == 0 || self.latency_us == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "times below 285 years are exact"
        )]
        let seconds = self.latency_us as f64 / 1e6;
        Some(f64::from(output) / seconds)
    }

    /// True if the attempt cost money, or may have: it stated tokens or a cost, showed content, or answered
    /// a call of a model well.
    #[must_use]
    pub const fn was_served(&self) -> bool {
        self.usage.is_some() || self.reported_cost_usd.is_some() || self.stated_no_usage()
    }

    /// True if the call of a model was answered, at least in part, and stated no tokens at all.
    #[must_use]
    pub const fn stated_no_usage(&self) -> bool {
        let is_answered = matches!(self.outcome, Outcome::Ok) || self.ttft_us.is_some();
        self.usage.is_none() && self.dialect.is_some() && (is_answered || self.was_cut())
    }

    /// True if the answer had begun well and was cut off, by whomever: its provider may bill it all the same.
    /// An error that the answer itself states is none of these.
    const fn was_cut(&self) -> bool {
        let is_cut = matches!(
            self.outcome,
            Outcome::ClientGone
                | Outcome::TimeoutFirstByte
                | Outcome::TimeoutIdle
                | Outcome::TimeoutTotal
                | Outcome::Reset
                | Outcome::Truncated
                | Outcome::Internal
        );
        is_cut && !self.complete && self.status >= 200 && self.status < 300
    }

    /// The arm whose counted failure this attempt made good, so that the client did not see it: the other one
    /// for a rescue, its own for a retry. `None` where that failure is not counted: a probe's or an override's.
    #[must_use]
    pub const fn masks_failure_of(&self) -> Option<Arm> {
        match (self.first_role, self.role) {
            (Role::Live, Role::Rescue) if self.is_masking() => Some(self.arm.other()),
            (Role::Live, Role::Retry) if self.is_masking() => Some(self.arm),
            _ => None,
        }
    }

    /// True if the attempt made a failure good, whatever the first attempt was for.
    #[must_use]
    pub const fn is_masking(&self) -> bool {
        matches!(self.role, Role::Rescue | Role::Retry) && matches!(self.outcome, Outcome::Ok)
    }
}

/// A copy of at most `max_bytes` bytes, cut between two characters.
#[must_use]
pub fn clipped(text: &str, max_bytes: usize) -> Box<str> {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

/// The second since 1970 that a time lies in.
#[must_use]
pub const fn second_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_short_visible_text() {
        let longest = "x".repeat(Sample::TAG_MAX_BYTES);
        let cases: [(&[u8], Option<&str>); 9] = [
            (b"search", Some("search")),
            (b" Team A ", Some("Team A")),
            (longest.as_bytes(), Some(&longest)),
            (
                b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                None,
            ),
            (b"", None),
            (b"  ", None),
            (b"a\tb", None),
            ("\u{e4}".as_bytes(), None),
            (b"\xff", None),
        ];
        for (value, expected) in cases {
            assert_eq!(Sample::tag_of(value).as_deref(), expected, "{value:?}");
        }
    }
}
