//! Two courses of one rollout side by side.
//!
//! Pure. Decisions of the same kind that lead to the same weight, or keep theirs, are one decision taken at two
//! times; as many as possible are paired in their order, and of several ways the one with the least shift.
#![deny(clippy::disallowed_methods)]

use std::cmp::Ordering;

use super::recorded::{Recorded, Taken};
use super::replay::Replayed;
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::{Decision, DecisionKind};

/// Pairing costs the product of both counts; beyond this only the first ones are paired.
const PAIRED_MAX: usize = 2_000;

/// What happened, what would have happened, or both.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// Both decided the same.
    Both(&'a Taken, &'a Decision),
    /// Only the record did.
    Recorded(&'a Taken),
    /// Only the replay did.
    Replayed(&'a Decision),
}

impl Line<'_> {
    /// When it comes in the list.
    #[must_use]
    pub fn at(&self) -> UnixMillis {
        match self {
            Self::Both(taken, _) | Self::Recorded(taken) => taken.at,
            Self::Replayed(decision) => decision.at,
        }
    }
}

/// The decisions of the record from the replay's beginning to its end, with those of the replay.
#[must_use]
pub fn lines<'a>(recorded: &'a Recorded, replayed: &'a Replayed) -> Vec<Line<'a>> {
    let span = replayed.from..=replayed.to;
    let taken: Vec<&Taken> = recorded
        .decisions
        .iter()
        .filter(|decision| span.contains(&decision.at))
        .collect();
    let would: Vec<&Decision> = replayed.decisions.iter().collect();
    let pairs = pairs(
        taken.get(..PAIRED_MAX).unwrap_or(&taken),
        would.get(..PAIRED_MAX).unwrap_or(&would),
    );
    let mut lines = Vec::with_capacity(taken.len() + would.len());
    let mut paired = pairs.iter().peekable();
    let (mut left, mut right) = (0, 0);
    loop {
        let next = paired.next().copied();
        let (to_left, to_right) = next.unwrap_or((taken.len(), would.len()));
        let between = taken
            .get(left..to_left)
            .unwrap_or_default()
            .iter()
            .map(|it| Line::Recorded(it));
        let meanwhile = would
            .get(right..to_right)
            .unwrap_or_default()
            .iter()
            .map(|it| Line::Replayed(it));
        let mut gap: Vec<Line<'a>> = between.chain(meanwhile).collect();
        gap.sort_by_key(Line::at);
        lines.append(&mut gap);
        let Some((at, with)) = next else {
            return lines;
        };
        if let (Some(taken), Some(would)) = (taken.get(at), would.get(with)) {
            lines.push(Line::Both(taken, would));
        }
        (left, right) = (at + 1, with + 1);
    }
}

/// How good a pairing is: many pairs, little shift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Score {
    pairs: u32,
    shift_ms: i64,
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_pairs = self.pairs.cmp(&other.pairs);
        by_pairs.then(other.shift_ms.cmp(&self.shift_ms))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What keeps the weight is the same decision at any weight.
fn is_same(taken: &Taken, would: &Decision) -> bool {
    let keep = taken.weight_from == taken.weight_to && would.weight_from == would.weight_to;
    (taken.kind, taken.by) == (would.kind, would.by) && (keep || taken.weight_to == would.weight_to)
}

