//! What is measured: the first content, tokens, how streams end, and that the sums are right.

use serde_json::json;

use crate::client::{Answer, End, post};
use crate::harness::{CHAT, MESSAGES, RESPONSES, Rig, Setup, ask, exchange, served_by, wait_until};

#[tokio::test]
async fn the_first_token_is_content_and_not_the_start_of_the_stream() {
    let rig = Rig::at(100).await;
    // Events without content that come before the first token.
    let starts = [
        (CHAT, 1),
        ("/v1/completions", 1),
        (MESSAGES, 3),
        (RESPONSES, 2),
    ];
    for (path, _) in starts {
        let answer = rig.post(path, &ask("fault-gap-30", true)).await;
        assert_eq!(
            (answer.end, served_by(&answer)),
            (End::Clean, "canary"),
            "{path}"
        );
    }
    let rows = rig.finish().await.rows;
    assert_eq!(rows.len(), starts.len());
    for (row, (path, empty_events)) in rows.iter().zip(starts) {
        assert_eq!(row.outcome, "ok", "{path}");
        let ttft_ms = row.ttft_ms.unwrap();
        // The provider pauses before each event, and never for less than it says.
        let least_ms = f64::from((empty_events + 1) * 30);
        assert!(
            ttft_ms >= least_ms,
            "{path}: {ttft_ms} ms, and {least_ms} were scripted"
        );
        // Nine tokens follow one another, and the end follows them.
        assert!(row.latency_ms >= ttft_ms + 240.0, "{path}: {row:?}");
    }
}

#[tokio::test]
async fn plain_answers_have_no_first_token() {
    let rig = Rig::at(100).await;
    rig.post(CHAT, &ask("fault-slow-head-50", false)).await;
    let rows = rig.finish().await.rows;
    assert_eq!((rows.len(), rows[0].ttft_ms), (1, None));
    assert!(rows[0].latency_ms >= 50.0, "{rows:?}");
}

#[tokio::test]
async fn tokens_are_read_from_both_dialects_plain_and_streamed() {
    let rig = Rig::at(100).await;
    for path in [CHAT, "/v1/completions", MESSAGES, RESPONSES] {
        for stream in [false, true] {
            let answer = rig.post(path, &ask("ok", stream)).await;
            assert_eq!(served_by(&answer), "canary");
        }
    }
    rig.post(CHAT, &ask("fault-no-usage", true)).await;
    let seen = |rollout: &serde_json::Value| rollout["arms"]["canary"]["requests"] == 9;
    let rollout = rig.wait_rollout("default", seen).await;
    let tokens = json!({"input": 8 * 11, "output": 8 * 9, "cached_input": 8 * 2});
    assert_eq!(rollout["arms"]["canary"]["tokens"], tokens);
    let mut rows = rig.finish().await.rows;
    let silent = rows.pop().unwrap();
    assert_eq!(
        (silent.outcome.as_str(), silent.tokens),
        ("ok", None),
        "unknown is not zero"
    );
    for row in rows {
        assert_eq!(row.tokens, Some((11, 2, 9)), "{row:?}");
    }
}

#[tokio::test]
async fn a_stream_without_its_end_is_booked_as_truncated() {
    let rig = Rig::at(100).await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        for model in ["fault-no-done@canary", "fault-end-at-1500@canary"] {
            let answer = rig.post(path, &ask(model, true)).await;
            assert_eq!(served_by(&answer), "canary", "{path} {model}");
        }
    }
    let seen = |rollout: &serde_json::Value| rollout["arms"]["canary"]["errors"] == 6;
    rig.wait_rollout("default", seen).await;
    let finished = rig.finish().await;
    assert_eq!(finished.rows.len(), 6);
    for row in finished.rows {
        assert_eq!(
            (row.outcome.as_str(), row.role.as_str()),
            ("truncated", "live"),
            "{row:?}"
        );
    }
    assert!(finished.legacy.requests().is_empty());
}

