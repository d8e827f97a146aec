//! Clients that leave in the middle of an answer, and what is read of it without them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::harness::{CHAT, MESSAGES, Rig, Setup, ask, in_time, rollout, served_by};

/// A canary without a rescuer, so that heads pass as they come.
async fn rig(drain: &str, canary: &str) -> Rig {
    let rig = Rig::with(Setup {
        proxy: format!("drain-after-disconnect = \"{drain}\""),
        canary: canary.to_owned(),
        rollouts: rollout("default", "failover = false"),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}

/// Asks, reads the head and `parts` pieces, and leaves.
async fn leave(rig: &Rig, target: &str, body: &Value, parts: usize) {
    let mut client = Client::connect(rig.port()).await.unwrap();
    let body = body.to_string();
    let request = client.request("POST", target, &[], body.as_bytes());
    request.await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    for _ in 0..parts {
        client.part().await.unwrap().unwrap();
    }
}

fn output_tokens(rollout: &Value) -> u64 {
    let tokens = &rollout["arms"]["canary"]["tokens"];
    tokens["output"].as_u64().unwrap()
}

#[tokio::test]
async fn the_rest_of_an_answer_is_read_for_its_usage_and_its_connection_goes_on() {
    // Places at the arm are given back by then, too.
    let rig = rig("20s", "max-concurrency = 1\nqueue = 0").await;
    let mut used = 0;
    for (target, stream) in [(CHAT, true), (MESSAGES, true), (CHAT, false)] {
        let began = Instant::now();
        let gap_ms = if stream { 60 } else { 600 };
        let body = ask(&format!("fault-gap-{gap_ms}"), stream);
        leave(&rig, target, &body, usize::from(stream)).await;
        let left = began.elapsed();
        let what = format!("{target} stream: {stream}");
        let rollout = rig
            .wait_rollout("default", |r| output_tokens(r) > used)
            .await;
        let whole = began.elapsed();
        assert!(whole > left, "{what}");
        used = output_tokens(&rollout);
        assert_eq!(rollout["arms"]["canary"]["errors"], 0, "{what}");
        let of = rig.canary.requests().last().unwrap().connection;
        let next = rig.post(CHAT, &ask("ok", false)).await;
        assert_eq!((next.head.status, served_by(&next)), (200, "canary"));
        let reused = rig.canary.requests().last().unwrap().connection;
        assert_eq!(reused, of, "{what}");
        let counted = rig
            .wait_rollout("default", |r| output_tokens(r) > used)
            .await;
        used = output_tokens(&counted);
    }
    let rows = rig.finish().await.rows;
    let gone = rows.iter().filter(|row| row.outcome == "client-gone");
    assert_eq!(gone.clone().count(), 3, "{rows:#?}");
    for row in gone {
        let (_, _, output) = row.tokens.unwrap();
        assert!(output > 0, "{row:?}");
    }
    let whole = rows.iter().filter(|row| row.outcome == "ok");
    assert_eq!(whole.count(), 3, "{rows:#?}");
    // The time until the client left, not until the answer was whole.
    assert!(rows[4].latency_ms < 600.0, "{:?}", rows[4]);
}

#[tokio::test]
async fn an_answer_that_is_held_back_is_read_on_as_well() {
    let rig = Rig::with(Setup {
        proxy: "drain-after-disconnect = \"20s\"".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let mut client = rig.client().await;
    let body = ask("fault-gap-2500", false).to_string();
    let request = client.request("POST", CHAT, &[], body.as_bytes());
    request.await.unwrap();
    // The head is there at once and the body later; the client has neither.
    assert!(client.is_silent_for(Duration::from_millis(800)).await);
    drop(client);
    rig.wait_rollout("default", |r| output_tokens(r) > 0).await;
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    assert_eq!(finished.rows[0].outcome, "client-gone");
}

#[tokio::test]
async fn an_answer_is_read_on_no_longer_than_is_wanted() {
    let rig = rig("200ms", "").await;
    let mut client = Client::connect(rig.port()).await.unwrap();
    let body = ask("fault-stall-after-1000", true).to_string();
    let request = client.request("POST", CHAT, &[], body.as_bytes());
    request.await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    // Past the events without content, which may come as a part of their own.
    let mut seen = 0;
    while seen < 700 {
        seen += client.part().await.unwrap().unwrap().len();
    }
    drop(client);
    rig.canary.wait_hung_up(1).await;
    let rows = rig.finish().await.rows;
    assert_eq!(rows[0].outcome, "client-gone");
    assert!(rows[0].ttft_ms.is_some(), "{:?}", rows[0]);
}

#[tokio::test]
async fn at_most_256_answers_are_read_on_at_once_and_none_outlives_the_worker() {
    let rig = rig("10m", "").await;
    let body = ask("fault-stall-after-1000", true);
    for _ in 0..256 {
        leave(&rig, CHAT, &body, 1).await;
    }
    let all_left = |r: &Value| r["arms"]["canary"]["under_way"] == 256;
    rig.wait_rollout("default", all_left).await;
    for number in 1..=3 {
        leave(&rig, CHAT, &body, 1).await;
        rig.canary.wait_hung_up(number).await;
    }
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["requests"] == 3)
        .await;
    assert_eq!(rollout["arms"]["canary"]["under_way"], 256);
    let finished = in_time("the end", rig.finish()).await;
    assert_eq!(finished.rows.len(), 259);
    for row in finished.rows {
        assert_eq!(row.outcome, "client-gone", "{row:?}");
    }
}
