//! Streams are asked for their token counts where the client did not, and the client never notices.

use serde_json::{Value, json};

use crate::client::{End, post};
use crate::harness::{CHAT, MESSAGES, RESPONSES, Rig, Row, Setup, ask, served_by};

const COMPLETIONS: &str = "/v1/completions";
const OPTION: &str = "\"stream_options\":{\"include_usage\":true},";

/// A stream whose client does not say whether it wants usage.
fn unasked(model: &str) -> Value {
    let mut body = ask(model, true);
    body.as_object_mut().unwrap().remove("stream_options");
    body
}

/// Arm, role, attempt, outcome and status of every row.
fn rows_of(rows: &[Row]) -> Vec<(&str, &str, i64, &str, Option<i64>)> {
    let row = |row: &Row| (row.attempt, row.status);
    rows.iter()
        .map(|r| {
            (
                r.arm.as_str(),
                r.role.as_str(),
                row(r).0,
                r.outcome.as_str(),
                row(r).1,
            )
        })
        .collect()
}

#[tokio::test]
async fn a_stream_is_measured_whose_client_did_not_ask_and_does_not_see_it() {
    let canary = "models = { \"mine\" = \"fault-comments\" }".to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    let models = [
        "ok",
        "fault-crlf",
        "fault-comments",
        "fault-one-byte-writes",
        "fault-until-fin",
        "fault-gzip-crlf",
        "mine",
    ];
    for (percent, provider) in [(100, &rig.canary), (0, &rig.legacy)] {
        rig.set_weight("default", percent).await;
        for path in [CHAT, COMPLETIONS] {
            for model in models {
                let body = unasked(model);
                let answer = rig.post(path, &body).await;
                let what = format!("{percent} {path} {model}: {}", answer.text());
                let name = if percent == 100 && model == "mine" {
                    "fault-comments"
                } else {
                    model
                };
                let seen = provider.requests().pop().unwrap();
                let asked = body.to_string().replacen('{', &format!("{{{OPTION}"), 1);
                let asked = asked.replace("\"mine\"", &format!("\"{name}\""));
                assert_eq!(String::from_utf8(seen.body).unwrap(), asked);
                // Without the question there is no event to take out.
                let plain = name.replace("gzip-", "");
                let direct = post(provider.port(), path, &unasked(&plain))
                    .await
                    .unwrap()
                    .text();
                assert!(!direct.contains("usage"), "{direct}");
                let model_was = |name: &str| format!("\"model\":\"{name}\"");
                let mut expected = direct.replace(&model_was(&plain), &model_was(model));
                if plain != name {
                    expected = expected.replace(&plain, name);
                }
                if name == "fault-comments" {
                    // The comment in front of the event is none of it.
                    let done = "data: [DONE]";
                    expected = expected.replace(done, &format!(": still here\n\n{done}"));
                }
                assert!(answer.text() == expected, "{what}");
                assert_eq!(answer.end, End::Clean, "{what}");
            }
        }
    }
    for row in rig.finish().await.rows {
        assert_eq!(
            (row.outcome.as_str(), row.tokens),
            ("ok", Some((11, 2, 9))),
            "{row:?}"
        );
        assert!(row.ttft_ms.is_some(), "{row:?}");
    }
}

#[tokio::test]
async fn what_a_client_says_of_it_itself_stays_and_so_does_what_is_no_such_stream() {
    let rig = Rig::at(100).await;
    let mut bodies: Vec<(&str, Value)> = [
        json!(null),
        json!({}),
        json!({"include_usage": false}),
        json!({"include_usage": true}),
    ]
    .into_iter()
    .map(|options| {
        let mut body = unasked("ok");
        body["stream_options"] = options;
        (CHAT, body)
    })
    .collect();
    let mut plain = unasked("ok");
    plain["stream"] = json!(false);
    bodies.extend([(CHAT, plain.clone()), (COMPLETIONS, plain)]);
    bodies.extend([MESSAGES, RESPONSES, "/v1/embeddings"].map(|path| (path, unasked("ok"))));
    for (path, body) in bodies {
        let answer = rig.post(path, &body).await;
        let seen = rig.canary.requests().pop().unwrap();
        assert_eq!(seen.body, body.to_string().as_bytes());
        let direct = post(rig.canary.port(), path, &body).await.unwrap();
        assert!(answer.body == direct.body, "{path} {body}");
    }
}

