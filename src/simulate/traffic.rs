//! Synthetic requests of both arms, counted into cells as they would be live.
//!
//! Pure: all chance comes from the seed. A tick's requests are independent Poisson counts for each arm and
//! outcome, which is what splitting one Poisson stream at random gives. Every request is a live first
//! attempt that ends within its tick; rescues are not modelled.
#![deny(clippy::disallowed_methods)]

use std::f64::consts::TAU;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Poisson};

use super::timeline::{Current, Timeline};
use super::times;
use crate::arm::{Arm, PerArm, Weight};
use crate::config::scenario::Scenario;
use crate::controller::evidence::{ArmCell, Cell};

const DAY_MS: i64 = 86_400_000;
/// While more of the canary's requests fail than this, looks come as often as failures, as they do live.
const BROKEN: f64 = 0.05;
/// The data plane hands samples over at least this often, and the driver looks no oftener.
const LOOK_MS: i64 = 100;

/// How long an incident explains a trip after its end.
const LATELY_MS: i64 = 600_000;

/// One run's traffic.
#[derive(Debug)]
pub(super) struct Traffic<'a> {
    scenario: &'a Scenario,
    timeline: &'a Timeline,
    rng: Xoshiro256PlusPlus,
    place: usize,
    incidents: PerArm<Vec<Burst>>,
}

/// One incident: from, until, and the share that fails.
#[derive(Debug, Clone, Copy)]
struct Burst {
    from_ms: i64,
    until_ms: i64,
    error_rate: f64,
}

/// What a stretch of time brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) legacy: u64,
    pub(super) canary: u64,
    pub(super) canary_failed: u64,
}

impl<'a> Traffic<'a> {
    /// The traffic of run number `run`.
    pub(super) fn new(scenario: &'a Scenario, timeline: &'a Timeline, seed: u64, run: u64) -> Self {
        let salt = (run + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ salt);
        Self {
            scenario,
            timeline,
            incidents: PerArm::from_fn(|_| bursts(scenario, &mut rng)),
            rng,
            place: 0,
        }
    }

    /// How long the next look may wait, at most `most_ms`.
    pub(super) fn look_ms(&mut self, at_ms: i64, most_ms: i64, weight: Weight) -> i64 {
        self.place = self.timeline.place_at(at_ms, self.place);
        let most_ms = most_ms.min(self.timeline.end_ms(self.place) - at_ms);
        let error_rate = self.error_rate(Arm::Canary, at_ms);
        let failures = self.rate_per_ms(at_ms) * weight.fraction() * error_rate;
        if error_rate < BROKEN || failures * most_ms as f64 <= 1.0 {
            return most_ms;
        }
        #[expect(clippy::cast_possible_truncation, reason = "shorter than a tick")]
        let between = (1.0 / failures) as i64;
        between.clamp(LOOK_MS.min(most_ms), most_ms)
    }

    /// Counts what comes in `length_ms` from `at_ms` on into `cell`.
    pub(super) fn fill(
        &mut self,
        at_ms: i64,
        length_ms: i64,
        weight: Weight,
        cell: &mut Cell,
    ) -> Brought {
        let requests = self.rate_per_ms(at_ms) * length_ms as f64;
        let share = weight.fraction();
        let [legacy, canary] = [Arm::Legacy, Arm::Canary].map(|arm| {
            let part = if arm == Arm::Canary {
                share
            } else {
                1.0 - share
            };
            let error_rate = self.error_rate(arm, at_ms);
            let Some(phase) = self.timeline.phase(self.place) else {
                return (0, 0);
            };
            let current = phase.arms.get(arm);
            let counts = cell.arms.get_mut(arm);
            fill_arm(&mut self.rng, current, error_rate, requests * part, counts)
        });
        Brought {
            legacy: legacy.0,
            canary: canary.0,
            canary_failed: canary.1,
        }
    }

    /// How one request to the canary ends.
    pub(super) fn probe(&mut self, at_ms: i64) -> bool {
        let error_rate = self.error_rate(Arm::Canary, at_ms);
        self.rng.random::<f64>() >= error_rate
    }

