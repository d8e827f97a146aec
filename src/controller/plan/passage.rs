//! How long a drifting sum takes to climb to a level: the inverse Gaussian law, and the slowest of several.
//!
//! Pure functions of numbers. The evidence of health of a guard grows by small steps; the number of steps
//! until it is enough follows this law closely, and a stage ends with the slowest of its guards.
#![deny(clippy::disallowed_methods)]

use std::f64::consts::TAU;

/// Points of equal probability that stand for a distribution; a prime, so that lattices over it are even.
pub(super) const POINTS: usize = 257;

/// The climb of one sum to its level, in steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Passage {
    /// Mean number of steps.
    pub(super) mean: f64,
    /// Shape of the law: the level squared over the variance of a step.
    shape: f64,
}

impl Passage {
    /// A sum that grows by `drift` per step with `variance`, up to `level`; `None` if it does not grow.
    pub(super) fn new(level: f64, drift: f64, variance: f64) -> Option<Self> {
        if drift <= 1e-12 || level <= 0.0 {
            return None;
        }
        let mean = level / drift;
        // A sum without scatter would divide by zero; a thousandth of the mean is as good as none.
        let shape = (level * level / variance.max(f64::MIN_POSITIVE)).min(1e6 * mean);
        Some(Self { mean, shape })
    }

    /// The same climb when each step takes `factor` steps.
    pub(super) fn stretched(self, factor: f64) -> Self {
        Self {
            mean: self.mean * factor,
            shape: self.shape * factor,
        }
    }

    /// Probability that it takes at most `steps`.
    fn cdf(self, steps: f64) -> f64 {
        let root = (self.shape / steps).sqrt();
        let reached = normal(root * (steps / self.mean - 1.0));
        let log_rest =
            2.0 * self.shape / self.mean + log_upper_tail(root * (steps / self.mean + 1.0));
        (reached + log_rest.exp()).min(1.0)
    }
}

/// Steps until the last of the climbs is over, at [`POINTS`] points of equal probability, rising.
/// They are taken as independent, which makes the slowest a little slower than it is.
pub(super) fn slowest(passages: &[Passage]) -> Vec<f64> {
    let longest = passages.iter().map(|p| p.mean).fold(0.0, f64::max);
    if longest <= 0.0 {
        return vec![0.0; POINTS];
    }
    let done = |steps: f64| passages.iter().map(|p| p.cdf(steps)).product::<f64>();
    let mut points = Vec::with_capacity(POINTS);
    let (mut at, mut seen) = (0.0, 0.0);
    let mut next = longest * 2e-3;
    while points.len() < POINTS && next < longest * 1e3 {
        let share = done(next).max(seen);
        while points.len() < POINTS {
            let wanted = (points.len() as f64 + 0.5) / POINTS as f64;
            if share < wanted {
                break;
            }
            points.push(at + (next - at) * (wanted - seen) / (share - seen));
        }
        (at, seen) = (next, share);
        next *= 1.05;
    }
    points.resize(POINTS, at);
    points
}

/// The normal distribution function.
pub(super) fn normal(x: f64) -> f64 {
    if x < 0.0 {
        log_upper_tail(-x).exp()
    } else {
        1.0 - log_upper_tail(x).exp()
    }
}

/// Logarithm of the probability that a normal draw exceeds `x`, for `x` of at least 0.
fn log_upper_tail(x: f64) -> f64 {
    let log_density = -0.5 * x * x - 0.5 * TAU.ln();
    if x < 3.0 {
        // 1/2 minus density times x + x^3/3 + x^5/(3 5) + ...
        let (mut term, mut sum) = (x, x);
        for odd in 1..60 {
            term *= x * x / f64::from(2 * odd + 1);
            sum += term;
        }
        return (0.5 - log_density.exp() * sum).ln();
    }
    // Mills' ratio as a continued fraction, from the far end.
    let mut ratio = x;
    for step in (1..60).rev() {
        ratio = x + f64::from(step) / ratio;
    }
    log_density - ratio.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_law_has_its_known_values() {
        let cases = [
            (0.0, 0.5),
            (1.0, 0.841_344_746),
            (-1.959_964, 0.025),
            (2.326_348, 0.99),
            (-3.5, 2.326_291e-4),
            (-8.0, 6.220_961e-16),
        ];
        for (x, expected) in cases {
            assert!(
                (normal(x) / expected - 1.0).abs() < 1e-6,
                "{x}: {}",
                normal(x)
            );
        }
        let (below, above) = (log_upper_tail(3.0 - 1e-9), log_upper_tail(3.0));
        assert!((below - above).abs() < 1e-7);
    }

    #[test]
    fn one_climb_has_its_mean_and_several_take_longer() {
        let one = Passage::new(3.7, 0.001, 0.002).unwrap();
        let points = slowest(&[one]);
        let mean = points.iter().sum::<f64>() / POINTS as f64;
        assert!((mean / one.mean - 1.0).abs() < 0.01, "{mean}");
        assert!(points.is_sorted());
        let two = slowest(&[one, one]);
        assert!(two.iter().zip(&points).all(|(two, one)| two > one));
        let certain = slowest(&[Passage::new(3.0, 0.1, 0.0).unwrap()]);
        assert!((certain[0] / 30.0 - 1.0).abs() < 0.06, "{}", certain[0]);
        assert!(Passage::new(3.0, 0.0, 1.0).is_none());
        assert!(slowest(&[]).iter().all(|&steps| steps == 0.0));
    }
}
