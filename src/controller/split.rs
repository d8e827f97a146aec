//! Does the measured split match the weight? A split that is off voids every comparison.
//!
//! Pure. Counts are taken when requests are routed, never when they end: a canary that hangs must not look
//! like a small share. What follows from an alarm is decided in [`mod@super::step`].
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

/// First live attempts that were routed under the present weight since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// Routed to the canary.
    pub canary: u64,
    /// Routed to legacy.
    pub legacy: u64,
    /// Of both, those that went to another arm than their bucket names.
    pub strays: u64,
}
