//! Dense histograms over the buckets of [`crate::sketch`], for sums that are added to all the time.
//!
//! Pure. A sparse sketch is right for one cell; the sums over hours are added to with every cell, and a
//! slot in an array costs a tenth of a tree. Stored sparsely, as runs of counts.
#![deny(clippy::disallowed_methods)]

use std::fmt::Write;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::sketch::{self, Sketch};

/// Lowest bucket of a sketch: that of 0.01 ms.
const LOWEST: i16 = -233;

/// Counts in the buckets of a sketch, `STEP` neighbours taken together.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram<const STEP: usize> {
    counts: Vec<f32>,
}

impl<const STEP: usize> Histogram<STEP> {
    const SLOTS: usize = Sketch::MAX_BUCKETS / STEP + 1;

    /// The highest bucket of a slot.
    fn top_bucket(slot: usize) -> i16 {
        let from_lowest = slot * STEP + STEP - 1;
        LOWEST.saturating_add(i16::try_from(from_lowest).unwrap_or(i16::MAX))
    }

    /// Adds all counts of a sketch.
    pub(super) fn merge(&mut self, sketch: &Sketch) {
        let (first, counts) = sketch.dense();
        if sketch.is_empty() {
            return;
        }
        self.counts.resize(Self::SLOTS, 0.0);
        let start = usize::try_from(first - LOWEST).unwrap_or(0);
        let place = start / STEP;
        // Where the sketch begins within its first slot.
        let head = (STEP - start % STEP) % STEP;
        let (before, counts) = counts.split_at(head.min(counts.len()));
        let mut slots = self.counts.iter_mut().skip(place);
        if !before.is_empty() {
            slots
                .next()
                .into_iter()
                .for_each(|slot| *slot += small(before));
        }
        let (whole, after) = counts.as_chunks::<STEP>();
        for (slot, counts) in slots.by_ref().zip(whole) {
            *slot += small(counts);
        }
        if !after.is_empty() {
            slots
                .next()
                .into_iter()
                .for_each(|slot| *slot += small(after));
        }
    }

    /// Multiplies all counts and forgets what has become negligible.
    pub(super) fn decay(&mut self, factor: f32) {
        for count in &mut self.counts {
            *count *= factor;
            if *count < 1e-3 {
                *count = 0.0;
            }
        }
    }

    /// Number of times recorded, after decay.
    pub(super) fn count(&self) -> f64 {
        // In lanes: a chain of dependent additions would take several times as long.
        let (eights, rest) = self.counts.as_chunks::<8>();
        let mut lanes = [0.0; 8];
        for eight in eights {
            for (lane, &count) in lanes.iter_mut().zip(eight) {
                *lane += f64::from(count);
            }
        }
        let rest = rest.iter().map(|&count| f64::from(count));
        lanes.iter().copied().chain(rest).sum()
    }

    /// The smallest bucket whose upper edge at least a share `q` of the times do not exceed.
    pub(super) fn quantile_bucket(&self, q: f64) -> Option<i16> {
        let needed = q * self.count() * (1.0 - 1e-9);
        let mut seen = 0.0;
        let mut last = None;
        for (slot, &count) in self.counts.iter().enumerate() {
            if count > 0.0 {
                seen += f64::from(count);
                last = Some(Self::top_bucket(slot));
                if seen >= needed {
                    break;
                }
            }
        }
        last
    }

    /// The `q`-quantile in milliseconds, as the geometric middle of its slot.
    pub(super) fn quantile_ms(&self, q: f64) -> Option<f64> {
        let half = i32::try_from(STEP).map_or(0.5, |step| f64::from(step) / 2.0);
        self.quantile_bucket(q)
            .map(|bucket| sketch::upper_ms(bucket) / sketch::GROWTH.powf(half))
    }
}

/// Counts of one slot: small whole numbers, which need no more digits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "counts of a cell are small whole numbers"
)]
fn small(counts: &[f64]) -> f32 {
    counts.iter().map(|&count| count as f32).sum()
}

impl<const STEP: usize> Serialize for Histogram<STEP> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        let mut in_run = false;
        for (slot, &count) in self.counts.iter().enumerate() {
            // Writing to a String cannot fail.
            match (count > 0.0, in_run) {
                (true, true) => write!(text, " {count}").unwrap_or_default(),
                (true, false) => write!(text, ";{slot} {count}").unwrap_or_default(),
                (false, _) => {}
            }
            in_run = count > 0.0;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de, const STEP: usize> Deserialize<'de> for Histogram<STEP> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let mut histogram = Self::default();
        for run in text.split(';').filter(|run| !run.is_empty()) {
            let mut words = run.split_ascii_whitespace();
            let start = words.next().unwrap_or_default();
            let start: usize = start.parse().map_err(D::Error::custom)?;
            histogram.counts.resize(Self::SLOTS, 0.0);
            for (slot, word) in (start..).zip(words) {
                let count: f32 = word.parse().map_err(D::Error::custom)?;
                let place = histogram.counts.get_mut(slot);
                *place.ok_or_else(|| D::Error::custom("a bucket beyond one day"))? = count;
            }
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_survives_its_text_to_the_last_bit() {
        let mut histogram = Histogram::<1>::default();
        histogram.merge(
            &[(-232, 3.0), (5, 7.0), (6, 1.0), (923, 2.0)]
                .into_iter()
                .collect(),
        );
        for _ in 0..700 {
            histogram.decay(0.998_076_4);
        }
        let text = serde_json::to_string(&histogram).unwrap();
        let back: Histogram<1> = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert_eq!(back.count().to_bits(), histogram.count().to_bits());
        assert_eq!(back.quantile_bucket(0.5), Some(5));
        assert_eq!(back.quantile_bucket(1.0), Some(923));
    }

    #[test]
    fn quantiles_agree_with_the_sketch() {
        let sketch: Sketch = (0..300i16).map(|i| (i, f64::from(i % 7))).collect();
        let mut fine = Histogram::<1>::default();
        fine.merge(&sketch);
        for q in [0.01, 0.5, 0.99, 1.0] {
            assert_eq!(fine.quantile_bucket(q), sketch.quantile_bucket(q));
        }
        let mut coarse = Histogram::<2>::default();
        coarse.merge(&sketch);
        let ratio = coarse.quantile_ms(0.5).unwrap() / sketch.quantile_ms(0.5).unwrap();
        assert!((ratio - 1.0).abs() < 0.021, "{ratio}");
    }
}
