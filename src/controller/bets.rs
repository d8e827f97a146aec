//! What the experts of one rule would add to their ledgers for the counts of a cell.
//!
//! Pure. The hottest code of the controller: every closed cell asks thirteen experts for every rule, and
//! the nearest allowed rates depend on the cell's realised share. What depends on legacy's rate alone,
//! which changes once a minute, is kept; all experts are solved together; and a logarithm is taken only
//! where there are requests that it is multiplied with.
#![deny(clippy::disallowed_methods)]

use crate::controller::stats::{self, Counts, Line, PROMOTE_ODDS, ROLLBACK_ODDS};

const EXPERTS: usize = 13;

/// Increments of one cell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Increment {
    pub(super) harm: [f64; 8],
    pub(super) health: [f64; 5],
}

/// The bets of all experts at one estimate of legacy's rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bets {
    line: Line,
    legacy: f64,
    /// Logarithms of legacy's rate and of the rest.
    legacy_logs: [f64; 2],
    canary: [f64; EXPERTS],
    canary_event_logs: [f64; EXPERTS],
    canary_none_logs: [f64; EXPERTS],
}

impl Bets {
    /// The experts of both ledgers.
    pub(super) fn new(line: Line, legacy: f64) -> Self {
        let mut canary = [0.0; EXPERTS];
        let odds = ROLLBACK_ODDS.into_iter().chain(PROMOTE_ODDS);
        for (canary, odds) in canary.iter_mut().zip(odds) {
            *canary = stats::target(odds, legacy, line);
        }
        Self {
            line,
            legacy,
            legacy_logs: [legacy.ln(), (1.0 - legacy).ln()],
            canary,
            canary_event_logs: canary.map(f64::ln),
            canary_none_logs: canary.map(|canary| (1.0 - canary).ln()),
        }
    }

    /// True if these are the bets for this limit at this rate of legacy's. A ceiling's depend on the ceiling
    /// alone.
    pub(super) fn hold_at(&self, line: Line, legacy: f64) -> bool {
        let of_ceiling = self.line.ratio <= 0.0;
        self.line == line && (of_ceiling || self.legacy.to_bits() == legacy.to_bits())
    }

    /// What every expert adds for these counts, divided by `phi`; at most `most` for the experts of harm.
    pub(super) fn increment(&self, counts: Counts, phi: f64, most: f64) -> Increment {
        let all = if self.line.ratio <= 0.0 {
            self.against_ceiling(counts)
        } else {
            self.against_legacy(counts)
        };
        let mut increment = Increment {
            harm: [0.0; 8],
            health: [0.0; 5],
        };
        let (harm, health) = all.split_at(8);
        for (to, from) in increment.harm.iter_mut().zip(harm) {
            *to = (from / phi).min(most);
        }
        for (to, from) in increment.health.iter_mut().zip(health) {
            *to = from / phi;
        }
        increment
    }

    fn against_ceiling(&self, counts: Counts) -> [f64; EXPERTS] {
        let ceiling = self.line.increase;
        let (event_log, none_log) = (ceiling.ln(), (1.0 - ceiling).ln());
        let (events, others) = (counts.canary_events, counts.canary - counts.canary_events);
        let mut all = [0.0; EXPERTS];
        let logs = self.canary_event_logs.iter().zip(&self.canary_none_logs);
        for (sum, (event, none)) in all.iter_mut().zip(logs) {
            *sum = events * (event - event_log) + others * (none - none_log);
        }
        all
    }

    fn against_legacy(&self, counts: Counts) -> [f64; EXPERTS] {
        let share = counts.share();
        if share <= 0.0 || share >= 1.0 {
            return [0.0; EXPERTS];
        }
        let nearest = stats::nearest_allowed(&self.canary, self.legacy, self.line, share);
        let allowed = nearest.map(|x| self.line.allowed(x));
        let [legacy_event, legacy_none] = self.legacy_logs;
        let canary_events = counts.canary_events;
        let canary_others = counts.canary - canary_events;
        let legacy_events = counts.legacy_events;
        let legacy_others = counts.legacy - legacy_events;
        let mut all = [0.0; EXPERTS];
        let same = self.line.is_equality();
        for (place, sum) in all.iter_mut().enumerate() {
            let at = |of: &[f64; EXPERTS]| of.get(place).copied().unwrap_or_default();
            let (x, y) = (at(&nearest), at(&allowed));
            let y_none = (1.0 - y).ln();
            let x_none = if same { y_none } else { (1.0 - x).ln() };
            *sum = canary_others * (at(&self.canary_none_logs) - y_none)
                + legacy_others * (legacy_none - x_none);
            if canary_events > 0.0 {
                *sum += canary_events * (at(&self.canary_event_logs) - y.ln());
            }
            if legacy_events > 0.0 {
                *sum += legacy_events * (legacy_event - x.ln());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::stats::lr_factors;

    #[test]
    fn all_experts_at_once_add_what_each_adds_alone() {
        let lines = [
            Line {
                ratio: 1.2,
                increase: 0.004,
            },
            Line {
                ratio: 1.0,
                increase: 0.02,
            },
            Line {
                ratio: 1.0,
                increase: 0.0,
            },
            Line {
                ratio: 0.0,
                increase: 0.05,
            },
        ];
        let counts = [
            (1.0, 0.0, 99.0, 1.0),
            (50.0, 2.0, 40.0, 0.0),
            (95.0, 95.0, 5.0, 0.0),
            (3.0, 1.0, 0.0, 0.0),
        ];
        for line in lines {
            for legacy in [1e-5, 0.001, 0.005, 0.5, 0.94] {
                if line.allowed(legacy) >= 1.0 {
                    continue;
                }
                let bets = Bets::new(line, legacy);
                for (canary, canary_events, legacy_requests, legacy_events) in counts {
                    let counts = Counts {
                        canary,
                        canary_events,
                        legacy: legacy_requests,
                        legacy_events,
                    };
                    let found = bets.increment(counts, 2.0, f64::INFINITY);
                    let alone = |odds: f64| {
                        let target = stats::target(odds, legacy, line);
                        lr_factors(target, legacy, line, counts.share()).increment(counts) / 2.0
                    };
                    let pairs = ROLLBACK_ODDS.iter().zip(found.harm);
                    for (&odds, found) in pairs.chain(PROMOTE_ODDS.iter().zip(found.health)) {
                        let expected = alone(odds);
                        let close = (found - expected).abs() <= 1e-9 * expected.abs().max(1.0);
                        assert!(
                            close,
                            "{line:?} {legacy} {counts:?} {odds}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }
}
