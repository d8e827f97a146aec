//! The decision core: evidence in, decisions out.
//!
//! Pure. [`step::step`] takes the policy, the state, what was seen and the time, and returns the new state
//! and its [`effect::Effect`]s; the driver performs them. It reads no clock, draws no chance, opens nothing,
//! so that a test, the simulator and a backtest run the very code that decides in production.
//!
//! Reading order: [`policy`] (what is asked), [`evidence`] (what is seen), [`stats`] (what it is worth),
//! [`guard`] (which events count), `bets` and [`ledger`] (what is proven), [`state`] (what is remembered),
//! [`mod@step`] with `alarm`, `retreat`, `recent`, `rise` and `operator`, and [`mod@adopt`] (what happens),
//! [`effect`] and [`mod@view`] with [`verdict`] (what is said).
#![deny(clippy::disallowed_methods)]

pub mod adopt;
mod alarm;
mod announce;
mod bets;
pub mod effect;
pub mod evidence;
mod exact;
pub mod guard;
pub mod headroom;
mod histogram;
pub mod ledger;
mod legacy;
mod mass;
mod operator;
pub mod phase;
pub mod plan;
pub mod policy;
mod proof;
mod recent;
pub mod reference;
mod retreat;
mod rise;
mod slices;
pub mod split;
mod standing;
pub mod state;
pub mod stats;
pub mod step;
mod sums;
pub mod verdict;
pub mod view;
mod words;

pub use adopt::{Reset, adopt, stop};
pub use effect::{By, Decision, DecisionEvidence, DecisionKind, Effect};
pub use phase::Phase;
pub use state::State;
pub use step::{Action, Command, Event, Input, Step, step};
pub use view::{View, view};

#[cfg(test)]
mod tests;
