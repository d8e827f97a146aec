//! The planner against the simulated ledgers: the table of the design's study, and the real tracks.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::clock::UnixMillis;
use crate::config::parse::default_policy;
use crate::controller::guard;
use crate::controller::ledger::Track;
use crate::controller::policy::{GuardSpec, Stage};
use crate::controller::stats::Counts;

const DAY_MS: f64 = 86_400_000.0;

fn weight(text: &str) -> Weight {
    Weight::parse(text).unwrap()
}

fn traffic(per_min: f64) -> Traffic {
    Traffic {
        requests_per_s: per_min / 60.0,
        legacy_error_rate: 0.005,
        streamed: None,
        phi: 1.0,
    }
}

/// The default rules with these guards only, at one weight and then 100%.
fn one_stage(text: &str, kinds: &[GuardKind]) -> Policy {
    let mut policy = default_policy();
    policy
        .guards
        .retain(|guard: &GuardSpec| kinds.contains(&guard.kind));
    let stage = |text| Stage {
        weight: weight(text),
        dwell_ms: 0,
        approve: false,
    };
    policy.stages = vec![stage(text), stage("100%")];
    policy
}

fn requests(policy: &Policy, traffic: &Traffic) -> Spread {
    match plan_stage(policy, 0, traffic).unwrap().proof {
        Proof::Takes { requests, .. } => requests,
        other => panic!("{other:?}"),
    }
}

/// Mean canary requests to promote an equal canary, measured over many simulated rollouts, at these
/// weights. The last row is the 90th percentile of the one before.
const WEIGHTS: [&str; 6] = ["1%", "5%", "25%", "50%", "75%", "95%"];
const ALL: [GuardKind; 3] = [
    GuardKind::ErrorRate,
    GuardKind::LatencyP99,
    GuardKind::LatencyP50,
];

fn within(found: f64, expected: f64, tolerance: f64, what: &str) {
    let ratio = found / expected;
    assert!(
        (1.0 - tolerance..=1.0 + tolerance).contains(&ratio),
        "{what}: {found:.0} against {expected:.0} ({ratio:.2})"
    );
}

#[test]
fn expectations_agree_with_the_simulated_ledgers() {
    let rows: [(&str, f64, &[GuardKind], [f64; 6], f64); 4] = [
        (
            "error-rate at 0.5%",
            0.005,
            &ALL[..1],
            [2247.0, 2449.0, 2710.0, 3630.0, 5905.0, 22227.0],
            0.12,
        ),
        (
            "error-rate at 0.1%",
            0.001,
            &ALL[..1],
            [1383.0, 1426.0, 1502.0, 1528.0, 1849.0, 2162.0],
            0.12,
        ),
        (
            "latency-p99",
            0.005,
            &ALL[1..2],
            [848.0, 863.0, 992.0, 1504.0, 2748.0, 13225.0],
            0.20,
        ),
        (
            "latency-p50",
            0.005,
            &ALL[2..],
            [61.0, 61.0, 78.0, 107.0, 219.0, 959.0],
            0.25,
        ),
    ];
    for (name, errors, kinds, row, tolerance) in rows {
        for (at, expected) in WEIGHTS.into_iter().zip(row) {
            // So much traffic that every cell holds both arms.
            let traffic = Traffic {
                legacy_error_rate: errors,
                ..traffic(1e6)
            };
            let found = requests(&one_stage(at, kinds), &traffic).usual;
            within(found, expected, tolerance, &format!("{name} at {at}"));
        }
    }
    let means = [2389.0, 2614.0, 2871.0, 4074.0, 6763.0, 27143.0];
    let p90s = [4582.0, 4976.0, 5282.0, 7675.0, 12479.0, 49675.0];
    for ((at, mean), p90) in WEIGHTS.into_iter().zip(means).zip(p90s) {
        let found = requests(&one_stage(at, &ALL), &traffic(1e6));
        within(found.usual, mean, 0.15, &format!("all guards at {at}"));
        within(found.p90, p90, 0.15, &format!("p90 of all guards at {at}"));
    }
}

