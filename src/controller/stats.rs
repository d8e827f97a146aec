//! The mathematics of evidence: likelihood ratios against the nearest allowed pair of rates, in log space.
//!
//! Pure functions of numbers; they know of no guard, arm or time. Everything stays in logarithms, because
//! products of thousands of factors leave the range of `f64`. The reference is STATISTICS section 2; the
//! vectors in the tests bind this file to it.
#![deny(clippy::disallowed_methods)]

/// Odds of the rollback experts, relative to the odds of the allowed rate.
pub const ROLLBACK_ODDS: [f64; 8] = [1.12, 1.3, 1.7, 2.5, 5.0, 15.0, 60.0, 500.0];
/// Odds of the promotion experts.
pub const PROMOTE_ODDS: [f64; 5] = [0.05, 0.25, 0.45, 0.65, 0.82];

/// An allowed pair of rates: canary <= `ratio` x legacy + `increase`. A ratio of 0 is a ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Factor on legacy's rate; 0 for a ceiling, which never looks at legacy.
    pub ratio: f64,
    /// Share added on top; the ceiling itself when the ratio is 0.
    pub increase: f64,
}

impl Line {
    /// The allowed canary rate at a legacy rate.
    #[must_use]
    pub fn allowed(self, legacy: f64) -> f64 {
        self.ratio * legacy + self.increase
    }

    /// True if the canary may do exactly what legacy does.
    #[must_use]
    pub(super) fn is_equality(self) -> bool {
        self.increase.abs() < f64::MIN_POSITIVE && (self.ratio - 1.0).abs() < f64::EPSILON
    }
}

/// Log-factors of one expert: what one request adds to its evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Factors {
    /// A canary request with the event.
    pub canary_event: f64,
    /// A canary request without it.
    pub canary_none: f64,
    /// A legacy request with the event.
    pub legacy_event: f64,
    /// A legacy request without it.
    pub legacy_none: f64,
}

/// Requests and events of both arms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Canary requests.
    pub canary: f64,
    /// Of these, with the event.
    pub canary_events: f64,
    /// Legacy requests.
    pub legacy: f64,
    /// Of these, with the event.
    pub legacy_events: f64,
}

impl Counts {
    /// The realised share of the canary; 0 without requests.
    #[must_use]
    pub fn share(self) -> f64 {
        let all = self.canary + self.legacy;
        if all > 0.0 { self.canary / all } else { 0.0 }
    }

    /// Adds all counts of `other`.
    pub fn add(&mut self, other: Self) {
        self.canary += other.canary;
        self.canary_events += other.canary_events;
        self.legacy += other.legacy;
        self.legacy_events += other.legacy_events;
    }
}

impl Factors {
    /// The log-evidence that these counts add.
    #[must_use]
    pub fn increment(self, counts: Counts) -> f64 {
        counts.canary_events * self.canary_event
            + (counts.canary - counts.canary_events) * self.canary_none
            + counts.legacy_events * self.legacy_event
            + (counts.legacy - counts.legacy_events) * self.legacy_none
    }
}

/// The rate that an expert bets on: `odds` times the odds of the allowed rate.
#[must_use]
pub fn target(odds: f64, legacy_rate: f64, line: Line) -> f64 {
    let allowed = line.allowed(legacy_rate).clamp(1e-7, 1.0 - 1e-7);
    let bet = odds * allowed / (1.0 - allowed);
    (bet / (1.0 + bet)).clamp(1e-7, 1.0 - 1e-7)
}

/// Log-factors of the bet (`canary_rate`, `legacy_rate`) against the nearest allowed pair, when the
/// canary has a share `share` of the requests. All zero when there is nothing to compare.
#[must_use]
pub fn lr_factors(canary_rate: f64, legacy_rate: f64, line: Line, share: f64) -> Factors {
    if line.ratio <= 0.0 {
        return Factors {
            canary_event: (canary_rate / line.increase).ln(),
            canary_none: ((1.0 - canary_rate) / (1.0 - line.increase)).ln(),
            legacy_event: 0.0,
            legacy_none: 0.0,
        };
    }
    if share <= 0.0 || share >= 1.0 {
        return Factors::default();
    }
    let [x] = nearest_allowed(&[canary_rate], legacy_rate, line, share);
    let y = line.allowed(x);
    Factors {
        canary_event: (canary_rate / y).ln(),
        canary_none: ((1.0 - canary_rate) / (1.0 - y)).ln(),
        legacy_event: (legacy_rate / x).ln(),
        legacy_none: ((1.0 - legacy_rate) / (1.0 - x)).ln(),
    }
}

