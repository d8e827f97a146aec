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
    type Row<'a> = (&'a str, f64, &'a [GuardKind], [f64; 6], f64);
    let rows: [Row<'_>; 4] = [
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
    for (at, per_min, runs) in [("50%", 3_000.0, 40), ("25%", 10.0, 40)] {
        let policy = one_stage(at, &ALL);
        let mut rng = StdRng::seed_from_u64(7);
        let mut total = 0.0;
        for _ in 0..runs {
            total += proven_after(&policy, per_min / 60.0, &mut rng);
        }
        let found = requests(&policy, &traffic(per_min)).usual;
        within(
            found,
            total / f64::from(runs),
            0.3,
            &format!("{at} at {per_min}/min"),
        );
    }
}

fn stages(weights: &[&str], dwell_ms: i64) -> Vec<Stage> {
    let stage = |text: &&str| Stage {
        weight: weight(text),
        dwell_ms,
        approve: false,
    };
    weights.iter().map(stage).collect()
}

#[test]
fn ten_requests_a_minute_are_too_few_for_one_percent() {
    let (policy, traffic) = (default_policy(), traffic(10.0));
    let first = plan_stage(&policy, 0, &traffic).unwrap();
    let Proof::Takes { ms, slowest, .. } = first.proof else {
        panic!("{first:?}")
    };
    assert!((15.0..22.0).contains(&(ms.usual / DAY_MS)), "{ms:?}");
    assert_eq!(slowest, GuardKind::ErrorRate);
    assert_eq!(first.dominates(), Dominates::Proof);
    let all = advice(&policy, &traffic);
    let Advice::SlowFirstStage { better, .. } = &all[0] else {
        panic!("{all:?}")
    };
    let better = better.unwrap();
    assert!(better.weight >= weight("5%") && better.weight <= weight("25%"));
    assert!(better.ms < 2.0 * DAY_MS);
    let text = all[0].to_string();
    assert!(text.contains("at 10/min; begin at 1"), "{text}");
    let mut begun = policy;
    begun.stages[0].weight = better.weight;
    begun.stages.remove(1);
    assert!(plan(&begun, &traffic).stages[0].time_ms.unwrap().usual < 2.0 * DAY_MS);
}

#[test]
fn enough_traffic_leaves_the_dwell_to_decide() {
    let mut policy = default_policy();
    policy.stages = stages(&["5%", "25%", "50%", "100%"], 86_400_000);
    let plan = plan(&policy, &traffic(1_000.0));
    let days = plan.total_ms.unwrap().usual / DAY_MS;
    assert!((4.0..4.1).contains(&days), "{days}");
    assert!(
        plan.stages
            .iter()
            .all(|stage| stage.dominates() == Dominates::Dwell)
    );
    assert_eq!(plan.stages[3].proof, Proof::NotNeeded);
    let all = advice(&policy, &traffic(1_000.0));
    assert_eq!(all, [Advice::DwellDominates, Advice::StreamsUnknown]);
}

#[test]
fn a_limit_without_room_is_said_to_be_never_proven() {
    let mut policy = default_policy();
    policy.guards[1].relative.as_mut().unwrap().ratio = 1.0;
    let plan = plan(&policy, &traffic(100.0));
    assert_eq!(plan.total_ms, None);
    assert_eq!(plan.stages[0].proof, Proof::Never(GuardKind::LatencyP99));
    let all = advice(&policy, &traffic(100.0));
    assert_eq!(all[0], Advice::NeverProven(GuardKind::LatencyP99));
    assert!(all[0].to_string().contains("raise its max-ratio"));
}

