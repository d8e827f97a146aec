//! Draws of times, straight into the buckets of a sketch: one table look-up for each, no logarithm.
//!
//! Pure. The table is Walker's alias method over buckets: exact to 2^-24 in every bucket, the rare ones of
//! the tail included.
#![deny(clippy::disallowed_methods)]

use crate::config::scenario::{SlowTail, Times};
use crate::sketch::{self, GROWTH, Sketch};

/// Standard deviations beyond which nothing is drawn.
const REACH: f64 = 6.5;

/// A distribution over the buckets of a sketch.
#[derive(Debug, Clone)]
pub(super) struct TimesTable {
    /// The bucket of the first slot, and the probability of each from there on.
    first: i16,
    shares: Vec<f64>,
    slots: Vec<Slot>,
    /// How far a random word is shifted to name a slot: there are 2^(32 - shift) of them.
    shift: u32,
}

/// One slot of the alias table: its own bucket below the threshold, the other one above.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    threshold: u32,
    own: i16,
    other: i16,
}

impl TimesTable {
    /// The distribution of `times`, all multiplied by `factor`, a part of them once more by the tail's.
    pub(super) fn new(times: Times, tail: Option<SlowTail>, factor: f64) -> Self {
        let median_ms = times.median_ms * factor;
        let tail = tail.filter(|tail| tail.share > 0.0);
        let (slow_share, slow_factor) = tail.map_or((0.0, 1.0), |tail| (tail.share, tail.factor));
        let spread = (REACH * times.sigma).exp();
        let lowest = median_ms * slow_factor.min(1.0) / spread;
        let highest = median_ms * slow_factor.max(1.0) * spread;
        let (first, last) = (sketch::bucket_of(lowest), sketch::bucket_of(highest));
        let mut shares: Vec<f64> = (first..=last)
            .map(|bucket| {
                let share = |median_ms| lognormal_share(bucket, median_ms, times.sigma);
                (1.0 - slow_share) * share(median_ms) + slow_share * share(median_ms * slow_factor)
            })
            .collect();
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
        let (slots, shift) = alias(first, &shares);
        Self {
            first,
            shares,
            slots,
            shift,
        }
    }

    /// The bucket that a random word stands for.
    pub(super) fn bucket(&self, word: u32) -> i16 {
        let slot = self.slots.get((word >> self.shift) as usize);
        slot.map_or(self.first, |slot| {
            if word << (32 - self.shift) < slot.threshold {
                slot.own
            } else {
                slot.other
            }
        })
    }

    /// The probability of a time above the upper edge of `bucket`.
    pub(super) fn above(&self, bucket: i16) -> f64 {
        let within = usize::try_from(i32::from(bucket) - i32::from(self.first) + 1).unwrap_or(0);
        self.shares.iter().skip(within).sum()
    }

    /// The smallest bucket whose upper edge a share `q` of the times do not exceed.
    pub(super) fn quantile_bucket(&self, q: f64) -> i16 {
        let mut seen = 0.0;
        let mut bucket = self.first;
        for (place, share) in (self.first..).zip(&self.shares) {
            bucket = place;
            seen += share;
            if seen >= q {
                break;
            }
        }
        bucket
    }
}

/// The probability that a lognormal time lies in a bucket: Simpson's rule over its normal density.
fn lognormal_share(bucket: i16, median_ms: f64, sigma: f64) -> f64 {
    let own = sketch::bucket_of(median_ms);
    if sigma < 1e-3 {
        return if bucket == own { 1.0 } else { 0.0 };
    }
    let width = GROWTH.ln() / sigma;
    let upper = (sketch::upper_ms(bucket) / median_ms).ln() / sigma;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most a few hundred"
    )]
    let panels = (width / 0.05).ceil() as u32;
    let step = width / f64::from(panels);
    let density = |z: f64| (-0.5 * z * z).exp();
    (0..panels)
        .map(|panel| {
            let right = upper - step * f64::from(panel);
            let (left, middle) = (right - step, right - 0.5 * step);
            (density(left) + 4.0 * density(middle) + density(right)) * step / 6.0
        })
        .sum()
}

