//! Latency sketches: sparse counts in logarithmic buckets, exact to merge, at most 2% wide.
//!
//! Pure. One layout everywhere (STATISTICS: growth 1.02), in memory, in the store and in evidence:
//! bucket `i` holds `1.02^(i-1) < ms <= 1.02^i`. Bounded: times are clamped to 0.01 ms ..= 1 day, so a
//! sketch never has more than [`Sketch::MAX_BUCKETS`] buckets.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Growth from one bucket's upper edge to the next.
pub const GROWTH: f64 = 1.02;
const MIN_MS: f64 = 0.01;
const MAX_MS: f64 = 86_400_000.0;

/// A mergeable histogram of times in milliseconds. Counts are fractional only after a decay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sketch {
    buckets: BTreeMap<i16, f64>,
}

/// The bucket that holds a time of `ms` milliseconds.
#[must_use]
pub fn bucket_of(ms: f64) -> i16 {
    let ms = if ms.is_nan() {
        MAX_MS
    } else {
        ms.clamp(MIN_MS, MAX_MS)
    };
    // The tolerance keeps an edge in its own bucket although ln(1.02^i)/ln(1.02) may land just above i.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the clamp bounds it to -232..=923"
    )]
    let bucket = (ms.ln() / GROWTH.ln() - 1e-9).ceil() as i16;
    bucket
}

/// The upper edge of a bucket in milliseconds.
#[must_use]
pub fn upper_ms(bucket: i16) -> f64 {
    GROWTH.powi(i32::from(bucket))
}

/// How many buckets a factor spans, rounded up: a limit is never stricter than asked.
#[must_use]
pub fn buckets_spanned(factor: f64) -> i16 {
    let spanned = (factor.max(f64::MIN_POSITIVE).ln() / GROWTH.ln() - 1e-9).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to the range of buckets"
    )]
    let spanned = spanned.clamp(-2_000.0, 2_000.0) as i16;
    spanned
}

impl Sketch {
    /// Bound on the number of buckets.
    pub const MAX_BUCKETS: usize = 1_156;

    /// Counts one time.
    pub fn record_ms(&mut self, ms: f64) {
        self.add(bucket_of(ms), 1.0);
    }

    /// Adds `count` to a bucket.
    pub fn add(&mut self, bucket: i16, count: f64) {
        *self.buckets.entry(bucket).or_insert(0.0) += count;
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (&bucket, &count) in &other.buckets {
            self.add(bucket, count);
        }
    }

    /// Multiplies all counts by `factor` and forgets what has become negligible.
    pub fn decay(&mut self, factor: f64) {
        self.buckets.retain(|_, count| {
            *count *= factor;
            *count > 1e-3
        });
    }

    /// The number of times recorded.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.buckets.values().sum()
    }

    /// True if nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many times lie above the upper edge of `bucket`. Exact, because the threshold is an edge.
    #[must_use]
    pub fn above(&self, bucket: i16) -> f64 {
        use std::ops::Bound::{Excluded, Unbounded};
        self.buckets
            .range((Excluded(bucket), Unbounded))
            .map(|(_, count)| count)
            .sum()
    }

    /// The smallest bucket whose upper edge at least a share `q` of the times do not exceed.
    #[must_use]
    pub fn quantile_bucket(&self, q: f64) -> Option<i16> {
        let needed = q * self.count() - 1e-9;
        let mut seen = 0.0;
        let mut last = None;
        for (&bucket, &count) in &self.buckets {
            seen += count;
            last = Some(bucket);
            if seen >= needed {
                break;
            }
        }
        last
    }

    /// The `q`-quantile in milliseconds, as the geometric middle of its bucket: within 1%.
    #[must_use]
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        self.quantile_bucket(q)
            .map(|bucket| upper_ms(bucket) / GROWTH.sqrt())
    }

    /// Bucket and count in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (i16, f64)> + '_ {
        self.buckets.iter().map(|(&bucket, &count)| (bucket, count))
    }
}

impl FromIterator<(i16, f64)> for Sketch {
    fn from_iter<I: IntoIterator<Item = (i16, f64)>>(counts: I) -> Self {
        let mut sketch = Self::default();
        for (bucket, count) in counts {
            sketch.add(bucket, count);
        }
        sketch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_edge_lies_in_its_own_bucket() {
        for bucket in -230..=920 {
            assert_eq!(bucket_of(upper_ms(bucket)), bucket);
            assert_eq!(bucket_of(upper_ms(bucket) * 1.0001), bucket + 1);
        }
    }

    #[test]
    fn nonsense_times_are_clamped_instead_of_lost() {
        let mut sketch = Sketch::default();
        for ms in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300] {
            sketch.record_ms(ms);
        }
        assert!((sketch.count() - 5.0).abs() < 1e-9);
        let span = i32::from(bucket_of(MAX_MS)) - i32::from(bucket_of(MIN_MS)) + 1;
        assert_eq!(usize::try_from(span).unwrap(), Sketch::MAX_BUCKETS);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(mut times in prop::collection::vec(0.1f64..60_000.0, 1..400)) {
            let sketch = times.iter().fold(Sketch::default(), |mut sketch, &ms| {
                sketch.record_ms(ms);
                sketch
            });
            times.sort_by(f64::total_cmp);
            for q in [0.5, 0.9, 0.99] {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small counts")]
                let rank = ((q * times.len() as f64 - 1e-9).ceil() as usize).clamp(1, times.len());
                let exact = times[rank - 1];
                let error = (sketch.quantile_ms(q).unwrap() / exact - 1.0).abs();
                prop_assert!(error <= 0.0101, "q {q}: {error}");
            }
        }

        #[test]
        fn merging_equals_recording_together(a in prop::collection::vec(0.1f64..9e4, 0..50), b in prop::collection::vec(0.1f64..9e4, 0..50)) {
            let sketch_of = |times: &[f64]| times.iter().fold(Sketch::default(), |mut sketch, &ms| {
                sketch.record_ms(ms);
                sketch
            });
            let mut merged = sketch_of(&a);
            merged.merge(&sketch_of(&b));
            let both: Vec<f64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(merged, sketch_of(&both));
        }
    }
}