/// The last event of an answer: its name, and its data.
fn last_event(answer: &Answer) -> (Option<String>, serde_json::Value) {
    let text = answer.text();
    let event = text.trim_end().rsplit("\n\n").next().unwrap();
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    let data = serde_json::from_str(field("data: ").unwrap()).unwrap();
    (field("event: ").map(str::to_owned), data)
}

#[tokio::test]
async fn a_stream_cut_short_ends_with_an_error_event_in_its_dialect() {
    let rig = Rig::with(Setup {
        canary: "timeouts = { idle = \"300ms\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    for path in [CHAT, "/v1/completions", MESSAGES, RESPONSES] {
        for fault in ["no-done", "end-at-1500", "stall-after-1500"] {
            let ask = ask(&format!("fault-{fault}@canary"), true);
            let answer = rig.post(path, &ask).await;
            let what = format!("{path} {fault}: {}", answer.text());
            assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
            assert_eq!(answer.head.header("content-length"), None, "{what}");
            let (name, event) = last_event(&answer);
            assert_eq!(event["error"]["code"], "stream_truncated", "{what}");
            let expected = (path == MESSAGES || path == RESPONSES).then_some("error");
            assert_eq!(name.as_deref(), expected, "{what}");
            if path == MESSAGES {
                assert_eq!(event["error"]["type"], "api_error", "{what}");
            }
            if fault != "stall-after-1500" {
                let direct = post(rig.canary.port(), path, &ask).await.unwrap();
                assert!(answer.body.starts_with(&direct.body), "{what}");
            }
        }
    }
    let rows = rig.finish().await.rows;
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(
        outcomes,
        ["truncated", "truncated", "timeout-idle"].repeat(4)
    );
}

#[tokio::test]
async fn a_stream_cut_short_passes_as_it_is_where_that_is_wanted() {
    let rig = Rig::with(Setup {
        proxy: "truncation-event = false".to_owned(),
        canary: "timeouts = { idle = \"300ms\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        let no_end = ask("fault-no-done@canary", true);
        let answer = rig.post(path, &no_end).await;
        let direct = post(rig.canary.port(), path, &no_end).await.unwrap();
        assert_eq!((answer.end, answer.body), (End::Clean, direct.body));
        let silent = ask("fault-stall-after-1500@canary", true);
        let answer = rig.post(path, &silent).await;
        assert_ne!(answer.end, End::Clean, "{path}");
        assert!(!answer.text().contains("stream_truncated"), "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_its_last_word_is_whole() {
    let rig = Rig::at(100).await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        // Every event names the model, so a name of the same length tells where the end will be.
        let length = rig.post(path, &ask(&"x".repeat(29), true)).await.body.len();
        let model = format!("fault-truncate-at-{:04}@canary", length - 1);
        assert_eq!(model.len(), 29);
        let answer = rig.post(path, &ask(&model, true)).await;
        assert_ne!(answer.end, End::Clean, "{path}");
    }
    let finished = rig.finish().await;
    let outcomes: Vec<_> = finished
        .rows
        .iter()
        .map(|row| row.outcome.as_str())
        .collect();
    assert_eq!(outcomes, ["ok"; 6]);
}

#[tokio::test]
async fn errors_within_a_stream_are_passed_on_after_content_and_booked() {
    let rig = Rig::at(100).await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        let answer = rig
            .post(path, &ask("fault-inband-error@canary", true))
            .await;
        assert_eq!(served_by(&answer), "canary");
        assert!(
            answer.text().contains("scripted error in the stream"),
            "{path}"
        );
    }
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    assert_eq!(finished.rows.len(), 3);
    assert!(
        finished
            .rows
            .iter()
            .all(|row| row.outcome == "in-band-error"),
        "{:?}",
        finished.rows
    );
}

#[tokio::test]
async fn shapes_of_a_stream_that_are_legal_are_ok_and_pass_byte_for_byte() {
    let rig = Rig::at(100).await;
    let faults = [
        "one-byte-writes",
        "huge-event",
        "crlf",
        "comments",
        "until-fin",
        "no-usage",
    ];
    for fault in faults {
        for path in [CHAT, MESSAGES] {
            let ask = ask(&format!("fault-{fault}"), true);
            let answer = rig.post(path, &ask).await;
            let direct = crate::client::post(rig.canary.port(), path, &ask)
                .await
                .unwrap();
            assert_eq!(
                (answer.end, served_by(&answer)),
                (End::Clean, "canary"),
                "{path} {fault}"
            );
            assert!(answer.body == direct.body, "{path} {fault}");
        }
    }
    let rows = rig.finish().await.rows;
    assert_eq!(rows.len(), faults.len() * 2);
    for row in rows {
        assert_eq!(row.outcome, "ok", "{row:?}");
        assert!(row.ttft_ms.is_some(), "{row:?}");
    }
}

#[tokio::test]
async fn a_line_that_nobody_can_read_passes_with_the_rest_and_is_booked() {
    let rig = Rig::at(100).await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        let ask = ask("fault-malformed-line@canary", true);
        let answer = rig.post(path, &ask).await;
        let direct = post(rig.canary.port(), path, &ask).await.unwrap();
        assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
        assert!(
            answer.text().contains("broken") && answer.body == direct.body,
            "{path}"
        );
    }
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    for row in finished.rows {
        assert_eq!(
            (row.outcome.as_str(), row.tokens),
            ("soft-error", Some((11, 2, 9))),
            "{row:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_nobodys_error_and_the_provider_stops_at_once() {
    let rig = Rig::at(100).await;
    // While the answer is held back or under way, and before its head.
    for (number, model) in ["fault-gap-30", "fault-stall-after-1000", "fault-stall-head"]
        .into_iter()
        .enumerate()
    {
        let mut client = rig.client().await;
        let body = ask(model, true).to_string();
        client
            .request("POST", CHAT, &[], body.as_bytes())
            .await
            .unwrap();
        if model == "fault-stall-head" {
            let arrived = || rig.canary.requests().len() == number + 1;
            wait_until("the canary has the request", arrived).await;
        } else {
            client.head().await.unwrap();
            client.part().await.unwrap();
        }
        drop(client);
        rig.canary.wait_hung_up(number as u64 + 1).await;
    }
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["requests"] == 3)
        .await;
    assert_eq!(rollout["arms"]["canary"]["errors"], 0);
    let finished = rig.finish().await;
    assert!(finished.legacy.requests().is_empty());
    let outcomes: Vec<_> = finished
        .rows
        .iter()
        .map(|row| row.outcome.as_str())
        .collect();
    assert_eq!(outcomes, ["client-gone"; 3]);
}

#[tokio::test]
async fn a_request_is_under_way_from_its_routing_to_its_end_however_it_ends() {
    let rig = Rig::at(50).await;
    let under_way = |rollout: &serde_json::Value| {
        let of = |arm: &str| rollout["arms"][arm]["under_way"].as_u64().unwrap();
        (of("legacy"), of("canary"))
    };
    let mut clients = Vec::new();
    for number in 0..24 {
        let mut client = rig.client().await;
        let mut body = ask("fault-stall-head", number % 2 == 0);
        body["user"] = json!(format!("user-{number}"));
        let body = body.to_string();
        client
            .request("POST", CHAT, &[], body.as_bytes())
            .await
            .unwrap();
        clients.push(client);
    }
    let all_there = |rollout: &serde_json::Value| {
        let (legacy, canary) = under_way(rollout);
        legacy + canary == 24 && legacy > 0 && canary > 0
    };
    rig.wait_rollout("default", all_there).await;
    drop(clients);
    let none_left = |rollout: &serde_json::Value| under_way(rollout) == (0, 0);
    rig.wait_rollout("default", none_left).await;
    // A pinned request is nobody's, and a rescue is no first attempt.
    let faults = ["ok", "fault-500", "fault-reset-before-head", "fault-html"];
    for number in 0..40 {
        let mut body = ask(faults[number % 4], number % 3 == 0);
        body["user"] = json!(format!("user-{number}"));
        if number % 10 == 0 {
            body["previous_response_id"] = json!("resp_1");
        }
        rig.post(RESPONSES, &body).await;
    }
    let all_ended = |rollout: &serde_json::Value| {
        let of = |arm: &str| rollout["arms"][arm]["requests"].as_u64().unwrap();
        of("legacy") + of("canary") == 24 + 36 && none_left(rollout)
    };
    rig.wait_rollout("default", all_ended).await;
}

#[tokio::test]
async fn every_request_is_counted_once_on_the_arm_that_served_it() {
    let rig = Rig::at(50).await;
    let mut client = rig.client().await;
    for number in 0..120 {
        let mut body = ask("ok", number % 3 == 0);
        body["user"] = json!(format!("user-{number}"));
        let path = [CHAT, MESSAGES, RESPONSES][number % 3];
        exchange(&mut client, path, &[], &body).await;
    }
    let (legacy, canary) = (rig.legacy.requests().len(), rig.canary.requests().len());
    assert_eq!(legacy + canary, 120);
    let all_counted = |rollout: &serde_json::Value| {
        let requests = |arm: &str| rollout["arms"][arm]["requests"].as_u64().unwrap();
        requests("legacy") + requests("canary") >= 120
    };
    let rollout = rig.wait_rollout("default", all_counted).await;
    assert_eq!(rollout["arms"]["legacy"]["requests"], legacy);
    assert_eq!(rollout["arms"]["canary"]["requests"], canary);
    assert_eq!(rollout["arms"]["canary"]["masked"], 0);
    drop(client);
    let rows = rig.finish().await.rows;
    assert_eq!(rows.len(), 120);
    assert_eq!(
        rows.iter().filter(|row| row.arm == "canary").count(),
        canary
    );
}

#[tokio::test]
async fn requests_outside_every_rollout_are_recorded_and_enter_no_count() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    client.request("GET", "/v1/models", &[], b"").await.unwrap();
    assert_eq!(served_by(&client.answer().await.unwrap()), "legacy");
    drop(client);
    rig.post(CHAT, &ask("ok", false)).await;
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["requests"] == 1)
        .await;
    assert_eq!(rollout["arms"]["legacy"]["requests"], 0);
    let rows = rig.finish().await.rows;
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.role.as_str(), row.rollout.as_deref(), row.status))
        .collect();
    assert_eq!(
        found,
        [
            ("pinned", None, Some(200)),
            ("live", Some("default"), Some(200))
        ]
    );
}

