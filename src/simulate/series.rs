//! The course of one run in a few hundred points, for its picture.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use crate::arm::{PerArm, Weight};
use crate::controller::evidence::{ArmCell, Cell};

/// Points of a picture; more would not be seen.
const POINTS: i64 = 720;

/// Sums of one stretch of time.
#[derive(Debug, Clone, Default)]
pub(super) struct Point {
    pub(super) weight: Weight,
    pub(super) arms: PerArm<ArmCell>,
}

/// Equal stretches of time, in order.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) stretch_ms: i64,
    pub(super) points: Vec<Point>,
}

impl Series {
    /// Nothing yet, of a run of `duration_ms` with a look every `tick_ms`.
    pub(super) fn new(duration_ms: i64, tick_ms: i64) -> Self {
        Self {
            stretch_ms: (duration_ms / POINTS).max(tick_ms),
            points: Vec::new(),
        }
    }

    /// Adds what a tick brought; the weight of a stretch is its last.
    pub(super) fn add(&mut self, at_ms: i64, weight: Weight, cell: &Cell) {
        let place = usize::try_from(at_ms / self.stretch_ms).unwrap_or(0);
        if place >= self.points.len() {
            self.points.resize_with(place + 1, Point::default);
        }
        if let Some(point) = self.points.get_mut(place) {
            point.weight = weight;
            point.arms.legacy.merge(&cell.arms.legacy);
            point.arms.canary.merge(&cell.arms.canary);
        }
    }
}
