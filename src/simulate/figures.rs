//! Shares with their intervals, and percentiles: what many runs say together.
//!
//! Pure numbers.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

/// The 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95% interval of a share of `count` in `all`; everything, if there is nothing to go by.
#[must_use]
pub fn interval(count: u64, all: u64) -> [f64; 2] {
    if all == 0 {
        return [0.0, 1.0];
    }
    let (n, share) = (all as f64, count as f64 / all as f64);
    let squared = Z * Z;
    let middle = (share + squared / (2.0 * n)) / (1.0 + squared / n);
    let half =
        Z / (1.0 + squared / n) * (share * (1.0 - share) / n + squared / (4.0 * n * n)).sqrt();
    // At the ends rounding must not leave a trace.
    [
        if count == 0 { 0.0 } else { middle - half },
        if count == all { 1.0 } else { middle + half },
    ]
}

/// Percentiles (nearest rank) and mean of a number over the runs that have it; all null if none does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// A tenth of the runs has no more.
    pub p10: Option<f64>,
    /// Half of the runs have no more.
    pub p50: Option<f64>,
    /// Nine tenths of the runs have no more.
    pub p90: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
}

impl Percentiles {
    /// Of these numbers.
    #[must_use]
    pub fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let at = |percent: usize| {
            let rank = (percent * count).div_ceil(100).max(1);
            sorted.get(rank - 1).copied()
        };
        Self {
            p10: at(10),
            p50: at(50),
            p90: at(90),
            mean: (count > 0).then(|| sorted.iter().sum::<f64>() / count as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        let cases = [
            (0, 100, [0.0, 0.036_994]),
            (50, 100, [0.403_832, 0.596_168]),
            (100, 100, [0.963_006, 1.0]),
            (0, 0, [0.0, 1.0]),
        ];
        for (count, all, expected) in cases {
            let found = interval(count, all);
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{count}/{all}: {found}");
            }
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks_and_null_of_nothing() {
        let of = Percentiles::of((1..=20u32).map(f64::from));
        assert_eq!(
            (of.p10, of.p50, of.p90),
            (Some(2.0), Some(10.0), Some(18.0))
        );
        assert_eq!(of.mean, Some(10.5));
        assert_eq!(Percentiles::of(std::iter::empty()), Percentiles::default());
        assert_eq!(Percentiles::of(std::iter::once(7.0)).p10, Some(7.0));
    }
}
