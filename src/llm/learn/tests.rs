use std::collections::BTreeSet;

use super::super::StreamWatch;
use super::Dialect::{
    AnthropicMessages as Messages, OpenAiChat as Chat, OpenAiEmbeddings as Embeddings,
    OpenAiResponses as Responses,
};
use super::*;

fn hashes(texts: &[&str]) -> BTreeSet<u64> {
    texts.iter().map(|text| hash_state(text)).collect()
}

const WHOLE: &[(Option<Dialect>, &str, &[&str])] = &[
    (
        Some(Responses),
        r#"{"id":"resp_1","object":"response","conversation":{"id":"conv_1"},"previous_response_id":"resp_0",
        "output":[
            {"type":"reasoning","id":"rs_1","encrypted_content":"gAAA\u002b","summary":[]},
            {"type":"function_call","id":"fc_1","call_id":"call_1","arguments":"{\"file_id\":\"mine\"}"},
            {"type":"code_interpreter_call","id":"ci_1","container_id":"cntr_1","outputs":[]},
            {"type":"message","id":"msg_1","content":[{"type":"output_text","text":"x","annotations":[
                {"type":"container_file_citation","container_id":"cntr_1","file_id":"cfile_1"}]}]}]}"#,
        &[
            "resp_1", "conv_1", "rs_1", "gAAA+", "fc_1", "ci_1", "cntr_1", "msg_1", "cfile_1",
        ],
    ),
    (
        Some(Responses),
        r#"{"id":"resp_1","output":[]"#,
        &["resp_1"],
    ),
    (
        Some(Responses),
        r#"{"id":null,"output":[{"id":""}],"conversation":null}"#,
        &[],
    ),
    (
        Some(Messages),
        r#"{"id":"msg_1","type":"message","container":{"id":"container_1","expires_at":"x"},"content":[
            {"type":"thinking","thinking":"hm","signature":"sig"},
            {"type":"redacted_thinking","data":"red"},
            {"type":"tool_use","id":"toolu_1","name":"n","input":{"file_id":"mine"}},
            {"type":"web_search_tool_result","content":[{"type":"web_search_result","encrypted_content":"page"}]},
            {"type":"bash_code_execution_tool_result","content":{"type":"bash_code_execution_result",
                "content":[{"type":"bash_code_execution_output","file_id":"file_1"}]}}]}"#,
        &["container_1", "sig", "red", "page", "file_1"],
    ),
    (
        Some(Chat),
        r#"{"id":"chatcmpl-1","choices":[{"message":{"role":"assistant","audio":{"id":"audio_1","data":"xx"},
            "reasoning_details":[{"type":"reasoning.text","text":"t","signature":"s1"},
                {"type":"reasoning.encrypted","data":"e1","id":"rd_1"}],
            "tool_calls":[{"id":"call_1","extra_content":{"google":{"thought_signature":"t1"}}}]}}]}"#,
        &["audio_1", "s1", "e1", "t1"],
    ),
    (
        Some(Chat),
        r#"{"id":"chatcmpl-1","choices":[{"message":{"content":"\"signature\""}}]}"#,
        &[],
    ),
    (
        Some(Embeddings),
        r#"{"id":"e","data":[{"id":"x","file_id":"y"}]}"#,
        &[],
    ),
    (None, r#"{"id":"file-1","object":"file"}"#, &["file-1"]),
    (
        None,
        r#"{"id":"batch_1","output_file_id":"file-2","error_file_id":null,"input_file_id":"file-0"}"#,
        &["batch_1", "file-2"],
    ),
    (
        None,
        r#"{"object":"list","data":[{"id":"rs_1","type":"reasoning","encrypted_content":"e"},{"id":"msg_1"}]}"#,
        &["rs_1", "e", "msg_1"],
    ),
    (None, r#"[{"id":"x"}]"#, &[]),
    (None, "not JSON", &[]),
];

#[test]
fn a_whole_answer_gives_out_these_ids_and_no_others() {
    for &(dialect, body, expected) in WHOLE {
        let found: BTreeSet<_> = ids_of_answer(dialect, body.as_bytes())
            .into_iter()
            .collect();
        assert_eq!(found, hashes(expected), "{body}");
    }
}

const STREAMS: &[(Dialect, &str, &[&str])] = &[
    (
        Responses,
        r#"event: response.created
data: {"type":"response.created","response":{"id":"resp_1","conversation":{"id":"conv_1"},"output":[]}}

event: response.output_item.added
data: {"type":"response.output_item.added","item":{"id":"rs_1","type":"reasoning","encrypted_content":"half"}}

event: response.output_item.done
data: {"type":"response.output_item.done","item":{"id":"rs_1","type":"reasoning","encrypted_content":"whole"}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","item_id":"msg_1","delta":"\"id\":\"no\" response.completed"}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","output":[{"id":"msg_1","type":"message","content":[]}]}}

"#,
        &["resp_1", "conv_1", "rs_1", "whole", "msg_1"],
    ),
    (
        Messages,
        r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"my signature"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"Ck\u0059="}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"red"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"thinking","signature":"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"signature_delta","signature":"b"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","container":{"id":"container_1"}}}

event: message_stop
data: {"type":"message_stop"}

