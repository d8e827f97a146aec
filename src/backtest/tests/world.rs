//! A daemon in virtual time whose decisions and cells are kept, as the store keeps them.

use super::*;

pub(super) const START: UnixMillis = UnixMillis(1_800_000_012_345);
pub(super) const MINUTE_MS: i64 = 60_000;

pub(super) fn weight(text: &str) -> Weight {
    Weight::parse(text).unwrap()
}

/// Ten minutes per stage, margins that some hundreds of requests prove.
pub(super) fn policy() -> Policy {
    let mut policy = default_policy();
    policy.warm_up_requests = 1_000;
    policy.stages = ["5%", "25%", "75%", "100%"]
        .map(|text| crate::controller::policy::Stage {
            weight: weight(text),
            dwell_ms: 5 * MINUTE_MS,
            approve: false,
        })
        .to_vec();
    policy
        .guards
        .retain(|guard| matches!(guard.kind, GuardKind::ErrorRate | GuardKind::LatencyP50));
    for guard in &mut policy.guards {
        if let Some(margin) = guard.relative.as_mut().filter(|_| !guard.kind.is_time()) {
            margin.increase += 0.03;
        }
    }
    policy.trip = Some(TripPolicy {
        cooldown_ms: MINUTE_MS,
        max_per_day: 3,
    });
    policy.cooldown_ms = 3 * MINUTE_MS;
    policy
}

/// How the canary fails, by minutes since the start.
pub(super) type Errors = fn(i64) -> f64;

/// What the store would hold.
#[derive(Default)]
pub(super) struct Record {
    pub(super) cells: Vec<Cell>,
    pub(super) decisions: Vec<StoredDecision>,
    pub(super) probes: Vec<ProbeRow>,
}

impl Record {
    pub(super) fn note(&mut self, decision: &Decision) {
        self.decisions.push(StoredDecision {
            id: i64::try_from(self.decisions.len()).unwrap() + 1,
            at: decision.at,
            rollout: "default".to_owned(),
            rollout_id: "default-1".to_owned(),
            kind: decision.kind.as_str().to_owned(),
            weight_from: decision.weight_from,
            weight_to: decision.weight_to,
            stage: i64::try_from(decision.stage).unwrap(),
            by: decision.by.as_str().to_owned(),
            reason: decision.reason.clone(),
            evidence: serde_json::Value::Null,
        });
    }

    pub(super) fn kinds(&self) -> Vec<&str> {
        self.decisions.iter().map(|it| it.kind.as_str()).collect()
    }

    pub(super) fn replay(&self, policy: &Policy, to: UnixMillis) -> (Recorded, Replayed) {
        self.replay_from(policy, START, to)
    }

    pub(super) fn replay_from(
        &self,
        policy: &Policy,
        from: UnixMillis,
        to: UnixMillis,
    ) -> (Recorded, Replayed) {
        let recorded = Recorded::new(&self.decisions, &self.probes);
        let replayed = {
            let mut replay = Replay::new(policy, &recorded, "default-1", from);
            let cells = self.cells.iter().filter(|cell| cell.opened_at >= from);
            let cells: Vec<Cell> = cells.cloned().collect();
            for some in cells.chunks(100) {
                replay.feed(some.to_vec());
            }
            replay.finish(to).unwrap()
        };
        (recorded, replayed)
    }
}

/// A sample under way, the one that ends first on top of the heap.
pub(super) struct UnderWay(i64, Sample);

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for UnderWay {}
impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.cmp(&self.0)
    }
}

/// The daemon's loop in virtual time: looks each second and after failures, commits that take some
/// milliseconds, one live request for each permit to probe.
pub(super) struct Daemon<'a> {
    pub(super) policy: &'a Policy,
    pub(super) state: Option<State>,
    pub(super) collector: Collector,
    pub(super) committed: Option<(i64, u64)>,
    pub(super) may_probe: bool,
    pub(super) record: Record,
}

