//! Breakers, rescues both ways, and retries: what keeps clients from noticing an arm that fails.

use serde_json::Value;

use crate::client::post;
use crate::harness::{CHAT, Rig, Row, Setup, ask, in_time, rollout, served_by};

fn is_open(rollout: &Value, arm: &str) -> bool {
    rollout["arms"][arm]["breaker"] != "closed"
}

/// (arm, role, outcome, attempt) of every attempt.
fn told(rows: &[Row]) -> Vec<(&str, &str, &str, i64)> {
    rows.iter()
        .map(|row| (&*row.arm, &*row.role, &*row.outcome, row.attempt))
        .collect()
}

fn count(rows: &[Row], arm: &str, role: &str, outcome: &str) -> usize {
    let of_it = |it: &&(&str, &str, &str, i64)| (it.0, it.1, it.2) == (arm, role, outcome);
    told(rows).iter().filter(of_it).count()
}

/// A rollout at 0% whose requests go to legacy alone.
async fn legacy_only() -> Rig {
    Rig::at(0).await
}

/// A rollout without failover: all of it goes to the canary alone.
async fn canary_only() -> Rig {
    let rig = Rig::with(Setup {
        rollouts: rollout("default", "failover = false"),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}

/// Sends requests of its own to each arm, half to each.
async fn half() -> Rig {
    let rig = Rig::with(Setup {
        rollouts: rollout("default", "sticky = \"none\""),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 50).await;
    rig
}

#[tokio::test]
async fn a_dead_canary_is_dialled_no_more_and_comes_back_by_one_live_probe() {
    let rig = Rig::at(100).await;
    rig.canary.kill().await;
    let dialled = rig.canary.connections();
    for _ in 0..19 {
        assert_eq!(
            served_by(&rig.post(CHAT, &ask("ok", false)).await),
            "legacy"
        );
    }
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["errors"] == 19)
        .await;
    assert_eq!(rollout["arms"]["canary"]["breaker"], "closed");
    rig.post(CHAT, &ask("ok", true)).await;
    rig.wait_rollout("default", |r| is_open(r, "canary")).await;
    rig.canary.revive().await;
    // Turned away and answered by legacy, until the back-off lets one request through.
    let mut turned_away = 0;
    let recovered = async {
        while served_by(&rig.post(CHAT, &ask("ok", false)).await) == "legacy" {
            assert_eq!(rig.canary.connections(), dialled);
            turned_away += 1;
        }
    };
    in_time("the canary to be back", recovered).await;
    assert_eq!(
        rig.rollout("default").await["arms"]["canary"]["breaker"],
        "closed"
    );
    assert_eq!(
        served_by(&rig.post(CHAT, &ask("ok", false)).await),
        "canary"
    );
    let status = rig
        .wait_rollout("default", |r| {
            r["arms"]["canary"]["requests"] == 22 + turned_away
        })
        .await;
    // Whoever was turned away was assigned to the canary, and legacy had to rescue it.
    assert_eq!(status["arms"]["canary"]["errors"], 20 + turned_away);
    assert_eq!(status["arms"]["canary"]["masked"], 20 + turned_away);
    let rows = rig.finish().await.rows;
    assert_eq!(count(&rows, "canary", "live", "connect"), 20 + turned_away);
    assert_eq!(count(&rows, "canary", "live", "ok"), 2);
    assert_eq!(rows.len(), 2 * (20 + turned_away) + 2);
}

#[tokio::test]
async fn a_canary_that_says_nothing_in_time_opens_its_breaker_too() {
    let canary = "timeouts = { first-byte = \"100ms\" }".to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let asked = ask("fault-stall-head@canary", true);
    futures(20, || rig.post(CHAT, &asked)).await;
    rig.wait_rollout("default", |r| is_open(r, "canary")).await;
    assert_eq!(served_by(&rig.post(CHAT, &asked).await), "legacy");
    let rows = rig.finish().await.rows;
    assert_eq!(count(&rows, "canary", "live", "timeout-first-byte"), 21);
}

/// So many at once.
async fn futures<F: Future>(count: usize, make: impl Fn() -> F) -> Vec<F::Output> {
    let mut all: Vec<_> = (0..count).map(|_| Box::pin(make())).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn with_both_breakers_open_requests_are_tried_anyway() {
    let rig = half().await;
    rig.legacy.kill().await;
    rig.canary.kill().await;
    let both_open = async {
        loop {
            let answer = rig.post(CHAT, &ask("ok", false)).await;
            assert_eq!(answer.head.status, 502);
            assert_eq!(answer.head.header("x-should-retry"), Some("true"));
            assert_eq!(answer.head.header("retry-after"), Some("1"));
            let rollout = rig.rollout("default").await;
            if is_open(&rollout, "legacy") && is_open(&rollout, "canary") {
                return;
            }
        }
    };
    in_time("both breakers to open", both_open).await;
    rig.legacy.revive().await;
    rig.canary.revive().await;
    let both_closed = async {
        loop {
            assert_eq!(rig.post(CHAT, &ask("ok", false)).await.head.status, 200);
            let rollout = rig.rollout("default").await;
            if !is_open(&rollout, "legacy") && !is_open(&rollout, "canary") {
                return;
            }
        }
    };
    in_time("both breakers to close", both_closed).await;
}

#[tokio::test]
async fn requests_that_an_open_breaker_turned_away_trip_a_rollout() {
    let still = rollout("still", "match = { models = [\"still\"] }");
    let watched = "[[rollout]]\nname = \"watched\"\nwarm-up = 0\nsticky = \"none\"";
    let rig = Rig::with(Setup {
        rollouts: format!("{still}\n{watched}"),
        ..Setup::default()
    })
    .await;
    rig.set_weight("still", 100).await;
    rig.set_weight("watched", 50).await;
    for _ in 0..40 {
        rig.post(CHAT, &ask("ok", false)).await;
    }
    rig.canary.kill().await;
    for _ in 0..20 {
        rig.post(CHAT, &ask("still", false)).await;
    }
    rig.wait_rollout("still", |r| is_open(r, "canary")).await;
    rig.canary.revive().await;
    rig.canary.mute();
    let stopped = async {
        while rig.rollout("watched").await["weight"] != 0.0 {
            // A probe would wait for the silent canary: nobody waits for it.
            let (port, asked) = (rig.port(), ask("ok", false));
            tokio::spawn(async move { drop(post(port, CHAT, &asked).await) });
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    in_time("the rollout to be stopped", stopped).await;
}

#[tokio::test]
async fn a_dead_legacy_is_rescued_by_a_canary_that_takes_part_and_moves_no_weight() {
    let rig = half().await;
    for _ in 0..100 {
        rig.post(CHAT, &ask("ok", false)).await;
    }
    rig.legacy.kill().await;
    for stream in [true, false].repeat(12) {
        let answer = rig.post(CHAT, &ask("dead", stream)).await;
        assert_eq!((answer.head.status, served_by(&answer)), (200, "canary"));
    }
    let all_told = |r: &Value| {
        let requests = |arm: &str| r["arms"][arm]["requests"].as_u64().unwrap();
        requests("legacy") + requests("canary") == 124
    };
    let status = rig.wait_rollout("default", all_told).await;
    assert_eq!(status["weight"], 0.5);
    assert_eq!(status["arms"]["canary"]["errors"], 0);
    let errors = status["arms"]["legacy"]["errors"].as_u64().unwrap();
    assert!(errors > 0);
    assert_eq!(status["arms"]["legacy"]["masked"], errors);
    let mut rows = rig.finish().await.rows;
    rows.retain(|row| row.model.as_deref() == Some("dead"));
    let rescued = count(&rows, "canary", "rescue", "ok");
    let failed = rows.iter().filter(|row| row.arm == "legacy").count();
    assert_eq!((rescued as u64, failed as u64), (errors, errors));
}

#[tokio::test]
async fn a_rescue_by_the_canary_that_fails_as_well_shows_legacys_answer() {
    let rig = Rig::at(1).await;
    let answer = rig.post(CHAT, &ask("fault-503", false)).await;
    assert_eq!((answer.head.status, served_by(&answer)), (503, "legacy"));
    let rows = rig.finish().await.rows;
    let expected = [
        ("legacy", "live", "server-error", 1),
        ("canary", "rescue", "server-error", 2),
    ];
    assert_eq!(told(&rows), expected);
}

#[tokio::test]
async fn an_unknown_model_at_legacy_is_legacys_word() {
    let rig = Rig::at(1).await;
    let answer = rig.post(CHAT, &ask("fault-404-model@legacy", false)).await;
    assert_eq!((answer.head.status, served_by(&answer)), (404, "legacy"));
    assert!(rig.finish().await.canary.requests().is_empty());
}

#[tokio::test]
async fn an_arm_without_a_rescuer_is_tried_twice_more_and_its_first_failure_stays_counted() {
    for stream in [false, true] {
        let rig = legacy_only().await;
        for (model, status) in [("fault-times-2-503", 200), ("fault-times-3-500", 500)] {
            let answer = rig.post(CHAT, &ask(model, stream)).await;
            assert_eq!(answer.head.status, status, "{model} {stream}");
        }
        let rollout = rig
            .wait_rollout("default", |r| r["arms"]["legacy"]["requests"] == 2)
            .await;
        let legacy = &rollout["arms"]["legacy"];
        assert_eq!(
            (&legacy["errors"], &legacy["masked"]),
            (&Value::from(2), &Value::from(1))
        );
        let finished = rig.finish().await;
        let expected = [
            ("legacy", "live", "server-error", 1),
            ("legacy", "retry", "server-error", 2),
            ("legacy", "retry", "ok", 3),
            ("legacy", "live", "server-error", 1),
            ("legacy", "retry", "server-error", 2),
            ("legacy", "retry", "server-error", 3),
        ];
        assert_eq!(told(&finished.rows), expected);
        assert!(finished.canary.requests().is_empty());
    }
}

#[tokio::test]
async fn what_a_second_try_would_not_help_is_passed_on_at_once() {
    let rig = canary_only().await;
    for fault in [
        "401",
        "404-model",
        "429-quota",
        "400",
        "html",
        "429",
        "503-retry-after-7",
    ] {
        let model = format!("fault-{fault}");
        rig.post(CHAT, &ask(&model, false)).await;
        let asked = rig.canary.requests().len();
        assert_eq!(asked, 1, "{fault}");
        rig.canary.clear();
        // Three refused keys in a row would stop the rollout.
        rig.post(CHAT, &ask("ok", false)).await;
        rig.canary.clear();
    }
}

#[tokio::test]
async fn a_request_that_the_client_repeats_by_itself_is_not_repeated_here() {
    let rig = legacy_only().await;
    let mut client = rig.client().await;
    let headers = [("x-stainless-retry-count", "1")];
    let body = ask("fault-503", false);
    let answer = crate::harness::exchange(&mut client, CHAT, &headers, &body).await;
    assert_eq!(answer.head.status, 503);
    assert_eq!(rig.legacy.requests().len(), 1);
}

#[tokio::test]
async fn retries_of_an_outage_stay_within_the_budget() {
    const REQUESTS: usize = 800;
    let rig = legacy_only().await;
    let asked = ask("fault-500", false);
    for _ in 0..REQUESTS / 80 {
        for answer in futures(80, || rig.post(CHAT, &asked)).await {
            assert_eq!(answer.head.status, 500);
        }
    }
    let load = rig.legacy.requests().len();
    assert!(load > REQUESTS, "nothing was tried again");
    assert!(load * 10 < REQUESTS * 13, "{load} for {REQUESTS} requests");
}

#[tokio::test]
async fn a_short_wait_of_an_exhausted_arm_is_waited_once_and_a_long_one_is_handed_on() {
    // The fault, the status and the wait that the client sees, and how often the arm was asked.
    let cases = [
        ("fault-times-1-429-retry-after-1", 200, None, 2),
        ("fault-429-retry-after-1", 429, Some("1"), 2),
        ("fault-429-retry-after-3", 429, Some("3"), 1),
        ("fault-429-retry-after-86400", 429, Some("120"), 1),
        ("fault-429", 429, None, 1),
        ("fault-503-retry-after-121", 503, Some("120"), 1),
    ];
    for rig in [legacy_only().await, canary_only().await] {
        for (model, status, wait, asked) in cases {
            let answer = rig.post(CHAT, &ask(model, false)).await;
            assert_eq!(answer.head.status, status, "{model}");
            assert_eq!(answer.head.header("retry-after"), wait, "{model}");
            let requests = rig.legacy.requests().len() + rig.canary.requests().len();
            assert_eq!(requests, asked, "{model}");
            rig.legacy.clear();
            rig.canary.clear();
        }
        let rows = rig.finish().await.rows;
        let retried = rows.iter().filter(|row| row.role == "retry");
        assert_eq!(retried.count(), 2);
    }
}

#[tokio::test]
async fn an_exhausted_legacy_is_helped_out_by_a_canary_that_takes_part() {
    let rig = Rig::at(1).await;
    let answer = rig
        .post(CHAT, &ask("fault-429-retry-after-1@legacy", true))
        .await;
    assert_eq!((answer.head.status, served_by(&answer)), (200, "canary"));
    let rows = rig.finish().await.rows;
    let expected = [
        ("legacy", "live", "rate-limited", 1),
        ("canary", "rescue", "ok", 2),
    ];
    assert_eq!(told(&rows), expected);
}

const SLOW: &str = "fault-slow-head-300";

#[tokio::test]
async fn what_the_canary_has_no_room_for_goes_to_legacy_and_is_no_evidence() {
    let rig = Rig::with(Setup {
        canary: "max-concurrency = 2\nqueue = 1".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let asked = ask(&format!("{SLOW}@canary"), true);
    let answers = futures(6, || rig.post(CHAT, &asked)).await;
    let by_canary = answers.iter().filter(|it| served_by(it) == "canary");
    assert_eq!(by_canary.count(), 3, "two at once, and one that waited");
    let all_told = |r: &Value| r["arms"]["canary"]["requests"] == 6;
    let canary = rig.wait_rollout("default", all_told).await["arms"]["canary"].clone();
    for (what, expected) in [("errors", 0), ("masked", 0), ("under_way", 0)] {
        assert_eq!(canary[what], expected, "{what}: {canary}");
    }
    let rows = rig.finish().await.rows;
    assert_eq!(count(&rows, "canary", "live", "over-limit"), 3);
    assert_eq!(count(&rows, "legacy", "overflow", "ok"), 3);
    assert_eq!(count(&rows, "canary", "live", "ok"), 3);
}

#[tokio::test]
async fn what_legacy_has_no_room_for_goes_to_a_canary_that_takes_part_else_clients_come_again() {
    for percent in [0, 1] {
        let rig = Rig::with(Setup {
            legacy: "max-concurrency = 1\nqueue = 0".to_owned(),
            ..Setup::default()
        })
        .await;
        rig.set_weight("default", percent).await;
        let asked = ask(&format!("{SLOW}@legacy"), false);
        let answers = futures(3, || rig.post(CHAT, &asked)).await;
        let served = answers.iter().filter(|it| it.head.status == 200);
        assert_eq!(served.count(), if percent == 0 { 1 } else { 3 });
        for answer in answers.iter().filter(|it| it.head.status != 200) {
            assert_eq!(answer.head.status, 503);
            assert_eq!(answer.head.header("x-cutover-error"), Some("over-limit"));
            assert_eq!(answer.head.header("retry-after"), Some("1"));
            assert_eq!(answer.head.header("x-should-retry"), Some("true"));
        }
        // A slot comes back with the end of its answer.
        assert_eq!(rig.post(CHAT, &ask("ok", true)).await.head.status, 200);
        let rows = rig.finish().await.rows;
        assert_eq!(count(&rows, "legacy", "live", "over-limit"), 2);
        let taken = if percent == 0 { 0 } else { 2 };
        assert_eq!(count(&rows, "canary", "overflow", "ok"), taken);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_place_for_more_than_a_second() {
    let rig = Rig::with(Setup {
        canary: "max-concurrency = 1".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let (long, quick) = (ask("fault-slow-head-1500@canary", false), ask("ok", false));
    let (first, second) = tokio::join!(rig.post(CHAT, &long), async {
        crate::harness::wait_until("the canary is busy", || rig.canary.requests().len() == 1).await;
        rig.post(CHAT, &quick).await
    });
    assert_eq!(
        (served_by(&first), served_by(&second)),
        ("canary", "legacy")
    );
    let rows = rig.finish().await.rows;
    let over = rows.iter().find(|row| row.outcome == "over-limit").unwrap();
    assert!(over.latency_ms >= 1_000.0, "{over:?}");
    assert_eq!(count(&rows, "legacy", "overflow", "ok"), 1);
}

#[tokio::test]
async fn both_arms_have_a_connection_ready_before_the_first_request_and_again_when_it_is_closed() {
    let rig = legacy_only().await;
    let mut before = [0, 0];
    for _ in 0..2 {
        let providers = [&rig.legacy, &rig.canary];
        crate::harness::wait_until("both arms are connected to", || {
            providers
                .iter()
                .zip(before)
                .all(|(it, before)| it.connections() > before)
        })
        .await;
        before = providers.map(|it| it.connections());
        // What the provider closes is opened again.
        rig.legacy.kill().await;
        rig.canary.kill().await;
        rig.legacy.revive().await;
        rig.canary.revive().await;
    }
    rig.wait_rollout("default", |r| r["arms"]["legacy"]["breaker"] == "closed")
        .await;
}
