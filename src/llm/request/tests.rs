use proptest::prelude::*;

use super::Dialect::{
    AnthropicMessages as Messages, OpenAiChat as Chat, OpenAiEmbeddings as Embeddings,
    OpenAiResponses as Responses,
};
use super::*;

#[test]
fn the_members_that_matter_are_read() {
    let body =
        br#"{ "model" : "gpt-4\u002e1", "stream": true, "stream_options": {"include_usage":false},
        "user":"u-1", "prompt_cache_key":"k", "max_completion_tokens": 17, "messages":[] }"#;
    let facts = read_request(Chat, body).unwrap();
    assert_eq!(facts.model.as_deref(), Some("gpt-4.1"));
    assert_eq!(
        &body[facts.model_span.clone().unwrap()],
        br#""gpt-4\u002e1""#
    );
    assert!(facts.stream && facts.stream_options_set);
    assert_eq!(facts.user.as_deref(), Some("u-1"));
    assert_eq!(facts.cache_key.as_deref(), Some("k"));
    assert_eq!(facts.max_tokens, Some(17));
    assert_eq!(facts.pinned, None);

    let facts = read_request(Messages, br#"{"metadata":{"user_id":"x"},"stream":"yes"}"#).unwrap();
    assert_eq!(facts.user.as_deref(), Some("x"));
    assert!(!facts.stream && facts.model.is_none() && facts.model_span.is_none());
}

#[test]
fn what_is_no_object_is_unknown() {
    for body in [
        "",
        "[]",
        "null",
        "{",
        "{\"model\":\"m\"",
        "{} {}",
        "model=m",
    ] {
        assert_eq!(read_request(Chat, body.as_bytes()), None, "{body}");
    }
}

#[test]
fn of_a_repeated_member_the_last_one_counts() {
    let body = br#"{"model":"a","model":"b"}"#;
    let facts = read_request(Chat, body).unwrap();
    assert_eq!(facts.model.as_deref(), Some("b"));
    assert_eq!(facts.model_span, Some(21..24));
}

/// Why, and the state that is named.
type Pinned = Option<(PinReason, &'static [&'static str])>;

