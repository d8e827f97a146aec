//! Failures of the canary: rescued before content, never hidden after it, always booked.

use serde_json::Value;

use crate::client::{Answer, End, post};
use crate::harness::{CHAT, MESSAGES, Rig, Row, Setup, ask, rollout, served_by};

const BOTH: [bool; 2] = [false, true];

/// Asks for a fault at the canary and gets what legacy alone would say, byte for byte.
async fn rescued(rig: &Rig, path: &str, model: &str, stream: bool) {
    let answer = rig.post(path, &ask(model, stream)).await;
    assert_eq!(
        (answer.head.status, answer.end),
        (200, End::Clean),
        "{path} {model} {stream}"
    );
    assert_eq!(served_by(&answer), "legacy", "{path} {model} {stream}");
    let direct = post(rig.legacy.port(), path, &ask(model, stream))
        .await
        .unwrap();
    assert!(
        answer.body == direct.body,
        "{path} {model} {stream}: {}",
        answer.text()
    );
}

/// The rows of one request: the canary's failure, then legacy's rescue.
fn check_rows(rows: &[Row], model: &str, stream: bool, outcome: &str) {
    let of_it = |row: &&Row| row.model.as_deref() == Some(model) && row.streamed == stream;
    let found: Vec<_> = rows
        .iter()
        .filter(of_it)
        .map(|row| {
            (
                row.arm.as_str(),
                row.role.as_str(),
                row.outcome.as_str(),
                row.attempt,
            )
        })
        .collect();
    let expected = [
        ("canary", "live", outcome, 1),
        ("legacy", "rescue", "ok", 2),
    ];
    assert_eq!(found, expected, "{model} {stream}");
}

#[tokio::test]
async fn every_failure_before_content_is_rescued_and_booked_against_the_canary() {
    // The fault, how a plain answer with it is booked, and how a stream.
    let faults = [
        ("reset-before-head", "reset", "reset"),
        ("close-before-head", "reset", "reset"),
        ("reset-at-20", "reset", "reset"),
        ("truncate-at-20", "reset", "reset"),
        ("end-at-20", "soft-error", "soft-error"),
        ("500", "server-error", "server-error"),
        ("503-retry-after-2", "server-error", "server-error"),
        ("529", "server-error", "server-error"),
        ("401", "auth", "auth"),
        ("404-model", "parity", "parity"),
        ("408", "server-error", "server-error"),
        ("204", "soft-error", "soft-error"),
        ("400-param", "parity", "parity"),
        ("soft-error", "soft-error", "soft-error"),
        ("html", "soft-error", "soft-error"),
        ("early-error", "soft-error", "in-band-error"),
    ];
    let rig = Rig::at(100).await;
    for (fault, _, _) in faults {
        for stream in BOTH {
            rescued(&rig, CHAT, &format!("fault-{fault}@canary"), stream).await;
        }
    }
    let all = faults.len() * 2;
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["masked"] == all)
        .await;
    assert_eq!(rollout["arms"]["canary"]["requests"], all);
    assert_eq!(rollout["arms"]["canary"]["errors"], all);
    assert_eq!(
        rollout["arms"]["legacy"]["requests"], 0,
        "a rescue is no first attempt"
    );
    let finished = rig.finish().await;
    assert_eq!(finished.rows.len(), all * 2);
    for (fault, plain, streamed) in faults {
        let model = format!("fault-{fault}@canary");
        check_rows(&finished.rows, &model, false, plain);
        check_rows(&finished.rows, &model, true, streamed);
    }
}

