//! Which requests go where: eligibility, ties to a provider's state, stickiness, weights, limits.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{Answer, End};
use crate::harness::{
    CHAT, MESSAGES, RESPONSES, Rig, Setup, ask, exchange, rollout, served_by, wait_until,
};

#[tokio::test]
async fn eligible_paths_follow_the_weight() {
    let rig = Rig::at(100).await;
    for path in [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        RESPONSES,
        MESSAGES,
    ] {
        let answer = rig.post(path, &ask("ok", false)).await;
        assert_eq!(answer.head.status, 200, "{path}");
        assert_eq!(served_by(&answer), "canary", "{path}");
        assert_eq!(
            answer.head.header("x-cutover-rollout"),
            Some("default"),
            "{path}"
        );
    }
    rig.set_weight("default", 0).await;
    for path in [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        RESPONSES,
        MESSAGES,
    ] {
        let answer = rig.post(path, &ask("ok", false)).await;
        assert_eq!(served_by(&answer), "legacy", "{path}");
    }
}

#[tokio::test]
async fn everything_else_stays_on_legacy_at_full_weight() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    for (method, target) in [
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches/batch_1"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("POST", "/v1/threads/thread_1/messages"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/audio/transcriptions"),
        ("PATCH", "/v1/anything?at=all"),
    ] {
        let body: &[u8] = if method == "POST" {
            b"{\"model\": \"ok\"}"
        } else {
            b""
        };
        client.request(method, target, &[], body).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(served_by(&answer), "legacy", "{method} {target}");
        assert_eq!(
            answer.head.header("x-cutover-rollout"),
            None,
            "{method} {target}"
        );
    }
    assert!(rig.canary.requests().is_empty());
}

#[tokio::test]
async fn requests_tied_to_a_providers_state_stay_on_legacy() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let block = |block: Value| json!({"messages": [{"role": "assistant", "content": [block]}]});
    for (path, state) in [
        (
            RESPONSES,
            json!({"input": "x", "previous_response_id": "resp_1"}),
        ),
        (RESPONSES, json!({"input": "x", "conversation": "conv_1"})),
        (
            RESPONSES,
            json!({"input": [{"type": "item_reference", "id": "rs_1"}]}),
        ),
        (
            RESPONSES,
            json!({"input": [{"type": "reasoning", "encrypted_content": "gAAA"}]}),
        ),
        (
            CHAT,
            block(json!({"type": "file", "file": {"file_id": "file-1"}})),
        ),
        (
            MESSAGES,
            block(json!({"type": "document", "source": {"type": "file", "file_id": "f"}})),
        ),
        (
            MESSAGES,
            block(json!({"type": "thinking", "thinking": "hm", "signature": "EqQB"})),
        ),
        (
            MESSAGES,
            block(json!({"type": "redacted_thinking", "data": "EmwK"})),
        ),
    ] {
        let answer = exchange(&mut client, path, &[], &state).await;
        assert_eq!(served_by(&answer), "legacy", "{path} {state}");
    }
    // The same words as data of the application tie to nothing.
    let free = json!({"messages": [{"role": "user", "content": "my \"file_id\" is previous"}]});
    assert_eq!(
        served_by(&exchange(&mut client, CHAT, &[], &free).await),
        "canary"
    );
}

#[tokio::test]
async fn a_key_of_the_request_keeps_its_arm_whatever_else_changes() {
    let rig = Rig::at(50).await;
    let mut client = rig.client().await;
    let say = |text: &str| json!([{"role": "user", "content": text}]);
    type Keyed = fn(&str) -> Value;
    let keys: [(&str, Keyed); 3] = [
        (CHAT, |key| json!({"user": key})),
        (RESPONSES, |key| json!({"prompt_cache_key": key})),
        (MESSAGES, |key| json!({"metadata": {"user_id": key}})),
    ];
    for (path, keyed) in keys {
        let mut arms = BTreeSet::new();
        for number in 0..24 {
            let mut seen = BTreeSet::new();
            for text in ["one", "two", "three"] {
                let mut body = keyed(&format!("key-{number}"));
                body["model"] = json!("ok");
                body["messages"] = say(text);
                body["input"] = json!(text);
                let answer = exchange(&mut client, path, &[], &body).await;
                seen.insert(served_by(&answer).to_owned());
            }
            assert_eq!(seen.len(), 1, "{path} key-{number}");
            arms.extend(seen);
        }
        assert_eq!(arms.len(), 2, "{path}: every key on one arm");
    }
}