/// The legacy rate of the pair on the line that is nearest in information to each bet.
///
/// The derivative of the distance, multiplied by `x (1-x) y (1-y)`, is a cubic with one sign change
/// between legacy's rate and the point of the line below the canary's. With no increase and a ratio of 1
/// it is the weighted mean; otherwise Newton's steps find it, with bisection as the guard rail. All bets
/// take their steps together, so that the processor need not wait for one division after the other.
pub(super) fn nearest_allowed<const N: usize>(
    canary_rates: &[f64; N],
    legacy_rate: f64,
    line: Line,
    share: f64,
) -> [f64; N] {
    let Line { ratio, increase } = line;
    let below = canary_rates.map(|rate| (rate - increase) / ratio);
    let most = ((1.0 - increase) / ratio).min(1.0) - 1e-12;
    let mut low = below.map(|below| legacy_rate.min(below).max(1e-12));
    let mut high = below.map(|below| legacy_rate.max(below).min(most));
    let mut nearest = below.map(|below| share * below + (1.0 - share) * legacy_rate);
    for ((x, low), high) in nearest.iter_mut().zip(&low).zip(&high) {
        *x = x.max(*low).min(high.max(*low));
    }
    if line.is_equality() {
        return nearest;
    }
    for _ in 0..100 {
        let mut all_done = true;
        let bounds = low.iter_mut().zip(&mut high);
        for ((x, rate), (low, high)) in nearest.iter_mut().zip(canary_rates).zip(bounds) {
            let (next, is_done) = nearer(line, share, (*rate, legacy_rate), *x, (low, high));
            all_done &= is_done;
            *x = next;
        }
        if all_done {
            break;
        }
    }
    nearest
}

/// One step towards the nearest allowed rate, and whether it was the last. Narrows the bounds.
#[inline]
fn nearer(
    line: Line,
    share: f64,
    (canary_rate, legacy_rate): (f64, f64),
    x: f64,
    (low, high): (&mut f64, &mut f64),
) -> (f64, bool) {
    let (canary, legacy) = (share * line.ratio, 1.0 - share);
    let y = line.allowed(x);
    let (x_none, y_none) = (1.0 - x, 1.0 - y);
    let (vx, vy) = (x * x_none, y * y_none);
    let (dy, dx) = (y - canary_rate, x - legacy_rate);
    let value = canary * dy * vx + legacy * dx * vy;
    let is_above = value > 0.0;
    *high = if is_above { x } else { *high };
    *low = if is_above { *low } else { x };
    let slope = canary * (line.ratio * vx + dy * (1.0 - 2.0 * x))
        + legacy * (vy + dx * line.ratio * (1.0 - 2.0 * y));
    let newton = x - value / slope;
    // Newton's error is squared by each step: after one this small it is below all digits. Rounding may
    // carry such a step over a bound, which must not send it back to the middle.
    let is_done = (newton - x).abs() <= 1e-8 * x.min(y).min(x_none.min(y_none));
    let is_within = (newton > *low) & (newton < *high);
    let next = if is_done | is_within {
        newton
    } else {
        0.5 * (*low + *high)
    };
    (next, is_done)
}

/// `ln(e^a + e^b)` that takes minus infinity for nothing.
#[must_use]
pub fn logaddexp(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY {
        return b;
    }
    if b == f64::NEG_INFINITY {
        return a;
    }
    a.max(b) + (-(a - b).abs()).exp().ln_1p()
}

/// `ln` of the sum of the exponentials; minus infinity for nothing, NaN if any value is.
pub fn logsumexp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let mut max = f64::NEG_INFINITY;
    for value in values.clone() {
        if value.is_nan() {
            return f64::NAN;
        }
        max = max.max(value);
    }
    if max.is_infinite() {
        return max;
    }
    max + values.map(|value| (value - max).exp()).sum::<f64>().ln()
}

/// Expected nats per canary request of one expert if the true rates are `canary` and `legacy`.
fn growth(expert: f64, legacy_hat: f64, line: Line, share: f64, canary: f64, legacy: f64) -> f64 {
    let f = lr_factors(expert, legacy_hat, line, share);
    let own = canary * f.canary_event + (1.0 - canary) * f.canary_none;
    if line.ratio <= 0.0 || share <= 0.0 || share >= 1.0 {
        return own;
    }
    let other = legacy * f.legacy_event + (1.0 - legacy) * f.legacy_none;
    own + (1.0 - share) / share * other
}

/// Canary requests until the best of the experts `odds` has grown by `nats`; `None` when none grows.
#[must_use]
pub fn requests_needed(
    odds: &[f64],
    line: Line,
    share: f64,
    (canary, legacy): (f64, f64),
    nats: f64,
) -> Option<f64> {
    let best = odds
        .iter()
        .map(|&odds| {
            let expert = target(odds, legacy, line);
            growth(expert, legacy, line, share, canary, legacy)
        })
        .fold(f64::NEG_INFINITY, f64::max);
    (best > 1e-12).then(|| nats.max(0.0) / best)
}

#[cfg(test)]
mod tests;
