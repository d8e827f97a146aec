//! Recorded evidence against other thresholds: what would have been decided when.
//!
//! Pure. The cells that the store kept go through [`crate::controller::step()`], the very code that decides
//! live, under the rules of another configuration and in the time of the record. Commands of operators,
//! probes and refused keys are replayed as they happened.
//!
//! **What is not known.** The recorded traffic had the recorded weight. Where the replayed weight is another
//! one, the replay is shown the recorded cells all the same, as evidence of the weight that it wants: a rate
//! is a rate at any weight, but proof would have come faster or slower than it comes here. Where the replayed
//! weight is 0, it sees nothing of the canary, and its probes are answered as the canary's recorded requests
//! of that time fared. Where the recorded weight is 0, there is nothing to see. What the cells do not hold
//! (rate limits, routing, open breakers, what was under way) is taken to be well.
//!
//! Reading order: [`recorded`] (what happened), `cut` (parts of cells), `seed` (what was in force), [`replay`], [`compare`].
#![deny(clippy::disallowed_methods)]

pub mod compare;
mod cut;
pub mod recorded;
pub mod replay;
mod seed;

pub use recorded::Recorded;
pub use replay::Replay;
pub use seed::Postponed;

#[cfg(test)]
mod tests;
