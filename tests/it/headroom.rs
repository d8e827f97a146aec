//! What the canary says of its rate limits: shown, and held against the next stage.

use serde_json::json;

use crate::harness::{CHAT, Rig, Setup, ask, in_time, rollout, served_by};

#[tokio::test]
async fn what_an_answer_says_of_its_limits_is_shown_and_passed_on() {
    let rig = Rig::at(100).await;
    let arms = rig.rollout("default").await["arms"].clone();
    assert!(arms["canary"]["headroom"].is_null(), "{arms}");
    for (model, limit, remaining, share) in [
        ("fault-room-450-of-500@canary", 500, 450, 0.9),
        ("fault-room-30-of-500@canary", 500, 30, 0.06),
        ("fault-room-400-of-500@canary", 500, 400, 0.06),
        // What is no limit leaves what was known.
        ("fault-room-0-of--1@canary", 500, 400, 0.06),
        ("ok", 500, 400, 0.06),
    ] {
        let answer = rig.post(CHAT, &ask(model, false)).await;
        assert_eq!(served_by(&answer), "canary");
        if model.ends_with("30-of-500@canary") {
            let left = answer.head.header("x-ratelimit-remaining-requests");
            assert_eq!(left, Some("30"));
        }
        let arms = rig.rollout("default").await["arms"].clone();
        let expected = json!({
            "requests": {"limit": limit, "remaining": remaining, "share": share},
            "tokens": null,
        });
        assert_eq!(arms["canary"]["headroom"], expected, "{model}");
        assert!(arms["legacy"]["headroom"].is_null(), "{arms}");
    }
}

#[tokio::test]
async fn a_limit_that_is_nearly_used_up_holds_a_promotion_but_no_operator() {
    let quick = rollout("default", "sticky = \"none\"").replace(
        "{ weight = \"1%\", dwell = \"30d\" }",
        "{ weight = \"50%\", dwell = \"0s\" }",
    );
    let rig = Rig::with(Setup {
        rollouts: quick,
        ..Setup::default()
    })
    .await;
    rig.wait_rollout("default", |r| r["weight"] == 0.5).await;
    let held = async {
        loop {
            for _ in 0..20 {
                rig.post(CHAT, &ask("fault-room-30-of-500@canary", false))
                    .await;
            }
            let rollout = rig.rollout("default").await;
            if rollout["state"] == "held" {
                return rollout;
            }
        }
    };
    let rollout = in_time("the promotion to be held", held).await;
    let reason = rollout["reason"].as_str().unwrap();
    let expected =
        "the canary's request limit of 500 is 94% used at 50%; 100% would use 188% (at most 90%)";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(rollout["weight"], 0.5);
    let promote = rig
        .admin("POST", "/api/v1/rollouts/default/promote", "")
        .await;
    assert_eq!(promote.head.status, 200, "{}", promote.text());
    rig.wait_rollout("default", |r| r["weight"] == 1.0).await;
    let log = rig
        .admin("GET", "/api/v1/decisions?limit=10", "")
        .await
        .json();
    let kinds: Vec<_> = log["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decision| decision["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["promote", "hold", "start"], "{log}");
}
