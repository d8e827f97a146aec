//! Where conversations go that a provider keeps state of: to the arm that made it, as long as it is known.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::{
    CANARY_KEY, CHAT, MESSAGES, RESPONSES, Rig, Setup, ask, exchange, rollout, served_by,
};

/// The events' data of a stream.
pub(crate) fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

/// The id of a response, of a stream or of a plain answer.
pub(crate) fn response_id(answer: &Answer, stream: bool) -> String {
    let response = if stream {
        events(answer)[0]["response"].clone()
    } else {
        answer.json()
    };
    response["id"].as_str().unwrap().to_owned()
}

/// The signature of the thinking in a message, of a stream or of a plain answer.
pub(crate) fn signature(answer: &Answer, stream: bool) -> String {
    if !stream {
        let message = answer.json();
        return message["content"][0]["signature"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    let pieces = events(answer);
    let pieces = pieces
        .iter()
        .filter_map(|event| event["delta"]["signature"].as_str());
    pieces.collect()
}

/// The next turn after thinking with this signature.
pub(crate) fn after_thinking(signature: &str) -> Value {
    json!({"model": "state", "max_tokens": 50, "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": signature},
            {"type": "text", "text": "hello"}]},
        {"role": "user", "content": "and then?"}]})
}

/// The next turn after this response.
pub(crate) fn after_response(id: &str) -> Value {
    json!({"model": "state", "input": "and then?", "previous_response_id": id})
}

async fn get(client: &mut Client, method: &str, target: &str) -> Answer {
    client.request(method, target, &[], b"").await.unwrap();
    client.answer().await.unwrap()
}

#[tokio::test]
async fn a_response_is_continued_where_it_began_whatever_the_weight_is() {
    for stream in [false, true] {
        let rig = Rig::at(100).await;
        let mut client = rig.client().await;
        let first = exchange(&mut client, RESPONSES, &[], &ask("state", stream)).await;
        assert_eq!(served_by(&first), "canary");
        let mut id = response_id(&first, stream);
        rig.set_weight("default", 0).await;
        let new = exchange(&mut client, RESPONSES, &[], &ask("state", stream)).await;
        assert_eq!(served_by(&new), "legacy", "a new conversation");
        let of_legacy = response_id(&new, stream);
        // Every turn brings an id that the next one names.
        for turn in 0..3 {
            let answer = exchange(&mut client, RESPONSES, &[], &after_response(&id)).await;
            assert_eq!(served_by(&answer), "canary", "turn {turn}");
            assert_eq!(answer.head.header("x-cutover-rollout"), None);
            id = response_id(&answer, false);
        }
        // What legacy made, and what nobody is known to have made, is legacy's at any weight.
        rig.set_weight("default", 100).await;
        for id in [of_legacy.as_str(), "resp_unknown"] {
            let answer = exchange(&mut client, RESPONSES, &[], &after_response(id)).await;
            assert_eq!(served_by(&answer), "legacy", "{id}");
        }
    }
}

#[tokio::test]
async fn every_way_to_name_a_piece_of_an_answer_leads_to_its_maker() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let first = exchange(&mut client, RESPONSES, &[], &ask("state", true)).await;
    let id = response_id(&first, true);
    let mark = id.strip_prefix("resp_").unwrap();
    rig.set_weight("default", 0).await;
    let item = |item: Value| json!({"model": "state", "input": [item]});
    let named = [
        item(json!({"type": "item_reference", "id": format!("rs_{mark}")})),
        item(json!({"type": "reasoning", "id": format!("rs_{mark}"), "summary": []})),
        item(json!({"type": "reasoning", "encrypted_content": format!("enc_{mark}")})),
        // Of several, one that is known is enough.
        json!({"model": "state", "previous_response_id": "resp_unknown",
            "input": [{"type": "item_reference", "id": format!("rs_{mark}")}]}),
    ];
    for body in named {
        let answer = exchange(&mut client, RESPONSES, &[], &body).await;
        assert_eq!(served_by(&answer), "canary", "{body}");
    }
}

#[tokio::test]
async fn an_answer_too_large_to_be_read_whole_still_gives_out_its_id() {
    for stream in [false, true] {
        let rig = Rig::at(100).await;
        let mut client = rig.client().await;
        let mut body = ask("fault-huge-event", stream);
        body["state"] = json!(true);
        let first = exchange(&mut client, RESPONSES, &[], &body).await;
        assert!(first.body.len() > 1024 * 1024);
        let next = after_response(&response_id(&first, stream));
        rig.set_weight("default", 0).await;
        let answer = exchange(&mut client, RESPONSES, &[], &next).await;
        assert_eq!(served_by(&answer), "canary", "stream: {stream}");
    }
}

#[tokio::test]
async fn thinking_is_continued_where_it_was_signed() {
    for stream in [false, true] {
        let rig = Rig::at(100).await;
        let mut client = rig.client().await;
        let first = exchange(&mut client, MESSAGES, &[], &ask("state", stream)).await;
        assert_eq!(served_by(&first), "canary");
        let signed = signature(&first, stream);
        rig.set_weight("default", 0).await;
        let next = exchange(&mut client, MESSAGES, &[], &after_thinking(&signed)).await;
        assert_eq!(served_by(&next), "canary", "stream: {stream}");
        let new = exchange(&mut client, MESSAGES, &[], &ask("state", stream)).await;
        assert_eq!(served_by(&new), "legacy");
        let signed = signature(&new, stream);
        rig.set_weight("default", 100).await;
        let next = exchange(&mut client, MESSAGES, &[], &after_thinking(&signed)).await;
        assert_eq!(served_by(&next), "legacy", "stream: {stream}");
    }
}

