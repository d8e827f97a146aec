//! The controller, driven through the record.
//!
//! Pure. Looks come as they do live: each second, when a cell closes, and when something happens. A cell that
//! was cut short by a change of the weight was open when that change was decided, so it is shown open first.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use super::cut;
use super::recorded::{Fact, Recorded};
use super::seed;
use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::controller::evidence::Cell;
use crate::controller::headroom::Headroom;
use crate::controller::policy::Policy;
use crate::controller::split::Assigned;
use crate::controller::{Decision, Effect, Event, Input, Phase, Reset, State, adopt, step, stop};

mod unlike;

pub use unlike::Exposure;

const LOOK_MS: i64 = 1_000;
/// About as long as the store takes to commit a raise, if the record does not say it.
const COMMIT_MS: i64 = 10;
/// A commit that took longer failed.
const COMMIT_AT_MOST_MS: i64 = 5_000;
/// A recorded probe answers a permit that the replay gives at most so much later.
const PROBE_KEPT_MS: i64 = 10_000;

/// A recorded command that the replay did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub why: String,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// From when on.
    pub from: UnixMillis,
    /// Until when.
    pub to: UnixMillis,
    /// The decisions.
    pub decisions: Vec<Decision>,
    /// Recorded commands that had nothing to act on.
    pub refused: Vec<Refused>,
    /// What the canary got on record.
    pub recorded: Exposure,
    /// What it would have got.
    pub replayed: Exposure,
    /// Cells that were replayed.
    pub cells: u64,
    /// The state in the end.
    pub state: State,
}

/// A raise that is being committed.
#[derive(Debug)]
struct Raise {
    proposal: u64,
    weight: Weight,
    asked_at: UnixMillis,
    holds_at: UnixMillis,
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay<'a> {
    policy: &'a Policy,
    recorded: &'a Recorded,
    /// `None` only while the controller looks.
    state: Option<State>,
    from: UnixMillis,
    now: UnixMillis,
    next_fact: usize,
    is_stopped: bool,
    raise: Option<Raise>,
    asked_for_probe: bool,
    untaken_probes: VecDeque<(UnixMillis, bool)>,
    out: Vec<Decision>,
    refused: Vec<Refused>,
    exposure: [Exposure; 2],
    cells: u64,
}

impl<'a> Replay<'a> {
    /// Begins at `from`, at 0% and with a warm-up as a rollout does; with the record under way, at its weight
    /// without evidence, and with what operators had asked for still in force.
    #[must_use]
    pub fn new(policy: &'a Policy, recorded: &'a Recorded, id: &str, from: UnixMillis) -> Self {
        let next_fact = recorded.facts.partition_point(|(at, _)| *at < from);
        let mut replay = Self {
            policy,
            recorded,
            state: Some(State::new(policy, id.to_owned(), from)),
            from,
            now: from,
            next_fact,
            is_stopped: false,
            raise: None,
            asked_for_probe: false,
            untaken_probes: VecDeque::new(),
            out: Vec::new(),
            refused: Vec::new(),
            exposure: [Exposure::default(); 2],
            cells: 0,
        };
        for fact in seed::facts(recorded, from) {
            replay.happen(Some(fact), None);
            replay.commit(true);
        }
        replay.out.clear();
        replay
    }

    /// Takes the next cells, in the order in which they closed.
    pub fn feed(&mut self, cells: Vec<Cell>) {
        for cell in cells {
            self.time_commit(&cell);
            self.go_on_to(cell.opened_at);
            self.cells += 1;
            let parts = match self.recorded.stop_at(cell.closed_at) {
                Some(stop) => cut::at_burst(cell, cut::Burst::of_words(&stop.reason)),
                None => vec![cell],
            };
            for part in parts {
                self.take(part);
            }
        }
    }

