use super::Dialect::{
    AnthropicMessages as Messages, OpenAiChat as Chat, OpenAiEmbeddings as Embeddings,
    OpenAiResponses as Responses,
};
use super::*;

const NAME: &str = "my \"fast\" one";
const QUOTED: &str = r#""my \"fast\" one""#;

/// Streams whose `@` is the model's name, and what else says `model` in them and must stay.
const STREAMS: [(Dialect, &str); 3] = [
    (
        Chat,
        concat!(
            ": a \"model\" comment\n\n",
            "data: {\"id\":\"c\",\"model\" : @,\"choices\":[{\"delta\":{\"content\":\"\\\"model\\\":\"}}]}\n\n",
            "data:{\"choices\":[{\"delta\":{\"model\":\"x\",\"content\":\"\u{e9}\"}}],\"model\":@}\n\n",
            "data: {\"id\":\"c\",\"model\":null,\"choices\":[]}\n\ndata: {\"model\": broken\n\n",
            "data: [DONE]\n\n",
        ),
    ),
    (
        Messages,
        concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":@,\"content\":[]}}\n\n",
            "event: ping\ndata: {\"type\":\"ping\",\"model\":\"x\"}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\\\"model\\\"\"}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ),
    ),
    (
        Responses,
        concat!(
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":@}}\n\n",
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\",\"model\":\"x\"}\n\n",
            "data: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"model\":\"x\"}],\"model\":@}}",
        ),
    ),
];

fn check(dialect: Dialect, chunks: &[&[u8]], expected: &str) {
    let mut echo = ModelEcho::new(dialect, true, NAME);
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&echo.feed(&Bytes::copy_from_slice(chunk)));
    }
    out.extend_from_slice(&echo.end());
    assert_eq!(String::from_utf8(out).unwrap(), expected, "{dialect:?}");
}

#[test]
fn only_the_models_name_changes_wherever_chunks_and_lines_end() {
    for (dialect, stream) in STREAMS {
        for line_end in ["\n", "\r\n", "\r"] {
            for begin in ["", "\u{feff}"] {
                let stream = format!("{begin}{}", stream.replace('\n', line_end));
                let given = stream.replace('@', "\"vendor/gpt-4.1\"");
                let expected = stream.replace('@', QUOTED);
                check(dialect, &[given.as_bytes()], &expected);
                let bytes: Vec<&[u8]> = given.as_bytes().chunks(1).collect();
                check(dialect, &bytes, &expected);
                for at in 0..given.len() {
                    let (a, b) = given.as_bytes().split_at(at);
                    check(dialect, &[a, b], &expected);
                }
            }
        }
    }
}

#[test]
fn whole_lines_never_wait_and_unchanged_chunks_are_not_copied() {
    let mut echo = ModelEcho::new(Chat, true, NAME);
    for text in [
        "data: {\"choices\":[]}\n\n",
        ": comment without its end",
        " and its end\n",
        "event: x",
        "\n",
    ] {
        let chunk = Bytes::from_static(text.as_bytes());
        let passed = echo.feed(&chunk);
        assert_eq!(
            (passed.as_ptr(), passed.len()),
            (chunk.as_ptr(), chunk.len())
        );
    }
    let first = echo.feed(&Bytes::from_static(b"data: {\"model\":\"a\"}\n\nda"));
    assert_eq!(first, format!("data: {{\"model\":{QUOTED}}}\n\n"));
    assert_eq!(echo.held_bytes(), 2);
}

#[test]
fn an_event_over_the_bound_passes_unchanged_and_the_next_one_is_edited() {
    let long = "x".repeat(EVENT_BYTES_MAX);
    let event = |model: &str| format!("data: {{\"model\":{model}}}\n\n");
    let huge = format!("data: {{\"model\":\"a\",\"x\":\"{long}\"}}\n\n");
    let given = format!("{}{huge}{}", event("\"a\""), event("\"b\""));
    let expected = format!("{}{huge}{}", event(QUOTED), event(QUOTED));
    for size in [1000, 65_536, given.len()] {
        let mut echo = ModelEcho::new(Chat, true, NAME);
        let mut out = Vec::new();
        for chunk in given.as_bytes().chunks(size) {
            out.extend_from_slice(&echo.feed(&Bytes::copy_from_slice(chunk)));
            assert!(echo.held_bytes() <= EVENT_BYTES_MAX);
        }
        out.extend_from_slice(&echo.end());
        assert!(out == expected.as_bytes(), "in chunks of {size}");
    }
}

#[test]
fn a_plain_body_is_edited_at_its_end_and_passes_when_it_is_none_or_too_large() {
    let long = format!(
        "{{\"model\":\"a\",\"x\":\"{}\"}}",
        "x".repeat(EVENT_BYTES_MAX)
    );
    let cases = [
        (
            Chat,
            r#"{"model" : "a","choices":[]}"#,
            Some(r#"{"model" : @,"choices":[]}"#),
        ),
        (
            Embeddings,
            r#"{"data":[],"model":"a"}"#,
            Some(r#"{"data":[],"model":@}"#),
        ),
        (
            Messages,
            r#"{"model":"a","content":[]}"#,
            Some(r#"{"model":@,"content":[]}"#),
        ),
        (
            Responses,
            r#"{"x":{"model":"a"},"model":"a"}"#,
            Some(r#"{"x":{"model":"a"},"model":@}"#),
        ),
        (Chat, r#"{"model":null}"#, None),
        (Chat, "<html>\"model\"</html>", None),
        (Chat, "", None),
        (Chat, &long, None),
    ];
    for (dialect, body, expected) in cases {
        let expected = expected.map_or(body.to_owned(), |text| text.replace('@', QUOTED));
        for size in [3, 1 << 24] {
            let mut echo = ModelEcho::new(dialect, false, NAME);
            let mut out = Vec::new();
            for chunk in body.as_bytes().chunks(size) {
                out.extend_from_slice(&echo.feed(&Bytes::copy_from_slice(chunk)));
            }
            out.extend_from_slice(&echo.end());
            assert!(out == expected.as_bytes(), "{dialect:?} {body:.60}");
        }
    }
}