#[tokio::test]
async fn a_conversation_without_a_key_keeps_its_arm_by_its_first_message() {
    let rig = Rig::at(50).await;
    let mut client = rig.client().await;
    let mut arms = BTreeSet::new();
    for number in 0..24 {
        let first = json!({"role": "user", "content": format!("question {number}")});
        let system = json!({"role": "system", "content": "be kind"});
        let mut messages = vec![system, first];
        let mut seen = BTreeSet::new();
        for turn in 0..3 {
            let body = json!({"model": "ok", "messages": messages});
            seen.insert(served_by(&exchange(&mut client, CHAT, &[], &body).await).to_owned());
            messages.push(json!({"role": "assistant", "content": format!("answer {turn}")}));
            messages.push(json!({"role": "user", "content": format!("and {turn}?")}));
        }
        assert_eq!(seen.len(), 1, "conversation {number}");
        arms.extend(seen);
    }
    assert_eq!(arms.len(), 2);
}

#[tokio::test]
async fn a_configured_header_or_member_is_the_key() {
    for sticky in ["header:x-session", "body:session"] {
        let lines = format!("sticky = \"{sticky}\"");
        let rig = Rig::with(Setup {
            rollouts: rollout("default", &lines),
            ..Setup::default()
        });
        let rig = rig.await;
        rig.set_weight("default", 50).await;
        let mut client = rig.client().await;
        let mut arms = BTreeSet::new();
        for number in 0..24 {
            let session = format!("session {number}");
            let mut seen = BTreeSet::new();
            for user in ["a", "b", "c"] {
                let mut body = ask("ok", false);
                body["user"] = json!(user);
                body["session"] = json!(session);
                let answer = exchange(&mut client, CHAT, &[("X-Session", &session)], &body).await;
                seen.insert(served_by(&answer).to_owned());
            }
            assert_eq!(seen.len(), 1, "{sticky}: {session}");
            arms.extend(seen);
        }
        assert_eq!(arms.len(), 2, "{sticky}");
    }
}

#[tokio::test]
async fn a_request_without_the_configured_key_keeps_its_arm_by_what_it_says() {
    for sticky in ["header:x-session", "body:session"] {
        let lines = format!("sticky = \"{sticky}\"");
        let rig = Rig::with(Setup {
            rollouts: rollout("default", &lines),
            ..Setup::default()
        });
        let rig = rig.await;
        rig.set_weight("default", 50).await;
        let mut client = rig.client().await;
        for by_user in [true, false] {
            let mut arms = BTreeSet::new();
            for number in 0..24 {
                let mut seen = BTreeSet::new();
                // An empty header is none, as an empty member is.
                for (header, model) in [("", "a"), ("", "b"), ("X-Session", "c")] {
                    let mut body = ask(model, false);
                    if by_user {
                        body["user"] = json!(format!("user {number}"));
                        body["messages"][0]["content"] = json!(model);
                    } else {
                        body["messages"][0]["content"] = json!(format!("question {number}"));
                    }
                    let headers = [(header, "")];
                    let headers = if header.is_empty() { &[][..] } else { &headers };
                    let answer = exchange(&mut client, CHAT, headers, &body).await;
                    seen.insert(served_by(&answer).to_owned());
                }
                assert_eq!(seen.len(), 1, "{sticky}: {number}, by user: {by_user}");
                arms.extend(seen);
            }
            assert_eq!(arms.len(), 2, "{sticky}, by user: {by_user}");
        }
    }
}

