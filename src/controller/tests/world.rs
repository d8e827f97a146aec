//! Synthetic arms, a driver that commits, and a clock that only this file moves.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::alert::kind::AlertKind;
use crate::arm::{Arm, PerArm, Weight};
use crate::clock::UnixMillis;
use crate::controller::evidence::Collector;
use crate::controller::headroom::{Headroom, Used};
use crate::controller::policy::{GuardKind, GuardSpec, Margin, OnHarm, Policy, Stage, TripPolicy};
use crate::controller::split::Assigned;
use crate::controller::{
    Action, Command, Decision, DecisionKind, Effect, Event, Input, State, View, step, view,
};
use crate::sketch;

pub(super) const START: UnixMillis = UnixMillis(1_750_000_000_000);

/// How an arm behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    pub(super) error_rate: f64,
    pub(super) latency_factor: f64,
    /// Share of requests that take eight times as long.
    pub(super) slow_tail: f64,
}

pub(super) const GOOD: Behaviour = Behaviour {
    error_rate: 0.005,
    latency_factor: 1.0,
    slow_tail: 0.0,
};

pub(super) const DOWN: Behaviour = Behaviour {
    error_rate: 1.0,
    ..GOOD
};

pub(super) fn percent(text: &str) -> Weight {
    Weight::parse(text).unwrap()
}

/// The built-in defaults of the configuration.
pub(super) fn defaults() -> Policy {
    let hour_ms = 3_600_000;
    let stages = ["1%", "5%", "25%", "50%", "75%", "95%", "100%"];
    let margin = |ratio, increase| Some(Margin { ratio, increase });
    let guard = |kind, relative, ceiling| GuardSpec {
        kind,
        relative,
        ceiling,
    };
    Policy {
        warm_up_requests: 2_000,
        stages: stages
            .into_iter()
            .map(|weight| Stage {
                weight: percent(weight),
                dwell_ms: match weight {
                    "100%" => 0,
                    "95%" => 24 * hour_ms,
                    _ => hour_ms,
                },
                approve: false,
            })
            .collect(),
        on_harm: OnHarm::RollBack,
        alpha_rollback: 0.01,
        alpha_promote: 0.05,
        trip: Some(TripPolicy {
            cooldown_ms: 300_000,
            max_per_day: 3,
        }),
        retreat: Some(percent("50%")),
        cooldown_ms: 900_000,
        max_attempts: 3,
        independent_split: false,
        guards: vec![
            guard(GuardKind::ErrorRate, margin(1.2, 0.004), Some(0.05)),
            guard(GuardKind::LatencyP99, margin(1.5, 0.0), None),
            guard(GuardKind::LatencyP50, margin(1.5, 0.0), None),
            guard(GuardKind::TtftP99, margin(1.5, 0.0), None),
            guard(GuardKind::TtftP50, margin(1.5, 0.0), None),
            guard(GuardKind::RateLimited, margin(1.0, 0.02), None),
            guard(GuardKind::Rejected, margin(1.0, 0.01), None),
        ],
    }
}

/// One stage at one weight for good, no warm-up beyond the reference.
pub(super) fn one_stage(weight: &str) -> Policy {
    let mut policy = defaults();
    policy.stages = vec![
        Stage {
            weight: percent(weight),
            dwell_ms: i64::MAX / 4,
            approve: false,
        },
        Stage {
            weight: percent("100%"),
            dwell_ms: 0,
            approve: false,
        },
    ];
    policy
}

pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) state: Option<State>,
    pub(super) collector: Collector,
    pub(super) now: UnixMillis,
    pub(super) rate_per_s: f64,
    pub(super) legacy: Behaviour,
    pub(super) canary: Behaviour,
    pub(super) streamed: bool,
    pub(super) store_healthy: bool,
    pub(super) breaker_open: bool,
    pub(super) log: Vec<Decision>,
    pub(super) alerts: Vec<&'static str>,
    /// Canary requests and errors in all.
    pub(super) canary_seen: (u64, u64),
    pub(super) refusal: Option<String>,
    pub(super) assigned: Assigned,
    pub(super) overdue: PerArm<u64>,
    /// Requests per minute that the canary's account may send; `None`: its answers do not say.
    pub(super) canary_limit: Option<u32>,
    pub(super) rng: StdRng,
    latencies: Vec<f64>,
}