#[tokio::test]
async fn a_path_leads_to_the_maker_of_what_it_names_with_that_arms_credential() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let first = exchange(&mut client, RESPONSES, &[], &ask("state", false)).await;
    let id = response_id(&first, false);
    rig.set_weight("default", 0).await;
    rig.canary.clear();
    let of_canary = [
        ("GET", format!("/v1/responses/{id}")),
        ("GET", format!("/v1/responses/{id}?include=all")),
        ("GET", format!("/v1/responses/{id}/input_items")),
        ("POST", format!("/v1/responses/{id}/cancel")),
        ("DELETE", format!("/v1/responses/{id}")),
        ("GET", format!("/responses/{id}/")),
    ];
    for (method, target) in &of_canary {
        let answer = get(&mut client, method, target).await;
        assert_eq!(served_by(&answer), "canary", "{method} {target}");
    }
    let seen = rig.canary.requests();
    assert_eq!(seen.len(), of_canary.len());
    for (request, (method, target)) in seen.iter().zip(&of_canary) {
        assert_eq!(request.method, *method);
        let expected = if target.starts_with("/v1") {
            target.clone()
        } else {
            format!("/v1{target}")
        };
        assert_eq!(request.target, expected);
        let key = format!("Bearer {CANARY_KEY}");
        assert_eq!(request.header("authorization"), Some(key.as_str()));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
    for target in [
        "/v1/responses/resp_unknown",
        "/v1/responses",
        "/v1/files/file-1",
        "/v1/batches",
    ] {
        let answer = get(&mut client, "GET", target).await;
        assert_eq!(served_by(&answer), "legacy", "{target}");
    }
}

#[tokio::test]
async fn a_model_that_no_rollout_covers_still_goes_where_its_state_is() {
    let rollouts = rollout("gpt", "match = { models = [\"state\"] }");
    let rig = Rig::with(Setup {
        rollouts,
        canary: "models = { \"other\" = \"others-name\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("gpt", 100).await;
    let mut client = rig.client().await;
    let first = exchange(&mut client, RESPONSES, &[], &ask("state", false)).await;
    let mut body = after_response(&response_id(&first, false));
    body["model"] = json!("other");
    let next = exchange(&mut client, RESPONSES, &[], &body).await;
    assert_eq!(served_by(&next), "canary");
    let sent = rig.canary.requests().last().unwrap().json();
    assert_eq!(sent["model"], "others-name");
    assert_eq!(next.json()["model"], "other");
    let new = exchange(&mut client, RESPONSES, &[], &ask("other", false)).await;
    assert_eq!(served_by(&new), "legacy");
}

#[tokio::test]
async fn what_lives_on_a_dead_canary_fails_over_to_nobody_and_is_no_evidence() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let first = exchange(&mut client, RESPONSES, &[], &ask("state", false)).await;
    let id = response_id(&first, false);
    for model in ["fault-500", "fault-529"] {
        let mut body = after_response(&id);
        body["model"] = json!(model);
        let answer = exchange(&mut client, RESPONSES, &[], &body).await;
        assert_eq!(served_by(&answer), "canary", "{model}");
        assert!(answer.head.status >= 500);
    }
    rig.canary.kill().await;
    let answer = exchange(&mut client, RESPONSES, &[], &after_response(&id)).await;
    assert_eq!(answer.head.status, 502, "{}", answer.text());
    assert!(rig.legacy.requests().is_empty());
    let counted = rig
        .wait_rollout("default", |rollout| {
            rollout["arms"]["canary"]["requests"] == 1
        })
        .await;
    assert_eq!(counted["arms"]["canary"]["errors"], 0);
    drop(client);
    let rows = rig.finish().await.rows;
    let roles: Vec<_> = rows
        .iter()
        .map(|row| (row.arm.as_str(), row.role.as_str(), row.rollout.as_deref()))
        .collect();
    let pinned = ("canary", "pinned", None);
    assert_eq!(
        roles,
        [("canary", "live", Some("default")), pinned, pinned, pinned]
    );
}

#[tokio::test]
async fn ordinary_chats_teach_nothing_and_status_counts_what_is_learned() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let learned =
        async || rig.admin("GET", "/api/v1/status", "").await.json()["learned_ids"].clone();
    for stream in [false, true] {
        for path in [CHAT, MESSAGES] {
            exchange(&mut client, path, &[], &ask("ok", stream)).await;
        }
    }
    assert_eq!(learned().await, json!({"known": 0, "learned_total": 0}));
    for _ in 0..2 {
        // A response, its reasoning with encrypted content, its message; a signature.
        exchange(&mut client, RESPONSES, &[], &ask("state", true)).await;
        exchange(&mut client, MESSAGES, &[], &ask("state", true)).await;
    }
    // The scripted message is called the same each time.
    assert_eq!(learned().await, json!({"known": 9, "learned_total": 9}));
    let database = rig.finish().await.database;
    for text in ["resp_canary", "sig_canary", "enc_canary"] {
        let found = database
            .windows(text.len())
            .any(|part| part == text.as_bytes());
        assert!(!found, "the store holds {text}");
    }
}
