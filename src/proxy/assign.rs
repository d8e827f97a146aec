//! Which arm a request goes to: a pure function of salt, sticky key and weight.
//!
//! Pure. Monotone by construction: raising the weight only moves keys to the canary, lowering it only
//! moves keys back, and the same key always falls into the same bucket of one rollout.
#![deny(clippy::disallowed_methods)]

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::arm::{Arm, Weight};

/// Buckets of a rollout: one per basis point.
const BUCKETS: u128 = 10_000;

/// The salt of a rollout, fixed for as long as the rollout has this id.
#[must_use]
pub fn salt_of(rollout_id: &str) -> u64 {
    xxh3_64_with_seed(rollout_id.as_bytes(), 0)
}

/// The bucket of a sticky key, 0 to 9,999.
#[must_use]
pub fn bucket(salt: u64, key_hash: u64) -> u16 {
    let spread = xxh3_64_with_seed(&key_hash.to_le_bytes(), salt);
    // Multiply and shift instead of a remainder: no bias, no division.
    let bucket = (u128::from(spread) * BUCKETS) >> 64;
    u16::try_from(bucket).unwrap_or(0)
}

/// The arm of a bucket at a weight.
#[must_use]
pub const fn arm_of(bucket: u16, weight: Weight) -> Arm {
    if bucket < weight.bps() {
        Arm::Canary
    } else {
        Arm::Legacy
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn raising_the_weight_only_adds_keys(salt: u64, key: u64, low in 0u16..=10_000, high in 0u16..=10_000) {
            let (low, high) = (low.min(high), low.max(high));
            let bucket = bucket(salt, key);
            let at = |bps| arm_of(bucket, Weight::from_bps(bps).unwrap());
            prop_assert!(!(at(low) == Arm::Canary && at(high) == Arm::Legacy));
        }

        #[test]
        fn whatever_the_weights_were_a_key_is_where_the_present_one_puts_it(
            salt: u64,
            keys in prop::collection::vec(any::<u64>(), 1..60),
            weights in prop::collection::vec(prop_oneof![Just(0), Just(10_000), 0u16..=10_000], 1..20),
        ) {
            let canary = |bps| -> BTreeSet<u64> {
                let weight = Weight::from_bps(bps).unwrap();
                let at = |key: &u64| arm_of(bucket(salt, *key), weight) == Arm::Canary;
                keys.iter().copied().filter(at).collect()
            };
            let mut seen = BTreeMap::new();
            let mut before = (0, canary(0));
            prop_assert!(before.1.is_empty());
            for bps in weights {
                let now = canary(bps);
                // Up only adds, down only removes, and a rollback removes all.
                prop_assert!(bps < before.0 || now.is_superset(&before.1));
                prop_assert!(bps > before.0 || now.is_subset(&before.1));
                prop_assert!(bps > 0 || now.is_empty());
                // Back at a weight, the same keys.
                let first = seen.entry(bps).or_insert_with(|| now.clone());
                prop_assert_eq!(&*first, &now);
                before = (bps, now);
            }
        }
    }

    #[test]
    fn nothing_goes_to_the_canary_at_zero_and_everything_at_full() {
        for key in 0..20_000 {
            let bucket = bucket(7, key);
            assert_eq!(arm_of(bucket, Weight::ZERO), Arm::Legacy);
            assert_eq!(arm_of(bucket, Weight::FULL), Arm::Canary);
        }
    }

    #[test]
    fn the_share_of_keys_is_the_weight() {
        let weight = Weight::from_bps(2_500).unwrap();
        for salt in 0..8 {
            let canary = (0..40_000u64)
                .filter(|&key| arm_of(bucket(salt, key), weight) == Arm::Canary)
                .count();
            // Five standard deviations of a binomial share with n = 40,000 and p = 0.25.
            assert!((9_567..=10_433).contains(&canary), "salt {salt}: {canary}");
        }
    }

    #[test]
    fn buckets_are_the_same_in_every_release() {
        assert_eq!(salt_of("default-1"), 0x784e_9e0b_fa00_8d88);
        // Computed with another implementation of XXH3.
        assert_eq!(
            [bucket(1, 2), bucket(2, 1), bucket(7, 8)],
            [903, 2536, 8716]
        );
    }
}
