use proptest::prelude::*;

use super::Dialect::{
    AnthropicMessages as Messages, OpenAiChat as Chat, OpenAiCompletions as Completions,
    OpenAiEmbeddings as Embeddings, OpenAiResponses as Responses,
};
use super::*;

const ANSWERS: &[(Dialect, &str, Outcome, Option<u32>)] = &[
    (
        Chat,
        r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
        Outcome::Ok,
        Some(3),
    ),
    (
        Chat,
        r#"{"choices":[{"message":{"content":""},"finish_reason":"length"}],"error":null}"#,
        Outcome::Ok,
        None,
    ),
    (
        Chat,
        r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
        Outcome::Ok,
        None,
    ),
    (
        Chat,
        r#"{"choices":[{"message":{"content":null}}]}"#,
        Outcome::SoftError,
        None,
    ),
    (Chat, r#"{"choices":[]}"#, Outcome::SoftError, None),
    (Chat, r#"{"choices":null}"#, Outcome::SoftError, None),
    (
        Chat,
        r#"{"error":{"message":"x","code":502}}"#,
        Outcome::SoftError,
        None,
    ),
    (Chat, r#"{"error":"x"}"#, Outcome::SoftError, None),
    (
        Chat,
        r#"{"error":{"message":"slow","code":429}}"#,
        Outcome::RateLimited,
        None,
    ),
    (
        Chat,
        r#"{"choices":[{"finish_reason":"error","message":{"content":"half"}}]}"#,
        Outcome::SoftError,
        None,
    ),
    (
        Chat,
        r#"{"choices":[{"error":{"code":429,"message":"x"},"finish_reason":"error","message":{"content":""}}]}"#,
        Outcome::RateLimited,
        None,
    ),
    (
        Chat,
        r#"{"choices":[{"message":{"content":"cut"#,
        Outcome::SoftError,
        None,
    ),
    (Chat, "<!doctype html>", Outcome::SoftError, None),
    (Chat, "", Outcome::SoftError, None),
    (Chat, "data: {}\n\n", Outcome::SoftError, None),
    (
        Completions,
        r#"{"choices":[{"text":"hi"}]}"#,
        Outcome::Ok,
        None,
    ),
    (
        Embeddings,
        r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#,
        Outcome::Ok,
        Some(5),
    ),
    (Embeddings, r#"{"data":[]}"#, Outcome::SoftError, None),
    (
        Responses,
        r#"{"status":"completed","error":null,"output":[{"type":"message"}],"usage":{"input_tokens":4,"output_tokens":2}}"#,
        Outcome::Ok,
        Some(4),
    ),
    (
        Responses,
        r#"{"status":"incomplete","output":[]}"#,
        Outcome::Ok,
        None,
    ),
    (
        Responses,
        r#"{"status":"queued","output":[]}"#,
        Outcome::Ok,
        None,
    ),
    (
        Responses,
        r#"{"status":"completed","output":[]}"#,
        Outcome::SoftError,
        None,
    ),
    (
        Responses,
        r#"{"status":"failed","error":{"code":"server_error"},"output":[]}"#,
        Outcome::SoftError,
        None,
    ),
    (
        Responses,
        r#"{"status":"failed","error":{"code":"rate_limit_exceeded"}}"#,
        Outcome::RateLimited,
        None,
    ),
    (
        Messages,
        r#"{"type":"message","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"cache_read_input_tokens":9,"output_tokens":2}}"#,
        Outcome::Ok,
        Some(10),
    ),
    (
        Messages,
        r#"{"type":"message","content":[],"stop_reason":"end_turn"}"#,
        Outcome::Ok,
        None,
    ),
    (
        Messages,
        r#"{"type":"message","content":[]}"#,
        Outcome::SoftError,
        None,
    ),
    (
        Messages,
        r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
        Outcome::SoftError,
        None,
    ),
    (
        Messages,
        r#"{"type":"error","error":{"type":"rate_limit_error"}}"#,
        Outcome::RateLimited,
        None,
    ),
];

#[test]
fn a_status_of_200_alone_proves_nothing() {
    for &(dialect, body, outcome, input) in ANSWERS {
        let facts = read_plain(dialect, 200, Some("application/json"), body.as_bytes());
        let found = (facts.outcome, facts.usage.map(|usage| usage.input_tokens));
        assert_eq!(found, (outcome, input), "{body}");
    }
}

#[test]
fn a_page_is_no_answer_and_a_refusal_stays_one() {
    let answer = br#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let page = read_plain(Chat, 200, Some("text/html; charset=utf-8"), answer);
    assert_eq!(page.outcome, Outcome::SoftError);
    assert_eq!(read_plain(Chat, 200, None, answer).outcome, Outcome::Ok);
    assert_eq!(
        read_plain(Chat, 503, None, answer).outcome,
        Outcome::ServerError
    );
    assert_eq!(
        read_plain(Chat, 429, None, b"").outcome,
        Outcome::RateLimited
    );
}

proptest! {
    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), status in any::<u16>()) {
        for dialect in [Chat, Completions, Embeddings, Responses, Messages] {
            let facts = read_plain(dialect, status, None, &bytes);
            prop_assert!(Outcome::ALL.contains(&facts.outcome));
        }
    }
}

#[test]
fn a_plain_answer_may_state_its_cost() {
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":1,"cost":0.002}"#;
    let text = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"#;
    let paid = format!("{text}{usage}}}");
    let facts = read_plain(Chat, 200, None, paid.as_bytes());
    assert_eq!(
        (facts.outcome, facts.reported_cost_usd),
        (Outcome::Ok, Some(0.002))
    );
    let facts = read_plain(Chat, 402, None, paid.as_bytes());
    assert_eq!(facts.reported_cost_usd, None);
}
