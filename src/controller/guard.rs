//! The guards as rows of one table: which event each watches, its limits and its share of the confidence.
//!
//! Pure. A guard becomes one [`Rule`] for its limit against legacy and one for its ceiling; from there on
//! rates and times, limits and ceilings are the same to the ledgers: counts of an event in both arms.
//! A further guard is one more row here and one more [`GuardKind`].
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::arm::Arm;
use crate::controller::evidence::{ArmCell, Cell};
use crate::controller::exact;
use crate::controller::policy::{GuardKind, GuardSpec, Policy};
use crate::controller::reference::Reference;
use crate::controller::stats::{Counts, Line};
use crate::sketch::{self, Sketch};

/// One limit of one guard, as the ledgers need it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The guard that it belongs to.
    pub kind: GuardKind,
    /// True for the limit that holds whatever legacy does.
    pub is_ceiling: bool,
    /// Ratio and increase of the event's rate, share of the confidence, and the limit as configured
    /// (ratio for times against legacy, milliseconds for ceilings of times).
    #[serde(with = "exact")]
    numbers: [f64; 4],
}

/// Which counts a kind looks at.
enum Watch {
    Rate(fn(&ArmCell) -> u64),
    Time {
        sketch: fn(&ArmCell) -> &Sketch,
        quantile: f64,
    },
}

const fn watch(kind: GuardKind) -> Watch {
    match kind {
        GuardKind::ErrorRate => Watch::Rate(|cell| cell.errors),
        GuardKind::RateLimited => Watch::Rate(|cell| cell.rate_limited),
        GuardKind::Rejected => Watch::Rate(|cell| cell.rejected),
        GuardKind::LatencyP99 => time(|cell| &cell.latency, 0.99),
        GuardKind::LatencyP50 => time(|cell| &cell.latency, 0.5),
        GuardKind::TtftP99 => time(|cell| &cell.ttft, 0.99),
        GuardKind::TtftP50 => time(|cell| &cell.ttft, 0.5),
    }
}

const fn time(sketch: fn(&ArmCell) -> &Sketch, quantile: f64) -> Watch {
    Watch::Time { sketch, quantile }
}

/// The quantile that a guard on times is named after; `None` for rates.
#[must_use]
pub const fn quantile(kind: GuardKind) -> Option<f64> {
    match watch(kind) {
        Watch::Rate(_) => None,
        Watch::Time { quantile, .. } => Some(quantile),
    }
}

/// True for guards on the time to the first token, which streams alone have.
#[must_use]
pub const fn is_ttft(kind: GuardKind) -> bool {
    matches!(kind, GuardKind::TtftP99 | GuardKind::TtftP50)
}

/// Shares of the confidence before they are scaled to sum 1.
const fn share(kind: GuardKind, is_ceiling: bool) -> f64 {
    match (kind, is_ceiling) {
        (GuardKind::ErrorRate, false) => 0.45,
        (GuardKind::ErrorRate, true) | (GuardKind::TtftP99, false) => 0.10,
        (GuardKind::LatencyP99 | GuardKind::LatencyP50, false) => 0.15,
        (GuardKind::Rejected, false) => 0.03,
        _ => 0.05,
    }
}

/// The rules of all guards that are on, in the order of the configuration; shares sum to 1.
#[must_use]
pub fn rules(policy: &Policy) -> Vec<Rule> {
    let rules: Vec<Rule> = policy.guards.iter().flat_map(rules_of).collect();
    let sum: f64 = rules.iter().map(|rule| rule.share()).sum();
    rules
        .into_iter()
        .map(|mut rule| {
            let [_, _, share, _] = &mut rule.numbers;
            *share /= sum;
            rule
        })
        .collect()
}

fn rules_of(spec: &GuardSpec) -> impl Iterator<Item = Rule> {
    let kind = spec.kind;
    let tail = quantile(kind).map(|quantile| 1.0 - quantile);
    let relative = spec.relative.map(|margin| {
        // A time's ratio moves the canary's threshold; the rates beyond the thresholds are compared 1:1.
        let (ratio, increase) = match tail {
            Some(_) => (1.0, 0.0),
            None => (margin.ratio, margin.increase),
        };
        Rule {
            kind,
            is_ceiling: false,
            numbers: [ratio, increase, share(kind, false), margin.ratio],
        }
    });
    let ceiling = spec.ceiling.map(|limit| Rule {
        kind,
        is_ceiling: true,
        numbers: [0.0, tail.unwrap_or(limit), share(kind, true), limit],
    });
    relative.into_iter().chain(ceiling)
}

impl Rule {
    /// The rule of the soft alarm: the canary's errors against a limit that its owner moves.
    pub(super) const fn soft_alarm(limit: f64) -> Self {
        Self {
            kind: GuardKind::ErrorRate,
            is_ceiling: true,
            numbers: [0.0, limit, 1.0, limit],
        }
    }

    /// The line of allowed event rates.
    #[must_use]
    pub const fn line(&self) -> Line {
        let [ratio, increase, ..] = self.numbers;
        Line { ratio, increase }
    }

    /// Its share of the confidence.
    #[must_use]
    pub const fn share(&self) -> f64 {
        let [_, _, share, _] = self.numbers;
        share
    }

    /// The limit as configured: a share, a ratio, or milliseconds for the ceiling of a time.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        let [.., limit] = self.numbers;
        limit
    }

    /// Where the bets on legacy's rate start before anything was seen.
    #[must_use]
    pub const fn prior_rate(&self) -> f64 {
        match quantile(self.kind) {
            Some(quantile) => 1.0 - quantile,
            None => 0.005,
        }
    }

    /// The buckets above which a time is an event: canary's, legacy's. `None` while legacy has too
    /// little history for its quantile.
    fn edges(&self, reference: &Reference) -> Option<(i16, i16)> {
        if self.is_ceiling {
            let edge = sketch::bucket_of(self.limit());
            return Some((edge, edge));
        }
        let edge = reference.edge(self.kind)?;
        Some((
            edge.saturating_add(sketch::buckets_spanned(self.limit())),
            edge,
        ))
    }

    /// The counts of this rule's event in a cell; `None` while they cannot be told.
    #[must_use]
    pub fn counts(&self, cell: &Cell, reference: &Reference) -> Option<Counts> {
        let (canary, legacy) = (cell.arms.get(Arm::Canary), cell.arms.get(Arm::Legacy));
        match watch(self.kind) {
            Watch::Rate(events) => Some(Counts {
                canary: canary.requests as f64,
                canary_events: events(canary) as f64,
                legacy: legacy.requests as f64,
                legacy_events: events(legacy) as f64,
            }),
            Watch::Time { sketch, .. } => {
                let (canary_edge, legacy_edge) = self.edges(reference)?;
                let (canary, legacy) = (sketch(canary), sketch(legacy));
                Some(Counts {
                    canary: canary.count(),
                    canary_events: canary.above(canary_edge),
                    legacy: legacy.count(),
                    legacy_events: legacy.above(legacy_edge),
                })
            }
        }
    }
}
