//! Rules that practitioners publish, on the same traffic: what the controller is compared with.
//!
//! Pure. *A*: hourly, over that hour: canary errors above 1% take 10 points of weight away; else a canary p99
//! above 1.5 x legacy's holds; else a canary with a lower p50 and fewer errors gets 10 points more, up to
//! 95%. From 5%; no floor and no memory. *B*: every 30 minutes, over the last 100 requests of both arms:
//! canary errors above 2%, or a p99 above 1.5 x legacy's, roll back for good; else 15 points more, up to
//! 95%. From 10%. *C*: a circuit breaker at 50%: more than 5 errors in the last 100 canary requests open it
//! for good.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use super::World;
use super::run::START;
use super::series::Series;
use super::tally::Tally;
use super::traffic::Traffic;
use crate::arm::{Arm, PerArm, Weight};
use crate::controller::evidence::{ArmCell, Cell};
use crate::controller::{By, Decision, DecisionEvidence, DecisionKind};
use crate::sketch::{self, Sketch};

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naive {
    /// Hourly, up and down by ten points.
    A,
    /// Half-hourly, over the last hundred requests.
    B,
    /// A circuit breaker.
    C,
}

const HOUR_MS: i64 = 3_600_000;
const HALF_HOUR_MS: i64 = HOUR_MS / 2;
const HIGHEST_BPS: u16 = 9_500;
const LAST: usize = 100;

/// What a rule says at a look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Stay,
    /// To this weight in basis points.
    Go(u16, String),
    /// To 0% for good.
    Stop(String),
}

/// Run number `run` under a rule; `series`, if given, takes down its course.
pub(super) fn ruled(
    world: &World<'_>,
    rule: Naive,
    run: u64,
    mut series: Option<Series>,
) -> (Tally, Option<Series>) {
    let scenario = world.scenario;
    let mut traffic = Traffic::new(scenario, &world.timeline, world.seed, run);
    let mut tally = Tally::new(world.timeline.counted_from_ms());
    let mut judge = Judge::new(rule, scenario.rate_per_s);
    let (mut at_ms, mut stopped) = (0, false);
    while at_ms < scenario.duration_ms && !stopped {
        let weight = judge.weight();
        let length_ms = scenario.tick_ms.min(scenario.duration_ms - at_ms);
        let length_ms = traffic.look_ms(at_ms, length_ms, weight);
        let mut cell = Cell::open(START, weight, 0);
        let brought = traffic.fill(at_ms, length_ms, weight, &mut cell);
        if let Some(series) = &mut series {
            series.add(at_ms, weight, &cell);
        }
        at_ms += length_ms;
        tally.count(at_ms, brought);
        let (kind, to, reason) = match judge.look(at_ms, &cell.arms, &mut traffic) {
            Verdict::Stay => continue,
            Verdict::Stop(reason) => {
                stopped = true;
                (DecisionKind::RollBack, 0, reason)
            }
            Verdict::Go(to, reason) if to < weight.bps() => (DecisionKind::Trip, to, reason),
            Verdict::Go(to, reason) => (DecisionKind::Promote, to, reason),
        };
        judge.weight_bps = to;
        let decision = decision(kind, at_ms, weight, judge.weight(), reason);
        let had_incident = traffic.had_incident(at_ms);
        tally.decided(&world.timeline, had_incident, at_ms, decision);
        if to >= HIGHEST_BPS {
            tally.completed(at_ms);
        }
    }
    tally.complete_at_end = judge.weight_bps >= HIGHEST_BPS;
    (tally, series)
}

fn decision(
    kind: DecisionKind,
    at_ms: i64,
    weight_from: Weight,
    weight_to: Weight,
    reason: String,
) -> Decision {
    Decision {
        kind,
        at: START.plus_millis(at_ms),
        weight_from,
        weight_to,
        stage: 0,
        stages_total: 1,
        by: By::Controller,
        reason,
        evidence: DecisionEvidence::default(),
    }
}

/// One of the last requests: its arm, whether it failed, else the bucket of its time.
type Request = (Arm, Option<i16>);

/// A rule with what it remembers.
struct Judge {
    rule: Naive,
    weight_bps: u16,
    next_check_ms: i64,
    /// How long before a check its requests may lie.
    reach_ms: f64,
    hour: PerArm<ArmCell>,
    last: VecDeque<Request>,
    /// Of the last canary requests: failed or not, and how many failed.
    failed: VecDeque<bool>,
    failures: usize,
}

