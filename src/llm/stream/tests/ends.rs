//! Streams that end early, break off, or carry an error.

use super::*;

#[test]
fn streams_that_end_early_are_no_success() {
    let up_to = |stream: &str, events: usize| -> String {
        stream.split_inclusive("\n\n").take(events).collect()
    };
    let cases = [
        (Chat, String::new(), Outcome::SoftError),
        (Chat, ": ping\n\n".to_owned(), Outcome::SoftError),
        (Chat, up_to(CHAT, 1), Outcome::SoftError),
        (Chat, up_to(CHAT, 3), Outcome::Truncated),
        (Chat, up_to(CHAT, 4), Outcome::Ok),
        (
            Chat,
            up_to(CHAT, 3) + "data: {\"choices\":[{\"delta\":{\"con",
            Outcome::Truncated,
        ),
        (Chat, up_to(CHAT, 1) + "data: [DONE]\n\n", Outcome::SoftError),
        (
            Chat,
            up_to(CHAT, 1) + "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            Outcome::Ok,
        ),
        (
            Chat,
            up_to(CHAT, 3) + "data: {\"choices\":[{\"del\n\n" + &up_to(CHAT, 6),
            Outcome::SoftError,
        ),
        (Messages, up_to(MESSAGES, 2), Outcome::SoftError),
        (Messages, up_to(MESSAGES, 5), Outcome::Truncated),
        (Messages, up_to(MESSAGES, 6), Outcome::Ok),
        (Responses, up_to(RESPONSES, 1), Outcome::SoftError),
        (Responses, up_to(RESPONSES, 2), Outcome::Truncated),
        (
            Responses,
            "event: response.incomplete\ndata: {\"type\":\"response.incomplete\",\"response\":{\"status\":\"incomplete\",\"output\":[]}}\n\n".to_owned(),
            Outcome::Ok,
        ),
        (
            Responses,
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"output\":[]}}\n\n".to_owned(),
            Outcome::SoftError,
        ),
    ];
    for (dialect, stream, expected) in cases {
        for size in [1, 7, stream.len().max(1)] {
            let (outcome, ..) = watch(dialect, stream.as_bytes().chunks(size), true);
            assert_eq!(outcome, expected, "{stream}");
        }
    }
}

#[test]
fn a_broken_connection_is_a_reset_unless_the_end_had_come() {
    for (dialect, stream) in [(Chat, CHAT), (Messages, MESSAGES), (Responses, RESPONSES)] {
        let (outcome, ..) = watch(dialect, [stream.as_bytes()], false);
        assert_eq!(outcome, Outcome::Ok);
        let last = stream.trim_end().rfind("\n\n").unwrap();
        let (outcome, ..) = watch(dialect, [&stream.as_bytes()[..last]], false);
        assert_eq!(outcome, Outcome::Reset);
    }
}

#[test]
fn errors_inside_a_stream_are_classified() {
    let chat = |error: &str| format!("data: {{\"error\":{error}}}\n\n");
    let cases = [
        (Chat, chat(r#"{"message":"boom","type":"server_error"}"#), Outcome::InBandError),
        (Chat, chat(r#""boom""#), Outcome::InBandError),
        (Chat, chat(r#"{"code":429,"message":"slow"}"#), Outcome::RateLimited),
        (Chat, chat(r#"{"code":502,"message":"bad gateway"}"#), Outcome::InBandError),
        (Chat, chat(r#"{"code":"insufficient_quota","message":"x"}"#), Outcome::Quota),
        (Chat, chat(r#"{"code":402,"message":"requires more credits"}"#), Outcome::Quota),
        (Chat, chat(r#"{"code":"context_length_exceeded","type":"invalid_request_error"}"#), Outcome::ClientError),
        (Chat, chat(r#"{"code":"model_not_found"}"#), Outcome::Parity),
        (Chat, "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n".to_owned(), Outcome::InBandError),
        (Chat, "data: {\"object\":\"error\",\"message\":\"x\",\"code\":500}\n\n".to_owned(), Outcome::InBandError),
        // The error object says more than the finish reason, before or behind it, or within the choice.
        (Chat, "data: {\"error\":{\"code\":429},\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n".to_owned(), Outcome::RateLimited),
        (Chat, "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}],\"error\":{\"code\":429}}\n\n".to_owned(), Outcome::RateLimited),
        (Chat, "data: {\"choices\":[{\"finish_reason\":\"error\",\"error\":{\"code\":402,\"message\":\"x\"}}]}\n\n".to_owned(), Outcome::Quota),
        (Chat, "data: {\"choices\":[{\"error\":{\"code\":502,\"message\":\"x\"}}]}\n\n".to_owned(), Outcome::InBandError),
        (Chat, "event: error\ndata: oops\n\n".to_owned(), Outcome::InBandError),
        (
            Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n".to_owned(),
            Outcome::InBandError,
        ),
        (
            Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"x\"}}\n\n".to_owned(),
            Outcome::RateLimited,
        ),
        (
            Messages,
            "data: {\"error\":{\"type\":\"authentication_error\"}}\n\n".to_owned(),
            Outcome::Auth,
        ),
        (
            Responses,
            "event: error\ndata: {\"type\":\"error\",\"code\":\"insufficient_quota\",\"message\":\"x\",\"param\":null}\n\n".to_owned(),
            Outcome::Quota,
        ),
        (
            Responses,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"x\"},\"usage\":null}}\n\n".to_owned(),
            Outcome::RateLimited,
        ),
        (
            Responses,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\"},\"usage\":{\"input_tokens\":1,\"output_tokens\":0}}}\n\n".to_owned(),
            Outcome::InBandError,
        ),
    ];
    for (dialect, event, expected) in cases {
        let before = match dialect {
            Messages => MESSAGES,
            Responses => RESPONSES,
            _ => CHAT,
        };
        let (begun, _) = before.split_at(before.find("\n\n").unwrap() + 2);
        for stream in [format!("{begun}{event}"), event] {
            let mut watch = StreamWatch::new(dialect);
            watch.feed(stream.as_bytes());
            let error = watch.error().map(|error| error.outcome);
            assert_eq!(error, Some(expected), "{stream}");
            assert_eq!(watch.finish(true), expected, "{stream}");
        }
    }
    assert_eq!(with_clients_own_key(Outcome::Quota), Outcome::ClientError);
}

#[test]
fn our_own_error_event_is_seen_as_one_even_within_a_broken_line() {
    for (dialect, stream) in [(Chat, CHAT), (Messages, MESSAGES), (Responses, RESPONSES)] {
        let event = error_event(dialect, "the provider's stream ended \"early\"");
        for cut in [stream.find("\n\n").unwrap() + 2, stream.len() / 2] {
            let mut watch = StreamWatch::new(dialect);
            watch.feed(&stream.as_bytes()[..cut]);
            watch.feed(&event);
            let error = watch.error().map(|error| error.outcome);
            assert_eq!(
                error,
                Some(Outcome::InBandError),
                "{dialect:?} cut at {cut}"
            );
        }
    }
}
