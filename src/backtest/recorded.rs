//! What the record says: the decisions, the weight over time, and what was done to the rollout from outside.
//!
//! Pure. Reads decisions and rows of probes; the only place that knows how a decision's words tell its cause.
#![deny(clippy::disallowed_methods)]

use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::step::{Action, Command};
use crate::controller::{By, DecisionKind};
use crate::store::{ProbeRow, StoredDecision};

/// Probes in a row that end a trip, and the time between them.
const PROBES: i64 = 5;
const PROBE_EVERY_MS: i64 = 10_000;
/// Samples reach the driver within this time.
const HANDED_OVER_MS: i64 = 500;

/// How the reasons of configuration decisions begin that change no rule.
const NO_RULES: [&str; 3] = [
    "another canary",
    "the canary's access changed",
    "the stages changed; the next one is",
];

/// A decision on record.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its number.
    pub id: i64,
    /// When it was taken.
    pub at: UnixMillis,
    /// What was decided.
    pub kind: DecisionKind,
    /// Who decided.
    pub by: By,
    /// The effective weight before.
    pub weight_from: Weight,
    /// The effective weight after.
    pub weight_to: Weight,
    /// Why.
    pub reason: String,
}

/// What came from outside and has to be done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// A person asked for something.
    Command(Command),
    /// The canary's key was refused.
    Account(String),
    /// The canary's access changed: evidence began afresh.
    Afresh,
    /// The rollout was taken out of the configuration.
    Stop(String),
    /// A probe ended.
    Probe(bool),
}

/// The record of one rollout id.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// All decisions, oldest first.
    pub decisions: Vec<Taken>,
    pub(super) facts: Vec<(UnixMillis, Fact)>,
}

impl Recorded {
    /// Reads the record. Decisions of kinds that this version does not know are left out.
    #[must_use]
    pub fn new(decisions: &[StoredDecision], probes: &[ProbeRow]) -> Self {
        let mut decisions: Vec<Taken> = decisions.iter().filter_map(taken).collect();
        decisions.sort_by_key(|decision| (decision.at, decision.id));
        let mut facts: Vec<_> = decisions
            .iter()
            .filter_map(|decision| Some((decision.at, fact(decision)?)))
            .collect();
        let ended = |row: &ProbeRow| (answered_at(&decisions, row.at), Fact::Probe(row.ok));
        facts.extend(probes.iter().map(ended));
        facts.extend(untold_probes(&decisions, probes));
        facts.sort_by_key(|(at, _)| *at);
        Self { decisions, facts }
    }

    /// The effective weight at a time.
    #[must_use]
    pub fn weight_at(&self, at: UnixMillis) -> Weight {
        let after = self.decisions.partition_point(|it| it.at <= at);
        let before = after.checked_sub(1).and_then(|it| self.decisions.get(it));
        match (before, self.decisions.first()) {
            (Some(last), _) => last.weight_to,
            (None, Some(first)) => first.weight_from,
            (None, None) => Weight::ZERO,
        }
    }

    /// The decision that stopped or lowered the traffic of the canary at that very moment.
    pub(super) fn stop_at(&self, at: UnixMillis) -> Option<&Taken> {
        let from = self.decisions.partition_point(|it| it.at < at);
        let mut here = self
            .decisions
            .iter()
            .skip(from)
            .take_while(|it| it.at == at);
        here.find(|it| {
            it.by == By::Controller
                && matches!(
                    it.kind,
                    DecisionKind::Trip | DecisionKind::RollBack | DecisionKind::Retreat
                )
        })
    }

    /// The first decision after `after` and not after `until`.
    pub(super) fn next_decision(&self, after: UnixMillis, until: UnixMillis) -> Option<UnixMillis> {
        let next = self.decisions.partition_point(|it| it.at <= after);
        self.decisions
            .get(next)
            .map(|it| it.at)
            .filter(|at| *at <= until)
    }