#[tokio::test]
async fn a_plain_answer_that_is_cut_off_after_its_head_may_have_cost_something() {
    let rig = Rig::with(Setup {
        canary: "timeouts = { idle = \"300ms\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    // The client leaves once it has read the head.
    let mut client = rig.client().await;
    let body = ask("fault-stall-after-20", false).to_string();
    client
        .request("POST", CHAT, &[], body.as_bytes())
        .await
        .unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    drop(client);
    let unknown = |arm: &'static str| {
        move |rollout: &serde_json::Value| rollout["arms"][arm]["no_usage"] == 1
    };
    rig.wait_rollout("default", unknown("legacy")).await;
    // The canary falls silent, and legacy answers in its place.
    rig.set_weight("default", 100).await;
    let answer = rig
        .post(CHAT, &ask("fault-stall-after-20@canary", false))
        .await;
    assert_eq!(served_by(&answer), "legacy");
    rig.wait_rollout("default", unknown("canary")).await;
    // What no provider answered has cost nothing.
    rig.post(CHAT, &ask("fault-500@canary", false)).await;
    let rollout = rig
        .wait_rollout("default", |r| r["arms"]["canary"]["requests"] == 2)
        .await;
    assert_eq!(rollout["arms"]["canary"]["no_usage"], 1);
}
