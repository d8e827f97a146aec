//! One look: evidence and at most one event in, the new state and its effects out.
//!
//! Pure. Order within a look: the clock, the evidence, the event, proof of harm, and only then what may
//! raise the weight. A raise is proposed, never applied here; the driver commits it first. Harm cancels
//! whatever raise was under way.
//!
//! *Trip*: the uncapped ledgers reach 1/alpha and the cap bit within the last ten minutes, so that the
//! capped ledgers cannot answer in time. *Roll back*: the capped ledgers reach 1/alpha, or the fuse would
//! blow once too often in a day. *Promote*: proof of health on every guard, dwell over, no amber, no hold,
//! a store that can record it. Everything else waits, and [`mod@super::view`] says for what.
#![deny(clippy::disallowed_methods)]

use crate::alert::kind::AlertKind;
use crate::arm::{PerArm, Weight};
use crate::clock::{UnixMillis, for_people};
use crate::controller::effect::{By, Decision, DecisionEvidence, DecisionKind, Effect};
use crate::controller::evidence::Cell;
use crate::controller::headroom::Headroom;
use crate::controller::phase::{Proposal, Raise};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::split::Assigned;
use crate::controller::state::State;

/// What one look sees.
#[derive(Debug)]
pub struct Input<'a> {
    /// Cells that closed since the last look, oldest first.
    pub closed: &'a [Cell],
    /// The cell that is still open.
    pub open: &'a Cell,
    /// What happened, if anything.
    pub event: Option<Event>,
    /// False while decisions cannot be recorded: nothing goes up then.
    pub store_healthy: bool,
    /// Legacy's breaker is open: its silence is no sign of health.
    pub legacy_breaker_open: bool,
    /// The failures told apart, for the log: `3x connect 1x 529 · 4 rescued by failover, 0 clients failed`.
    pub incident: Option<&'a str>,
    /// Canary requests per second lately, for estimates of time.
    pub canary_rate_per_s: f64,
    /// Requests of the rollout per second lately, both arms together, for estimates of time.
    pub requests_per_s: f64,
    /// What was routed since the last look.
    pub assigned: Assigned,
    /// Live first attempts that have been under way for longer than [`State::overdue_after_ms`].
    pub overdue: PerArm<u64>,
    /// How much of its rate limits the canary has used.
    pub headroom: Headroom,
}

/// Something that happened since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A person asks for something.
    Operator(Command),
    /// The driver committed a proposal.
    Committed {
        /// Which.
        proposal: u64,
    },
    /// The driver could not commit a proposal.
    CommitFailed {
        /// Which.
        proposal: u64,
        /// What the store said.
        why: String,
    },
    /// A probe of the tripped canary ended.
    Probe {
        /// It was answered well.
        ok: bool,
    },
    /// The account behind the canary's key refused three times in a row.
    AccountFailure {
        /// `auth` or `quota`, with the status.
        why: String,
    },
}

/// What a person asks for, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What.
    pub action: Action,
    /// Why; may be empty.
    pub reason: String,
}

/// What a person can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// No increases until `resume`.
    Hold,
    /// End a hold, a trip, a cooldown or the warm-up.
    Resume,
    /// To the next stage now.
    Promote,
    /// To 0% until `retry`.
    Rollback,
    /// A new attempt after a rollback.
    Retry,
    /// This share now.
    SetWeight(Weight),
}

/// What a look leads to.
#[derive(Debug)]
pub struct Step {
    /// The state to keep.
    pub state: State,
    /// What to do, in this order.
    pub effects: Vec<Effect>,
    /// Why the operator's command was not taken, with a remedy.
    pub refusal: Option<String>,
}

/// A clock that went back by less than this is taken to stand still.
const CLOCK_SLACK_MS: i64 = 5_000;
/// A proposal that failed to commit is tried again after this.
const PROPOSE_AGAIN_MS: i64 = 5_000;

/// Takes one look.
#[must_use]
pub fn step(policy: &Policy, state: State, input: &Input<'_>, now: UnixMillis) -> Step {
    let mut turn = Turn::new(policy, state, now);
    turn.check_clock();
    let rolled = turn.feed(input);
    if let Some(event) = &input.event {
        turn.event(event, input.store_healthy);
    }
    let harm = turn.state.harm(input.open, input.legacy_breaker_open);
    turn.check_numbers(&harm);
    turn.judge_harm(&harm, input);
    if turn.effects.is_empty() {
        turn.judge_retreat(input);
        turn.judge_common_cause();
        turn.judge_split();
    }
    turn.judge_amber(&harm);
    if rolled {
        turn.judge_convergence(&harm, input);
    }
    if turn.effects.is_empty() {
        turn.go_on(&harm, input);
    }
    if turn.effects.is_empty() {
        turn.judge_headroom(input, rolled);
    }
    turn.announce(input);
    turn.end()
}