impl World {
    pub(super) fn new(policy: Policy, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Lognormal, median 800 ms, sigma 0.8, as 4096 draws to choose from.
        let latencies = (0..4096)
            .map(|_| {
                let (u, v): (f64, f64) = (rng.random(), rng.random());
                let z = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                800.0 * (0.8 * z).exp()
            })
            .collect();
        let state = State::new(&policy, "r-1".into(), START);
        Self {
            state: Some(state),
            policy,
            collector: Collector::new(START, Weight::ZERO, 0),
            now: START,
            rate_per_s: 1_000.0 / 60.0,
            legacy: GOOD,
            canary: GOOD,
            streamed: false,
            store_healthy: true,
            breaker_open: false,
            log: Vec::new(),
            alerts: Vec::new(),
            canary_seen: (0, 0),
            refusal: None,
            assigned: Assigned::default(),
            overdue: PerArm::default(),
            canary_limit: None,
            rng,
            latencies,
        }
    }

    pub(super) fn state(&self) -> &State {
        self.state.as_ref().unwrap()
    }

    fn requests(&mut self, seconds: f64) -> u64 {
        let mean = self.rate_per_s * seconds;
        if mean <= 0.0 {
            return 0;
        }
        let (u, v): (f64, f64) = (self.rng.random(), self.rng.random());
        let z = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        if mean > 30.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count, not negative"
            )]
            return (mean + z * mean.sqrt()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), u, 0);
        while product > limit {
            product *= self.rng.random::<f64>();
            count += 1;
        }
        count
    }

    pub(super) fn request(&mut self) {
        let weight = self.state().weight();
        let arm = if self.rng.random::<f64>() < weight.fraction() {
            Arm::Canary
        } else {
            Arm::Legacy
        };
        let behaviour = match arm {
            Arm::Legacy => self.legacy,
            Arm::Canary => self.canary,
        };
        let failed = self.rng.random::<f64>() < behaviour.error_rate;
        if arm == Arm::Canary {
            self.canary_seen.0 += 1;
            self.canary_seen.1 += u64::from(failed);
        }
        let draw = self.rng.random_range(0..self.latencies.len());
        let tail = if self.rng.random::<f64>() < behaviour.slow_tail {
            8.0
        } else {
            1.0
        };
        let ms = self.latencies[draw] * behaviour.latency_factor * tail;
        let streamed = self.streamed;
        let cell = self.collector.open_mut().arms.get_mut(arm);
        cell.requests += 1;
        cell.errors += u64::from(failed);
        cell.streamed += u64::from(streamed);
        if !failed {
            cell.latency.add(sketch::bucket_of(ms), 1.0);
            if streamed {
                cell.ttft.add(sketch::bucket_of(ms / 4.0), 1.0);
            }
        }
    }

    /// Traffic for a while, then a look.
    pub(super) fn tick(&mut self, ms: i64) {
        let count = self.requests(ms as f64 / 1_000.0);
        for _ in 0..count {
            self.request();
        }
        self.now = self.now.plus_millis(ms);
        self.look(None);
    }

    /// Ticks until something was decided beyond the first `seen` decisions, for `most_ms` at most.
    pub(super) fn run(&mut self, tick_ms: i64, most_ms: i64) {
        let end = self.now.plus_millis(most_ms);
        while self.now < end {
            self.tick(tick_ms);
        }
    }

    /// Ticks until a decision of one of these kinds; false if none came in `most_ms`.
    pub(super) fn run_to(&mut self, kinds: &[DecisionKind], tick_ms: i64, most_ms: i64) -> bool {
        let (end, seen) = (self.now.plus_millis(most_ms), self.log.len());
        while self.now < end {
            self.tick(tick_ms);
            if self.log[seen..]
                .iter()
                .any(|decision| kinds.contains(&decision.kind))
            {
                return true;
            }
        }
        false
    }

    pub(super) fn operator(&mut self, action: Action) {
        let command = Command {
            action,
            reason: "test".into(),
        };
        self.look(Some(Event::Operator(command)));
    }

    /// One look, and what a driver does with its effects.
    pub(super) fn look(&mut self, event: Option<Event>) {
        let (effects, refusal) = self.raw_look(event);
        self.refusal = refusal;
        self.check_alerts(&effects);
        for effect in effects {
            match effect {
                Effect::Decide(decision) => self.log.push(decision),
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    self.log.push(decision);
                    self.look(Some(Event::Committed { proposal }));
                }
                Effect::PermitProbe => {
                    let ok = self.rng.random::<f64>() >= self.canary.error_rate;
                    self.look(Some(Event::Probe { ok }));
                }
                Effect::Alert { kind, .. } => self.alerts.push(kind.as_str()),
            }
        }
    }

    /// What is told along with a decision comes right before it, and goes on unless it tells of an end.
    fn check_alerts(&self, effects: &[Effect]) {
        let next = effects.iter().skip(1).map(Some).chain([None]);
        for (effect, next) in effects.iter().zip(next) {
            let Effect::Alert { kind, text } = effect else {
                continue;
            };
            if kind.has_decision() {
                assert!(matches!(next, Some(Effect::Decide(_))), "{kind}: {text}");
                let is_over = *kind == AlertKind::Complete;
                assert_ne!(self.state().stands(*kind), is_over, "{kind}: {text}");
            }
        }
    }

    /// One look without a driver.
    pub(super) fn raw_look(&mut self, event: Option<Event>) -> (Vec<Effect>, Option<String>) {
        self.collector.tick(self.now);
        let closed = self.collector.take_closed();
        let input = self.input(&closed, event);
        let state = self.state.clone().unwrap();
        let result = step(&self.policy, state, &input, self.now);
        let snapshot = result.state.snapshot();
        self.state = Some(result.state);
        self.collector.switch(self.now, snapshot.weight, 0);
        (result.effects, result.refusal)
    }

    fn input<'a>(
        &'a self,
        closed: &'a [crate::controller::evidence::Cell],
        event: Option<Event>,
    ) -> Input<'a> {
        Input {
            closed,
            open: self.collector.open(),
            event,
            store_healthy: self.store_healthy,
            legacy_breaker_open: self.breaker_open,
            incident: None,
            canary_rate_per_s: self.rate_per_s
                * self
                    .state
                    .as_ref()
                    .map_or(0.0, |state| state.weight().fraction()),
            requests_per_s: self.rate_per_s,
            assigned: self.assigned,
            overdue: self.overdue,
            headroom: self.headroom(),
        }
    }

    /// What the canary's answers would say, if its requests came evenly.
    fn headroom(&self) -> Headroom {
        let per_min = self.rate_per_s
            * 60.0
            * self
                .state
                .as_ref()
                .map_or(0.0, |state| state.weight().fraction());
        let used = |limit| Used {
            limit,
            share: (per_min / f64::from(limit)).min(1.0),
        };
        Headroom {
            requests: self.canary_limit.map(used),
            tokens: None,
            own: None,
            is_counted: true,
        }
    }

    pub(super) fn view(&self) -> View {
        view(&self.policy, self.state(), &self.input(&[], None), self.now)
    }

    /// As after kill -9: only the text of the state survives.
    pub(super) fn restart(&mut self) {
        let text = serde_json::to_string(self.state()).unwrap();
        assert!(text.len() < 64 * 1024, "{} bytes", text.len());
        let back: State = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        self.state = Some(back);
    }

    pub(super) fn kinds(&self) -> Vec<DecisionKind> {
        self.log.iter().map(|decision| decision.kind).collect()
    }
}