const PINS: &[(Dialect, &str, Pinned)] = &[
    (
        Responses,
        r#"{"previous_response_id":"resp_1","input":"x"}"#,
        Some((PinReason::PreviousResponse, &["resp_1"])),
    ),
    (
        Responses,
        r#"{"previous_response_id":null,"input":"x"}"#,
        None,
    ),
    (
        Responses,
        r#"{"conversation":"conv_1"}"#,
        Some((PinReason::Conversation, &["conv_1"])),
    ),
    (
        Responses,
        r#"{"conversation":{"id":"conv_2"}}"#,
        Some((PinReason::Conversation, &["conv_2"])),
    ),
    (
        Responses,
        r#"{"prompt":{"id":"pmpt_1","version":"2"}}"#,
        Some((PinReason::StoredPrompt, &["pmpt_1"])),
    ),
    (
        Responses,
        r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#,
        Some((PinReason::Item, &["msg_1"])),
    ),
    (
        Responses,
        r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[]}]}"#,
        Some((PinReason::Item, &["rs_1"])),
    ),
    (
        Responses,
        r#"{"input":[{"type":"reasoning","id":"rs_1","encrypted_content":"gAAA"}]}"#,
        Some((PinReason::EncryptedReasoning, &["gAAA", "rs_1"])),
    ),
    (
        Responses,
        r#"{"input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}"#,
        Some((PinReason::File, &["file-1"])),
    ),
    (
        Responses,
        r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}],"input":"x"}"#,
        Some((PinReason::File, &["vs_1"])),
    ),
    (
        Responses,
        r#"{"tools":[{"type":"code_interpreter","container":"cntr_1"}],"input":"x"}"#,
        Some((PinReason::Container, &["cntr_1"])),
    ),
    (
        Responses,
        r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto"}}],"input":"x"}"#,
        None,
    ),
    (
        Responses,
        r#"{"include":["reasoning.encrypted_content"],"input":"x"}"#,
        None,
    ),
    (
        Chat,
        r#"{"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]}"#,
        Some((PinReason::File, &["f"])),
    ),
    (
        Chat,
        r#"{"messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#,
        Some((PinReason::File, &["audio_1"])),
    ),
    (
        Chat,
        r#"{"messages":[{"role":"assistant","tool_calls":[{"extra_content":{"google":{"thought_signature":"s"}}}]}]}"#,
        Some((PinReason::ThinkingSignature, &["s"])),
    ),
    (
        Chat,
        r#"{"messages":[{"role":"user","content":"say \"file_id\" and \"signature\""}]}"#,
        None,
    ),
    (
        Chat,
        r#"{"messages":[],"tools":[{"function":{"name":"f","parameters":{"properties":{"file_id":{"type":"string"}}}}}]}"#,
        None,
    ),
    (
        Messages,
        r#"{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"sig"}]}]}"#,
        Some((PinReason::ThinkingSignature, &["sig"])),
    ),
    (
        Messages,
        r#"{"messages":[{"role":"assistant","content":[{"type":"redacted_thinking","data":"d"}]}]}"#,
        Some((PinReason::EncryptedReasoning, &["d"])),
    ),
    (
        Messages,
        r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]}"#,
        Some((PinReason::File, &["f"])),
    ),
    (
        Messages,
        r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{"file_id":"mine"}}]}]}"#,
        None,
    ),
    (
        Responses,
        r#"{"previous_response_id":"resp_1","input":[{"type":"item_reference","id":"rs_1"},
            {"type":"item_reference","id":"rs_2"}],"tools":[{"type":"file_search","vector_store_ids":["a","b"]}]}"#,
        Some((
            PinReason::PreviousResponse,
            &["resp_1", "rs_2", "rs_1", "a", "b"],
        )),
    ),
    (
        Responses,
        r#"{"tool_resources":{"file_search":{"vector_store_ids":["vs_1"]}}}"#,
        Some((PinReason::File, &["vs_1"])),
    ),
    (
        Messages,
        r#"{"container":"container_1","messages":[]}"#,
        Some((PinReason::Container, &["container_1"])),
    ),
    (
        Messages,
        r#"{"thinking":{"type":"enabled","budget_tokens":1024},"messages":[{"role":"user","content":"x"}]}"#,
        None,
    ),
];

#[test]
fn state_of_one_provider_pins_a_request() {
    for &(dialect, body, expected) in PINS {
        let facts = read_request(dialect, body.as_bytes()).unwrap();
        let expected_state: Vec<_> = expected
            .iter()
            .flat_map(|(_, texts)| texts.iter().map(|text| hash_state(text)))
            .collect();
        assert_eq!(facts.pinned, expected.map(|(reason, _)| reason), "{body}");
        assert_eq!(facts.state, expected_state, "{body}");
    }
}