/// One look under way.
pub(super) struct Turn<'a> {
    pub(super) policy: &'a Policy,
    pub(super) state: State,
    pub(super) now: UnixMillis,
    pub(super) effects: Vec<Effect>,
    pub(super) refusal: Option<String>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(policy: &'a Policy, state: State, now: UnixMillis) -> Self {
        Self {
            policy,
            state,
            now,
            effects: Vec::new(),
            refusal: None,
        }
    }

    pub(super) fn end(self) -> Step {
        Step {
            state: self.state,
            effects: self.effects,
            refusal: self.refusal,
        }
    }

    // === recording ===

    fn decision(&self, kind: DecisionKind, from: Weight, to: Weight, why: Why) -> Decision {
        let seen = self
            .state
            .stage_counts(GuardKind::ErrorRate)
            .unwrap_or_default();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are whole and not negative"
        )]
        let whole = |count: f64| count as u64;
        Decision {
            kind,
            at: self.now,
            weight_from: from,
            weight_to: to,
            stage: self.state.stage,
            stages_total: self.policy.stages.len(),
            by: why.by,
            reason: why.reason,
            evidence: DecisionEvidence {
                guard: why.guard,
                evidence: why.log_evidence.map_or(0.0, |log| log.min(600.0).exp()),
                needed: why.log_needed.map_or(0.0, f64::exp),
                canary_requests: whole(seen.canary),
                canary_errors: whole(seen.canary_events),
                legacy_requests: whole(seen.legacy),
                legacy_errors: whole(seen.legacy_events),
            },
        }
    }

    /// Does at once what keeps or lowers the weight. A raise under way is void from here on.
    pub(super) fn decide(&mut self, kind: DecisionKind, why: Why, change: impl FnOnce(&mut State)) {
        let from = self.state.weight();
        let mut decision = self.decision(kind, from, from, why);
        self.state.outstanding = None;
        change(&mut self.state);
        decision.weight_to = self.state.weight();
        self.effects.push(Effect::Decide(decision));
    }

    /// Asks the driver to commit a raise. One at a time.
    pub(super) fn propose(&mut self, raise: Raise, why: Why) {
        let decision = self.decision(raise.kind, self.state.weight(), raise.effective(), why);
        let id = self.state.next_proposal;
        self.state.next_proposal += 1;
        self.state.outstanding = None;
        let mut state_after = Box::new(self.state.clone());
        state_after.apply(self.policy, &raise, self.now);
        self.state.outstanding = Some(Proposal { id, raise });
        self.effects.push(Effect::Propose {
            proposal: id,
            decision,
            state_after,
        });
    }

    pub(super) fn alert(&mut self, kind: AlertKind, text: String) {
        self.effects.push(Effect::Alert { kind, text });
    }

    // === what came in ===

    /// A clock that was set back restarts the dwell; one that jitters stands still.
    fn check_clock(&mut self) {
        let back_ms = self.state.seen_at.millis_since(self.now);
        if back_ms > CLOCK_SLACK_MS {
            self.alert(
                AlertKind::Clock,
                format!(
                    "the clock went back by {}; the dwell starts again",
                    for_people(back_ms)
                ),
            );
            self.state.rebase(self.now);
        }
        self.now = self.now.max(self.state.seen_at);
        self.state.seen_at = self.now;
    }

    /// Books closed cells; true if a minute ended.
    fn feed(&mut self, input: &Input<'_>) -> bool {
        let minute = self.state.minute;
        let independent = self.policy.independent_split;
        self.state
            .split
            .add(input.assigned, self.state.weight(), independent);
        for cell in input.closed {
            self.state
                .feed(self.policy, cell, input.legacy_breaker_open);
        }
        self.state.roll_to(self.policy, self.now);
        self.state
            .slice(input.open, input.legacy_breaker_open, self.now);
        self.state.minute != minute
    }

    fn event(&mut self, event: &Event, store_healthy: bool) {
        match event {
            Event::Operator(command) => self.operator(command, store_healthy),
            Event::Committed { proposal } => {
                if let Some(raise) = self.answered(*proposal) {
                    self.state.apply(self.policy, &raise, self.now);
                }
            }
            Event::CommitFailed { proposal, .. } => {
                if self.answered(*proposal).is_some() {
                    self.state.propose_after = self.now.plus_millis(PROPOSE_AGAIN_MS);
                }
            }
            Event::Probe { ok } => self.probe(*ok),
            Event::AccountFailure { why } => self.account_failure(why),
        }
    }

    /// The raise that an answer is about, unless it was cancelled meanwhile.
    fn answered(&mut self, id: u64) -> Option<Raise> {
        let proposal = self.state.outstanding.take_if(|waiting| waiting.id == id)?;
        Some(proposal.raise)
    }
}

/// The grounds of a decision.
pub(super) struct Why {
    pub(super) by: By,
    pub(super) reason: String,
    pub(super) guard: Option<GuardKind>,
    pub(super) log_evidence: Option<f64>,
    pub(super) log_needed: Option<f64>,
}

impl Why {
    pub(super) const fn new(by: By, reason: String) -> Self {
        Self {
            by,
            reason,
            guard: None,
            log_evidence: None,
            log_needed: None,
        }
    }

    pub(super) const fn controller(reason: String) -> Self {
        Self::new(By::Controller, reason)
    }
}