#[test]
fn a_limit_that_is_tight_is_named() {
    let mut policy = default_policy();
    policy.guards[1].relative.as_mut().unwrap().ratio = 1.08;
    let all = advice(&policy, &traffic(10.0));
    assert!(
        all.iter().any(|advice| matches!(
            advice,
            Advice::TightLimit {
                guard: GuardKind::LatencyP99,
                ..
            }
        )),
        "{all:?}"
    );
    let mut policy = default_policy();
    let fewer = Traffic {
        legacy_error_rate: 0.0005,
        ..traffic(10.0)
    };
    policy.guards[1].relative.as_mut().unwrap().ratio = 1.35;
    let all = advice(&policy, &fewer);
    assert!(
        all.iter()
            .any(|advice| matches!(advice, Advice::TailSlowerThanErrors { .. })),
        "{all:?}"
    );
}

#[test]
fn what_cannot_speak_asks_for_nothing() {
    let policy = default_policy();
    let need = |traffic: &Traffic, kind: GuardKind| {
        let stage = plan_stage(&policy, 0, traffic).unwrap();
        stage
            .guards
            .iter()
            .find(|guard| guard.kind == kind)
            .unwrap()
            .need
    };
    let none = Traffic {
        streamed: Some(0.0),
        ..traffic(100.0)
    };
    assert_eq!(need(&none, GuardKind::TtftP99), Need::NotApplicable);
    assert!(advice(&policy, &none).contains(&Advice::NoStreams));
    let half = Traffic {
        streamed: Some(0.5),
        ..traffic(100.0)
    };
    let (Need::Requests(ttft), Need::Requests(latency)) = (
        need(&half, GuardKind::TtftP99),
        need(&half, GuardKind::LatencyP99),
    ) else {
        panic!()
    };
    assert!((ttft / latency - 2.0).abs() < 1e-6, "half of them count");
    let broken = Traffic {
        legacy_error_rate: 0.9,
        ..traffic(100.0)
    };
    assert_eq!(need(&broken, GuardKind::ErrorRate), Need::Nothing);
    let mut ceiling = one_stage("5%", &[GuardKind::ErrorRate]);
    ceiling.guards[0].relative = None;
    assert!(requests(&ceiling, &traffic(100.0)).usual < 300.0);
    let mut streams = one_stage("5%", &[GuardKind::TtftP99]);
    streams.stages[0].approve = true;
    assert_eq!(
        advice(&streams, &none),
        [
            Advice::NoGuardProves(weight("5%")),
            Advice::NoStreams,
            Advice::Approvals(1)
        ]
    );
}

#[test]
fn clustered_errors_and_little_traffic_only_make_it_longer() {
    let policy = default_policy();
    let mut last = f64::INFINITY;
    for per_min in [0.01, 0.1, 1.0, 10.0, 100.0, 1e4, 1e6] {
        let plan = plan(&policy, &traffic(per_min));
        let total = plan.total_ms.unwrap();
        assert!(total.usual <= last && total.p90 >= total.usual, "{per_min}");
        assert!(total.usual.is_finite());
        last = total.usual;
    }
    let clustered = Traffic {
        phi: 3.0,
        ..traffic(10.0)
    };
    let (one, three) = (
        requests(&policy, &traffic(10.0)).usual,
        requests(&policy, &clustered).usual,
    );
    assert!((three / one - 3.0).abs() < 1e-6, "{}", three / one);
}

#[test]
fn estimates_read_as_rough_as_they_are() {
    let hour = 3_600_000.0;
    let cases = [
        (18.3 * 24.0 * hour, "18d"),
        (92.2 * hour, "3d 20h"),
        (6.64 * hour, "6h 38m"),
        (0.41 * hour, "25m"),
        (90_400.0, "1m 30s"),
        (0.0, "0ms"),
    ];
    for (ms, text) in cases {
        assert_eq!(roughly(ms), text);
    }
    for (per_s, text) in [
        (10.0 / 60.0, "10/min"),
        (10.0, "600/min"),
        (20.0, "20/s"),
        (0.5 / 60.0, "30/h"),
        (2.5 / 60.0, "2.5/min"),
    ] {
        assert_eq!(rate_words(per_s), text);
    }
}
