//! One look: evidence and at most one event in, the new state and its effects out.
//!
//! Pure. Order within a look: the clock, the evidence, the event, proof of harm, and only then what may
//! raise the weight. A raise is proposed, never applied here; the driver commits it first. Harm cancels
//! whatever raise was under way.
//!
//! *Trip*: the uncapped ledgers reach 1/alpha and the cap bit within the last ten minutes, so that the
//! capped ledgers cannot answer in time. *Roll back*: the capped ledgers reach 1/alpha, or the fuse would
//! blow once too often in a day. *Promote*: proof of health on every guard, dwell over, no amber, no hold,
//! a store that can record it. Everything else waits, and [`super::view`] says for what.
#![deny(clippy::disallowed_methods)]

use crate::arm::Weight;
use crate::clock::{UnixMillis, for_people};
use crate::controller::effect::{By, Decision, DecisionEvidence, DecisionKind, Effect};
use crate::controller::evidence::Cell;
use crate::controller::policy::{GuardKind, Policy, Stage, TripPolicy};
use crate::controller::proof::{self, Standing};
use crate::controller::state::{Harm, Phase, Proposal, Raise, State, Trip, Wait};
use crate::controller::words;

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
/// How long after it bit the cap explains that the trip ledger is ahead.
const CAP_BIT_MS: i64 = 600_000;
const DAY_MS: i64 = 86_400_000;
const PROBE_EVERY_MS: i64 = 10_000;
const PROBES_NEEDED: u32 = 5;
/// Doubling stops here: a canary that is back should not wait for days.
const TRIP_COOLDOWN_MAX_MS: i64 = 6 * 3_600_000;
/// A proposal that failed to commit is tried again after this.
const PROPOSE_AGAIN_MS: i64 = 5_000;
/// Minutes without convergence before the rollout is said to be held.
const STUCK_MIN: u32 = 10;
/// Canary requests of a stage before "will not converge" is more than noise.
const STUCK_CANARY_MIN: u64 = 200;

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
    turn.judge_amber(&harm);
    if rolled {
        turn.judge_convergence(&harm);
    }
    if turn.effects.is_empty() {
        turn.go_on(&harm, input);
    }
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
        let decision = self.decision(raise.kind, self.state.weight(), raise.weight, why);
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

    pub(super) fn alert(&mut self, kind: &'static str, text: String) {
        self.effects.push(Effect::Alert { kind, text });
    }

    // === what came in ===

    /// A clock that was set back restarts the dwell; one that jitters stands still.
    fn check_clock(&mut self) {
        let back_ms = self.state.seen_at.millis_since(self.now);
        if back_ms > CLOCK_SLACK_MS {
            self.alert(
                "clock",
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
        for cell in input.closed {
            self.state.feed(cell, input.legacy_breaker_open);
        }
        self.state.roll_to(self.now);
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

    fn probe(&mut self, ok: bool) {
        let now = self.now;
        let Phase::Tripped(trip) = &mut self.state.phase else {
            return;
        };
        if ok {
            trip.probes_ok = trip.probes_ok.saturating_add(1);
            return;
        }
        // A late answer of a probe that was sent before the last failure doubles nothing.
        if trip.until.is_none_or(|until| now < until) {
            return;
        }
        let cooldown_ms = trip.cooldown_ms.saturating_mul(2).min(TRIP_COOLDOWN_MAX_MS);
        let until = now.plus_millis(cooldown_ms);
        let reason = format!(
            "a probe failed after {} good ones · next probe {} ({})",
            trip.probes_ok,
            until.time_of_day(),
            for_people(cooldown_ms)
        );
        self.decide(
            DecisionKind::ProbeFailed,
            Why::controller(reason),
            |state| {
                if let Phase::Tripped(trip) = &mut state.phase {
                    trip.until = Some(until);
                    trip.cooldown_ms = cooldown_ms;
                    trip.probes_ok = 0;
                    trip.next_probe_at = until;
                }
            },
        );
    }

    fn account_failure(&mut self, why: &str) {
        if self.state.weight() == Weight::ZERO {
            return;
        }
        let reason = format!("account: {why} · waits for a new key or `cutover resume`");
        self.alert("credentials", format!("the canary refuses its key: {why}"));
        self.blow_fuse(None, Why::controller(reason));
    }

    fn blow_fuse(&mut self, until: Option<UnixMillis>, why: Why) {
        let now = self.now;
        let base_ms = self.policy.trip.map_or(300_000, |trip| trip.cooldown_ms);
        self.decide(DecisionKind::Trip, why, |state| {
            let was_complete = state.phase == Phase::Complete;
            let trip = Trip {
                until,
                cooldown_ms: base_ms,
                probes_ok: 0,
                next_probe_at: until.unwrap_or(now),
                was_complete,
            };
            state.set_phase(Phase::Tripped(trip), now);
        });
    }

    // === harm ===

    /// A ledger without a number proves nothing: it starts afresh and nothing goes up before an operator
    /// has looked.
    fn check_numbers(&mut self, harm: &Harm) {
        let broken = self.state.has_nan();
        if !harm.log_roll.is_nan() && !harm.log_trip.is_nan() && !broken {
            return;
        }
        if self.state.wait == Some(Wait::Evidence) {
            self.state.renew_ledgers();
            return;
        }
        self.alert(
            "evidence",
            "a ledger held no number; evidence starts afresh and nothing goes up until `cutover resume`"
                .to_owned(),
        );
        let reason = "a ledger held no number · evidence starts afresh".to_owned();
        self.decide(DecisionKind::Hold, Why::controller(reason), |state| {
            state.renew_ledgers();
            state.wait = Some(Wait::Evidence);
        });
    }

    fn judge_harm(&mut self, harm: &Harm, input: &Input<'_>) {
        if !matches!(
            self.state.phase,
            Phase::Running | Phase::Complete | Phase::Tripped(_)
        ) {
            return;
        }
        let needed = -self.policy.alpha_rollback.ln();
        let mut why = Why {
            log_evidence: Some(harm.log_roll),
            log_needed: Some(needed),
            ..Why::controller(String::new())
        };
        if harm.log_roll >= needed {
            let mut parts = self.harm_words(harm, &mut why, input);
            parts.push(format!(
                "evidence {} (limit {})",
                words::evidence(harm.log_roll.exp()),
                words::evidence(needed.exp())
            ));
            self.roll_back(why, parts);
            return;
        }
        let tripped = matches!(self.state.phase, Phase::Tripped(_));
        let Some(fuse) = self.policy.trip.filter(|_| !tripped) else {
            return;
        };
        if harm.would_bite {
            self.state.cap_bit_at = Some(self.now);
        }
        let bit_lately = self
            .state
            .cap_bit_at
            .is_some_and(|at| self.now.millis_since(at) <= CAP_BIT_MS);
        if harm.log_trip >= needed && bit_lately {
            why.log_evidence = Some(harm.log_trip);
            let parts = self.harm_words(harm, &mut why, input);
            self.trip(fuse, why, parts);
        }
    }

    fn harm_words(&self, harm: &Harm, why: &mut Why, input: &Input<'_>) -> Vec<String> {
        let Some(worst) = self.state.tracks.get(harm.worst) else {
            return Vec::new();
        };
        why.guard = Some(worst.rule.kind);
        let open = Some(input.open)
            .filter(|_| worst.rule.is_ceiling)
            .and_then(|open| worst.rule.counts(open, &self.state.reference))
            .unwrap_or_default();
        let open = (open.canary, open.canary_events);
        words::harm(&self.state, worst, open, input.incident, self.now)
    }

    fn trip(&mut self, fuse: TripPolicy, mut why: Why, mut parts: Vec<String>) {
        let now = self.now;
        self.state.trips.retain(|&at| now.millis_since(at) < DAY_MS);
        self.state.trips.push(now);
        let today = self.state.trips.len();
        if today >= usize::try_from(fuse.max_per_day).unwrap_or(usize::MAX) {
            parts.push(format!("trip {today} within 24h"));
            self.roll_back(why, parts);
            return;
        }
        let until = now.plus_millis(fuse.cooldown_ms);
        parts.push(format!("retry {}", until.time_of_day()));
        why.reason = parts.join(" · ");
        self.alert("trip", why.reason.clone());
        self.blow_fuse(Some(until), why);
    }

    fn roll_back(&mut self, mut why: Why, mut parts: Vec<String>) {
        let attempt = self.state.attempt;
        let until = (attempt < self.policy.max_attempts).then(|| {
            let doublings = attempt.saturating_sub(1).min(16);
            let wait_ms = self.policy.cooldown_ms.saturating_mul(1 << doublings);
            self.now.plus_millis(wait_ms)
        });
        parts.push(match until {
            Some(until) => format!(
                "attempt {attempt}/{} · retry {}",
                self.policy.max_attempts,
                until.time_of_day()
            ),
            None => format!(
                "attempt {attempt}/{} was the last",
                self.policy.max_attempts
            ),
        });
        why.reason = parts.join(" · ");
        self.alert("roll-back", why.reason.clone());
        let now = self.now;
        self.decide(DecisionKind::RollBack, why, |state| {
            state.set_phase(Phase::RolledBack { until }, now);
        });
    }

    /// At E >= 10 the evidence of health of this stage is void and has to be gathered again.
    fn judge_amber(&mut self, harm: &Harm) {
        if !self.state.amber && harm.log_roll >= 10.0f64.ln() {
            self.state.amber = true;
            self.state.promote_restarts = self.state.promote_restarts.saturating_add(1);
            self.state.forget_stage();
        } else if self.state.amber && harm.log_roll < 0.0 {
            self.state.amber = false;
        }
    }

    /// Once a minute: does the proof still grow? Ten minutes without are a hold, ten with end it.
    fn judge_convergence(&mut self, harm: &Harm) {
        let waits_itself = matches!(self.state.wait, None | Some(Wait::NotConverging));
        if self.state.phase != Phase::Running || !waits_itself {
            return;
        }
        let standing = proof::standing(self.policy, &self.state, harm.log_roll, self.now);
        let stuck = match standing {
            Standing::Needs(kind, None) if self.state.stage_canary >= STUCK_CANARY_MIN => {
                Some(kind)
            }
            _ => None,
        };
        let minutes = &mut self.state.stuck_minutes;
        *minutes = match stuck {
            Some(_) => (*minutes + 1).min(STUCK_MIN),
            None => minutes.saturating_sub(1),
        };
        match (self.state.wait, stuck, *minutes) {
            (None, Some(kind), STUCK_MIN) => {
                let reason = format!(
                    "will not converge: canary is at its margin ({})",
                    kind.as_str()
                );
                let why = Why {
                    guard: Some(kind),
                    ..Why::controller(reason)
                };
                self.decide(DecisionKind::Hold, why, |state| {
                    state.wait = Some(Wait::NotConverging);
                });
            }
            (Some(_), _, 0) => {
                let why = Why::controller("the proof grows again".to_owned());
                self.decide(DecisionKind::Resume, why, |state| state.wait = None);
            }
            _ => {}
        }
    }

    // === what may go up ===

    fn may_propose(&self, store_healthy: bool) -> bool {
        store_healthy
            && self.state.hold.is_none()
            && self.state.outstanding.is_none()
            && self.now >= self.state.propose_after
            && self.state.wait != Some(Wait::Evidence)
    }

    fn go_on(&mut self, harm: &Harm, input: &Input<'_>) {
        let may = self.may_propose(input.store_healthy);
        let warm_up_seen = self.state.warm_up_seen(input.open);
        match &self.state.phase {
            Phase::WarmingUp if may && warm_up_seen >= self.policy.warm_up_requests => {
                let reason = format!(
                    "warm-up: {warm_up_seen} legacy requests in {}",
                    for_people(self.now.millis_since(self.state.phase_since))
                );
                if let Some(raise) = self.raise_to_stage(DecisionKind::Start, 0) {
                    self.propose(raise, Why::controller(reason));
                }
            }
            Phase::Running => self.go_on_running(harm, may),
            Phase::Tripped(trip) if self.state.hold.is_none() => {
                let trip = trip.clone();
                self.go_on_tripped(&trip, may);
            }
            Phase::RolledBack { until: Some(until) } if may && self.now >= *until => {
                let attempt = self.state.attempt + 1;
                let reason = format!("attempt {attempt}/{}", self.policy.max_attempts);
                if let Some(raise) = self.raise_to_stage(DecisionKind::Retry, 0) {
                    self.propose(raise, Why::controller(reason));
                }
            }
            _ => {}
        }
    }

    fn go_on_tripped(&mut self, trip: &Trip, may: bool) {
        let Some(until) = trip.until else { return };
        if self.now < until {
            return;
        }
        if trip.probes_ok >= PROBES_NEEDED {
            if may {
                let reason = format!("{} probes in a row succeeded", trip.probes_ok);
                let raise = self.raise_back(DecisionKind::Resume, trip.was_complete);
                self.propose(raise, Why::controller(reason));
            }
        } else if self.now >= trip.next_probe_at {
            if let Phase::Tripped(trip) = &mut self.state.phase {
                trip.next_probe_at = self.now.plus_millis(PROBE_EVERY_MS);
            }
            self.effects.push(Effect::PermitProbe);
        }
    }

    fn go_on_running(&mut self, harm: &Harm, may: bool) {
        // Cheapest test first: a stage spends most of its looks in its dwell.
        if self.state.hold.is_some() || proof::dwell_left(self.policy, &self.state, self.now) > 0 {
            return;
        }
        let Some(next) = self.next_stage() else {
            if self.state.wait.is_none() && harm.log_roll < 10.0f64.ln() {
                self.complete(Why::controller(format!(
                    "after {} at {}",
                    for_people(self.now.millis_since(self.state.stage_since)),
                    self.state.weight
                )));
            }
            return;
        };
        // At 0% only an operator can have put it there.
        if self.state.weight == Weight::ZERO || !proof::is_proven(self.policy, &self.state) {
            return;
        }
        let Standing::Ready(log_evidence) =
            proof::evidence(self.policy, &self.state, harm.log_roll)
        else {
            return;
        };
        let gated = self
            .policy
            .stages
            .get(self.state.stage)
            .is_some_and(|stage| stage.approve);
        let why = Why {
            log_evidence: Some(log_evidence),
            log_needed: Some(self.state.promote_nats(self.policy)),
            ..Why::controller(words::promotion(
                self.policy,
                &self.state,
                log_evidence,
                self.now,
            ))
        };
        if gated {
            self.ask_for_approval(why);
        } else if may && let Some(raise) = self.raise_to_stage(DecisionKind::Promote, next) {
            self.propose(raise, why);
        }
    }

    fn ask_for_approval(&mut self, mut why: Why) {
        if self.state.wait == Some(Wait::Approval) {
            return;
        }
        why.reason
            .push_str(" · waits for approval: `cutover promote`");
        self.alert("approval", why.reason.clone());
        self.decide(DecisionKind::Hold, why, |state| {
            state.wait = Some(Wait::Approval);
        });
    }

    pub(super) fn complete(&mut self, why: Why) {
        self.alert("complete", why.reason.clone());
        let now = self.now;
        self.decide(DecisionKind::Complete, why, |state| {
            state.set_phase(Phase::Complete, now);
        });
    }

    /// The next stage up: the first whose weight is above the intended one.
    pub(super) fn next_stage(&self) -> Option<usize> {
        let above = |stage: &Stage| stage.weight > self.state.weight;
        self.policy.stages.iter().position(above)
    }

    pub(super) fn raise_to_stage(&self, kind: DecisionKind, stage: usize) -> Option<Raise> {
        Some(Raise {
            kind,
            stage,
            weight: self.policy.stages.get(stage)?.weight,
            new_attempt: matches!(self.state.phase, Phase::RolledBack { .. } | Phase::Stopped),
            complete: false,
        })
    }

    /// Back to where the rollout stood.
    pub(super) fn raise_back(&self, kind: DecisionKind, complete: bool) -> Raise {
        Raise {
            kind,
            stage: self.state.stage,
            weight: self.state.weight,
            new_attempt: false,
            complete,
        }
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