    /// Goes on to the end of the record.
    #[must_use]
    pub fn finish(mut self, to: UnixMillis) -> Option<Replayed> {
        self.go_on_to(to);
        let [recorded, replayed] = self.exposure;
        Some(Replayed {
            from: self.from,
            to: self.now.max(to),
            decisions: self.out,
            refused: self.refused,
            recorded,
            replayed,
            cells: self.cells,
            state: self.state?,
        })
    }

    fn weight(&self) -> Weight {
        self.state.as_ref().map_or(Weight::ZERO, State::weight)
    }

    /// Time without traffic.
    fn go_on_to(&mut self, to: UnixMillis) {
        while self.now < to {
            let (at, fact) = self.next_look(to);
            self.look(at, &[], None, None);
            self.happen(fact, None);
        }
    }

    /// A new weight opens a new cell: the first one under the proposed weight tells when the commit was done.
    fn time_commit(&mut self, cell: &Cell) {
        if let Some(raise) = &mut self.raise {
            let took_ms = cell.opened_at.millis_since(raise.asked_at);
            if cell.weight == raise.weight && (0..COMMIT_AT_MOST_MS).contains(&took_ms) {
                raise.holds_at = cell.opened_at;
            }
        }
    }

    /// When to look next, not after `to`, and what happens then. Where the record decided less than a second
    /// after a usual look, the look is at that moment: no other one came in between.
    fn next_look(&mut self, to: UnixMillis) -> (UnixMillis, Option<Fact>) {
        let usual = self.now.plus_millis(LOOK_MS);
        let until = usual.plus_millis(LOOK_MS - 1);
        let decided = self.recorded.next_decision(self.now, until);
        let mut usual = decided.unwrap_or(usual).min(to);
        if let Some(raise) = &self.raise {
            usual = usual.min(raise.holds_at.max(self.now));
        }
        match self.recorded.facts.get(self.next_fact) {
            Some((at, fact)) if *at <= usual => {
                self.next_fact += 1;
                ((*at).max(self.now), Some(fact.clone()))
            }
            _ => (usual, None),
        }
    }

    /// One cell, or what is left of it.
    fn take(&mut self, mut cell: Cell) {
        let mut seen = unlike::seen(&cell, self.weight(), self.recorded);
        let to = cell.closed_at.max(self.now);
        loop {
            let weight = self.weight();
            let (at, fact) = self.next_look(to);
            let is_over = at >= to && fact.is_none();
            if is_over {
                break;
            }
            let open = cut::until(&seen, at);
            self.look(at, &[], Some(&open), None);
            self.happen(fact, Some(&open));
            self.answer_probe(&cell, &seen);
            if self.weight() != weight && at < to {
                // What had come by then belongs to the weight before.
                unlike::count(&mut self.exposure, &cut::until(&cell, at), open.weight);
                self.look(at, &[open], None, None);
                cell = cut::from(&cell, at);
                seen = unlike::seen(&cell, self.weight(), self.recorded);
            }
        }
        unlike::count(&mut self.exposure, &cell, seen.weight);
        self.answer_probe(&cell, &seen);
        if !cell.is_due(to) {
            self.look(to, &[], Some(&seen), None);
        }
        self.look(to, &[seen], None, None);
    }

    /// A tripped replay is told how the canary's requests fare that it would not have sent.
    fn answer_probe(&mut self, cell: &Cell, seen: &Cell) {
        let canary = &cell.arms.canary;
        if self.asked_for_probe && canary.requests > 0 && seen.arms.canary.requests == 0 {
            let ok = canary.errors * 2 < canary.requests;
            self.asked_for_probe = false;
            self.look(self.now, &[], None, Some(Event::Probe { ok }));
        }
    }

    /// Does again what was done to the rollout.
    fn happen(&mut self, fact: Option<Fact>, open: Option<&Cell>) {
        let event = match fact {
            None => return,
            Some(Fact::Command(command)) => Event::Operator(command),
            Some(Fact::Account(why)) => Event::AccountFailure { why },
            Some(Fact::Probe(ok)) => {
                self.untaken_probes.push_back((self.now, ok));
                return self.hand_over_probe(open);
            }
            Some(Fact::Afresh) => return self.begin_afresh(),
            Some(Fact::Stop(reason)) => {
                if let Some(state) = self.state.take() {
                    let stopped = stop(self.policy, state, &reason, self.now);
                    self.state = Some(stopped.state);
                    self.perform(stopped.effects, self.now, None);
                }
                (self.is_stopped, self.raise) = (true, None);
                return;
            }
        };
        self.look(self.now, &[], open, Some(event));
    }

