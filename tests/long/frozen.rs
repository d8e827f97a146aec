//! A canary that takes requests and answers none: the simulator's requests end at once, so this drives the
//! controller by hand.

use std::collections::VecDeque;

use cutover::arm::{Arm, PerArm, Weight};
use cutover::clock::UnixMillis;
use cutover::controller::evidence::{Cell, Collector};
use cutover::controller::headroom::Headroom;
use cutover::controller::policy::Policy;
use cutover::controller::split::Assigned;
use cutover::controller::{Decision, DecisionKind, Effect, Event, Input, State, step};
use cutover::sketch;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::course::{DAY_MS, range, rules};

const PER_S: u32 = 10;
const TIMEOUT_S: i64 = 60;

/// A look each second; requests of a frozen canary end in a timeout.
struct Drive {
    policy: Policy,
    state: Option<State>,
    collector: Collector,
    now: UnixMillis,
    rng: StdRng,
    frozen_at: UnixMillis,
    /// When the requests under way began, and how many.
    under_way: VecDeque<(UnixMillis, u64)>,
    timed_out: u64,
    log: Vec<Decision>,
}

impl Drive {
    fn new(seed: u64, policy: &Policy, frozen_at: UnixMillis) -> Self {
        let now = UnixMillis(0);
        Self {
            policy: policy.clone(),
            state: Some(State::new(policy, "r".into(), now)),
            collector: Collector::new(now, Weight::ZERO, 0),
            now,
            rng: StdRng::seed_from_u64(seed),
            frozen_at,
            under_way: VecDeque::new(),
            timed_out: 0,
            log: Vec::new(),
        }
    }

    fn weight(&self) -> Weight {
        self.state.as_ref().unwrap().weight()
    }

    fn second(&mut self) {
        let weight = self.weight();
        let mut hanging = 0;
        for _ in 0..PER_S {
            let arm = if self.rng.random_bool(weight.fraction()) {
                Arm::Canary
            } else {
                Arm::Legacy
            };
            let failed = self.rng.random_bool(0.005);
            let z: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0;
            if arm == Arm::Canary && self.now >= self.frozen_at {
                hanging += 1;
                continue;
            }
            let cell = self.collector.open_mut().arms.get_mut(arm);
            cell.requests += 1;
            cell.errors += u64::from(failed);
            if !failed {
                cell.latency
                    .add(sketch::bucket_of(800.0 * (0.8 * z).exp()), 1.0);
            }
        }
        self.under_way.push_back((self.now, hanging));
        self.now = self.now.plus_millis(1_000);
        while let Some(&(began, count)) = self.under_way.front()
            && self.now.millis_since(began) >= TIMEOUT_S * 1_000
        {
            self.under_way.pop_front();
            // Under another weight they are no evidence any more.
            if weight > Weight::ZERO {
                self.timed_out += count;
                let cell = &mut self.collector.open_mut().arms.canary;
                (cell.requests, cell.errors) = (cell.requests + count, cell.errors + count);
            }
        }
        self.look(None);
    }

    fn look(&mut self, event: Option<Event>) {
        self.collector.tick(self.now);
        let closed = self.collector.take_closed();
        let state = self.state.take().unwrap();
        let after_ms = state.overdue_after_ms();
        let overdue = self
            .under_way
            .iter()
            .filter(|(began, _)| self.now.millis_since(*began) >= after_ms);
        let overdue = PerArm {
            legacy: 0,
            canary: overdue.map(|(_, count)| count).sum(),
        };
        let input = input(&closed, self.collector.open(), event, overdue);
        let stepped = step(&self.policy, state, &input, self.now);
        self.collector.switch(self.now, stepped.state.weight(), 0);
        self.state = Some(stepped.state);
        for effect in stepped.effects {
            match effect {
                Effect::Decide(decision) => self.log.push(decision),
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    self.log.push(decision);
                    self.look(Some(Event::Committed { proposal }));
                }
                Effect::PermitProbe | Effect::Alert { .. } => {}
            }
        }
    }

    fn run_to(&mut self, kind: DecisionKind, most_ms: i64) -> Option<UnixMillis> {
        let end = self.now.plus_millis(most_ms);
        let seen = self.log.len();
        while self.now < end {
            self.second();
            if let Some(found) = self.log[seen..]
                .iter()
                .find(|decision| decision.kind == kind)
            {
                return Some(found.at);
            }
        }
        None
    }
}

fn input<'a>(
    closed: &'a [Cell],
    open: &'a Cell,
    event: Option<Event>,
    overdue: PerArm<u64>,
) -> Input<'a> {
    Input {
        closed,
        open,
        event,
        store_healthy: true,
        legacy_breaker_open: false,
        incident: None,
        canary_rate_per_s: 1.0,
        requests_per_s: f64::from(PER_S),
        assigned: Assigned::default(),
        overdue,
        headroom: Headroom::default(),
    }
}

fn check(seeds: u64) {
    let policy = rules("stages = [{ weight = \"25%\", dwell = \"10m\" }, \"50%\", \"100%\"]\n");
    let never = UnixMillis(i64::MAX);
    let (mut timed_out, mut waited) = (Vec::new(), Vec::new());
    for seed in 0..seeds {
        // Frozen half a minute before it would have been promoted.
        let mut well = Drive::new(seed, &policy, never);
        let promoted = well.run_to(DecisionKind::Promote, DAY_MS).unwrap();
        let frozen_at = promoted.plus_millis(-30_000);
        let mut drive = Drive::new(seed, &policy, frozen_at);
        let tripped = drive.run_to(DecisionKind::Trip, DAY_MS);
        let kinds: Vec<DecisionKind> = drive.log.iter().map(|decision| decision.kind).collect();
        assert_eq!(
            kinds,
            [DecisionKind::Start, DecisionKind::Trip],
            "seed {seed}"
        );
        waited.push(tripped.unwrap().millis_since(frozen_at) as f64 / 1_000.0);
        timed_out.push(drive.timed_out as f64);
    }
    let (timed_out, waited) = (range(timed_out.into_iter()), range(waited.into_iter()));
    println!(
        "17: tripped after {waited:?} s and {timed_out:?} timeouts (from seed 0, {seeds} seeds)"
    );
    assert!(waited.most <= TIMEOUT_S as f64 + 15.0, "{waited:?}");
    assert!(timed_out.most <= 20.0, "{timed_out:?}");
}

#[test]
fn a_canary_that_hangs_trips_after_its_timeout_and_is_never_promoted_meanwhile() {
    check(2);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn so_does_any_of_fifty() {
    check(50);
}
