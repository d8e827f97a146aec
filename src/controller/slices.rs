//! Ceilings take the open cell in slices of a second.
//!
//! Pure. A ceiling needs no legacy, but at a high weight a cell stays open until legacy has a request, and
//! what went well in it would bury an outage that begins. So a ceiling books what the open cell has so far
//! once a second, and the rest when it closes: every request exactly once.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::controller::evidence::Cell;
use crate::controller::exact;
use crate::controller::phase::Phase;
use crate::controller::state::State;
use crate::controller::stats::Counts;

const SLICE_MS: i64 = 1_000;

/// What of a cell is booked already. A cell is known by its opening; one that was lost in a restart is
/// simply never seen again.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Taken {
    cell: UnixMillis,
    until: UnixMillis,
    #[serde(with = "exact")]
    counts: [f64; 4],
}

impl Taken {
    /// What is not booked yet of a cell's counts, and since when.
    pub(super) fn rest(&self, cell: &Cell, counts: Counts) -> (Counts, UnixMillis) {
        if self.cell != cell.opened_at {
            return (counts, cell.opened_at);
        }
        let [canary, canary_events, legacy, legacy_events] = self.counts;
        let rest = Counts {
            canary: (counts.canary - canary).max(0.0),
            canary_events: (counts.canary_events - canary_events).max(0.0),
            legacy: (counts.legacy - legacy).max(0.0),
            legacy_events: (counts.legacy_events - legacy_events).max(0.0),
        };
        (rest, self.until)
    }
}

impl State {
    /// True if a cell's requests belong to the present stay in the stage.
    pub(super) fn is_in_stage(&self, cell: &Cell) -> bool {
        let since = match self.phase {
            Phase::Running | Phase::Complete => self.stage_since,
            Phase::Retreated(_) => self.phase_since,
            _ => return false,
        };
        cell.weight == self.weight() && cell.opened_at >= since
    }

    /// Books a slice of the open cell where a second has passed.
    pub(super) fn slice(&mut self, open: &Cell, breaker_open: bool, now: UnixMillis) {
        if open.arms.canary.requests == 0 || !self.is_in_stage(open) {
            return;
        }
        let begun = self.mass.has_begun();
        for track in self.tracks.iter_mut().filter(|t| t.rule.is_ceiling) {
            let Some(counts) = track.rule.counts(open, &self.reference) else {
                continue;
            };
            let (rest, since) = track.taken.rest(open, counts);
            if now.millis_since(since) < SLICE_MS || rest.canary <= 0.0 {
                continue;
            }
            track.inject_seconds(since, begun);
            let harmless = !track.legacy_is_well(rest, breaker_open);
            let increment = track.increment(rest, harmless);
            if track.book(rest, increment, true, since) {
                self.cap_bit_at = Some(now);
            }
            track.taken = Taken {
                cell: open.opened_at,
                until: now,
                counts: [
                    counts.canary,
                    counts.canary_events,
                    counts.legacy,
                    counts.legacy_events,
                ],
            };
        }
    }
}
