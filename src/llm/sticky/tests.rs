use super::super::read_request;
use super::Dialect::{
    AnthropicMessages as Messages, OpenAiChat as Chat, OpenAiCompletions as Completions,
    OpenAiEmbeddings as Embeddings, OpenAiResponses as Responses,
};
use super::*;

fn auto(dialect: Dialect, body: &str) -> Option<u64> {
    let facts = read_request(dialect, body.as_bytes()).expect("an object");
    sticky_auto(dialect, &facts, body.as_bytes(), |_| false)
}

#[test]
fn hashes_never_change_between_releases() {
    let chat =
        r#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}"#;
    let cases = [
        (auto(Chat, chat), GOLDEN[0]),
        (auto(Chat, r#"{"user":"u-1","messages":[]}"#), GOLDEN[1]),
        (
            auto(Chat, r#"{"user":"u-1","prompt_cache_key":"k"}"#),
            GOLDEN[2],
        ),
        (
            auto(
                Messages,
                r#"{"system":"s","messages":[{"role":"user","content":[{"type":"image","source":{"data":"AA"}}]}]}"#,
            ),
            GOLDEN[3],
        ),
        (auto(Embeddings, r#"{"input":["a","b"]}"#), GOLDEN[4]),
        (sticky_field(br#"{"tenant":"t-9"}"#, "tenant"), GOLDEN[5]),
        (Some(hash_key(b"header")), GOLDEN[6]),
    ];
    let found: Vec<_> = cases.iter().map(|(found, _)| found.unwrap()).collect();
    assert_eq!(found, GOLDEN, "{found:#x?}");
}

const GOLDEN: [u64; 7] = [
    0x7ba2_1b45_4665_51f4,
    0xc811_eb4c_52ae_13fa,
    0x8f3d_b8cd_46fe_0ebb,
    0x08d0_fd67_48b4_4c58,
    0xe6ad_3079_9355_6483,
    0x07f6_3fab_40f5_31fb,
    0x64e3_261a_a4c5_2cf7,
];

/// All of them are the same conversation, or none of them is.
fn check_same(dialect: Dialect, bodies: &[&str], same: bool) {
    let hashes: Vec<_> = bodies
        .iter()
        .map(|body| auto(dialect, body).expect("a hash"))
        .collect();
    for (at, hash) in hashes.iter().enumerate() {
        for (other, later) in hashes.iter().enumerate().skip(at + 1) {
            assert_eq!(hash == later, same, "{}\n{}", bodies[at], bodies[other]);
        }
    }
}

#[test]
fn a_conversation_keeps_its_key_while_it_grows() {
    check_same(
        Chat,
        &[
            r#"{"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}]}"#,
            r#"{"messages":[{"content":"s","role":"system"},{"role":"user","content":"h\u0069"},{"role":"assistant","content":"x"}],"model":"b","stream":true,"temperature":1}"#,
            r#"{ "messages" : [ {"role":"system", "content":[{"type":"text","text":"s"}]}, {"role":"user","content":"hi"}, {"role":"user","content":"more"} ] }"#,
            r#"{"user":null,"prompt_cache_key":"","messages":[{"role":"developer","content":"s"},{"role":"user","name":"n","content":"hi"}]}"#,
        ],
        true,
    );
    check_same(
        Messages,
        &[
            r#"{"system":"s","messages":[{"role":"user","content":"hi"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":"x"}],"system":[{"type":"text","text":"s"}]}"#,
        ],
        true,
    );
    check_same(
        Messages,
        &[
            r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"a":"1","b":[2,{}]},"cache_control":{}}]}]}"#,
            r#"{"messages":[{"content":[{"source":{"b":[ 2, { } ],"a":"1"},"type":"image"}],"role":"user"}]}"#,
        ],
        true,
    );
    check_same(
        Responses,
        &[
            r#"{"instructions":"s","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]}"#,
            r#"{"instructions":"s","input":[{"role":"user","content":"hi"},{"type":"function_call_output","output":"1"}]}"#,
            r#"{"instructions":"s","input":"hi"}"#,
        ],
        true,
    );
}

#[test]
fn different_conversations_have_different_keys() {
    check_same(
        Chat,
        &[
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"b"}]}"#,
            r#"{"messages":[{"role":"system","content":"t"},{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":["a","b"]}]}"#,
            r#"{"messages":[{"role":"user","content":["b","a"]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"y"}}]}]}"#,
            r#"{"user":"a"}"#,
            r#"{"prompt_cache_key":"a"}"#,
        ],
        false,
    );
    check_same(
        Completions,
        &[
            r#"{"prompt":"a"}"#,
            r#"{"prompt":"b"}"#,
            r#"{"prompt":["a","b"]}"#,
        ],
        false,
    );
}

#[test]
fn without_a_prompt_there_is_nothing_to_hash() {
    for body in [
        "{}",
        r#"{"messages":[]}"#,
        r#"{"messages":null}"#,
        r#"{"system":"s"}"#,
        r#"{"prompt":"another dialect's"}"#,
    ] {
        assert_eq!(auto(Chat, body), None, "{body}");
    }
}

#[test]
fn a_named_field_is_found_by_name_or_path() {
    let body = br#"{"tenant":"t","a.b":"dotted","meta":{"org":{"id":7}},"empty":"","none":null}"#;
    let cases = [
        ("tenant", true),
        ("a.b", true),
        ("meta.org.id", true),
        ("meta.org.name", false),
        ("empty", false),
        ("none", false),
        ("", false),
        (".", false),
    ];
    for (field, expected) in cases {
        assert_eq!(sticky_field(body, field).is_some(), expected, "{field}");
    }
    assert_eq!(
        sticky_field(br#"{"u":"\u0061"}"#, "u"),
        sticky_field(br#"{ "u" : "a" }"#, "u")
    );
    assert_eq!(sticky_field(b"no json", "u"), None);
}
