use super::*;
use crate::llm::Dialect::{AnthropicMessages as Messages, OpenAiChat as Chat};

/// Status, body, outcome with an injected key, outcome with the client's own.
const REFUSALS: &[(u16, &str, Outcome, Outcome)] = &[
    (
        400,
        r#"{"error":{"message":"bad","type":"invalid_request_error","param":null,"code":null}}"#,
        Outcome::ClientError,
        Outcome::ClientError,
    ),
    (
        400,
        r#"{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 8192 tokens"}}"#,
        Outcome::ClientError,
        Outcome::ClientError,
    ),
    (
        400,
        r#"{"error":{"code":"content_filter","message":"The response was filtered"}}"#,
        Outcome::ClientError,
        Outcome::ClientError,
    ),
    (413, "", Outcome::ClientError, Outcome::ClientError),
    (
        422,
        r#"{"detail":[{"loc":["body","messages"],"msg":"field required"}]}"#,
        Outcome::ClientError,
        Outcome::ClientError,
    ),
    (
        404,
        r#"{"error":{"message":"No file with id file-1","code":null}}"#,
        Outcome::ClientError,
        Outcome::ClientError,
    ),
    (
        400,
        r#"{"error":{"message":"Unknown parameter: 'stream_options'.","param":"stream_options"}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        400,
        r#"{"error":{"message":"Unrecognized request argument supplied: seed"}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        422,
        r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Unexpected value(s) `x` for the `anthropic-beta` header"}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        400,
        r#"{"message":"invalid beta flag"}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        400,
        r#"{"error":{"message":"foo is not a valid model ID","code":400}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        404,
        r#"{"error":{"message":"The model `m` does not exist","code":"model_not_found"}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        404,
        r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        403,
        r#"{"error":{"message":"Project does not have access to model","code":"model_not_found"}}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (
        404,
        r#"{"detail":"Not Found"}"#,
        Outcome::Parity,
        Outcome::Parity,
    ),
    (404, "<html>nginx</html>", Outcome::Parity, Outcome::Parity),
    (405, "", Outcome::Parity, Outcome::Parity),
    (
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#,
        Outcome::Quota,
        Outcome::ClientError,
    ),
    (
        402,
        r#"{"error":{"message":"Insufficient credits","code":402}}"#,
        Outcome::Quota,
        Outcome::ClientError,
    ),
    (
        429,
        r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"You exceeded your current quota"}}"#,
        Outcome::Quota,
        Outcome::RateLimited,
    ),
    (
        429,
        r#"{"error":{"type":"enforced_spend_limit"}}"#,
        Outcome::Quota,
        Outcome::RateLimited,
    ),
    (
        429,
        r#"{"error":{"code":"rate_limit_exceeded","message":"Rate limit reached"}}"#,
        Outcome::RateLimited,
        Outcome::RateLimited,
    ),
    (
        429,
        r#"[{"error":{"code":429,"message":"Resource has been exhausted","status":"RESOURCE_EXHAUSTED"}}]"#,
        Outcome::RateLimited,
        Outcome::RateLimited,
    ),
    (429, "", Outcome::RateLimited, Outcome::RateLimited),
    (
        401,
        r#"{"error":{"code":"invalid_api_key","message":"Incorrect API key"}}"#,
        Outcome::Auth,
        Outcome::ClientError,
    ),
    (403, "", Outcome::Auth, Outcome::ClientError),
    (
        403,
        r#"{"error":{"code":403,"message":"Your chosen model requires moderation and your input was flagged"}}"#,
        Outcome::ClientError,
        Outcome::ClientError,
    ),
    (408, "", Outcome::ServerError, Outcome::ServerError),
    (409, "", Outcome::ServerError, Outcome::ServerError),
    (498, "", Outcome::ServerError, Outcome::ServerError),
    (500, "", Outcome::ServerError, Outcome::ServerError),
    (
        503,
        r#"{"error":{"message":"slow down"}}"#,
        Outcome::ServerError,
        Outcome::ServerError,
    ),
    (520, "", Outcome::ServerError, Outcome::ServerError),
    (
        529,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        Outcome::ServerError,
        Outcome::ServerError,
    ),
    (530, "", Outcome::ServerError, Outcome::ServerError),
    (599, "", Outcome::ServerError, Outcome::ServerError),
    (101, "", Outcome::Other, Outcome::Other),
    (302, "", Outcome::Other, Outcome::Other),
    (0, "", Outcome::Other, Outcome::Other),
    (600, "", Outcome::Other, Outcome::Other),
    (200, "", Outcome::Ok, Outcome::Ok),
];

#[test]
fn refusals_are_blamed_on_the_right_side() {
    for &(status, body, injected, own) in REFUSALS {
        let with = |key| classify_status(Some(Chat), status, key, Some(body.as_bytes()));
        assert_eq!(with(true), injected, "{status} {body}");
        assert_eq!(
            with(false),
            own,
            "{status} {body} with the client's own key"
        );
    }
    assert_eq!(
        classify_status(Some(Chat), 404, true, None),
        Outcome::ClientError
    );
    assert_eq!(
        classify_status(None, 404, true, Some(b"")),
        Outcome::ClientError
    );
}

#[test]
fn strange_error_bodies_are_no_danger() {
    let huge = format!(
        "{{\"error\":{{\"message\":\"{}\"}}}}",
        "\u{e9}".repeat(BODY_BYTES_MAX)
    );
    let deep = "[".repeat(10_000);
    for body in [
        huge.as_bytes(),
        deep.as_bytes(),
        b"\xff\xfe",
        b"{\"error\":[1]}",
        b"[[]]",
    ] {
        for status in [400, 404, 429] {
            let outcome = classify_status(Some(Chat), status, true, Some(body));
            assert_ne!(outcome, Outcome::Quota);
        }
    }
    let wide = format!(r#"{{"error":{{"message":"a{}"}}}}"#, "\u{e9}".repeat(2000));
    let outcome = classify_status(Some(Chat), 400, true, Some(wide.as_bytes()));
    assert_eq!(outcome, Outcome::ClientError);
}

#[test]
fn our_own_errors_speak_the_clients_dialect() {
    let parse = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap();
    let body = parse(&error_body(Some(Messages), 503, "no-arm", "it \"broke\""));
    assert_eq!(
        body,
        value!({"type":"error","error":{"type":"overloaded_error","message":"it \"broke\"","code":"no-arm"}})
    );
    for dialect in [None, Some(Chat)] {
        let body = parse(&error_body(dialect, 413, "body-too-large", "x"));
        assert_eq!(
            body,
            value!({"error":{"message":"x","type":"invalid_request_error","param":null,"code":"body-too-large"}})
        );
    }
    let event = error_event(Messages, "a\nb");
    let text = std::str::from_utf8(&event).unwrap();
    assert!(text.starts_with("\n\nevent: error\ndata: {") && text.ends_with("}\n\n"));
    assert_eq!(
        text.trim().lines().count(),
        2,
        "a line end in the message stays in its line"
    );
}
