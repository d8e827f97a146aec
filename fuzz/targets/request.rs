//! The bodies of requests: what routing reads, and the model name that is put in.
#![no_main]

use std::hint::black_box;

use bytes::Bytes;
use cutover::llm::{self, Dialect};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    for dialect in [
        Dialect::OpenAiChat,
        Dialect::OpenAiCompletions,
        Dialect::OpenAiEmbeddings,
        Dialect::OpenAiResponses,
        Dialect::AnthropicMessages,
    ] {
        read(dialect, data);
    }
    black_box((llm::hash_body(data), llm::sticky_field(data, "user")));
});

fn read(dialect: Dialect, data: &[u8]) {
    let Some(facts) = llm::read_request(dialect, data) else {
        return;
    };
    let key = llm::sticky_auto(dialect, &facts, data, |_| false);
    assert_eq!(key, llm::sticky_auto(dialect, &facts, data, |_| false));
    black_box(llm::sticky_auto(dialect, &facts, data, |_| true));
    let Ok(before) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let slot = llm::usage_slot(dialect, data, &facts);
    if let Some(slot) = slot {
        asks_for_usage(&before, data, slot);
    }
    let Some(span) = facts.model_span.clone() else {
        return;
    };
    // A body that is JSON stays JSON, and differs in the model alone.
    let body = Bytes::copy_from_slice(data);
    let name = "a \"new\" model \u{1f980}";
    let mapped = llm::replace_model(&body, span, name);
    let mut after: Value = serde_json::from_slice(&mapped).expect("the new body is JSON");
    assert_eq!(after["model"], name);
    after["model"] = before["model"].clone();
    assert_eq!(after, before);
}

/// A body that asks for usage is JSON, and differs in that alone.
fn asks_for_usage(before: &Value, data: &[u8], slot: usize) {
    let body = Bytes::copy_from_slice(data);
    let asking = llm::rewrite_request(&body, Some(slot), None);
    let mut after: Value = serde_json::from_slice(&asking).expect("the new body is JSON");
    let options = after
        .as_object_mut()
        .and_then(|all| all.remove("stream_options"));
    assert_eq!(options, Some(serde_json::json!({"include_usage": true})));
    assert_eq!(&after, before);
}
