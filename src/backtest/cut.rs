//! Parts of cells: what a controller had seen of one before it closed.
//!
//! Pure. A cell says what it holds, not when that came within it. It is taken to have come evenly; only a
//! cell that ends where the record was stopped is taken to hold its failures in its last second, since that
//! is what stopped it.
#![deny(clippy::disallowed_methods)]

use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::controller::evidence::{ArmCell, Cell};
use crate::sketch::Sketch;

/// Failures that stopped the record came within this time, if it does not say.
const LAST_MS: i64 = 1_000;

/// What stopped the record, in its own words: `errors 14/22 in 0.6s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Burst {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) span_ms: i64,
}

impl Burst {
    /// Reads the reason of a trip or a rollback.
    pub(super) fn of_words(reason: &str) -> Option<Self> {
        let (counts, span) = reason.strip_prefix("errors ")?.split_once(" in ")?;
        let (errors, requests) = counts.split_once('/')?;
        let span = span.split([' ', ':']).next()?;
        let seconds: f64 = span.strip_suffix('s')?.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "`as` stops at the ends")]
        let span_ms = (seconds * 1_000.0) as i64;
        Some(Self {
            requests: requests.parse().ok()?,
            errors: errors.parse().ok()?,
            span_ms,
        })
    }
}

/// What had come of a cell by `at`.
pub(super) fn until(cell: &Cell, at: UnixMillis) -> Cell {
    let share = share_until(cell, at);
    Cell {
        closed_at: at,
        arms: PerArm::from_fn(|arm| scaled(cell.arms.get(arm), share)),
        ..Cell::open(cell.opened_at, cell.weight, cell.config_epoch)
    }
}

/// What came of a cell after `at`, as a cell of its own: together with [`until`] all of it.
pub(super) fn from(cell: &Cell, at: UnixMillis) -> Cell {
    let share = share_until(cell, at);
    Cell {
        closed_at: cell.closed_at,
        arms: PerArm::from_fn(|arm| rest(cell.arms.get(arm), share)),
        ..Cell::open(at, cell.weight, cell.config_epoch)
    }
}

/// A cell in two, where the record was stopped at its end: what came before the burst that stopped it, and the
/// burst. Without words of it, the failures are taken to have come in the last second. A short cell is left
/// whole, and so is one without failures.
pub(super) fn at_burst(cell: Cell, burst: Option<Burst>) -> Vec<Cell> {
    let canary = &cell.arms.canary;
    let burst = burst.unwrap_or(Burst {
        requests: 0,
        errors: canary.errors,
        span_ms: LAST_MS,
    });
    let at = cell.closed_at.plus_millis(-burst.span_ms.max(1));
    if at.millis_since(cell.opened_at) < LAST_MS || canary.errors == 0 {
        return vec![cell];
    }
    let errors = burst.errors.min(canary.errors);
    let usual = from(&cell, at).arms.canary;
    let requests = match burst.requests {
        0 => usual.requests - usual.errors + errors,
        told => told,
    };
    let requests = requests.clamp(errors, canary.requests - canary.errors + errors);
    let (mut before, mut after) = (until(&cell, at), from(&cell, at));
    for (part, requests, errors) in [
        (
            &mut before,
            canary.requests - requests,
            canary.errors - errors,
        ),
        (&mut after, requests, errors),
    ] {
        (part.arms.canary.requests, part.arms.canary.errors) = (requests, errors);
    }
    vec![before, after]
}

fn share_until(cell: &Cell, at: UnixMillis) -> f64 {
    let length_ms = cell.closed_at.millis_since(cell.opened_at).max(1);
    let share = at.millis_since(cell.opened_at) as f64 / length_ms as f64;
    share.clamp(0.0, 1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a count"
)]
fn part(count: u64, share: f64) -> u64 {
    (count as f64 * share).floor() as u64
}

fn scaled(arm: &ArmCell, share: f64) -> ArmCell {
    let errors = part(arm.errors, share);
    ArmCell {
        // Rounded down each by itself, failures could be more than requests.
        requests: part(arm.requests, share).max(errors),
        errors,
        rate_limited: part(arm.rate_limited, share),
        rejected: part(arm.rejected, share),
        streamed: part(arm.streamed, share),
        latency: thinned(&arm.latency, share),
        ttft: thinned(&arm.ttft, share),
    }
}

fn rest(arm: &ArmCell, share: f64) -> ArmCell {
    let first = scaled(arm, share);
    ArmCell {
        requests: arm.requests - first.requests,
        errors: arm.errors - first.errors,
        rate_limited: arm.rate_limited - first.rate_limited,
        rejected: arm.rejected - first.rejected,
        streamed: arm.streamed - first.streamed,
        latency: thinned(&arm.latency, 1.0 - share),
        ttft: thinned(&arm.ttft, 1.0 - share),
    }
}

fn thinned(sketch: &Sketch, share: f64) -> Sketch {
    sketch
        .iter()
        .map(|(bucket, count)| (bucket, count * share))
        .collect()
}
