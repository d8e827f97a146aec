//! From cells to ledgers, and from ledgers to the two numbers that judge harm.
//!
//! Pure. The weighted sum over all guards is what the confidence is spent on: one number, however many
//! guards, stages and looks there are.
#![deny(clippy::disallowed_methods)]

use crate::arm::Arm;
use crate::controller::evidence::Cell;
use crate::controller::phase::Phase;
use crate::controller::policy::Policy;
use crate::controller::state::State;
use crate::controller::stats::logsumexp;

/// The two sums of evidence of harm, in logarithms, and the track that weighs most in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Harm {
    pub(super) log_roll: f64,
    pub(super) log_trip: f64,
    pub(super) worst: usize,
    pub(super) would_bite: bool,
}

impl State {
    /// Takes a closed cell into every ledger. Cells of another weight or of before this stage are
    /// evidence of harm, but none of health in this stage.
    pub(super) fn feed(&mut self, policy: &Policy, cell: &Cell, breaker_open: bool) {
        self.roll_to(policy, cell.closed_at);
        let in_stage = self.is_in_stage(cell);
        let begun = self.mass.has_begun();
        let mut bites = false;
        for track in &mut self.tracks {
            let Some(counts) = track.rule.counts(cell, &self.reference) else {
                continue;
            };
            let (counts, since) = track.taken.rest(cell, counts);
            track.inject_seconds(since, begun);
            let harmless = track.rule.is_ceiling && !track.legacy_is_well(counts, breaker_open);
            let increment = track.increment(counts, harmless);
            bites |= track.book(counts, increment, in_stage, since);
        }
        if bites {
            self.cap_bit_at = Some(cell.closed_at);
        }
        let soft_counts = in_stage && self.may_retreat(policy).is_some();
        self.soft.feed(cell, &self.reference, soft_counts);
        self.recent.add(cell);
        self.reference.add(cell);
        if matches!(self.phase, Phase::WarmingUp) {
            self.warm_up_seen += cell.arms.legacy.requests;
        }
        if in_stage {
            self.stage_canary += cell.arms.canary.requests;
            for arm in Arm::BOTH {
                let counts = cell.arms.get(arm);
                self.stage_latency.get_mut(arm).merge(&counts.latency);
                self.stage_ttft.get_mut(arm).merge(&counts.ttft);
            }
        }
    }

    /// Sums the evidence of harm over all guards. Ceilings are read with the open cell, since they need
    /// no legacy to compare with; guards against legacy wait for the cell to close.
    pub(super) fn harm(&mut self, open: &Cell, breaker_open: bool) -> Harm {
        let begun = self.mass.has_begun();
        let live = open.arms.canary.requests > 0 && open.weight == self.weight();
        let mut sums = [f64::NEG_INFINITY; 2];
        let (mut worst, mut worst_value, mut would_bite) = (0, f64::NEG_INFINITY, false);
        for (place, track) in self.tracks.iter_mut().enumerate() {
            let mut increment = None;
            if track.rule.is_ceiling {
                let counts = live
                    .then(|| track.rule.counts(open, &self.reference))
                    .flatten()
                    .unwrap_or_default();
                let (counts, since) = track.taken.rest(open, counts);
                track.inject_seconds(since, begun);
                if !track.legacy_is_well(counts, breaker_open) {
                    continue;
                }
                increment = track.increment(counts, false);
            }
            let share = track.rule.share().ln();
            let (roll, trip) = (
                share + track.log_roll(increment.as_ref()),
                share + track.log_trip(increment.as_ref()),
            );
            would_bite |= increment.is_some_and(|open| track.would_bite(&open));
            if roll.max(trip) > worst_value {
                (worst, worst_value) = (place, roll.max(trip));
            }
            let [roll_sum, trip_sum] = sums;
            sums = [
                logsumexp([roll_sum, roll].into_iter()),
                logsumexp([trip_sum, trip].into_iter()),
            ];
        }
        let [log_roll, log_trip] = sums;
        Harm {
            log_roll,
            log_trip,
            worst,
            would_bite,
        }
    }
}