impl Judge {
    fn new(rule: Naive, rate_per_s: f64) -> Self {
        let (weight_bps, next_check_ms) = match rule {
            Naive::A => (500, HOUR_MS),
            Naive::B => (1_000, HALF_HOUR_MS),
            Naive::C => (5_000, 0),
        };
        Self {
            rule,
            weight_bps,
            next_check_ms,
            // Ten times what the mean rate needs, for quiet hours.
            reach_ms: 10.0 * LAST as f64 / rate_per_s * 1_000.0,
            hour: PerArm::default(),
            last: VecDeque::new(),
            failed: VecDeque::new(),
            failures: 0,
        }
    }

    fn weight(&self) -> Weight {
        Weight::from_bps(self.weight_bps).unwrap_or(Weight::ZERO)
    }

    fn look(&mut self, at_ms: i64, arms: &PerArm<ArmCell>, traffic: &mut Traffic<'_>) -> Verdict {
        match self.rule {
            Naive::A => {
                self.hour.legacy.merge(&arms.legacy);
                self.hour.canary.merge(&arms.canary);
            }
            Naive::B if ((self.next_check_ms - at_ms) as f64) < self.reach_ms => {
                self.remember(arms, traffic);
            }
            Naive::B => {}
            Naive::C => return self.breaker(&arms.canary, traffic),
        }
        if at_ms < self.next_check_ms {
            return Verdict::Stay;
        }
        if self.rule == Naive::A {
            self.next_check_ms += HOUR_MS;
            let hour = std::mem::take(&mut self.hour);
            hourly(self.weight_bps, &hour)
        } else {
            self.next_check_ms += HALF_HOUR_MS;
            let last = self.last.make_contiguous();
            half_hourly(self.weight_bps, last)
        }
    }

    /// Puts the requests of a tick in an order of chance and keeps the last hundred.
    fn remember(&mut self, arms: &PerArm<ArmCell>, traffic: &mut Traffic<'_>) {
        let mut requests: Vec<Request> = Vec::new();
        for arm in Arm::BOTH {
            let cell = arms.get(arm);
            requests.extend((0..cell.errors).map(|_| (arm, None)));
            for (bucket, count) in cell.latency.iter() {
                let mut left = count;
                while left > 0.5 {
                    requests.push((arm, Some(bucket)));
                    left -= 1.0;
                }
            }
        }
        for place in 0..requests.len().min(LAST) {
            let other = place + traffic.below(requests.len() - place);
            requests.swap(place, other);
        }
        self.last.extend(requests.into_iter().take(LAST));
        let surplus = self.last.len().saturating_sub(LAST);
        self.last.drain(..surplus);
    }

    fn breaker(&mut self, canary: &ArmCell, traffic: &mut Traffic<'_>) -> Verdict {
        let (mut requests, mut errors) = (canary.requests, canary.errors);
        while requests > 0 {
            let left = usize::try_from(requests).unwrap_or(usize::MAX);
            let failed = errors > 0 && (traffic.below(left) as u64) < errors;
            requests -= 1;
            errors -= u64::from(failed);
            self.failures += usize::from(failed);
            self.failed.push_back(failed);
            if self.failed.len() > LAST {
                self.failures -= usize::from(self.failed.pop_front() == Some(true));
            }
            if self.failed.len() == LAST && self.failures > 5 {
                return Verdict::Stop(format!("{} of the last 100 failed", self.failures));
            }
        }
        Verdict::Stay
    }
}

/// Rule A on the counts of an hour. What is not there counts as 0.
fn hourly(weight_bps: u16, hour: &PerArm<ArmCell>) -> Verdict {
    let error_rate = |cell: &ArmCell| cell.errors as f64 / cell.requests.max(1) as f64;
    let time = |cell: &ArmCell, q| time_ms(&cell.latency, q);
    let (legacy, canary) = (&hour.legacy, &hour.canary);
    let (legacy_errors, canary_errors) = (error_rate(legacy), error_rate(canary));
    if canary_errors > 0.01 {
        let reason = format!("errors {:.2}% in an hour", canary_errors * 100.0);
        // At 0% it stays, and says nothing new.
        return match weight_bps.saturating_sub(1_000) {
            lower if lower < weight_bps => Verdict::Go(lower, reason),
            _ => Verdict::Stay,
        };
    }
    let slow = time(canary, 0.99) > 1.5 * time(legacy, 0.99);
    let better = time(canary, 0.5) < time(legacy, 0.5) && canary_errors < legacy_errors;
    if !slow && better && weight_bps < HIGHEST_BPS {
        let reason = "faster and fewer errors than legacy for an hour".to_owned();
        return Verdict::Go((weight_bps + 1_000).min(HIGHEST_BPS), reason);
    }
    Verdict::Stay
}

