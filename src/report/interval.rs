//! How sure a number is: 95% intervals of shares, quantiles, ratios and differences.
//!
//! Pure functions of numbers. Counts may be fractional: weighted data has an effective size.
#![deny(clippy::disallowed_methods)]

use super::Estimate;
use crate::sketch::{Sketch, upper_ms};

/// The 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Stretches of time without which their scatter says nothing.
const CLUSTERS_MIN: usize = 8;

/// A share of `count` in `all` with Wilson's interval; `None` without any.
#[must_use]
pub fn share(count: f64, all: f64) -> Option<Estimate> {
    if all <= 0.0 {
        return None;
    }
    let (value, squared) = (count / all, Z * Z);
    let middle = (value + squared / (2.0 * all)) / (1.0 + squared / all);
    let spread = value * (1.0 - value) / all + squared / (4.0 * all * all);
    let half = Z / (1.0 + squared / all) * spread.max(0.0).sqrt();
    // At the ends rounding must not leave a trace.
    let low = if count <= 0.0 { 0.0 } else { middle - half };
    let high = if count >= all { 1.0 } else { middle + half };
    Some(Estimate {
        value,
        ci95_low: Some(low.max(0.0)),
        ci95_high: Some(high.min(1.0)),
    })
}

/// The `q`-quantile of times: the interval between two order statistics, widened by the width of their
/// buckets. An end that lies beyond all data is unknown. `all` is the effective number of times.
#[must_use]
pub fn quantile(times: &Sketch, q: f64, all: f64) -> Option<Estimate> {
    let value = times.quantile_ms(q)?;
    let half = Z * (q * (1.0 - q) / all).sqrt();
    let (low, high) = (q - half, q + half);
    let edge = |share: f64, down: i16| {
        let bucket = times.quantile_bucket(share)?;
        Some(upper_ms(bucket.saturating_sub(down)))
    };
    Some(Estimate {
        value,
        ci95_low: if low > 0.0 { edge(low, 1) } else { None },
        ci95_high: if high < 1.0 { edge(high, 0) } else { None },
    })
}

/// The ratio of two sums over stretches of time, given as (part, whole), by the scatter of the stretches.
#[must_use]
pub fn ratio(stretches: &[(f64, f64)]) -> Option<Estimate> {
    let whole: f64 = stretches.iter().map(|(_, whole)| whole).sum();
    if whole <= 0.0 {
        return None;
    }
    let value = stretches.iter().map(|(part, _)| part).sum::<f64>() / whole;
    let residuals = stretches.iter().map(|(part, whole)| part - value * whole);
    Some(scattered(value, residuals, whole, stretches.len()))
}

/// The mean of differences over stretches of time, given as (difference, weight), by their scatter.
#[must_use]
pub fn weighted_mean(stretches: &[(f64, f64)]) -> Option<Estimate> {
    let parts: Vec<(f64, f64)> = stretches
        .iter()
        .map(|(value, weight)| (value * weight, *weight))
        .collect();
    ratio(&parts)
}

fn scattered(
    value: f64,
    residuals: impl Iterator<Item = f64>,
    whole: f64,
    count: usize,
) -> Estimate {
    if count < CLUSTERS_MIN {
        return Estimate {
            value,
            ci95_low: None,
            ci95_high: None,
        };
    }
    let clusters = count as f64;
    let squares: f64 = residuals.map(|it| it * it).sum();
    let error = (squares * clusters / (clusters - 1.0)).sqrt() / whole;
    let half = student(clusters - 1.0) * error;
    Estimate {
        value,
        ci95_low: Some(value - half),
        ci95_high: Some(value + half),
    }
}

/// The 97.5% quantile of Student's distribution, by its expansion around the normal one.
fn student(freedom: f64) -> f64 {
    let (cube, fifth) = (Z.powi(3), Z.powi(5));
    Z + (cube + Z) / (4.0 * freedom)
        + (5.0 * fifth + 16.0 * cube + 3.0 * Z) / (96.0 * freedom * freedom)
}

/// `canary` - `legacy` of two independent estimates, from their own intervals (the method of variance
/// estimates recovery). Unknown where an end that it needs is.
#[must_use]
pub fn difference(legacy: &Estimate, canary: &Estimate) -> Estimate {
    let value = canary.value - legacy.value;
    let away = |one: Option<f64>, other: Option<f64>| {
        let one = (one? - canary.value).powi(2);
        Some((one + (other? - legacy.value).powi(2)).sqrt())
    };
    Estimate {
        value,
        ci95_low: away(canary.ci95_low, legacy.ci95_high).map(|away| value - away),
        ci95_high: away(canary.ci95_high, legacy.ci95_low).map(|away| value + away),
    }
}
