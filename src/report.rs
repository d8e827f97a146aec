//! The story of a migration in facts: where it stands, what both arms did, what it saved, what went wrong.
//!
//! Pure: what a store holds comes in as [`Input`], a [`Report`] comes out, and out of that Markdown, HTML or
//! JSON. It judges nothing that the controller decides by; its intervals are for readers, each for itself and
//! fixed in advance, not for peeking.
//!
//! Reading order: [`interval`] (how sure a number is), `arms` (each arm by itself), `compare` (both at the
//! same times), `money`, `incidents`, `story` (in words), `charts`, [`markdown`] and [`html`].
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::store::{Measured, SeriesPoint, StoredDecision, Totals, finest_step_ms};

mod arms;
mod charts;
mod compare;
pub mod html;
mod incidents;
pub mod interval;
pub mod markdown;
mod money;
mod notes;
mod standing;
mod story;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use arms::ArmFigures;
pub use compare::Difference;
pub use incidents::Incident;
pub use money::Savings;
use standing::Standing;
pub use standing::Stands;

/// What a report is made of.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The rollout's name.
    pub rollout: String,
    /// Its id.
    pub rollout_id: String,
    /// Where the arms are, if that is known.
    pub base_urls: PerArm<Option<String>>,
    /// The stages, if they are known.
    pub stages: Option<Vec<Weight>>,
    /// Where it stands according to the stored state, if that could be read.
    pub stands: Option<Stands>,
    /// The time that is asked for; `None` is from the beginning.
    pub from: Option<UnixMillis>,
    /// The end of the report, not included.
    pub to: UnixMillis,
    /// True if `to` was asked for, and the record goes on behind it.
    pub is_cut: bool,
    /// The end of the record: what is two days older is known by the hour.
    pub known_until: UnixMillis,
    /// All decisions of the rollout id, oldest first.
    pub decisions: Vec<StoredDecision>,
    /// Live traffic, by the minute or the hour, rising in time.
    pub points: Vec<SeriesPoint>,
    /// Counts since the rollout id began, those of times that are no longer kept included.
    pub totals: PerArm<Totals>,
}

/// A number with its 95% interval. A bound is null where the data cannot give it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The best guess.
    pub value: f64,
    /// The lower end.
    pub ci95_low: Option<f64>,
    /// The upper end.
    pub ci95_high: Option<f64>,
}

/// A change of the effective weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WeightStep {
    /// When.
    #[serde(serialize_with = "as_text")]
    pub at: UnixMillis,
    /// The fraction after it.
    pub weight: f64,
}

/// What failed and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Masked {
    /// First attempts that failed on the arm or were refused with 429.
    pub failed: u64,
    /// Of these, made good by a rescue or a retry before the client saw them.
    pub made_good: u64,
    /// The rest.
    pub reached_clients: u64,
}

/// A report, in the names of its JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The rollout's name.
    pub rollout: String,
    /// Its id.
    pub rollout_id: String,
    /// Where the arms are.
    pub base_urls: PerArm<Option<String>>,
    /// Where the report begins.
    #[serde(serialize_with = "as_text")]
    pub from: UnixMillis,
    /// Where it ends.
    #[serde(serialize_with = "as_text")]
    pub to: UnixMillis,
    /// `warming-up`, `running`, `held`, `tripped`, `retreated`, `rolled-back`, `complete` or `stopped`.
    pub state: &'static str,
    /// The effective weight at the end, a fraction.
    pub weight: f64,
    /// The stage at the end, from 1.
    pub stage: Option<usize>,
    /// How many stages there are.
    pub stages: Option<usize>,
    /// When the canary got its first share.
    #[serde(serialize_with = "as_maybe_text")]
    pub started_at: Option<UnixMillis>,
    /// When it was complete for the last time, if it is complete.
    #[serde(serialize_with = "as_maybe_text")]
    pub completed_at: Option<UnixMillis>,
    /// From the start to completion, else to the end of the report.
    pub duration_s: Option<f64>,
    /// Where it stands, in a line.
    pub headline: String,
    /// The story in plain words.
    pub story: Vec<String>,
    /// What each arm did.
    pub arms: PerArm<ArmFigures>,
    /// Both arms at the same times.
    pub differences: Vec<Difference>,
    /// What the canary saves; null where costs are unknown.
    pub savings: Option<Savings>,
    /// Failures of each arm.
    pub masked: PerArm<Masked>,
    /// Trips, rollbacks and retreats, oldest first.
    pub incidents: Vec<Incident>,
    /// The effective weight over time.
    pub weights: Vec<WeightStep>,
    /// Every decision, oldest first.
    pub decisions: Vec<StoredDecision>,
    /// What a reader has to know of the data.
    pub notes: Vec<String>,
    #[serde(skip)]
    pub(crate) bins: Vec<SeriesPoint>,
    #[serde(skip)]
    pub(crate) bin_ms: i64,
}

