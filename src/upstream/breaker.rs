//! An arm's breaker: whether to dial it at all, while its connections fail.
//!
//! Pure: `now` comes in, in milliseconds of any clock that never goes back. One atomic word per arm, shared
//! by all workers: at a few requests a second, workers with a breaker each would need many times as long to
//! learn the same, and status shows one. While all is well a request costs two relaxed loads of a word that
//! nobody writes. It only decides whether to dial; it must never change a weight.
//!
//! It opens after [`OPENS_AFTER`] consecutive connect, TLS or timeout failures. Then one live request at a
//! time probes the arm, after a back-off that doubles from [`BACK_OFF_MS`] to [`BACK_OFF_MS_MAX`] with each
//! probe that fails. One success of any request ends it.
#![deny(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::Outcome;

/// Consecutive failures that open it.
pub const OPENS_AFTER: u8 = 20;
/// From opening to the first probe.
pub const BACK_OFF_MS: u64 = 1_000;
/// The longest wait between two probes; also how long a probe keeps others away that does not end.
pub const BACK_OFF_MS_MAX: u64 = 30_000;

/// Failures that count, in the order of their codes in the word.
const CAUSES: [Outcome; 6] = [
    Outcome::Connect,
    Outcome::Tls,
    Outcome::TimeoutConnect,
    Outcome::TimeoutFirstByte,
    Outcome::TimeoutIdle,
    Outcome::TimeoutTotal,
];

/// One arm's breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    /// A [`State`]; 0 while nothing has failed.
    word: AtomicU64,
}

/// What becomes of a request that wants to dial the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Dial: the breaker is closed.
    Dial,
    /// Dial, as the one probe of an open breaker.
    Probe,
    /// Do not dial: lately it came out like this.
    TurnedAway(Outcome),
}

/// What people and the controller see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Requests are sent.
    #[default]
    Closed,
    /// Requests are turned away.
    Open,
    /// The back-off is over: one request is a probe, or will be.
    HalfOpen,
}

impl Phase {
    /// The word used in `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        /// In a row, below [`OPENS_AFTER`].
        failures: u8,
    },
    Open(Back),
    /// A probe is under way; when `until_ms` is over, another may go.
    Probing(Back),
}

/// How an open breaker comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Back {
    until_ms: u64,
    /// Probes that failed; what matters of it fits into 8 bits.
    round: u8,
    /// Place in [`CAUSES`].
    cause: u8,
}

/// What an attempt's end says about whether the arm can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// It answered, whatever it said.
    Alive,
    /// It could not be reached, or said nothing in time.
    Failed(u8),
    /// It was reached, and hung up. No failure in the sense of the rule, but no success either.
    HungUp,
    /// Nothing was learned.
    Silent,
}

impl Signal {
    fn of(outcome: Outcome) -> Self {
        if let Some(cause) = (0u8..).zip(CAUSES).find(|(_, cause)| *cause == outcome) {
            return Self::Failed(cause.0);
        }
        match outcome {
            Outcome::Reset => Self::HungUp,
            Outcome::ClientGone | Outcome::OverLimit | Outcome::Internal => Self::Silent,
            _ => Self::Alive,
        }
    }
}