    fn begin_afresh(&mut self) {
        if let Some(state) = self.state.take() {
            let adopted = adopt(self.policy, self.policy, state, &Reset::Ledgers, self.now);
            self.state = Some(adopted.state);
            self.perform(adopted.effects, self.now, None);
        }
    }

    /// Gives the controller the next recorded probe if it has asked for one.
    fn hand_over_probe(&mut self, open: Option<&Cell>) {
        let now = self.now;
        self.untaken_probes
            .retain(|(at, _)| now.millis_since(*at) <= PROBE_KEPT_MS);
        // Where the record probed, the replay does; its own permits may come some seconds later.
        let phase = self.state.as_ref().map(State::phase);
        let is_due = match phase {
            Some(Phase::Tripped(trip)) => trip.until.is_some_and(|until| until <= now),
            _ => false,
        };
        if !self.asked_for_probe && !is_due {
            return;
        }
        if let Some((_, ok)) = self.untaken_probes.pop_front() {
            self.asked_for_probe = false;
            self.look(now, &[], open, Some(Event::Probe { ok }));
        }
    }

    /// One look, and what follows from it; before it the commit that is done by then.
    fn look(&mut self, at: UnixMillis, closed: &[Cell], open: Option<&Cell>, event: Option<Event>) {
        self.now = self.now.max(at);
        if !self.is_stopped {
            self.commit(false);
            self.step(closed, open, event);
        }
    }

    /// Tells the controller that its raise is committed, once it is, or at once.
    fn commit(&mut self, at_once: bool) {
        let now = self.now;
        let done = self.raise.take_if(|raise| at_once || raise.holds_at <= now);
        if let Some(Raise { proposal, .. }) = done {
            self.step(&[], None, Some(Event::Committed { proposal }));
        }
    }

    fn step(&mut self, closed: &[Cell], open: Option<&Cell>, event: Option<Event>) {
        let Some(state) = self.state.take() else {
            return;
        };
        let weight = state.weight();
        let nothing = Cell::open(self.now, weight, 0);
        let input = Input {
            closed,
            open: open.unwrap_or(&nothing),
            event,
            store_healthy: true,
            legacy_breaker_open: false,
            incident: None,
            // Estimates of time are for people who wait.
            canary_rate_per_s: 0.0,
            requests_per_s: 0.0,
            assigned: Assigned::default(),
            overdue: PerArm::default(),
            headroom: Headroom::default(),
        };
        let stepped = step(self.policy, state, &input, self.now);
        self.state = Some(stepped.state);
        if let Some(why) = stepped.refusal {
            self.refused.push(Refused { at: self.now, why });
        }
        self.perform(stepped.effects, self.now, open);
        let tripped = |state: &State| matches!(state.phase(), Phase::Tripped(_));
        if !self.state.as_ref().is_some_and(tripped) {
            self.asked_for_probe = false;
            self.untaken_probes.clear();
        }
    }

    fn perform(&mut self, effects: Vec<Effect>, at: UnixMillis, open: Option<&Cell>) {
        for effect in effects {
            match effect {
                Effect::Decide(decision) => self.out.push(decision),
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    self.raise = Some(Raise {
                        proposal,
                        weight: decision.weight_to,
                        asked_at: at,
                        holds_at: at.plus_millis(COMMIT_MS),
                    });
                    self.out.push(decision);
                }
                Effect::PermitProbe => {
                    self.asked_for_probe = true;
                    self.hand_over_probe(open);
                }
                Effect::Alert { .. } => {}
            }
        }
    }
}
