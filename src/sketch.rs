//! Latency sketches: counts in logarithmic buckets, exact to merge, at most 2% wide.
//!
//! Pure. One layout everywhere (STATISTICS: growth 1.02), in memory, in the store and in evidence:
//! bucket `i` holds `1.02^(i-1) < ms <= 1.02^i`. Bounded: times are clamped to 0.01 ms ..= 1 day, so a
//! sketch never has more than [`Sketch::MAX_BUCKETS`] buckets. In memory it is dense between the lowest
//! and the highest bucket in use, because times lie close together; its text names only buckets in use.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod bytes;

/// Growth from one bucket's upper edge to the next.
pub const GROWTH: f64 = 1.02;
const MIN_MS: f64 = 0.01;
const MAX_MS: f64 = 86_400_000.0;

/// The bucket of [`MIN_MS`].
const LOWEST: i16 = -232;
/// The bucket of [`MAX_MS`].
const HIGHEST: i16 = 923;
/// Room that a growing sketch takes beyond what it needs, on the side where it grows.
const SLACK: usize = 32;

/// A mergeable histogram of times in milliseconds. Counts are fractional only after a decay.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    /// The bucket of the first count.
    first: i16,
    counts: Vec<f64>,
    /// The sum of all counts.
    total: f64,
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

    /// Adds `count` to a bucket; to the nearest one, if there is none with that number.
    pub fn add(&mut self, bucket: i16, count: f64) {
        let place = i32::from(bucket) - i32::from(self.first);
        let known = usize::try_from(place).ok();
        if let Some(slot) = known.and_then(|place| self.counts.get_mut(place)) {
            *slot += count;
            self.total += count;
        } else if count > 0.0 {
            let bucket = bucket.clamp(LOWEST, HIGHEST);
            self.reach(bucket, bucket);
            let place = usize::try_from(i32::from(bucket) - i32::from(self.first)).unwrap_or(0);
            if let Some(slot) = self.counts.get_mut(place) {
                *slot += count;
                self.total += count;
            }
        }
    }

    /// Makes room for the buckets from `low` to `high`.
    fn reach(&mut self, low: i16, high: i16) {
        if self.counts.is_empty() {
            self.first = low;
        }
        let slack = self.counts.len().max(SLACK) / 2;
        if low < self.first {
            let floor = usize::try_from(i32::from(low) - i32::from(LOWEST)).unwrap_or(0);
            let more = usize::try_from(i32::from(self.first) - i32::from(low)).unwrap_or(0);
            let more = more + slack.min(floor);
            let zeros = std::iter::repeat_n(0.0, more);
            self.counts.splice(..0, zeros);
            self.first = self.first.saturating_sub(i16::try_from(more).unwrap_or(0));
        }
        let needed = usize::try_from(i32::from(high) - i32::from(self.first) + 1).unwrap_or(0);
        if needed > self.counts.len() {
            let most = usize::try_from(i32::from(HIGHEST) - i32::from(self.first) + 1);
            let room = (needed + slack).min(most.unwrap_or(needed)).max(needed);
            self.counts.resize(room, 0.0);
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        let (first, counts) = other.dense();
        let Ok(span) = i16::try_from(counts.len()) else {
            return;
        };
        if span == 0 {
            return;
        }
        self.reach(first, first.saturating_add(span - 1));
        let place = usize::try_from(i32::from(first) - i32::from(self.first)).unwrap_or(0);
        for (slot, count) in self.counts.iter_mut().skip(place).zip(counts) {
            *slot += count;
        }
        self.total += other.total;
    }

    /// Multiplies all counts by `factor` and forgets what has become negligible.
    pub fn decay(&mut self, factor: f64) {
        for count in &mut self.counts {
            *count *= factor;
            if *count <= 1e-3 {
                *count = 0.0;
            }
        }
        self.total = sum(&self.counts);
    }

    /// The number of times recorded.
    #[must_use]
    pub const fn count(&self) -> f64 {
        self.total
    }

    /// True if nothing was recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total <= 0.0
    }

    /// How many times lie above the upper edge of `bucket`. Exact, because the threshold is an edge.
    #[must_use]
    pub fn above(&self, bucket: i16) -> f64 {
        let below = usize::try_from(i32::from(bucket) - i32::from(self.first) + 1).unwrap_or(0);
        sum(self.counts.get(below..).unwrap_or_default())
    }

    /// The smallest bucket whose upper edge at least a share `q` of the times do not exceed.
    #[must_use]
    pub fn quantile_bucket(&self, q: f64) -> Option<i16> {
        let needed = q * self.count() - 1e-9;
        let mut seen = 0.0;
        let mut last = None;
        for (bucket, count) in self.iter() {
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

    /// Bucket and count in rising order, of all buckets in use.
    pub fn iter(&self) -> impl Iterator<Item = (i16, f64)> + '_ {
        let counts = (self.first..).zip(&self.counts);
        counts
            .filter(|(_, count)| **count > 0.0)
            .map(|(bucket, count)| (bucket, *count))
    }

    /// The first bucket, and the counts of all buckets from there on.
    #[must_use]
    pub fn dense(&self) -> (i16, &[f64]) {
        (self.first, &self.counts)
    }
}

