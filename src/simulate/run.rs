//! One run: the real controller against synthetic traffic, in virtual time.
//!
//! Pure. Does what the driver does, without waiting: cells close by the same rules, proposals are committed
//! at once, probes are answered as the canary behaves at that moment.
#![deny(clippy::disallowed_methods)]

use super::World;
use super::series::Series;
use super::tally::Tally;
use super::traffic::{Brought, Traffic};
use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::controller::evidence::{Cell, Collector};
use crate::controller::headroom::Headroom;
use crate::controller::split::Assigned;
use crate::controller::{Decision, Effect, Event, Input, Phase, State, View, step, view};

/// Virtual time begins on 2026-01-01 at midnight.
pub(super) const START: UnixMillis = UnixMillis(1_767_225_600_000);

/// One run under way.
struct Run<'a> {
    world: &'a World<'a>,
    traffic: Traffic<'a>,
    collector: Collector,
    at_ms: i64,
    tally: Tally,
    series: Option<Series>,
}

/// Run number `run` of the controller; `series`, if given, takes down its course.
pub(super) fn controlled(
    world: &World<'_>,
    run: u64,
    series: Option<Series>,
) -> (Tally, Option<Series>) {
    let mut driven = Run {
        world,
        traffic: Traffic::new(world.scenario, &world.timeline, world.seed, run),
        collector: Collector::new(START, Weight::ZERO, 0),
        at_ms: 0,
        tally: Tally::new(world.timeline.counted_from_ms()),
        series,
    };
    let mut state = State::new(world.policy, format!("run-{run}"), START);
    // Before the first request: without a warm-up the first stage begins here.
    state = driven.look(state, None, Brought::default());
    while driven.at_ms < world.scenario.duration_ms {
        state = driven.tick(state);
        // Nobody is there to retry it.
        if *state.phase() == (Phase::RolledBack { until: None }) {
            break;
        }
    }
    driven.tally.is_held = driven.view(&state).state == "held";
    driven.tally.complete_at_end = *state.phase() == Phase::Complete;
    (driven.tally, driven.series)
}

impl Run<'_> {
    /// Traffic until the next tick, and the looks that come meanwhile.
    fn tick(&mut self, mut state: State) -> State {
        let scenario = self.world.scenario;
        let end_ms = (self.at_ms + scenario.tick_ms).min(scenario.duration_ms);
        while self.at_ms < end_ms {
            let weight = state.weight();
            let left_ms = end_ms - self.at_ms;
            let length_ms = self.traffic.look_ms(self.at_ms, left_ms, weight);
            let brought = self.fill(length_ms, weight);
            self.at_ms += length_ms;
            self.tally.count(self.at_ms, brought);
            state = self.look(state, None, brought);
        }
        state
    }

    fn fill(&mut self, length_ms: i64, weight: Weight) -> Brought {
        let (at_ms, open) = (self.at_ms, self.collector.open_mut());
        let Some(series) = &mut self.series else {
            return self.traffic.fill(at_ms, length_ms, weight, open);
        };
        let mut cell = Cell::open(START, weight, 0);
        let brought = self.traffic.fill(at_ms, length_ms, weight, &mut cell);
        open.arms.legacy.merge(&cell.arms.legacy);
        open.arms.canary.merge(&cell.arms.canary);
        series.add(at_ms, weight, &cell);
        brought
    }

    /// One look, and what the driver does with its effects.
    fn look(&mut self, state: State, event: Option<Event>, brought: Brought) -> State {
        let now = START.plus_millis(self.at_ms);
        self.collector.tick(now);
        let closed = self.collector.take_closed();
        let input = self.input(&closed, event, brought, state.weight());
        let stepped = step(self.world.policy, state, &input, now);
        let mut state = stepped.state;
        self.collector.switch(now, state.weight(), 0);
        for effect in stepped.effects {
            match effect {
                Effect::Decide(decision) => self.note(decision),
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    self.note(decision);
                    let committed = Some(Event::Committed { proposal });
                    state = self.look(state, committed, Brought::default());
                }
                Effect::PermitProbe => {
                    let ok = self.traffic.probe(self.at_ms);
                    let probe = Some(Event::Probe { ok });
                    state = self.look(state, probe, Brought::default());
                }
                Effect::Alert { .. } => {}
            }
        }
        state
    }

    fn note(&mut self, decision: Decision) {
        let had_incident = self.traffic.had_incident(self.at_ms);
        let timeline = &self.world.timeline;
        self.tally
            .decided(timeline, had_incident, self.at_ms, decision);
    }

    fn input<'i>(
        &'i self,
        closed: &'i [Cell],
        event: Option<Event>,
        brought: Brought,
        weight: Weight,
    ) -> Input<'i> {
        Input {
            closed,
            open: self.collector.open(),
            event,
            store_healthy: true,
            legacy_breaker_open: false,
            incident: None,
            canary_rate_per_s: self.world.scenario.rate_per_s * weight.fraction(),
            requests_per_s: self.world.scenario.rate_per_s,
            assigned: Assigned {
                canary: brought.canary,
                legacy: brought.legacy,
                strays: 0,
            },
            overdue: PerArm::default(),
            headroom: Headroom::default(),
        }
    }

    fn view(&self, state: &State) -> View {
        let input = self.input(&[], None, Brought::default(), state.weight());
        view(
            self.world.policy,
            state,
            &input,
            START.plus_millis(self.at_ms),
        )
    }
}
