use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::arm::Arm;
use crate::proxy::assign::{arm_of, bucket};

fn weight(bps: u16) -> Weight {
    Weight::from_bps(bps).unwrap()
}

const fn one(canary: bool) -> Assigned {
    Assigned {
        canary: canary as u64,
        legacy: !canary as u64,
        strays: 0,
    }
}

/// Requests until the alarm, with independent draws at the share `actual` under a weight of 5%.
fn requests_to_alarm(actual: f64, seed: u64, batch: u64, max: u64) -> Option<u64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut check = SplitCheck::default();
    let mut sent = 0;
    while sent < max {
        let canary = (0..batch).filter(|_| rng.random_bool(actual)).count() as u64;
        let assigned = Assigned {
            canary,
            legacy: batch - canary,
            strays: 0,
        };
        check.add(assigned, weight(500), true);
        sent += batch;
        if check.alarm().is_some() {
            return Some(sent);
        }
    }
    None
}

#[test]
fn a_wrong_share_is_found_as_fast_as_the_reference_finds_it() {
    for (actual, reference, seeds) in [(0.10, 386.0, 400), (0.06, 7_250.0, 100)] {
        let mut needed: Vec<u64> = (0..seeds)
            .map(|seed| requests_to_alarm(actual, seed, 1, 200_000).expect("an alarm"))
            .collect();
        needed.sort_unstable();
        let median = needed[needed.len() / 2] as f64;
        assert!(
            (reference * 0.75..=reference * 1.25).contains(&median),
            "{actual}: {median}"
        );
    }
}

#[test]
fn the_right_share_never_alarms() {
    for seed in 0..8 {
        assert_eq!(requests_to_alarm(0.05, seed, 50, 1_000_000), None, "{seed}");
    }
}

#[test]
fn an_alarm_of_the_share_names_both_shares() {
    let mut check = SplitCheck::default();
    let assigned = Assigned {
        canary: 200,
        legacy: 1_800,
        strays: 0,
    };
    check.add(assigned, weight(500), true);
    let alarm = check.alarm().expect("an alarm");
    insta::assert_snapshot!(alarm, @"the canary gets 10.00% of the requests where 5.00% are meant");
    check.reset();
    assert_eq!(check, SplitCheck::default());
    assert_eq!(check.alarm(), None);
}

#[test]
fn shares_of_hashed_keys_and_of_an_undivided_traffic_are_not_tested() {
    for (bps, independent) in [(500, false), (0, true), (10_000, true)] {
        let mut check = SplitCheck::default();
        let assigned = Assigned {
            canary: 50_000,
            legacy: 50_000,
            strays: 0,
        };
        check.add(assigned, weight(bps), independent);
        assert_eq!(check.alarm(), None, "{bps} {independent}");
    }
}

#[test]
fn each_draw_is_held_against_the_weight_that_it_was_made_under() {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut check = SplitCheck::default();
    for round in 0..2_000 {
        let bps = [100, 500, 2_500, 5_000, 9_500][round % 5];
        for _ in 0..50 {
            let canary = rng.random_bool(f64::from(bps) / 10_000.0);
            check.add(one(canary), weight(bps), true);
        }
        assert_eq!(check.alarm(), None, "round {round}");
    }
}

/// One of a few busy and many quiet keys.
fn key_of(rng: &mut SmallRng, keys: u64) -> u64 {
    let last = rng.random_range(0..keys);
    rng.random_range(0..=last)
}

#[test]
fn an_uneven_traffic_of_hashed_keys_never_alarms() {
    for keys in [200, 1_000, 5_000] {
        for seed in 0..4 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let salt = rng.random();
            let mut check = SplitCheck::default();
            for request in 0..100_000 {
                let arm = arm_of(bucket(salt, key_of(&mut rng, keys)), weight(500));
                check.add(one(arm == Arm::Canary), weight(500), false);
                if request % 100 == 0 {
                    assert_eq!(check.alarm(), None, "{keys} keys, seed {seed}");
                }
            }
        }
    }
}

#[test]
fn strays_alarm_whatever_the_key_is() {
    for independent in [true, false] {
        let mut rng = SmallRng::seed_from_u64(9);
        let mut check = SplitCheck::default();
        let mut at = 0;
        while check.alarm().is_none() && at < 100_000 {
            let named = arm_of(bucket(3, key_of(&mut rng, 500)), weight(5_000));
            // One request in fifty goes to the other arm.
            let is_stray = rng.random_bool(0.02);
            check.add(
                Assigned {
                    strays: u64::from(is_stray),
                    ..one((named == Arm::Canary) != is_stray)
                },
                weight(5_000),
                independent,
            );
            at += 1;
        }
        let alarm = check.alarm();
        assert!(
            matches!(alarm, Some(SplitAlarm::Strays { strays: 20.., .. })),
            "{alarm:?}"
        );
        assert!(at < 3_000, "only after {at}");
    }
}

#[test]
fn strays_are_weighed_against_the_smaller_arm() {
    let cases = [
        // 19 are an accident, however few requests there were.
        (0, 19, 19, false),
        (0, 20, 20, true),
        // At 0% nothing may reach the canary at all.
        (20, 1_000_000, 20, true),
        // One in a hundred of the smaller arm is borne, more is not.
        (10_000, 1_000_000, 100, false),
        (10_000, 1_000_000, 101, true),
        (1_000_000, 1_000_000, 9_000, false),
    ];
    for (canary, legacy, strays, expected) in cases {
        let mut check = SplitCheck::default();
        let assigned = Assigned {
            canary,
            legacy,
            strays,
        };
        check.add(assigned, weight(5_000), false);
        assert_eq!(check.alarm().is_some(), expected, "{assigned:?}");
    }
}

#[test]
fn what_is_no_number_is_an_alarm_and_nothing_makes_one() {
    let mut broken = SplitCheck::default();
    broken.share[2] = f64::NAN;
    assert!(broken.alarm().is_some());
    let mut check = SplitCheck::default();
    for bps in [1, 5_000, 9_999] {
        let all = Assigned {
            canary: u64::MAX,
            legacy: u64::MAX,
            strays: u64::MAX,
        };
        for _ in 0..3 {
            check.add(all, weight(bps), true);
        }
    }
    assert!(check.share.iter().all(|log| log.is_finite()));
    assert!(check.alarm().is_some());
}

#[test]
fn a_restart_changes_no_bit() {
    let mut check = SplitCheck::default();
    let assigned = Assigned {
        canary: 7,
        legacy: 71,
        strays: 1,
    };
    check.add(assigned, weight(777), true);
    let text = serde_json::to_string(&check).unwrap();
    let read: SplitCheck = serde_json::from_str(&text).unwrap();
    assert_eq!(read, check);
    assert!(text.len() < 512, "{text}");
}