"#,
        &["EqQBCkY=", "red", "ab", "container_1"],
    ),
    (
        Chat,
        r#"data: {"choices":[{"delta":{"role":"assistant","audio":{"id":"audio_1","transcript":""}}}]}

data: {"choices":[{"delta":{"content":"a \"signature\": and \"audio\""}}]}

data: {"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","text":"t","signature":null}]}}]}

data: {"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","signature":"s1","index":0}]}}]}

data: {"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.encrypted","data":"e1"}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"id":"c","extra_content":{"google":{"thought_signature":"t1"}}}]}}]}

data: [DONE]

"#,
        &["audio_1", "s1", "e1", "t1"],
    ),
];

fn learned(dialect: Dialect, pieces: &[&[u8]]) -> BTreeSet<u64> {
    let mut watch = StreamWatch::learning(dialect);
    let mut found = BTreeSet::new();
    for piece in pieces {
        watch.feed(piece);
        found.extend(watch.take_ids());
    }
    watch.finish(true);
    found.extend(watch.take_ids());
    found
}

#[test]
fn a_stream_gives_out_the_same_ids_wherever_it_is_split_and_without_the_names_of_events() {
    for &(dialect, text, expected) in STREAMS {
        let unnamed: String = text
            .lines()
            .filter(|line| !line.starts_with("event:"))
            .map(|line| format!("{line}\n"))
            .collect();
        for text in [text, &unnamed] {
            let (bytes, expected) = (text.as_bytes(), hashes(expected));
            assert_eq!(learned(dialect, &[bytes]), expected, "{text}");
            for at in 0..bytes.len() {
                let (before, after) = bytes.split_at(at);
                assert_eq!(
                    learned(dialect, &[before, after]),
                    expected,
                    "split at {at}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(learned(dialect, &single), expected, "byte by byte");
        }
    }
}

#[test]
fn an_id_is_known_as_soon_as_its_event_is_complete() {
    let (_, text, _) = STREAMS[0];
    let created = text.find("\n\n").unwrap() + 2;
    let mut watch = StreamWatch::learning(Responses);
    watch.feed(&text.as_bytes()[..created]);
    let found: BTreeSet<_> = watch.take_ids().into_iter().collect();
    assert_eq!(found, hashes(&["resp_1", "conv_1"]));
    assert!(watch.take_ids().is_empty());
}

#[test]
fn a_stream_that_nobody_learns_from_gives_out_nothing() {
    for &(dialect, text, _) in STREAMS {
        let mut watch = StreamWatch::new(dialect);
        watch.feed(text.as_bytes());
        watch.finish(true);
        assert!(watch.take_ids().is_empty());
    }
}

#[test]
fn what_one_answer_gives_out_is_bounded() {
    let items: Vec<_> = (0..5_000)
        .map(|n| format!("{{\"id\":\"msg_{n}\"}}"))
        .collect();
    let body = format!("{{\"id\":\"resp_1\",\"output\":[{}]}}", items.join(","));
    assert_eq!(
        ids_of_answer(Some(Responses), body.as_bytes()).len(),
        IDS_MAX
    );
    let mut learn = Learn::default();
    for index in 0..10_000 {
        let data = format!(
            "{{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"signature\":\"s\"}}}}"
        );
        let event = Event {
            name: b"content_block_delta",
            data: Some(data.as_bytes()),
        };
        learn.read(Messages, &event);
    }
    assert_eq!(learn.open.len(), OPEN_MAX);
}

#[test]
fn what_an_answer_gives_out_is_what_the_next_request_names() {
    // An answer's block or item, and the request that sends it back.
    let round_trips = [
        (
            Messages,
            r#"{"type":"thinking","thinking":"t","signature":"Eq/QB+Cg=="}"#,
            r#"{"content":[BLOCK]}"#,
            r#"{"messages":[{"role":"assistant","content":[BLOCK]}]}"#,
        ),
        (
            Responses,
            r#"{"type":"reasoning","id":"rs_1","encrypted_content":"gA\/A","summary":[]}"#,
            r#"{"id":"resp_1","output":[BLOCK]}"#,
            r#"{"input":[BLOCK,{"role":"user","content":"x"}]}"#,
        ),
        (
            Chat,
            r#"{"role":"assistant","audio":{"id":"audio_1"}}"#,
            r#"{"choices":[{"message":BLOCK}]}"#,
            r#"{"messages":[BLOCK]}"#,
        ),
        (
            Chat,
            r#"{"role":"assistant","tool_calls":[{"extra_content":{"google":{"thought_signature":"sig"}}}]}"#,
            r#"{"choices":[{"message":BLOCK}]}"#,
            r#"{"messages":[BLOCK]}"#,
        ),
    ];
    for (dialect, block, answer, request) in round_trips {
        let given = ids_of_answer(Some(dialect), answer.replace("BLOCK", block).as_bytes());
        let request = request.replace("BLOCK", block);
        let facts = super::super::read_request(dialect, request.as_bytes()).unwrap();
        assert!(facts.pinned.is_some(), "{request}");
        assert!(
            facts.state.iter().any(|hash| given.contains(hash)),
            "{request}"
        );
    }
}
