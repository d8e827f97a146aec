//! The ledgers against the reference trace and their invariants.

use serde_json::Value;

use super::*;
use crate::controller::guard;
use crate::controller::policy::{GuardKind, GuardSpec, Margin, OnHarm, Policy};

fn rule(ceiling: bool) -> Rule {
    let policy = Policy {
        warm_up_requests: 0,
        stages: Vec::new(),
        on_harm: OnHarm::RollBack,
        alpha_rollback: 0.01,
        alpha_promote: 0.05,
        trip: None,
        retreat: None,
        cooldown_ms: 0,
        max_attempts: 1,
        independent_split: false,
        guards: vec![GuardSpec {
            kind: GuardKind::ErrorRate,
            relative: (!ceiling).then_some(Margin {
                ratio: 1.2,
                increase: 0.004,
            }),
            ceiling: ceiling.then_some(0.05),
        }],
    };
    guard::rules(&policy)[0]
}

fn counts(canary: f64, canary_events: f64, legacy: f64, legacy_events: f64) -> Counts {
    Counts {
        canary,
        canary_events,
        legacy,
        legacy_events,
    }
}

/// Books a cell as a whole minute.
fn minute(track: &mut Track, mass: f64, seen: Counts) -> bool {
    track.commit_minute();
    track.inject(mass);
    let increment = track.increment(seen, false);
    track.book(seen, increment, true, UnixMillis(0))
}

#[test]
fn ledgers_follow_the_reference_trace() {
    let golden: Value = serde_json::from_str(include_str!("../stats/golden.json")).unwrap();
    let mut track = Track::new(rule(false));
    for row in golden["trace"].as_array().unwrap() {
        let of = |key: &str| row[key].as_f64().unwrap();
        // The reference keeps legacy's estimate at 0.5%.
        track.rate.events_and_requests = [0.005 * 1e12, 1e12];
        assert!((track.phi() - of("phi_before")).abs() < 1e-9);
        let seen = counts(of("n_c"), of("k_c"), of("n_l"), of("k_l"));
        minute(&mut track, of("nu"), seen);
        assert!(
            (track.log_roll(None) - of("log_e_capped")).abs() < 1e-7,
            "{row}"
        );
        assert!((track.log_trip(None) - of("log_e")).abs() < 1e-7, "{row}");
        assert!(
            (track.log_promote() - of("log_e_promote")).abs() < 1e-7,
            "{row}"
        );
        let lists = [("lw", track.promote.to_vec())];
        for (key, found) in lists {
            for (found, expected) in found.iter().zip(row[key].as_array().unwrap()) {
                assert!((found - expected.as_f64().unwrap()).abs() < 1e-7);
            }
        }
        track.fano.add(seen.legacy_events, seen.legacy);
    }
}

#[test]
fn a_million_empty_minutes_prove_nothing() {
    let mut track = Track::new(rule(false));
    let mut left = 1.0;
    for step in 0..1_000_000 {
        let mass = if step == 0 {
            0.4
        } else {
            0.6f64.min(left) / 1e6
        };
        left -= mass;
        minute(&mut track, mass, Counts::default());
    }
    assert!(track.log_roll(None) <= 1e-6, "{}", track.log_roll(None));
    assert!(!track.has_nan());
}

#[test]
fn one_arm_alone_is_no_comparison_but_a_ceiling_needs_no_other() {
    for (seen, moves_relative, moves_ceiling) in [
        (Counts::default(), false, false),
        (counts(10.0, 10.0, 0.0, 0.0), false, true),
        (counts(0.0, 0.0, 10.0, 10.0), false, false),
        (counts(10.0, 10.0, 10.0, 0.0), true, true),
    ] {
        for (ceiling, moves) in [(false, moves_relative), (true, moves_ceiling)] {
            let mut track = Track::new(rule(ceiling));
            track.inject(0.4);
            let before = track.log_trip(None);
            minute(&mut track, 0.0, seen);
            assert_eq!(
                track.log_trip(None) > before,
                moves,
                "{seen:?} ceiling {ceiling}"
            );
        }
    }
}

#[test]
fn a_minute_adds_three_nats_to_the_rollback_ledger_at_most() {
    let mut track = Track::new(rule(false));
    track.inject(0.4);
    let (mut before, mut bitten) = (track.log_roll(None), 0);
    for _ in 0..20 {
        let seen = counts(30.0, 30.0, 570.0, 3.0);
        bitten += u32::from(minute(&mut track, 0.0, seen));
        assert!(track.log_roll(None) <= before + CAP_NATS + 1e-9);
        assert!(track.log_roll(None) <= track.log_trip(None));
        before = track.log_roll(None);
    }
    assert_eq!(bitten, 20);
}

#[test]
fn a_ceiling_waits_while_legacy_is_no_better() {
    let track = Track::new(rule(true));
    let cases = [
        (counts(10.0, 10.0, 0.0, 0.0), false, true),
        (counts(10.0, 10.0, 0.0, 0.0), true, false),
        (counts(10.0, 10.0, 100.0, 2.0), true, true),
        (counts(10.0, 10.0, 100.0, 3.0), false, false),
    ];
    for (open, breaker_open, well) in cases {
        assert_eq!(track.legacy_is_well(open, breaker_open), well, "{open:?}");
    }
    // A long good past does not hide what began in this minute.
    let mut track = Track::new(rule(true));
    track.legacy = [0.0, 0.0, 100_000.0, 100.0];
    assert!(!track.legacy_is_well(counts(3.0, 3.0, 20.0, 15.0), false));
}

#[test]
fn clustered_errors_are_worth_less() {
    let mut fano = Fano::default();
    let (mut seed, mut k) = (7u64, 0u64);
    for _ in 0..1440 {
        k = 0;
        // 300 requests a minute, one cluster of five errors per 1000 requests.
        for _ in 0..60 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            k += if (seed >> 33) % 200 == 0 { 5 } else { 0 };
        }
        fano.add(k as f64, 300.0);
    }
    assert!((4.0..6.0).contains(&fano.phi()), "{} {k}", fano.phi());
}

#[test]
fn an_infinite_ledger_counts_as_no_number() {
    let mut track = Track::new(rule(false));
    assert!(!track.has_nan());
    track.promote[0] = f64::NAN;
    assert!(track.has_nan());
}