/// The sum in four lanes: a chain of dependent additions would take four times as long.
fn sum(counts: &[f64]) -> f64 {
    let (fours, rest) = counts.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for four in fours {
        for (lane, count) in lanes.iter_mut().zip(four) {
            *lane += count;
        }
    }
    lanes.iter().chain(rest).sum()
}

impl PartialEq for Sketch {
    /// Equal counts, however much room there is around them.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
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

impl Serialize for Sketch {
    /// As a map from bucket to count.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counts;
        impl<'de> Visitor<'de> for Counts {
            type Value = Sketch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from bucket to count")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sketch, A::Error> {
                let mut sketch = Sketch::default();
                while let Some((bucket, count)) = map.next_entry()? {
                    sketch.add(bucket, count);
                }
                Ok(sketch)
            }
        }
        deserializer.deserialize_map(Counts)
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
        let ends = (bucket_of(MIN_MS), bucket_of(MAX_MS));
        assert_eq!(ends, (LOWEST, HIGHEST));
        let span = i32::from(HIGHEST) - i32::from(LOWEST) + 1;
        assert_eq!(usize::try_from(span).unwrap(), Sketch::MAX_BUCKETS);
    }

    #[test]
    fn the_text_names_the_buckets_in_use_and_reads_back() {
        let sketch: Sketch = [(923, 2.0), (-232, 1.0), (5, 7.0)].into_iter().collect();
        let text = serde_json::to_string(&sketch).unwrap();
        assert_eq!(text, r#"{"-232":1.0,"5":7.0,"923":2.0}"#);
        let back: Sketch = serde_json::from_str(&text).unwrap();
        assert_eq!((back.count(), &back), (10.0, &sketch));
        assert_eq!(serde_json::to_string(&Sketch::default()).unwrap(), "{}");
    }

    #[test]
    fn a_bucket_that_is_none_takes_no_memory() {
        let text = r#"{"-32768":1.0,"32767":2.0,"0":0.0}"#;
        let sketch: Sketch = serde_json::from_str(text).unwrap();
        assert_eq!(sketch.iter().collect::<Vec<_>>(), [(-232, 1.0), (923, 2.0)]);
        assert!(sketch.dense().1.len() <= Sketch::MAX_BUCKETS);
    }

    #[test]
    fn a_decay_forgets_what_is_negligible() {
        let mut sketch: Sketch = [(1, 0.001), (2, 8.0), (3, 1.0)].into_iter().collect();
        sketch.decay(0.5);
        assert_eq!(sketch.iter().collect::<Vec<_>>(), [(2, 4.0), (3, 0.5)]);
        assert_eq!((sketch.count(), sketch.above(2)), (4.5, 0.5));
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