#[tokio::test]
async fn an_arm_that_is_not_to_be_asked_is_not() {
    let rig = Rig::with(Setup {
        canary: "include-usage = false".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig.post(CHAT, &unasked("ok")).await;
    let seen = rig.canary.requests().pop().unwrap();
    assert_eq!(seen.body, unasked("ok").to_string().as_bytes());
    assert_eq!(rig.finish().await.rows[0].tokens, None);
}

#[tokio::test]
async fn a_refusal_of_the_question_is_made_good_unseen_and_it_is_not_asked_again() {
    for fault in ["fault-400-usage", "fault-422-usage", "fault-gzip-400-usage"] {
        let rig = Rig::at(100).await;
        for _ in 0..2 {
            let answer = rig.post(CHAT, &unasked(fault)).await;
            assert_eq!(
                (answer.head.status, answer.end),
                (200, End::Clean),
                "{fault}"
            );
            assert_eq!(served_by(&answer), "canary", "{fault}");
        }
        let one_each = |rollout: &Value| {
            let canary = &rollout["arms"]["canary"];
            canary["requests"] == 2 && canary["under_way"] == 0
        };
        let rollout = rig.wait_rollout("default", one_each).await;
        assert_eq!(rollout["arms"]["canary"]["errors"], 0);
        assert_eq!(rollout["arms"]["canary"]["masked"], 0);
        let asked: Vec<_> = rig
            .canary
            .requests()
            .iter()
            .map(|r| r.json().get("stream_options").is_some())
            .collect();
        assert_eq!(asked, [true, false, false], "{fault}");
        let status = if fault.contains("422") { 422 } else { 400 };
        let finished = rig.finish().await;
        assert!(finished.legacy.requests().is_empty());
        let expected = [
            ("canary", "retry", 1, "internal", Some(status)),
            ("canary", "live", 1, "ok", Some(200)),
            ("canary", "live", 1, "ok", Some(200)),
        ];
        assert_eq!(rows_of(&finished.rows), expected, "{fault}");
    }
}

#[tokio::test]
async fn a_pinned_request_and_a_rescue_are_asked_once_more_as_well() {
    let rig = Rig::at(100).await;
    let mut pinned = unasked("fault-400-usage@legacy");
    pinned["messages"][0]["content"] = json!([{"type": "file", "file": {"file_id": "file-1"}}]);
    let answer = rig.post(CHAT, &pinned).await;
    assert_eq!(
        (answer.head.status, served_by(&answer)),
        (200, "legacy"),
        "{}",
        answer.text()
    );
    let rows = rig.finish().await.rows;
    let expected = [
        ("legacy", "retry", 1, "internal", Some(400)),
        ("legacy", "pinned", 1, "ok", Some(200)),
    ];
    assert_eq!(rows_of(&rows), expected);

    let rig = Rig::at(100).await;
    rig.canary.kill().await;
    for _ in 0..2 {
        let answer = rig.post(CHAT, &unasked("fault-400-usage@legacy")).await;
        assert_eq!((answer.head.status, served_by(&answer)), (200, "legacy"));
    }
    let rows = rig.finish().await.rows;
    let expected = [
        ("canary", "live", 1, "connect", None),
        ("legacy", "retry", 2, "internal", Some(400)),
        ("legacy", "rescue", 2, "ok", Some(200)),
        ("canary", "live", 1, "connect", None),
        ("legacy", "rescue", 2, "ok", Some(200)),
    ];
    assert_eq!(rows_of(&rows), expected);
}

#[tokio::test]
async fn a_refusal_that_stays_without_the_question_is_the_requests_and_teaches_nothing() {
    let rig = Rig::at(100).await;
    // It names the option whatever is sent, like arms that quote the request.
    let answer = rig.post(CHAT, &unasked("fault-400-param@canary")).await;
    assert_eq!((answer.head.status, served_by(&answer)), (200, "legacy"));
    let answer = rig.post(CHAT, &unasked("fault-400@canary")).await;
    assert_eq!((answer.head.status, served_by(&answer)), (400, "canary"));
    rig.post(CHAT, &unasked("ok")).await;
    let asked: Vec<_> = rig
        .canary
        .requests()
        .iter()
        .map(|r| r.json().get("stream_options").is_some())
        .collect();
    assert_eq!(asked, [true, false, true, true]);
    let rows = rig.finish().await.rows;
    let expected = [
        ("canary", "retry", 1, "internal", Some(400)),
        ("canary", "live", 1, "parity", Some(400)),
        ("legacy", "rescue", 2, "ok", Some(200)),
        ("canary", "live", 1, "client-error", Some(400)),
        ("canary", "live", 1, "ok", Some(200)),
    ];
    assert_eq!(rows_of(&rows), expected);
}
