//! Where the replayed weight is unlike the recorded one: what the replay sees, and whom that would have met.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use crate::arm::Weight;
use crate::backtest::Recorded;
use crate::controller::evidence::{ArmCell, Cell};

/// Requests to the canary, and how many of them failed there, before any failover.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exposure {
    /// Requests.
    pub requests: f64,
    /// Of these, failed.
    pub failed: f64,
    /// Requests of times in which the record has none, so that nobody knows how they would have fared.
    pub unknown: f64,
}

/// The cell as the replayed controller sees it. Where both weights agree it is the recorded one, what was
/// under way when they changed included; else its counts stand for the weight that the replay wants.
pub(super) fn seen(cell: &Cell, wanted: Weight, recorded: &Recorded) -> Cell {
    let agree = cell.weight == wanted || recorded.weight_at(cell.closed_at) == wanted;
    if agree {
        return cell.clone();
    }
    let mut seen = Cell {
        weight: wanted,
        ..cell.clone()
    };
    if wanted == Weight::ZERO {
        seen.arms.canary = ArmCell::default();
    }
    seen
}

/// Books what the canary got, and what it would have got at the weight `wanted`. Another weight changes how
/// many requests meet a failing canary, not which share of them fails.
pub(super) fn count(exposure: &mut [Exposure; 2], cell: &Cell, wanted: Weight) {
    let canary = &cell.arms.canary;
    let (requests, failed) = (canary.requests as f64, canary.errors as f64);
    let all = requests + cell.arms.legacy.requests as f64;
    let [recorded, replayed] = exposure;
    recorded.requests += requests;
    recorded.failed += failed;
    if wanted == cell.weight {
        replayed.requests += requests;
        replayed.failed += failed;
    } else if cell.weight == Weight::ZERO {
        replayed.requests += all * wanted.fraction();
        replayed.unknown += all * wanted.fraction();
    } else {
        let factor = wanted.fraction() / cell.weight.fraction();
        replayed.requests += requests * factor;
        replayed.failed += failed * factor;
    }
}
