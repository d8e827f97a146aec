//! What became of an attempt, and whose fault it was: one closed vocabulary for logs, store, API and alerts.
//!
//! Pure. Whether an outcome counts against an arm is decided here and nowhere else.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// Class of a finished attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A complete answer.
    Ok,
    /// No connection: refused, unreachable, unknown name.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No connection within the connect timeout.
    TimeoutConnect,
    /// No first byte within its timeout.
    TimeoutFirstByte,
    /// A gap between two chunks was longer than the idle timeout.
    TimeoutIdle,
    /// The whole answer took longer than its timeout.
    TimeoutTotal,
    /// The connection broke before or within the answer.
    Reset,
    /// A status that says that the provider failed: 5xx, 529, 408, 409.
    ServerError,
    /// The stream ended without its terminal marker.
    Truncated,
    /// A 200 that carries an error, no choices, or HTML.
    SoftError,
    /// An error event inside a stream.
    InBandError,
    /// 429: the arm's capacity, not its health.
    RateLimited,
    /// 401 or 403 with a key that cutover injected.
    Auth,
    /// No credit or a spend limit with a key that cutover injected.
    Quota,
    /// A 4xx that shows that the arm lacks what the other has: unknown model or parameter.
    Parity,
    /// A 4xx that the request deserved.
    ClientError,
    /// The client went away before the answer was complete.
    ClientGone,
    /// The arm's `max-concurrency` was reached, or this machine had no descriptor left: it was never asked.
    OverLimit,
    /// cutover's own fault; never booked against an arm.
    Internal,
    /// Nothing of the above. Always worth an alarm.
    Other,
}

/// Who answers for an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// Nobody: it went well.
    None,
    /// The arm's provider.
    Arm,
    /// The arm's rate limit: a guard of its own.
    Capacity,
    /// The account behind the injected key.
    Account,
    /// The canary lacks what legacy has.
    Parity,
    /// The caller.
    Client,
    /// This program.
    Cutover,
}

impl Outcome {
    /// Every outcome, in the order of the documentation.
    pub const ALL: [Self; 21] = [
        Self::Ok,
        Self::Connect,
        Self::Tls,
        Self::TimeoutConnect,
        Self::TimeoutFirstByte,
        Self::TimeoutIdle,
        Self::TimeoutTotal,
        Self::Reset,
        Self::ServerError,
        Self::Truncated,
        Self::SoftError,
        Self::InBandError,
        Self::RateLimited,
        Self::Auth,
        Self::Quota,
        Self::Parity,
        Self::ClientError,
        Self::ClientGone,
        Self::OverLimit,
        Self::Internal,
        Self::Other,
    ];

    /// The word used in logs, the store, the API and alerts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::TimeoutConnect => "timeout-connect",
            Self::TimeoutFirstByte => "timeout-first-byte",
            Self::TimeoutIdle => "timeout-idle",
            Self::TimeoutTotal => "timeout-total",
            Self::Reset => "reset",
            Self::ServerError => "server-error",
            Self::Truncated => "truncated",
            Self::SoftError => "soft-error",
            Self::InBandError => "in-band-error",
            Self::RateLimited => "rate-limited",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::Parity => "parity",
            Self::ClientError => "client-error",
            Self::ClientGone => "client-gone",
            Self::OverLimit => "over-limit",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }

    /// The inverse of [`Outcome::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }

    /// Who answers for it.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Ok => Blame::None,
            Self::Connect
            | Self::Tls
            | Self::TimeoutConnect
            | Self::TimeoutFirstByte
            | Self::TimeoutIdle
            | Self::TimeoutTotal
            | Self::Reset
            | Self::ServerError
            | Self::Truncated
            | Self::SoftError
            | Self::InBandError
            | Self::Other => Blame::Arm,
            Self::RateLimited => Blame::Capacity,
            Self::Auth | Self::Quota => Blame::Account,
            Self::Parity => Blame::Parity,
            Self::ClientError | Self::ClientGone => Blame::Client,
            Self::OverLimit | Self::Internal => Blame::Cutover,
        }
    }

    /// True if the error-rate guard counts it: the arm's own failures, its account and its missing features.
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(self.blame(), Blame::Arm | Blame::Account | Blame::Parity)
    }

    /// True if the attempt says something about the arm at all, good or bad.
    #[must_use]
    pub const fn is_evidence(self) -> bool {
        !matches!(self, Self::ClientGone | Self::OverLimit | Self::Internal)
    }

    /// True if another arm may answer the same request instead, as long as no content was sent.
    #[must_use]
    pub const fn may_fail_over(self) -> bool {
        self.is_error() || matches!(self, Self::RateLimited)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_one_word_that_reads_back() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_word(outcome.as_str()), Some(outcome));
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(
                json,
                format!("\"{outcome}\""),
                "serde and the word must agree"
            );
        }
    }

    #[test]
    fn clients_and_cutover_never_count_against_an_arm() {
        for outcome in Outcome::ALL {
            if matches!(outcome.blame(), Blame::Client | Blame::Cutover) {
                assert!(!outcome.is_error() && !outcome.may_fail_over(), "{outcome}");
            }
        }
    }
}