/// Vose's construction, with a power of two of slots so that the top bits of a word name one.
fn alias(first: i16, shares: &[f64]) -> (Vec<Slot>, u32) {
    let count = shares.len().next_power_of_two().max(2);
    let shift = 32 - count.trailing_zeros();
    let scale = count as f64;
    let bucket_at = |slot: usize| {
        let top = shares.len().saturating_sub(1);
        first.saturating_add(i16::try_from(slot.min(top)).unwrap_or(i16::MAX))
    };
    let mut scaled: Vec<f64> = (0..count)
        .map(|slot| shares.get(slot).map_or(0.0, |share| share * scale))
        .collect();
    let mut slots: Vec<Slot> = (0..count)
        .map(|slot| Slot {
            threshold: u32::MAX,
            own: bucket_at(slot),
            other: bucket_at(slot),
        })
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..count).partition(|&slot| scaled.get(slot).is_some_and(|&share| share < 1.0));
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        let have = scaled.get(poor).copied().unwrap_or_default();
        if let Some(slot) = slots.get_mut(poor) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "below 1, scaled to 32 bits"
            )]
            let threshold = (have * f64::from(u32::MAX)) as u32;
            slot.threshold = threshold;
            slot.other = bucket_at(rich);
        }
        if let Some(left) = scaled.get_mut(rich) {
            *left -= 1.0 - have;
            if *left < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
    }
    (slots, shift)
}

/// Adds one draw for each word to a sketch.
pub(super) fn draw(
    table: &TimesTable,
    count: u64,
    sketch: &mut Sketch,
    mut word: impl FnMut() -> u64,
) {
    let mut left = count;
    while left >= 2 {
        let both = word();
        let [low, high] = [both & u64::from(u32::MAX), both >> 32]
            .map(|half| u32::try_from(half).unwrap_or_default());
        sketch.add(table.bucket(low), 1.0);
        sketch.add(table.bucket(high), 1.0);
        left -= 2;
    }
    if left == 1 {
        let high = u32::try_from(word() >> 32).unwrap_or_default();
        sketch.add(table.bucket(high), 1.0);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{Rng, SeedableRng};

    use super::*;

    const TIMES: Times = Times {
        median_ms: 800.0,
        sigma: 0.8,
    };

    #[test]
    fn quantiles_are_those_of_the_lognormal() {
        let table = TimesTable::new(TIMES, None, 1.0);
        for (q, z) in [(0.5, 0.0), (0.9, 1.281_551_57), (0.99, 2.326_347_87)] {
            let expected = 800.0 * (0.8f64 * z).exp();
            let found = sketch::upper_ms(table.quantile_bucket(q));
            assert!(
                found >= expected * 0.999_999 && found < expected * 1.0201,
                "{q}: {found}"
            );
        }
        assert!((table.above(sketch::bucket_of(800.0) - 1) - 0.5).abs() < 0.02);
    }

    #[test]
    fn draws_follow_the_table_to_its_tail() {
        let tail = SlowTail {
            share: 0.05,
            factor: 8.0,
        };
        let table = TimesTable::new(TIMES, Some(tail), 2.0);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut sketch = Sketch::default();
        let count = 2_000_000;
        draw(&table, count, &mut sketch, || rng.next_u64());
        assert!((sketch.count() - count as f64).abs() < 0.5);
        for q in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let bucket = table.quantile_bucket(q);
            let (expected, found) = (table.above(bucket), sketch.above(bucket) / count as f64);
            let sd = (expected * (1.0 - expected) / count as f64).sqrt();
            assert!(
                (found - expected).abs() < 5.0 * sd,
                "{q}: {found} {expected}"
            );
        }
    }

    #[test]
    fn without_spread_there_is_one_time() {
        let times = Times {
            median_ms: 100.0,
            sigma: 0.0,
        };
        let table = TimesTable::new(times, None, 1.0);
        for word in [0, 1, u32::MAX / 2, u32::MAX] {
            assert_eq!(table.bucket(word), sketch::bucket_of(100.0));
        }
    }
}