    /// True if an incident of the canary's explains a trip.
    pub(super) fn had_incident(&self, at_ms: i64) -> bool {
        let lately = |burst: &Burst| {
            burst.from_ms <= at_ms && at_ms < burst.until_ms.saturating_add(LATELY_MS)
        };
        self.incidents.canary.iter().any(lately)
    }

    /// A whole number below `below`, for those who put requests in an order.
    pub(super) fn below(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below.max(1))
    }

    /// Mean requests per millisecond: fewest at midnight, most at noon.
    fn rate_per_ms(&self, at_ms: i64) -> f64 {
        let mean = self.scenario.rate_per_s / 1_000.0;
        if self.scenario.daily_swing <= 0.0 {
            return mean;
        }
        let time_of_day = at_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        mean * (1.0 - self.scenario.daily_swing * (TAU * time_of_day).cos())
    }

    fn error_rate(&self, arm: Arm, at_ms: i64) -> f64 {
        let phase = self.timeline.phase(self.place);
        let usual = phase.map_or(0.0, |phase| phase.arms.get(arm).error_rate);
        self.incidents
            .get(arm)
            .iter()
            .filter(|burst| burst.from_ms <= at_ms && at_ms < burst.until_ms)
            .fold(usual, |rate, burst| rate.max(burst.error_rate))
    }
}

/// When the incidents of one arm come: a Poisson process for each kind.
fn bursts(scenario: &Scenario, rng: &mut Xoshiro256PlusPlus) -> Vec<Burst> {
    let mut bursts = Vec::new();
    for incident in &scenario.incidents {
        let mut at_ms = 0.0;
        loop {
            at_ms -= (1.0 - rng.random::<f64>()).ln() * incident.every_ms as f64;
            if at_ms >= scenario.duration_ms as f64 {
                break;
            }
            #[expect(clippy::cast_possible_truncation, reason = "within the run")]
            let from_ms = at_ms as i64;
            bursts.push(Burst {
                from_ms,
                until_ms: from_ms + incident.for_ms,
                error_rate: incident.error_rate,
            });
        }
    }
    bursts
}

/// Counts one arm's requests; tells how many came and how many of them failed.
fn fill_arm(
    rng: &mut Xoshiro256PlusPlus,
    current: &Current,
    error_rate: f64,
    mean: f64,
    cell: &mut ArmCell,
) -> (u64, u64) {
    let well = mean * (1.0 - error_rate);
    let streams = poisson(rng, well * current.streamed);
    let plain = poisson(rng, well * (1.0 - current.streamed));
    let failed = failures(rng, mean * error_rate, current.clusters);
    let requests = streams + plain + failed;
    if requests == 0 {
        return (0, 0);
    }
    cell.requests += requests;
    cell.errors += failed;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let failed_streams = (failed as f64 * current.streamed).round() as u64;
    cell.streamed += streams + failed_streams;
    let answered = streams + plain;
    times::draw(&current.latency, answered, &mut cell.latency, || {
        rng.next_u64()
    });
    times::draw(&current.ttft, streams, &mut cell.ttft, || rng.next_u64());
    (requests, failed)
}

/// Failures that come `clusters` at a time on average.
fn failures(rng: &mut Xoshiro256PlusPlus, mean: f64, clusters: f64) -> u64 {
    if clusters <= 1.0 {
        return poisson(rng, mean);
    }
    let together = clusters.floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 1000"
    )]
    let size = together as u64;
    (0..poisson(rng, mean / clusters))
        .map(|_| size + u64::from(rng.random::<f64>() < clusters - together))
        .sum()
}

fn poisson(rng: &mut Xoshiro256PlusPlus, mean: f64) -> u64 {
    if mean <= 0.0 {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the scenario bounds the requests of a tick"
    )]
    let count = Poisson::new(mean).map_or(0.0, |counts| counts.sample(rng)) as u64;
    count
}