    /// True if the rollout took over what was known of legacy from one with another canary.
    #[must_use]
    pub fn is_heir(&self) -> bool {
        let first = self.decisions.first();
        first.is_some_and(|it| {
            it.kind == DecisionKind::Config && it.reason.contains("another canary")
        })
    }

    /// How often the configuration changed the rules. Another canary, another access, and the raise that
    /// follows from new stages are no rules.
    #[must_use]
    pub fn config_changes(&self) -> usize {
        let changed = |it: &&Taken| {
            let mut parts = it.reason.split(" · ");
            it.kind == DecisionKind::Config
                && parts.any(|part| !NO_RULES.iter().any(|begin| part.starts_with(begin)))
        };
        self.decisions.iter().filter(changed).count()
    }
}

fn taken(decision: &StoredDecision) -> Option<Taken> {
    Some(Taken {
        id: decision.id,
        at: decision.at,
        kind: DecisionKind::from_word(&decision.kind)?,
        by: By::from_word(&decision.by)?,
        weight_from: decision.weight_from,
        weight_to: decision.weight_to,
        reason: decision.reason.clone(),
    })
}

fn fact(decision: &Taken) -> Option<Fact> {
    let command = |action| {
        Some(Fact::Command(Command {
            action,
            reason: decision.reason.clone(),
        }))
    };
    match (decision.by, decision.kind) {
        (By::Operator, DecisionKind::Hold) => command(Action::Hold),
        (By::Operator, DecisionKind::Resume) => command(Action::Resume),
        (By::Operator, DecisionKind::Promote | DecisionKind::Complete) => command(Action::Promote),
        (By::Operator, DecisionKind::RollBack) => command(Action::Rollback),
        (By::Operator, DecisionKind::Retry) => command(Action::Retry),
        (By::Operator, DecisionKind::SetWeight) => command(Action::SetWeight(decision.weight_to)),
        (By::Controller, DecisionKind::Trip) => {
            let why = decision.reason.strip_prefix("account: ")?;
            let why = why.split(" · ").next().unwrap_or(why);
            Some(Fact::Account(why.to_owned()))
        }
        (By::Config, DecisionKind::Config) => decision
            .reason
            .contains("evidence starts afresh")
            .then_some(Fact::Afresh),
        (_, DecisionKind::Stop) => Some(Fact::Stop(decision.reason.clone())),
        _ => None,
    }
}

/// The decision that a probe led to was taken when its answer had come to the driver, some milliseconds later.
fn answered_at(decisions: &[Taken], ended_at: UnixMillis) -> UnixMillis {
    let next = decisions.partition_point(|it| it.at < ended_at);
    let led_to = decisions.get(next).filter(|it| {
        it.at.millis_since(ended_at) <= HANDED_OVER_MS
            && matches!(it.kind, DecisionKind::Resume | DecisionKind::ProbeFailed)
    });
    led_to.map_or(ended_at, |it| it.at)
}

/// Probes whose rows were not kept, told by the decisions that followed from them.
fn untold_probes(decisions: &[Taken], probes: &[ProbeRow]) -> Vec<(UnixMillis, Fact)> {
    let mut untold = Vec::new();
    let mut tripped_at = None;
    for decision in decisions {
        let since = tripped_at.unwrap_or(decision.at);
        let told = |ok: bool| {
            let during = |row: &&ProbeRow| row.at >= since && row.at <= decision.at && row.ok == ok;
            probes.iter().any(|row| during(&row))
        };
        match decision.kind {
            DecisionKind::Trip => tripped_at = Some(decision.at),
            DecisionKind::ProbeFailed => {
                if !told(false) {
                    untold.push((decision.at, Fact::Probe(false)));
                }
                tripped_at = Some(decision.at);
            }
            DecisionKind::Resume
                if tripped_at.is_some() && decision.by == By::Controller && !told(true) =>
            {
                untold.extend((0..PROBES).map(|back| {
                    let at = decision.at.plus_millis(-back * PROBE_EVERY_MS);
                    (at.max(since), Fact::Probe(true))
                }));
                tripped_at = None;
            }
            _ => tripped_at = None,
        }
    }
    untold
}