#[tokio::test]
async fn raising_the_weight_only_adds_keys_and_zero_removes_them_all() {
    let rig = Rig::at(0).await;
    let mut client = rig.client().await;
    let mut before = BTreeSet::new();
    for percent in [0, 25, 50, 100] {
        rig.set_weight("default", percent).await;
        let mut on_canary = BTreeSet::new();
        for key in 0..200 {
            let body = json!({"model": "ok", "user": format!("user-{key}"), "messages": []});
            if served_by(&exchange(&mut client, CHAT, &[], &body).await) == "canary" {
                on_canary.insert(key);
            }
        }
        assert!(
            on_canary.is_superset(&before),
            "{percent}%: a key went back"
        );
        assert!(
            on_canary.len() > before.len() || percent == 0,
            "{percent}%: no key was added"
        );
        before = on_canary;
    }
    assert_eq!(before.len(), 200);
    rig.set_weight("default", 0).await;
    rig.canary.clear();
    for key in 0..200 {
        let body = json!({"model": "ok", "user": format!("user-{key}"), "messages": []});
        exchange(&mut client, CHAT, &[], &body).await;
    }
    assert!(rig.canary.requests().is_empty());
}

#[tokio::test]
async fn half_of_many_keys_go_to_the_canary_at_half_weight() {
    let rig = Rig::at(50).await;
    let mut client = rig.client().await;
    for key in 0..1_000 {
        let body = json!({"model": "ok", "user": format!("{key}"), "input": "x"});
        exchange(&mut client, "/v1/embeddings", &[], &body).await;
    }
    let canary = rig.canary.requests().len();
    assert_eq!(canary + rig.legacy.requests().len(), 1_000);
    // Five standard deviations of a binomial share with n = 1,000 and p = 0.5.
    assert!((421..=579).contains(&canary), "{canary} of 1,000");
}

#[tokio::test]
async fn the_override_header_counts_only_when_it_is_allowed() {
    let forced = |arm| [("x-cutover-arm", arm)];
    let rig = Rig::at(0).await;
    let mut client = rig.client().await;
    let answer = exchange(&mut client, CHAT, &forced("canary"), &ask("ok", false)).await;
    assert_eq!(served_by(&answer), "legacy");

    let proxy = "allow-override = true".to_owned();
    let rig = Rig::with(Setup {
        proxy,
        ..Setup::default()
    })
    .await;
    let mut client = rig.client().await;
    rig.set_weight("default", 0).await;
    let answer = exchange(&mut client, CHAT, &forced("canary"), &ask("ok", false)).await;
    assert_eq!(served_by(&answer), "canary");
    rig.set_weight("default", 100).await;
    let answer = exchange(&mut client, CHAT, &forced("legacy"), &ask("ok", false)).await;
    assert_eq!(served_by(&answer), "legacy");
    let answer = exchange(&mut client, CHAT, &forced("nonsense"), &ask("ok", false)).await;
    assert_eq!(served_by(&answer), "canary");
    for request in rig.canary.requests().iter().chain(&rig.legacy.requests()) {
        assert_eq!(request.header("x-cutover-arm"), None);
    }
    drop(client);
    let rows = rig.finish().await.rows;
    let roles: Vec<_> = rows
        .iter()
        .map(|row| (row.arm.as_str(), row.role.as_str()))
        .collect();
    assert_eq!(
        roles,
        [
            ("canary", "override"),
            ("legacy", "override"),
            ("canary", "live")
        ]
    );
}

#[tokio::test]
async fn the_first_rollout_that_covers_model_and_path_routes_and_the_rest_is_legacys() {
    let rollouts = [
        rollout(
            "gpt",
            "match = { models = [\"gpt-*\"], paths = [\"/v1/chat/*\"] }",
        ),
        rollout("messages", "match = { paths = [\"/v1/messages\"] }"),
    ]
    .concat();
    let rig = Rig::with(Setup {
        rollouts,
        ..Setup::default()
    })
    .await;
    rig.set_weight("gpt", 100).await;
    rig.set_weight("messages", 0).await;
    let check = async |path: &str, model: &str, arm: &str, rollout: Option<&str>| {
        let answer = rig.post(path, &ask(model, false)).await;
        let found = (served_by(&answer), answer.head.header("x-cutover-rollout"));
        assert_eq!(found, (arm, rollout), "{path} {model}");
    };
    check(CHAT, "gpt-4", "canary", Some("gpt")).await;
    check(CHAT, "claude", "legacy", None).await;
    check("/v1/embeddings", "gpt-4", "legacy", None).await;
    check(MESSAGES, "gpt-4", "legacy", Some("messages")).await;
    rig.set_weight("messages", 100).await;
    rig.set_weight("gpt", 0).await;
    check(CHAT, "gpt-4", "legacy", Some("gpt")).await;
    check(MESSAGES, "claude", "canary", Some("messages")).await;
}

