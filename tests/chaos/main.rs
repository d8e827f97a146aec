//! Chaos and soak: the real binary between real processes, under load, while everything around it breaks.
//!
//! `make chaos` plays seeded rounds of faults: kills of cutover, providers that are killed, stopped or lie, a
//! store whose disk is full, whose file is locked, read-only, corrupt or deleted, clocks that jump, no
//! descriptors left, a configuration that is garbage, and clients by the hundred that are idle, slow or
//! malformed. Clients keep a ledger of every request; at the end of a round it is compared with the status and
//! with the store. `make soak` is a long, quiet and fast run that looks for what grows.
//!
//! Plain `cargo test` plays one short round. What a run prints is enough to play it again: `CHAOS_SEED`,
//! and `CHAOS_ROUND` for one round of it. `CUTOVER_BIN` names another binary than the one just built.

/// The raw client and the scripted provider of the integration tests.
#[cfg(test)]
#[path = "../it"]
#[expect(unused_imports, reason = "the integration tests need more of it")]
mod it {
    pub(crate) mod client;
    pub(crate) mod provider;
}
#[cfg(test)]
pub(crate) use it::client;

#[cfg(test)]
mod clients;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod load;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod play;
#[cfg(test)]
mod round;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod standin;
#[cfg(test)]
mod store;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod watch;

/// The key that only the canary may see.
#[cfg(test)]
const CANARY_KEY: &str = "sk-canary-of-chaos";
/// The key of all clients, which only legacy may see.
#[cfg(test)]
const CLIENT_KEY: &str = "sk-client-of-chaos";
/// What should take a second may take this long on a busy machine.
#[cfg(test)]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