impl Daemon<'_> {
    pub(super) fn weight(&self) -> Weight {
        self.state.as_ref().unwrap().weight()
    }

    pub(super) fn look(&mut self, now: i64, event: Option<Event>) {
        let at = UnixMillis(now);
        self.collector.tick(at);
        let closed = self.collector.take_closed();
        let input = Input {
            closed: &closed,
            open: self.collector.open(),
            event,
            store_healthy: true,
            legacy_breaker_open: false,
            incident: None,
            canary_rate_per_s: 1.0,
            requests_per_s: 10.0,
            assigned: Assigned::default(),
            overdue: PerArm::default(),
            headroom: Headroom::default(),
        };
        let stepped = step(self.policy, self.state.take().unwrap(), &input, at);
        assert_eq!(stepped.refusal, None);
        self.collector.switch(at, stepped.state.weight(), 0);
        self.state = Some(stepped.state);
        self.record.cells.extend(closed);
        for effect in stepped.effects {
            match effect {
                Effect::Decide(decision) => self.record.note(&decision),
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    self.record.note(&decision);
                    self.committed = Some((now + 7, proposal));
                }
                Effect::PermitProbe => self.may_probe = true,
                Effect::Alert { .. } => {}
            }
        }
    }

    pub(super) fn route(&mut self, now: i64, errors: f64, rng: &mut Xoshiro256PlusPlus) -> Sample {
        let weight = self.weight();
        let probes = std::mem::take(&mut self.may_probe);
        let arm = if probes || rng.random::<f64>() < weight.fraction() {
            Arm::Canary
        } else {
            Arm::Legacy
        };
        let rate = if arm == Arm::Canary { errors } else { 0.005 };
        let failed = rng.random::<f64>() < rate;
        let latency_us = rng.random_range(100_000..900_000u64);
        Sample {
            started_at: UnixMillis(now),
            rollout: Some(0),
            config_epoch: 0,
            arm,
            assigned: arm,
            weight,
            stage: 0,
            role: if probes { Role::Probe } else { Role::Live },
            attempt: 1,
            outcome: if failed {
                Outcome::ServerError
            } else {
                Outcome::Ok
            },
            status: if failed { 503 } else { 200 },
            latency_us: if failed { 30_000 } else { latency_us },
            ttft_us: None,
            streamed: false,
            complete: true,
            conn_reused: true,
            client_retry: false,
            dialect: Some(crate::llm::Dialect::OpenAiChat),
            model: None,
            usage: None,
            upstream_request_id: None,
            key_hash: 0,
            body_hash: 0,
            reported_cost_usd: None,
            tag: None,
            first_role: Role::Live,
        }
    }

    pub(super) fn end(&mut self, now: i64, sample: &Sample) -> bool {
        self.collector.record(sample);
        if sample.role == Role::Probe {
            let ok = sample.outcome == Outcome::Ok;
            let at = UnixMillis(now);
            self.record.probes.push(ProbeRow { at, ok });
            self.look(now, Some(Event::Probe { ok }));
        }
        sample.is_evidence() && sample.outcome.is_error()
    }
}

/// Lives `minutes` with 20 requests per second; `commands` come at their minutes.
pub(super) fn live(
    policy: &Policy,
    seed: u64,
    minutes: i64,
    errors: Errors,
    commands: &[(i64, Action)],
) -> Record {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut daemon = Daemon {
        policy,
        state: Some(State::new(policy, "default-1".to_owned(), START)),
        collector: Collector::new(START, Weight::ZERO, 0),
        committed: None,
        may_probe: false,
        record: Record::default(),
    };
    let mut under_way = BinaryHeap::new();
    let (mut next_tick, mut woken, mut next_request) = (START.0, i64::MAX, START.0);
    let mut commands = commands.iter().peekable();
    let end = START.0 + minutes * MINUTE_MS;
    let mut now = START.0;
    while now < end {
        if now >= next_request {
            let minute = (now - START.0) / MINUTE_MS;
            let sample = daemon.route(now, errors(minute), &mut rng);
            let ends = now + i64::try_from(sample.latency_us / 1_000).unwrap();
            under_way.push(UnderWay(ends, sample));
            next_request = now + rng.random_range(1..100i64);
        }
        while under_way.peek().is_some_and(|first| first.0 <= now) {
            let UnderWay(_, sample) = under_way.pop().unwrap();
            if daemon.end(now, &sample) && sample.arm == Arm::Canary {
                woken = woken.min(now + 20);
            }
        }
        if let Some((_, proposal)) = daemon.committed.take_if(|(at, _)| *at <= now) {
            daemon.look(now, Some(Event::Committed { proposal }));
        }
        if let Some((_, action)) =
            commands.next_if(|(minute, _)| now >= START.0 + minute * MINUTE_MS + 300)
        {
            let reason = "so it was said".to_owned();
            let action = *action;
            daemon.look(now, Some(Event::Operator(Command { action, reason })));
        }
        if now >= next_tick || now >= woken {
            daemon.look(now, None);
            (next_tick, woken) = (
                if now >= next_tick {
                    now + 1_000
                } else {
                    next_tick
                },
                i64::MAX,
            );
        }
        now += 5;
    }
    daemon.record
}
