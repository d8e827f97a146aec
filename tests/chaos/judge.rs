//! What a client makes of an answer: whole, broken off and said so, or worse.

use serde_json::Value;

use crate::client::{Answer, End};

/// The calls that clients make; the second is what ends a stream of it.
pub(crate) const CALLS: [(&str, &str); 5] = [
    ("/v1/chat/completions", "data: [DONE]"),
    ("/v1/completions", "data: [DONE]"),
    ("/v1/messages", "message_stop"),
    ("/v1/responses", "response.completed"),
    ("/v1/embeddings", ""),
];

/// What a client saw of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Saw {
    /// A whole answer.
    Whole,
    /// A part of an answer, and then an error event or a broken connection.
    BrokenOff,
    /// No answer, or an error in place of one.
    Failed(String),
    /// What must never happen, whatever breaks.
    Lie(String),
}

/// The arm that cutover names in an answer; a lie if another provider gave it.
pub(crate) fn arm_of(answer: &Answer) -> Result<Option<String>, String> {
    let arm = answer.head.header("x-cutover-arm");
    let provider = answer.head.header("x-provider");
    match (arm, provider) {
        (Some(arm), Some(provider)) if arm != provider => {
            Err(format!("{provider}'s answer is called {arm}'s"))
        }
        _ => Ok(arm.map(str::to_owned)),
    }
}

/// Judges what came of a call of `path`. Strict: what ends cleanly is whole, or says that it is not.
pub(crate) fn judge(answer: &Result<Answer, End>, call: (&str, &str), streamed: bool) -> Saw {
    let answer = match answer {
        Ok(answer) => answer,
        Err(end) => return Saw::Failed(format!("no answer: {end:?}")),
    };
    let text = String::from_utf8_lossy(&answer.body);
    let short: String = text.chars().take(200).collect();
    if answer.head.status != 200 {
        let names_an_error = text.contains("error");
        let status = answer.head.status;
        return if answer.end == End::Clean && !names_an_error {
            Saw::Lie(format!("status {status} without a word: {short}"))
        } else {
            Saw::Failed(format!("status {status}: {short}"))
        };
    }
    if answer.end != End::Clean {
        return Saw::BrokenOff;
    }
    if streamed {
        let signs = [
            "event: error",
            "\"type\":\"error\"",
            "\"error\":{",
            "\"error\": {",
        ];
        let has_error = signs.iter().any(|sign| text.contains(sign));
        let start = text.floor_char_boundary(text.len().saturating_sub(300));
        return if has_error {
            Saw::BrokenOff
        } else if text.contains(call.1) {
            Saw::Whole
        } else {
            Saw::Lie(format!(
                "a broken stream ends cleanly: ... {}",
                &text[start..]
            ))
        };
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(body) if body.get("error").is_some_and(|error| !error.is_null()) => {
            Saw::Failed(format!("200 with an error: {short}"))
        }
        Ok(_)
            if ["canary", "legacy", "embedding"]
                .iter()
                .any(|word| text.contains(word)) =>
        {
            Saw::Whole
        }
        _ => Saw::Lie(format!("a broken answer ends cleanly: {short}")),
    }
}

#[test]
fn only_whole_answers_pass_for_whole() {
    let answer = |status, body: &str, end| {
        let (headers, body) = (Vec::new(), body.as_bytes().to_vec());
        let head = crate::client::Head { status, headers };
        Ok(Answer { head, body, end })
    };
    let chat = CALLS[0];
    let whole = "data: {\"canary\"}\n\ndata: [DONE]\n\n";
    let check = |answer, streamed, expected: &str| {
        let saw = format!("{:?}", judge(&answer, chat, streamed));
        assert!(saw.starts_with(expected), "{saw} is not {expected}");
    };
    check(answer(200, whole, End::Clean), true, "Whole");
    check(answer(200, whole, End::Closed), true, "BrokenOff");
    check(
        answer(200, "data: {\"canary\"}\n\n", End::Clean),
        true,
        "Lie",
    );
    check(answer(200, "", End::Clean), true, "Lie");
    let told = "data: {\"canary\"}\n\ndata: {\"error\":{}}\n\n";
    check(answer(200, told, End::Clean), true, "BrokenOff");
    let told = "data: {\"canary\",\"error\":null}\n\nevent: error\ndata: {}\n\n";
    check(answer(200, told, End::Clean), true, "BrokenOff");
    check(
        answer(200, "{\"a\":\"canary\"}", End::Clean),
        false,
        "Whole",
    );
    check(answer(200, "{\"a\":\"canary", End::Clean), false, "Lie");
    check(answer(200, "{\"error\":{}}", End::Clean), false, "Failed");
    check(answer(502, "{\"error\":{}}", End::Clean), false, "Failed");
    check(answer(502, "", End::Clean), false, "Lie");
    check(Err(End::Reset), true, "Failed");
}
