//! Legacy's recent times, from which the thresholds of the guards on times come.
//!
//! Pure. Thresholds are set once per minute from earlier minutes only: a threshold that saw the data it
//! judges would void the proof. A stale one costs speed, never validity: it moves the comparison to
//! another level of both arms.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::controller::evidence::Cell;
use crate::controller::guard;
use crate::controller::histogram::Histogram;
use crate::controller::policy::GuardKind;

/// Half-life of the reference in minutes.
const HALF_LIFE_MIN: f64 = 360.0;
/// Legacy times needed beyond a quantile before its threshold means anything: 500 for the 99th
/// percentile, 10 for the median.
const BEYOND_MIN: f64 = 5.0;

/// Legacy's latencies and times to first token with a half-life of six hours, and how much is streamed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reference {
    latency: Histogram<1>,
    ttft: Histogram<1>,
    edges: [Option<i16>; 4],
    requests: f32,
    streamed: f32,
}

impl Reference {
    /// Adds a closed cell.
    pub(super) fn add(&mut self, cell: &Cell) {
        let legacy = &cell.arms.legacy;
        self.latency.merge(&legacy.latency);
        self.ttft.merge(&legacy.ttft);
        for arm in [legacy, &cell.arms.canary] {
            let (requests, streamed) = (arm.requests as f32, arm.streamed as f32);
            self.requests += requests;
            self.streamed += streamed;
        }
        // The first thresholds need not wait for the end of a minute: this cell is past already.
        if self.edges.contains(&None) {
            self.set_edges(false);
        }
    }

    /// Ends `minutes` minutes: sets the thresholds of the next from what was added, then forgets a little.
    pub(super) fn roll(&mut self, minutes: i64) {
        self.set_edges(true);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "counts need no more digits"
        )]
        let factor = 0.5f64.powf(minutes.max(0) as f64 / HALF_LIFE_MIN) as f32;
        self.latency.decay(factor);
        self.ttft.decay(factor);
        self.requests *= factor;
        self.streamed *= factor;
    }

    /// Thresholds from what was added so far; only the missing ones, unless `all`.
    fn set_edges(&mut self, all: bool) {
        for (place, kind) in TIME_KINDS.into_iter().enumerate() {
            let missing = self.edges.get(place).is_some_and(Option::is_none);
            let (true, Some(quantile)) = (all || missing, guard::quantile(kind)) else {
                continue;
            };
            let times = self.times(kind);
            if times.count() * (1.0 - quantile) < BEYOND_MIN {
                continue;
            }
            let found = times.quantile_bucket(quantile);
            if let Some(edge) = self.edges.get_mut(place) {
                *edge = found.or(*edge);
            }
        }
    }

    const fn times(&self, kind: GuardKind) -> &Histogram<1> {
        if guard::is_ttft(kind) {
            &self.ttft
        } else {
            &self.latency
        }
    }

    /// The bucket of legacy's quantile that a guard is named after; `None` without enough history.
    pub(super) fn edge(&self, kind: GuardKind) -> Option<i16> {
        let place = TIME_KINDS.iter().position(|&known| known == kind)?;
        self.edges.get(place).copied().flatten()
    }

    /// Share of the requests that were streams; 0 before anything was seen.
    pub(super) fn streamed_share(&self) -> f64 {
        f64::from(self.streamed) / f64::from(self.requests).max(1.0)
    }

    /// False when hardly anything is streamed, so that times to the first token say nothing.
    pub(super) fn has_streams(&self) -> bool {
        self.requests < 100.0 || self.streamed >= 0.01 * self.requests
    }
}

const TIME_KINDS: [GuardKind; 4] = [
    GuardKind::LatencyP99,
    GuardKind::LatencyP50,
    GuardKind::TtftP99,
    GuardKind::TtftP50,
];