/// The `q`-quantile within its bucket, since medians of equal arms mostly share one; 0 of nothing.
fn time_ms(times: &Sketch, q: f64) -> f64 {
    let Some(bucket) = times.quantile_bucket(q) else {
        return 0.0;
    };
    let (upto, above) = (bucket.saturating_sub(1), times.above(bucket));
    let within = (times.above(upto) - above).max(f64::MIN_POSITIVE);
    let part = ((1.0 - q) * times.count() - above) / within;
    sketch::upper_ms(bucket) / sketch::GROWTH.powf(part.clamp(0.0, 1.0))
}

/// Rule B on the last requests of both arms.
fn half_hourly(weight_bps: u16, last: &[Request]) -> Verdict {
    let of = |arm: Arm| last.iter().filter(move |(of, _)| *of == arm);
    let requests = of(Arm::Canary).count();
    let errors = of(Arm::Canary).filter(|(_, time)| time.is_none()).count();
    if errors as f64 > 0.02 * requests as f64 {
        return Verdict::Stop(format!("{errors} of {requests} requests failed"));
    }
    // Of so few the 99th percentile is the slowest.
    let p99_ms = |arm: Arm| {
        let slowest = of(arm).filter_map(|(_, time)| *time).max();
        slowest.map_or(0.0, sketch::upper_ms)
    };
    let (legacy, canary) = (p99_ms(Arm::Legacy), p99_ms(Arm::Canary));
    if canary > 1.5 * legacy {
        return Verdict::Stop(format!("p99 {canary:.0}ms, legacy {legacy:.0}ms"));
    }
    if weight_bps < HIGHEST_BPS {
        let reason = format!("{requests} good requests");
        return Verdict::Go((weight_bps + 1_500).min(HIGHEST_BPS), reason);
    }
    Verdict::Stay
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(requests: u64, errors: u64, ms: f64) -> ArmCell {
        let mut cell = ArmCell {
            requests,
            errors,
            ..ArmCell::default()
        };
        if requests > errors {
            cell.latency
                .add(sketch::bucket_of(ms), (requests - errors) as f64);
        }
        cell
    }

    fn hour(legacy: ArmCell, canary: ArmCell) -> PerArm<ArmCell> {
        PerArm { legacy, canary }
    }

    #[test]
    fn rule_a_goes_up_and_down_by_ten_points_without_floor_or_memory() {
        let check = |weight, canary: ArmCell, expected: Option<u16>| {
            let found = match hourly(weight, &hour(cell(1_000, 5, 800.0), canary)) {
                Verdict::Go(to, _) => Some(to),
                _ => None,
            };
            assert_eq!(found, expected);
        };
        check(2_000, cell(1_000, 11, 700.0), Some(1_000));
        check(500, cell(1_000, 1_000, 0.0), Some(0));
        // An empty hour looks perfect.
        check(0, ArmCell::default(), Some(1_000));
        check(500, cell(1_000, 4, 700.0), Some(1_500));
        check(500, cell(1_000, 4, 800.0), None);
        check(500, cell(1_000, 5, 700.0), None);
        check(500, cell(1_000, 0, 1_300.0), None);
        check(9_500, cell(1_000, 4, 700.0), None);
    }

    #[test]
    fn times_are_told_apart_within_a_bucket() {
        let of = |low: f64, here: f64| [(99, low), (100, here), (101, 50.0)].into_iter().collect();
        let (slower, faster): (Sketch, Sketch) = (of(30.0, 40.0), of(40.0, 30.0));
        let (slower, faster) = (time_ms(&slower, 0.5), time_ms(&faster, 0.5));
        assert!(slower > faster, "{slower} {faster}");
        assert!(faster > sketch::upper_ms(99) && slower < sketch::upper_ms(100));
        assert!(time_ms(&Sketch::default(), 0.5) <= 0.0);
    }

    #[test]
    fn rule_b_rolls_back_for_one_failure_in_ten_or_one_slow_answer() {
        let legacy = vec![(Arm::Legacy, Some(300i16)); 90];
        let check = |canary: Vec<Request>, expected: &str| {
            let all: Vec<Request> = legacy.iter().copied().chain(canary).collect();
            let found = match half_hourly(1_000, &all) {
                Verdict::Go(to, _) => to.to_string(),
                Verdict::Stop(_) => "stop".to_owned(),
                Verdict::Stay => "stay".to_owned(),
            };
            assert_eq!(found, expected);
        };
        check(vec![(Arm::Canary, Some(300)); 10], "2500");
        let mut failing = vec![(Arm::Canary, Some(300)); 9];
        failing.push((Arm::Canary, None));
        check(failing, "stop");
        let mut slow = vec![(Arm::Canary, Some(300)); 9];
        slow.push((Arm::Canary, Some(321)));
        check(slow, "stop");
    }
}