#[tokio::test]
async fn an_answer_without_choices_is_rescued_and_an_empty_text_is_an_answer() {
    let rig = Rig::at(100).await;
    rescued(&rig, CHAT, "fault-empty@canary", false).await;
    // A finish reason without a text, and no content block: models do that.
    for (path, stream) in [(CHAT, true), (MESSAGES, false)] {
        let answer = rig.post(path, &ask("fault-empty@canary", stream)).await;
        assert_eq!(
            (answer.head.status, served_by(&answer)),
            (200, "canary"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_exhausted_canary_is_rescued_and_not_called_broken() {
    let rig = Rig::at(100).await;
    for stream in BOTH {
        rescued(&rig, CHAT, "fault-429-retry-after-7@canary", stream).await;
        rescued(&rig, MESSAGES, "fault-429@canary", stream).await;
    }
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["masked"] == 4)
        .await;
    let canary = &rollout["arms"]["canary"];
    assert_eq!(
        (&canary["errors"], &canary["rate_limited"]),
        (&Value::from(0), &Value::from(4))
    );
    let rows = rig.finish().await.rows;
    for stream in BOTH {
        check_rows(
            &rows,
            "fault-429-retry-after-7@canary",
            stream,
            "rate-limited",
        );
    }
}

#[tokio::test]
async fn an_account_without_credit_is_rescued() {
    let rig = Rig::at(100).await;
    let faults = ["fault-429-quota@canary", "fault-402@canary"];
    for fault in faults {
        for stream in BOTH {
            rescued(&rig, CHAT, fault, stream).await;
        }
        // Three refusals in a row would end the rollout's traffic to the canary.
        assert_eq!(
            served_by(&rig.post(CHAT, &ask("ok", false)).await),
            "canary"
        );
    }
    let rows = rig.finish().await.rows;
    for fault in faults {
        for stream in BOTH {
            check_rows(&rows, fault, stream, "quota");
        }
    }
}

#[tokio::test]
async fn anthropics_dialect_is_rescued_as_well() {
    let faults = [
        ("reset-before-head", "reset"),
        ("truncate-at-20", "reset"),
        ("529", "server-error"),
        ("401", "auth"),
        ("404-model", "parity"),
        ("html", "soft-error"),
    ];
    let rig = Rig::at(100).await;
    for (fault, _) in faults {
        for stream in BOTH {
            rescued(&rig, MESSAGES, &format!("fault-{fault}@canary"), stream).await;
        }
    }
    rescued(&rig, MESSAGES, "fault-early-error@canary", true).await;
    let rows = rig.finish().await.rows;
    for (fault, outcome) in faults {
        for stream in BOTH {
            check_rows(&rows, &format!("fault-{fault}@canary"), stream, outcome);
        }
    }
    check_rows(&rows, "fault-early-error@canary", true, "in-band-error");
}

#[tokio::test]
async fn a_canary_that_refuses_connections_is_rescued() {
    let rig = Rig::at(100).await;
    rig.canary.kill().await;
    for stream in BOTH {
        rescued(&rig, CHAT, "ok", stream).await;
    }
    let finished = rig.finish().await;
    for stream in BOTH {
        check_rows(&finished.rows, "ok", stream, "connect");
    }
}

#[tokio::test]
async fn a_canary_that_falls_silent_before_content_is_rescued() {
    let canary = "timeouts = { first-byte = \"500ms\", idle = \"300ms\" }".to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    for stream in BOTH {
        rescued(&rig, CHAT, "fault-stall-head@canary", stream).await;
        rescued(&rig, CHAT, "fault-stall-after-20@canary", stream).await;
    }
    // The canary is hung up on, so that it does not work for nobody.
    rig.canary.wait_hung_up(4).await;
    let rows = rig.finish().await.rows;
    for stream in BOTH {
        check_rows(
            &rows,
            "fault-stall-head@canary",
            stream,
            "timeout-first-byte",
        );
        check_rows(&rows, "fault-stall-after-20@canary", stream, "timeout-idle");
    }
    let waited = rows
        .iter()
        .filter(|row| row.outcome == "timeout-first-byte");
    assert!(
        waited.clone().all(|row| row.latency_ms >= 500.0),
        "{rows:?}"
    );
}

#[tokio::test]
async fn the_callers_own_fault_is_passed_on_and_not_tried_again() {
    let rig = Rig::at(100).await;
    for (path, stream) in [
        (CHAT, false),
        (CHAT, true),
        (MESSAGES, false),
        (MESSAGES, true),
    ] {
        let answer = rig.post(path, &ask("fault-400@canary", stream)).await;
        assert_eq!((answer.head.status, served_by(&answer)), (400, "canary"));
        let direct = post(rig.canary.port(), path, &ask("fault-400@canary", stream)).await;
        assert_eq!(answer.body, direct.unwrap().body);
    }
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    assert_eq!(finished.rows.len(), 4);
    assert!(
        finished
            .rows
            .iter()
            .all(|row| row.outcome == "client-error"),
        "{:?}",
        finished.rows
    );
}

fn breaks_after_content(answer: &Answer) {
    assert_eq!((answer.head.status, served_by(answer)), (200, "canary"));
    assert_ne!(
        answer.end,
        End::Clean,
        "half an answer looks whole: {}",
        answer.text()
    );
    assert!(
        answer.text().contains("canary"),
        "no content: {}",
        answer.text()
    );
}

#[tokio::test]
async fn after_content_a_failure_breaks_the_clients_connection_and_asks_nobody_else() {
    let rig = Rig::at(100).await;
    for fault in [
        "fault-reset-at-1000@canary",
        "fault-truncate-at-1000@canary",
    ] {
        for path in [CHAT, MESSAGES] {
            breaks_after_content(&rig.post(path, &ask(fault, true)).await);
        }
    }
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    assert_eq!(finished.canary.requests().len(), 4);
    assert_eq!(finished.rows.len(), 4);
    for row in finished.rows {
        assert_eq!(
            (row.outcome.as_str(), row.arm.as_str(), row.attempt),
            ("reset", "canary", 1)
        );
        assert!(row.ttft_ms.is_some(), "{row:?}");
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_after_content_is_ended_and_asks_nobody_else() {
    let canary = "timeouts = { idle = \"300ms\" }".to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let silent = ask("fault-stall-after-1000@canary", true);
    let answer = rig.post(CHAT, &silent).await;
    assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
    assert!(answer.text().contains("stream_truncated"));
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    let outcomes: Vec<_> = finished
        .rows
        .iter()
        .map(|row| row.outcome.as_str())
        .collect();
    assert_eq!(outcomes, ["timeout-idle"]);
}

#[tokio::test]
async fn a_rollout_without_failover_passes_failures_on() {
    let rollouts = rollout("default", "failover = false");
    let rig = Rig::with(Setup {
        rollouts,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    for stream in BOTH {
        let answer = rig.post(CHAT, &ask("fault-500@canary", stream)).await;
        assert_eq!((answer.head.status, served_by(&answer)), (500, "canary"));
        let answer = rig
            .post(CHAT, &ask("fault-reset-before-head@canary", stream))
            .await;
        assert_eq!(answer.head.status, 502);
        assert_eq!(answer.head.header("x-cutover-error"), Some("reset"));
        assert!(answer.json()["error"]["message"].is_string());
    }
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    // Each is tried twice more where it is.
    let found: Vec<_> = finished
        .rows
        .iter()
        .map(|row| (row.arm.as_str(), row.role.as_str(), row.attempt))
        .collect();
    let each = [
        ("canary", "live", 1),
        ("canary", "retry", 2),
        ("canary", "retry", 3),
    ];
    assert_eq!(found, each.repeat(4));
}

#[tokio::test]
async fn when_legacy_fails_as_well_the_client_gets_the_canarys_answer() {
    let rig = Rig::at(100).await;
    let answer = rig.post(CHAT, &ask("fault-reset-before-head", false)).await;
    assert_eq!(answer.head.status, 502);
    rig.legacy.kill().await;
    let answer = rig.post(CHAT, &ask("fault-500", false)).await;
    assert_eq!((answer.head.status, served_by(&answer)), (500, "canary"));
    let finished = rig.finish().await;
    let found: Vec<_> = finished
        .rows
        .iter()
        .map(|row| (row.arm.as_str(), row.role.as_str(), row.outcome.as_str()))
        .collect();
    let expected = [
        ("canary", "live", "reset"),
        ("legacy", "rescue", "reset"),
        ("canary", "live", "server-error"),
        ("legacy", "rescue", "connect"),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn legacys_own_failures_are_passed_on_and_never_reach_the_canary() {
    let rig = Rig::at(0).await;
    let answer = rig.post(CHAT, &ask("fault-500@legacy", true)).await;
    assert_eq!((answer.head.status, served_by(&answer)), (500, "legacy"));
    let answer = rig
        .post(CHAT, &ask("fault-reset-before-head@legacy", true))
        .await;
    assert_eq!(answer.head.status, 502);
    assert!(rig.finish().await.canary.requests().is_empty());
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_the_canary_nothing() {
    let rig = Rig::at(100).await;
    for stream in BOTH {
        let answer = rig.post(CHAT, &ask("ok", stream)).await;
        assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
        rig.canary.kill().await;
        rig.canary.revive().await;
    }
    let answer = rig.post(CHAT, &ask("ok", false)).await;
    assert_eq!(served_by(&answer), "canary");
    let finished = rig.finish().await;
    assert_eq!(finished.rows.len(), 3);
    assert!(
        finished.rows.iter().all(|row| row.outcome == "ok"),
        "{:?}",
        finished.rows
    );
}

#[tokio::test]
async fn an_arm_that_nobody_rescues_is_given_up_in_time() {
    let legacy = "timeouts = { total = \"300ms\" }".to_owned();
    let rig = Rig::with(Setup {
        legacy,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 0).await;
    let answer = rig.post(CHAT, &ask("fault-stall-head", false)).await;
    assert_eq!((answer.head.status, answer.end), (504, End::Clean));
    assert_eq!(answer.head.header("x-cutover-error"), Some("timeout-total"));
    let answer = rig.post(CHAT, &ask("fault-gap-100", true)).await;
    assert_eq!(answer.head.status, 200);
    assert_ne!(answer.end, End::Clean, "{}", answer.text());
    let rows = rig.finish().await.rows;
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["timeout-total"; 2]);
    // The limit of a whole answer counts from the start, its latency from the sending.
    assert!(rows[0].latency_ms >= 300.0, "{rows:?}");
}

#[tokio::test]
async fn a_cut_stream_resets_a_client_of_http_1_0_whose_body_ends_with_the_connection() {
    let rig = Rig::at(100).await;
    for fault in [
        "fault-reset-at-1000@canary",
        "fault-truncate-at-1000@canary",
    ] {
        let body = ask(fault, true).to_string();
        let length = body.len();
        let head = format!("POST {CHAT} HTTP/1.0\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        let mut client = rig.client().await;
        client
            .send(&[head.as_bytes(), body.as_bytes()].concat())
            .await
            .unwrap();
        let end = match client.answer().await {
            Ok(answer) => answer.end,
            Err(end) => end,
        };
        assert_eq!(end, End::Reset, "{fault}");
    }
}