/// The longest common course, from its end to its beginning, then read forwards.
fn pairs(taken: &[&Taken], would: &[&Decision]) -> Vec<(usize, usize)> {
    let width = would.len() + 1;
    let mut scores = vec![Score::default(); (taken.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    let of = |scores: &[Score], place: usize| scores.get(place).copied().unwrap_or_default();
    let paired = |scores: &[Score], row: usize, column: usize| {
        let (taken, would) = (taken.get(row)?, would.get(column)?);
        let rest = of(scores, at(row + 1, column + 1));
        is_same(taken, would).then(|| Score {
            pairs: rest.pairs + 1,
            shift_ms: rest.shift_ms + would.at.millis_since(taken.at).abs(),
        })
    };
    for row in (0..taken.len()).rev() {
        for column in (0..would.len()).rev() {
            let best = of(&scores, at(row + 1, column)).max(of(&scores, at(row, column + 1)));
            let best = paired(&scores, row, column).map_or(best, |score| score.max(best));
            if let Some(score) = scores.get_mut(at(row, column)) {
                *score = best;
            }
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut pairs = Vec::new();
    while row < taken.len() && column < would.len() {
        let here = of(&scores, at(row, column));
        if paired(&scores, row, column) == Some(here) {
            pairs.push((row, column));
            (row, column) = (row + 1, column + 1);
        } else if here == of(&scores, at(row + 1, column)) {
            row += 1;
        } else {
            column += 1;
        }
    }
    pairs
}

/// A course in a few numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Each weight above 0 that a decision led to, with when it was first reached.
    pub reached: Vec<(Weight, UnixMillis)>,
    /// Trips.
    pub trips: usize,
    /// Rollbacks.
    pub rollbacks: usize,
    /// Retreats.
    pub retreats: usize,
    /// When it was complete for the first time.
    pub completed_at: Option<UnixMillis>,
}

impl Course {
    /// Of decisions given as time, kind and weight after it, oldest first.
    pub fn of(decisions: impl Iterator<Item = (UnixMillis, DecisionKind, Weight)>) -> Self {
        let mut course = Self {
            reached: Vec::new(),
            trips: 0,
            rollbacks: 0,
            retreats: 0,
            completed_at: None,
        };
        for (at, kind, weight) in decisions {
            let known = course.reached.iter().any(|(reached, _)| *reached == weight);
            if weight > Weight::ZERO && !known {
                course.reached.push((weight, at));
            }
            match kind {
                DecisionKind::Trip => course.trips += 1,
                DecisionKind::RollBack => course.rollbacks += 1,
                DecisionKind::Retreat => course.retreats += 1,
                DecisionKind::Complete => course.completed_at = course.completed_at.or(Some(at)),
                _ => {}
            }
        }
        course.reached.sort();
        course
    }

    /// When a weight was first reached.
    #[must_use]
    pub fn reached_at(&self, weight: Weight) -> Option<UnixMillis> {
        let found = self.reached.iter().find(|(reached, _)| *reached == weight);
        found.map(|(_, at)| *at)
    }
}

/// Both courses over the same time.
#[must_use]
pub fn courses(recorded: &Recorded, replayed: &Replayed) -> [Course; 2] {
    let span = replayed.from..=replayed.to;
    let taken = recorded.decisions.iter().filter(|it| span.contains(&it.at));
    [
        Course::of(taken.map(|it| (it.at, it.kind, it.weight_to))),
        Course::of(
            replayed
                .decisions
                .iter()
                .map(|it| (it.at, it.kind, it.weight_to)),
        ),
    ]
}

/// Where the weights differ: when that began for the first time, and for how long in all. Differences of some
/// seconds are those of the looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Differs {
    /// When the first stretch began.
    pub from: Option<UnixMillis>,
    /// Milliseconds in all.
    pub for_ms: i64,
}

/// Shorter stretches count as agreement.
const AGREE_MS: i64 = 10_000;

/// Compares the weights over time.
#[must_use]
pub fn differs(recorded: &Recorded, replayed: &Replayed) -> Differs {
    let span = replayed.from..=replayed.to;
    let mut times: Vec<UnixMillis> = recorded
        .decisions
        .iter()
        .map(|it| it.at)
        .chain(replayed.decisions.iter().map(|it| it.at))
        .filter(|at| span.contains(at))
        .chain([replayed.from, replayed.to])
        .collect();
    times.sort();
    times.dedup();
    let first = recorded.weight_at(replayed.from.plus_millis(-1));
    let wanted_at = |at: UnixMillis| {
        let after = replayed.decisions.partition_point(|it| it.at <= at);
        let last = after
            .checked_sub(1)
            .and_then(|it| replayed.decisions.get(it));
        last.map_or(first, |it| it.weight_to)
    };
    let mut found = Differs::default();
    let mut stretch: Option<UnixMillis> = None;
    let mut close = |stretch: &mut Option<UnixMillis>, at: UnixMillis| {
        let Some(from) = stretch.take() else { return };
        let length_ms = at.millis_since(from);
        if length_ms >= AGREE_MS {
            found.from = found.from.or(Some(from));
            found.for_ms += length_ms;
        }
    };
    for at in times {
        if recorded.weight_at(at) == wanted_at(at) {
            close(&mut stretch, at);
        } else {
            stretch = stretch.or(Some(at));
        }
    }
    close(&mut stretch, replayed.to);
    found
}