fn as_text<S: serde::Serializer>(at: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

fn as_maybe_text<S: serde::Serializer>(
    at: &Option<UnixMillis>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

impl Report {
    /// Makes the report.
    #[must_use]
    pub fn new(input: Input) -> Self {
        let Input { to, .. } = input;
        let decisions: Vec<StoredDecision> = input
            .decisions
            .iter()
            .filter(|it| it.at < to || !input.is_cut)
            .cloned()
            .collect();
        let first_point = input.points.first().map(|point| point.at);
        let begin = decisions
            .first()
            .map(|it| it.at)
            .into_iter()
            .chain(first_point)
            .min();
        let from = input.from.or(begin).unwrap_or(to);
        let weights = weights(&decisions, from);
        let shown: Vec<StoredDecision> = decisions
            .iter()
            .filter(|it| it.at >= from)
            .cloned()
            .collect();
        let kept = summed(&input.points);
        let is_whole = input.from.is_none() && !input.is_cut;
        let known_until = input.known_until.max(to);
        let first_decision = decisions.first().map(|it| it.at);
        let has_lost = is_whole && has_lost(first_decision, first_point, known_until);
        let counts = counts(&input.totals, &kept, has_lost);
        let arms = PerArm::from_fn(|arm| {
            ArmFigures::new(counts.get(arm), &kept.get(arm).times, &input.points, arm)
        });
        let stands = input.stands.filter(|_| !input.is_cut);
        let stages = input.stages.as_deref().unwrap_or_default();
        let standing = Standing::of(&decisions, stages, stands);
        let differences = compare::differences(&input.points, from, to);
        let bin_ms = charts::bin_ms(from, to);
        let mut report = Self {
            rollout: input.rollout,
            rollout_id: input.rollout_id,
            base_urls: input.base_urls,
            from,
            to,
            state: standing.state,
            weight: standing.weight.fraction(),
            stage: standing.stage.map(|stage| stage + 1),
            stages: input.stages.as_ref().map(Vec::len),
            started_at: standing.started_at,
            completed_at: standing.completed_at,
            duration_s: standing.duration_s(to),
            headline: String::new(),
            story: Vec::new(),
            savings: money::savings(&input.points, &arms, &counts.canary, from, to),
            masked: PerArm::from_fn(|arm| masked(counts.get(arm))),
            incidents: incidents::incidents(&shown, &input.points, to, known_until),
            bins: charts::binned(&input.points, bin_ms),
            bin_ms,
            arms,
            differences,
            weights,
            decisions: shown,
            notes: Vec::new(),
        };
        report.notes = notes::notes(&report, &kept, is_whole, has_lost, first_point);
        report.headline = story::headline(&report);
        report.story = story::story(&report);
        report
    }

    /// The report as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Plain numbers and texts always serialise; what is no number becomes null.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Requests of both arms.
    pub(crate) fn requests(&self) -> u64 {
        self.arms.legacy.requests + self.arms.canary.requests
    }
}

/// True if the record begins with decisions that the kept traffic does not reach back to.
fn has_lost(
    begin: Option<UnixMillis>,
    first_point: Option<UnixMillis>,
    known_until: UnixMillis,
) -> bool {
    let first = first_point.unwrap_or(known_until);
    begin.is_some_and(|begin| first.millis_since(begin) > finest_step_ms(first, known_until))
}

/// Counts go back further than what is kept of times; a part of the time is known from that only.
fn counts(all: &PerArm<Totals>, kept: &PerArm<Measured>, has_lost: bool) -> PerArm<Totals> {
    PerArm::from_fn(|arm| {
        let (all, kept) = (all.get(arm), &kept.get(arm).totals);
        let is_more = has_lost && all.requests > kept.requests;
        if is_more { *all } else { *kept }
    })
}

fn summed(points: &[SeriesPoint]) -> PerArm<Measured> {
    let mut sum = PerArm::<Measured>::default();
    for point in points {
        sum.legacy.merge(&point.arms.legacy);
        sum.canary.merge(&point.arms.canary);
    }
    sum
}

fn masked(totals: &Totals) -> Masked {
    let failed = totals.errors + totals.rate_limited;
    let made_good = totals.masked.min(failed);
    Masked {
        failed,
        made_good,
        reached_clients: failed - made_good,
    }
}

/// The weight at `from`, then each change.
fn weights(decisions: &[StoredDecision], from: UnixMillis) -> Vec<WeightStep> {
    let before = decisions.iter().rev().find(|it| it.at < from);
    let first = decisions.first().map(|it| it.weight_from);
    let mut now = before
        .map(|it| it.weight_to)
        .or(first)
        .unwrap_or(Weight::ZERO);
    let mut steps = vec![WeightStep {
        at: from,
        weight: now.fraction(),
    }];
    for decision in decisions.iter().filter(|it| it.at >= from) {
        if decision.weight_to != now {
            now = decision.weight_to;
            steps.push(WeightStep {
                at: decision.at,
                weight: now.fraction(),
            });
        }
    }
    steps
}
