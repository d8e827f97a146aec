//! The two sides of a migration and the share between them: words that every other module uses.
//!
//! Plain values only. Nothing here may know of requests, sockets, files or time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One side of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The provider that the traffic comes from, and the one that is trusted.
    Legacy,
    /// The provider that the traffic moves to.
    Canary,
}

impl Arm {
    /// Both arms, legacy first.
    pub const BOTH: [Self; 2] = [Self::Legacy, Self::Canary];

    /// The word used in configuration, logs, the store and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Canary => "canary",
        }
    }

    /// The arm that rescues a request which failed on this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Canary,
            Self::Canary => Self::Legacy,
        }
    }

    /// The inverse of [`Arm::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|arm| arm.as_str() == word)
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One value for each arm: two slots, so that no lookup can miss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerArm<T> {
    /// The value for [`Arm::Legacy`].
    pub legacy: T,
    /// The value for [`Arm::Canary`].
    pub canary: T,
}

impl<T> PerArm<T> {
    /// Builds both slots from one function of the arm.
    pub fn from_fn(mut make: impl FnMut(Arm) -> T) -> Self {
        Self {
            legacy: make(Arm::Legacy),
            canary: make(Arm::Canary),
        }
    }

    /// The slot of `arm`.
    #[must_use]
    pub const fn get(&self, arm: Arm) -> &T {
        match arm {
            Arm::Legacy => &self.legacy,
            Arm::Canary => &self.canary,
        }
    }

    /// The slot of `arm`, to be changed.
    pub const fn get_mut(&mut self, arm: Arm) -> &mut T {
        match arm {
            Arm::Legacy => &mut self.legacy,
            Arm::Canary => &mut self.canary,
        }
    }
}

/// Share of a rollout's eligible requests that is assigned to the canary, in basis points.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Weight(u16);

impl Weight {
    /// Nothing goes to the canary.
    pub const ZERO: Self = Self(0);
    /// Everything goes to the canary.
    pub const FULL: Self = Self(10_000);

    /// A weight of `bps` basis points; `None` above 100%.
    #[must_use]
    pub const fn from_bps(bps: u16) -> Option<Self> {
        if bps <= Self::FULL.0 {
            Some(Self(bps))
        } else {
            None
        }
    }

    /// Basis points, 0 to 10,000.
    #[must_use]
    pub const fn bps(self) -> u16 {
        self.0
    }

    /// The same share as a fraction, 0.0 to 1.0.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Reads `25%`, `0.5%` or `25 %`; at most two decimals, since the unit is the basis point.
    ///
    /// # Errors
    /// Says in one sentence what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected =
            || format!("`{text}` is no weight; write a share of 0% to 100%, like \"5%\"");
        let number = text.trim().strip_suffix('%').ok_or_else(expected)?.trim();
        let percent: f64 = number.parse().map_err(|_| expected())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(expected());
        }
        let bps = (percent * 100.0).round();
        if (percent * 100.0 - bps).abs() > 1e-6 {
            return Err(format!(
                "`{text}` is finer than 0.01%, the smallest step of a weight"
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked above"
        )]
        Ok(Self(bps as u16))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
            rest => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_read_back_as_they_are_written() {
        for bps in 0..=10_000 {
            let weight = Weight::from_bps(bps).unwrap();
            assert_eq!(Weight::parse(&weight.to_string()), Ok(weight));
        }
    }

    #[test]
    fn a_weight_that_is_no_share_is_refused() {
        for text in ["", "5", "-1%", "100.01%", "0.001%", "NaN%", "five%", "1e9%"] {
            assert!(Weight::parse(text).is_err(), "{text} was taken");
        }
    }
}
