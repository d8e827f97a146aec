//! What the ledgers learn about legacy: its rate, and how much its counts scatter.
//!
//! Pure. Both are made from earlier minutes only, so that no bet sees the data that decides it.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::controller::exact;

/// A predictable estimate of legacy's rate. It steers the size of bets, never their validity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Rate {
    #[serde(with = "exact")]
    pub(super) events_and_requests: [f64; 2],
}

impl Rate {
    const HALF_LIFE_MIN: f64 = 60.0;

    /// An estimate worth 200 requests at `prior`.
    #[must_use]
    pub(super) fn new(prior: f64) -> Self {
        Self {
            events_and_requests: [prior * 200.0, 200.0],
        }
    }

    /// Takes what `minutes` minutes brought; minutes without requests say nothing.
    pub(super) fn add(&mut self, events: f64, requests: f64, minutes: f64) {
        if requests <= 0.0 {
            return;
        }
        let keep = 0.5f64.powf(minutes / Self::HALF_LIFE_MIN);
        let [k, n] = self.events_and_requests;
        self.events_and_requests = [k * keep + events, n * keep + requests];
    }

    /// The estimate.
    #[must_use]
    pub(super) fn estimate(&self) -> f64 {
        let [events, requests] = self.events_and_requests;
        ((events + 0.5) / (requests + 50.0)).clamp(1e-5, 0.95)
    }
}

/// Over-dispersion of legacy's counts per minute, by successive differences: blind to drift.
/// Errors that come in clusters are worth less; all evidence is divided by it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Fano {
    /// Sum of squared differences, sum of counts, the last count (negative: none), the mean count.
    #[serde(with = "exact")]
    numbers: [f64; 4],
}

/// Squares and counts that an estimate begins with.
const PRIOR: f64 = 20.0;
/// Counts (each event is counted with both of its neighbours) at which half of an excess is believed.
const RELIABLE: f64 = 100.0;

impl Default for Fano {
    fn default() -> Self {
        Self {
            numbers: [PRIOR, PRIOR, -1.0, 0.0],
        }
    }
}

impl Fano {
    const HALF_LIFE_MIN: f64 = 4320.0;

    /// Takes one minute's legacy events; a minute without requests says nothing.
    pub(super) fn add(&mut self, events: f64, requests: f64) {
        if requests <= 0.0 {
            return;
        }
        let limit = 72.0 * self.ratio() * self.numbers[3].max(1.0);
        let [squares, counts, last, mean] = &mut self.numbers;
        if *last >= 0.0 {
            let keep = 0.5f64.powf(1.0 / Self::HALF_LIFE_MIN);
            *squares = *squares * keep + (events - *last).powi(2).min(limit);
            *counts = *counts * keep + (events + *last).min(limit);
        }
        *mean = 0.99 * *mean + 0.01 * events;
        *last = events;
    }

    fn ratio(&self) -> f64 {
        let [squares, counts, ..] = self.numbers;
        (squares / counts).clamp(1.0, 30.0)
    }

    /// The divisor of all evidence, 1 to 30.
    ///
    /// The ratio of a few minutes scatters widely, and because it never goes below 1 the scatter alone made
    /// the evidence of a young rollout slower by a fifth. So it counts in proportion to the events that it
    /// rests on, half at about 50 of them.
    #[must_use]
    pub(super) fn phi(&self) -> f64 {
        let [_, counts, ..] = self.numbers;
        let seen = (counts - PRIOR).max(0.0);
        1.0 + (self.ratio() - 1.0) * seen / (seen + RELIABLE)
    }
}