impl Breaker {
    /// Asks for one request. The clock is read only while the breaker is not closed.
    #[must_use]
    pub fn admit(&self, now_ms: impl Fn() -> u64) -> Admission {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let (State::Open(back) | State::Probing(back)) = State::decode(word) else {
                return Admission::Dial;
            };
            let now_ms = now_ms();
            if now_ms < back.until_ms {
                return Admission::TurnedAway(back.outcome());
            }
            let probing = State::Probing(Back {
                until_ms: now_ms.saturating_add(BACK_OFF_MS_MAX),
                ..back
            });
            if self.replace(word, probing) {
                return Admission::Probe;
            }
        }
    }

    /// The arm answered: content went by, or the attempt ended in any way but a failure to reach it.
    pub fn alive(&self) {
        if self.word.load(Ordering::Relaxed) != 0 {
            self.word.store(0, Ordering::Relaxed);
        }
    }

    /// An attempt that was let through ended. Not for attempts after which [`Breaker::alive`] was called.
    pub fn ended(&self, is_probe: bool, outcome: Outcome, now_ms: impl Fn() -> u64) {
        let signal = Signal::of(outcome);
        if signal == Signal::Alive {
            return self.alive();
        }
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let before = State::decode(word);
            let after = before.after(signal, is_probe, &now_ms);
            if after == before || self.replace(word, after) {
                return;
            }
        }
    }

    /// How it stands.
    #[must_use]
    pub fn phase(&self, now_ms: u64) -> Phase {
        match State::decode(self.word.load(Ordering::Relaxed)) {
            State::Closed { .. } => Phase::Closed,
            State::Open(back) if now_ms < back.until_ms => Phase::Open,
            State::Open(_) | State::Probing(_) => Phase::HalfOpen,
        }
    }

    /// True if requests are sent as if there were no breaker.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(
            State::decode(self.word.load(Ordering::Relaxed)),
            State::Closed { .. }
        )
    }

    fn replace(&self, before: u64, after: State) -> bool {
        let order = Ordering::Relaxed;
        self.word
            .compare_exchange(before, after.encode(), order, order)
            .is_ok()
    }
}

impl State {
    fn after(self, signal: Signal, is_probe: bool, now_ms: &impl Fn() -> u64) -> Self {
        match (self, signal) {
            (_, Signal::Alive) => Self::Closed { failures: 0 },
            (Self::Closed { failures }, Signal::Failed(cause)) => {
                if failures + 1 < OPENS_AFTER {
                    return Self::Closed {
                        failures: failures + 1,
                    };
                }
                Self::Open(Back::of_round(0, cause, now_ms()))
            }
            (Self::Probing(back), Signal::Failed(cause)) if is_probe => {
                Self::Open(Back::of_round(back.round + 1, cause, now_ms()))
            }
            (Self::Probing(back), Signal::HungUp) if is_probe => {
                Self::Open(Back::of_round(back.round + 1, back.cause, now_ms()))
            }
            // The probe's client left, say: the next request is the probe.
            (Self::Probing(back), Signal::Silent) if is_probe => Self::Open(Back {
                until_ms: now_ms(),
                ..back
            }),
            // What was sent before it opened, or is tried anyway, does not lengthen the back-off.
            (state, _) => state,
        }
    }

    /// Bits 0..44 time, 44..52 failures or round, 52..56 cause, 56..58 state.
    fn encode(self) -> u64 {
        let of = |kind: u64, back: Back| {
            kind << 56
                | u64::from(back.cause) << 52
                | u64::from(back.round) << 44
                | back.until_ms.min(TIME_MS_MAX)
        };
        match self {
            Self::Closed { failures } => u64::from(failures) << 44,
            Self::Open(back) => of(1, back),
            Self::Probing(back) => of(2, back),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "each field is cut out")]
    fn decode(word: u64) -> Self {
        let number = (word >> 44) as u8;
        let back = Back {
            until_ms: word & TIME_MS_MAX,
            round: number,
            cause: (word >> 52) as u8 & 0xf,
        };
        match word >> 56 {
            0 => Self::Closed { failures: number },
            1 => Self::Open(back),
            _ => Self::Probing(back),
        }
    }
}

/// Over 500 years.
const TIME_MS_MAX: u64 = (1 << 44) - 1;
/// Further rounds wait no longer.
const ROUND_MAX: u8 = 5;

impl Back {
    fn of_round(round: u8, cause: u8, now_ms: u64) -> Self {
        let round = round.min(ROUND_MAX);
        let wait_ms = (BACK_OFF_MS << round).min(BACK_OFF_MS_MAX);
        Self {
            until_ms: now_ms.saturating_add(wait_ms),
            round,
            cause,
        }
    }

    fn outcome(self) -> Outcome {
        let cause = CAUSES.get(usize::from(self.cause));
        cause.copied().unwrap_or(Outcome::Connect)
    }
}

#[cfg(test)]
mod tests;
