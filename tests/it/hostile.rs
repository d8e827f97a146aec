//! Clients and arms that mean harm: each attack gets a clear refusal or a close, and nobody else notices.
//!
//! A bystander asks all the time beside an attack, and must neither see an error nor wait for long.

mod arms;
mod bystander;
mod flood;
mod framing;
mod h2;
mod misuse;
mod sink;
mod slow;

use crate::harness::{Rig, Setup, rollout};

/// A daemon at 100% canary that nobody rescues, with these lines in `[proxy]`.
async fn rig(proxy: &str) -> Rig {
    rig_with(Setup {
        proxy: proxy.to_owned(),
        ..Setup::default()
    })
    .await
}

async fn rig_with(setup: Setup) -> Rig {
    let rig = Rig::with(Setup {
        rollouts: rollout("default", "failover = false"),
        ..setup
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}
