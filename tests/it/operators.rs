//! Operators' commands beside the controller's own decisions.

use crate::harness::{CHAT, Rig, Setup, ask, rollout};

#[tokio::test]
async fn a_refused_command_takes_nothing_from_what_is_decided_in_the_same_look() {
    let waiting = rollout("default", "").replace("warm-up = 0", "warm-up = 20");
    let rig = Rig::with(Setup {
        rollouts: waiting,
        ..Setup::default()
    })
    .await;
    for _ in 0..20 {
        rig.post(CHAT, &ask("ok", false)).await;
    }
    // Asked without a pause, so that the look that ends the warm-up is that of a refused command.
    let started = async {
        while rig.rollout("default").await["weight"] == 0.0 {
            rig.admin("POST", "/api/v1/rollouts/default/retry", "")
                .await;
        }
    };
    crate::harness::in_time("the first stage begins", started).await;
}