/// Whole migrations of the same study: stages 1-5-25-50-75% with an hour each, hours to 95%.
#[test]
fn whole_migrations_agree_with_the_simulated_ones() {
    let cases = [
        (0, 1_000.0, 7.3, 11.6),
        (0, 100.0, 46.0, 93.0),
        (1, 10.0, 125.0, 249.0),
        (2, 10.0, 43.0, 75.0),
    ];
    for (skipped, per_min, median, p90) in cases {
        let mut policy = default_policy();
        policy.guards.retain(|guard| ALL.contains(&guard.kind));
        policy.warm_up_requests = 0;
        policy.stages.remove(6);
        policy.stages[5].dwell_ms = 0;
        policy.stages.drain(..skipped);
        let total = plan(&policy, &traffic(per_min)).total_ms.unwrap();
        let hours = |ms: f64| ms / 3_600_000.0;
        let name = format!("{per_min}/min from stage {skipped}");
        within(hours(total.usual), median, 0.2, &name);
        within(hours(total.p90), p90, 0.2, &name);
    }
}

/// Binomial draws by normal approximation for large means, one by one for small ones.
fn events(rng: &mut StdRng, requests: u32, rate: f64) -> f64 {
    f64::from(
        (0..requests)
            .map(|_| u32::from(rng.random::<f64>() < rate))
            .sum::<u32>(),
    )
}

/// Canary requests until the real ledgers of all guards prove an equal canary, cells closing as they do.
fn proven_after(policy: &Policy, per_s: f64, rng: &mut StdRng) -> f64 {
    let share = policy.stages[0].weight.fraction();
    let mut tracks: Vec<Track> = guard::rules(policy)
        .into_iter()
        .filter(|rule| !rule.is_ceiling)
        .map(Track::new)
        .collect();
    let needed = -policy.alpha_promote.ln();
    let gap = |rng: &mut StdRng| -(1.0 - rng.random::<f64>()).ln() / per_s;
    let (mut now_s, mut opened_s, mut minute, mut seen) = (0.0, 0.0, 0.0, 0.0);
    let mut cell = [0u32; 2];
    loop {
        let next_s = now_s + gap(rng);
        // The look that closes a cell comes each second.
        let both = cell.iter().all(|&count| count > 0);
        let due_s = opened_s + if both { 1.0 } else { 60.0 };
        if next_s > due_s {
            for track in &mut tracks {
                let (canary, legacy) = match guard::quantile(track.rule.kind) {
                    None => (0.005, 0.005),
                    // Lognormal times with sigma 0.8, the canary's beyond 1.5 times the threshold.
                    Some(quantile) if quantile > 0.9 => (0.002_302, 0.01),
                    Some(_) => (0.306_15, 0.5),
                };
                let [n, m] = cell;
                let counts = Counts {
                    canary: f64::from(n),
                    canary_events: events(rng, n, canary),
                    legacy: f64::from(m),
                    legacy_events: events(rng, m, legacy),
                };
                let increment = track.increment(counts, false);
                track.book(counts, increment, true, UnixMillis(0));
            }
            if tracks.iter().all(|track| track.log_promote() >= needed) {
                return seen;
            }
            (cell, opened_s) = ([0; 2], due_s.max(now_s));
        }
        now_s = next_s;
        while minute + 60.0 <= now_s {
            minute += 60.0;
            for track in &mut tracks {
                track.learn(1);
            }
        }
        let canary = rng.random::<f64>() < share;
        cell[usize::from(!canary)] += 1;
        seen += f64::from(u8::from(canary));
    }
}

#[test]
fn expectations_agree_with_the_real_ledgers() {
    for (at, per_min, runs) in [
        ("50%", 3_000.0, 40),
        ("5%", 600.0, 40),
        ("1%", 10.0, 40),
        ("95%", 10.0, 40),
        ("95%", 1000.0, 20),
    ] {
        let policy = one_stage(at, &ALL);
        let mut rng = StdRng::seed_from_u64(7);
        let mut total = 0.0;
        for _ in 0..runs {
            total += proven_after(&policy, per_min / 60.0, &mut rng);
        }
        let found = requests(&policy, &traffic(per_min)).usual;
        eprintln!(
            "{at} {per_min} plan {found:.0} mc {:.0}",
            total / f64::from(runs)
        );
        within(
            found,
            total / f64::from(runs),
            0.3,
            &format!("{at} at {per_min}/min"),
        );
    }
}