#[test]
fn a_request_that_names_much_state_keeps_what_is_at_its_top_and_the_latest() {
    let block = |n: u32| format!(r#"{{"type":"thinking","thinking":"t","signature":"s{n}"}}"#);
    let turn = |n: u32| format!(r#"{{"role":"assistant","content":[{}]}}"#, block(n));
    let turns: Vec<_> = (0..100).map(turn).collect();
    let body = format!(r#"{{"container":"c1","messages":[{}]}}"#, turns.join(","));
    let facts = read_request(Messages, body.as_bytes()).unwrap();
    assert_eq!(facts.state.len(), STATE_MAX + 1);
    assert_eq!(facts.pinned, Some(PinReason::Container));
    assert_eq!(facts.state[0], hash_state("c1"));
    for n in 68..100 {
        assert!(facts.state.contains(&hash_state(&format!("s{n}"))), "s{n}");
    }
    let repeated = r#""conversation":"c","#.repeat(1_000);
    let body = format!("{{{repeated}\"input\":\"x\"}}");
    let facts = read_request(Responses, body.as_bytes()).unwrap();
    assert_eq!(facts.state.len(), TOP_MAX);
}

#[test]
fn only_the_model_changes_when_it_is_replaced() {
    let body = Bytes::from_static(b"{\"a\": 1 , \"model\" :\t\"gpt-4\",\"b\":\"gpt-4\"}\n");
    let facts = read_request(Chat, &body).unwrap();
    let spliced = replace_model(&body, facts.model_span.unwrap(), "a\"b\\\u{e9}");
    assert_eq!(
        spliced,
        "{\"a\": 1 , \"model\" :\t\"a\\\"b\\\\\u{e9}\",\"b\":\"gpt-4\"}\n".as_bytes()
    );
    let facts = read_request(Chat, &spliced).unwrap();
    assert_eq!(facts.model.as_deref(), Some("a\"b\\\u{e9}"));
    assert_eq!(replace_model(&body, 5..5000, "x"), body);
}

proptest! {
    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for dialect in [Chat, Messages, Responses, Embeddings] {
            let is_object = bytes.trim_ascii().first() == Some(&0x7b);
            prop_assert!(is_object || read_request(dialect, &bytes).is_none());
        }
    }

    #[test]
    fn any_model_name_survives_a_replacement(old in ".*", new in ".*") {
        let old = serde_json::to_string(&old).unwrap();
        let body = Bytes::from(format!("{{\"x\":[1],\"model\":{old},\"stream\":true}}"));
        let span = read_request(Chat, &body).unwrap().model_span.unwrap();
        let spliced = replace_model(&body, span, &new);
        let facts = read_request(Chat, &spliced).unwrap();
        prop_assert_eq!(facts.model.as_deref(), Some(new.as_str()));
        prop_assert!(facts.stream);
    }
}

#[test]
fn usage_is_asked_for_only_where_a_stream_does_not_say_what_it_wants() {
    let check = |dialect, body: &str, expected: Option<&str>| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let facts = read_request(dialect, &bytes).unwrap();
        let slot = usage_slot(dialect, &bytes, &facts);
        let asked = slot.map(|_| rewrite_request(&bytes, slot, None));
        assert_eq!(asked.as_deref(), expected.map(str::as_bytes), "{body}");
    };
    let ask = " {\n\"model\" : \"a\", \"stream\":true }";
    let asked =
        " {\"stream_options\":{\"include_usage\":true},\n\"model\" : \"a\", \"stream\":true }";
    for dialect in [Dialect::OpenAiChat, Dialect::OpenAiCompletions] {
        check(dialect, ask, Some(asked));
        check(dialect, r#"{"model":"a","stream":false}"#, None);
        check(dialect, r#"{"model":"a","stream":"true"}"#, None);
        for set in ["null", "{}", r#"{"include_usage":false}"#] {
            check(
                dialect,
                &format!("{{\"stream\":true,\"stream_options\":{set}}}"),
                None,
            );
        }
    }
    for dialect in [
        Dialect::OpenAiResponses,
        Dialect::OpenAiEmbeddings,
        Dialect::AnthropicMessages,
    ] {
        check(dialect, ask, None);
    }
    let body = Bytes::copy_from_slice(ask.as_bytes());
    let facts = read_request(Dialect::OpenAiChat, &body).unwrap();
    let slot = usage_slot(Dialect::OpenAiChat, &body, &facts);
    let both = rewrite_request(&body, slot, Some((facts.model_span.unwrap(), "b\"c")));
    assert_eq!(both, asked.replace("\"a\"", r#""b\"c""#));
    assert_eq!(rewrite_request(&body, None, None).as_ptr(), body.as_ptr());
    assert_eq!(
        rewrite_request(&body, Some(1_000), None),
        body,
        "no such place"
    );
}