async fn chunked(rig: &Rig, target: &str, body: &[u8]) -> Answer {
    let mut client = rig.client().await;
    let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    for chunk in body.chunks(16 * 1024) {
        let size = format!("{:x}\r\n", chunk.len());
        // The proxy may refuse before all is sent.
        if client
            .send(&[size.as_bytes(), chunk, b"\r\n"].concat())
            .await
            .is_err()
        {
            break;
        }
    }
    client.send(b"0\r\n\r\n").await.ok();
    client.answer().await.unwrap()
}

fn padded(bytes: usize) -> Value {
    json!({"model": "ok", "messages": [{"role": "user", "content": "x".repeat(bytes)}]})
}

fn small_limits() -> Setup {
    let proxy = "replay-body = \"64KiB\"\nmax-body = \"256KiB\"".to_owned();
    Setup {
        proxy,
        ..Setup::default()
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_goes_to_legacy_unchanged() {
    let rig = Rig::with(small_limits()).await;
    rig.set_weight("default", 100).await;
    let small = padded(60 * 1024);
    assert_eq!(served_by(&rig.post(CHAT, &small).await), "canary");
    let large = padded(100 * 1024);
    assert_eq!(served_by(&rig.post(CHAT, &large).await), "legacy");
    assert_eq!(
        served_by(&chunked(&rig, CHAT, large.to_string().as_bytes()).await),
        "legacy"
    );
    for request in rig.legacy.requests() {
        assert!(
            request.body == large.to_string().into_bytes(),
            "the body was changed"
        );
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_streamed_through() {
    let rig = Rig::with(small_limits()).await;
    let body = padded(100 * 1024).to_string().into_bytes();
    let mut client = rig.client().await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes()).await.unwrap();
    client.send(&body[..1_000]).await.unwrap();
    wait_until("legacy is connected to", || rig.legacy.connections() > 0).await;
    client.send(&body[1_000..]).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!((served_by(&answer), answer.end), ("legacy", End::Clean));
}

#[tokio::test]
async fn a_body_larger_than_the_limit_is_refused_whatever_its_framing() {
    let rig = Rig::with(small_limits()).await;
    rig.set_weight("default", 100).await;
    let body = padded(300 * 1024).to_string();
    for target in [CHAT, MESSAGES, "/v1/files"] {
        let mut client = rig.client().await;
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        client.send(head.as_bytes()).await.unwrap();
        let by_length = client.answer().await.unwrap();
        let by_chunks = chunked(&rig, target, body.as_bytes()).await;
        for answer in [by_length, by_chunks] {
            assert_eq!(answer.head.status, 413, "{target}: {}", answer.text());
            assert_eq!(
                answer.head.header("x-cutover-error"),
                Some("body-too-large")
            );
            assert!(answer.json()["error"]["message"].is_string());
        }
    }
    assert!(rig.canary.requests().is_empty());
    assert!(
        rig.legacy.requests().is_empty(),
        "a cut body was taken for a whole one"
    );
}

#[tokio::test]
async fn the_labels_on_answers_can_be_switched_off() {
    let proxy = "response-headers = false".to_owned();
    let rig = Rig::with(Setup {
        proxy,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let answer = rig.post(CHAT, &ask("fault-500@canary", false)).await;
    assert_eq!(answer.head.header("x-provider"), Some("legacy"));
    for label in ["x-cutover-arm", "x-cutover-rollout"] {
        assert_eq!(answer.head.header(label), None);
    }
}
