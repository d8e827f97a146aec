//! The statistical promises at their full size: minutes, not seconds.
//!
//! `make test-long` runs them; plain `cargo test` only compiles them. Each prints what it measured and the
//! seed, so that `cutover::simulate` shows any run again. The promises are nineteen; some are proven at full
//! size by tests that are quick, and are not repeated here:
//!
//! | promise | where |
//! |---|---|
//! | 1 golden vectors | `controller::stats::tests`, `controller::ledger::tests` |
//! | 2 a bet is fair on the line, evidence is additive | `controller::stats::tests` (properties) |
//! | 3 one arm alone proves nothing, nor do a million empty minutes | `controller::ledger::tests` |
//! | 4 a dead canary trips within four requests | [`harm`] |
//! | 5 good days do not bury an outage | [`harm`], `controller::tests::statistics` (2 half days) |
//! | 6 two percent errors roll back after some 2200 requests | [`harm`] |
//! | 7 an equal canary climbs every stage within a day | [`peace`] |
//! | 8 at its margin a canary is neither rolled back nor promoted | [`peace`] |
//! | 9 what befalls both arms is no harm | [`peace`] |
//! | 10 a slow canary rolls back by the right guard | [`harm`] |
//! | 11 a faster median hides no heavy tail | [`harm`] |
//! | 12 independent incidents are no proof, and would be without the cap | [`peace`] |
//! | 13 clustered errors are worth less | [`peace`], `controller::ledger::tests` |
//! | 14 a restart changes nothing | `controller::tests::{random, scenarios}`, `tests/it/daemon/restart.rs` |
//! | 15 a wrong split is found as fast as the reference finds it | `controller::split::tests` |
//! | 16 a change of weight is a new cell; rollback evidence never leads | `controller::evidence`, `controller::ledger::tests` |
//! | 17 a canary that hangs trips, and is never promoted meanwhile | [`frozen`] |
//! | 18 low traffic is planned and announced | `controller::plan::tests`, `controller::tests::announce`, [`baselines`] |
//! | 19 the naive rules fail as published | [`baselines`] |

#[cfg(test)]
mod baselines;
#[cfg(test)]
mod course;
#[cfg(test)]
mod frozen;
#[cfg(test)]
mod harm;
#[cfg(test)]
mod peace;
