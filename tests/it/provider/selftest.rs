//! The provider's own tests: each fault must really happen, else a test that relies on it tests nothing.

use std::io::Read;
use std::time::Duration;

use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::{Value, json};

use super::Provider;
use crate::client::{Answer, Client, End, post};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

fn ask(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "stream_options": {"include_usage": true},
        "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]})
}

async fn chat(provider: &Provider, model: &str, stream: bool) -> Result<Answer, End> {
    post(provider.port(), CHAT, &ask(model, stream)).await
}

fn data_of(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(str::trim)
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn good_answers_name_the_provider_and_the_model() {
    let provider = Provider::start("legacy").await;
    assert_eq!(
        provider.base_url(),
        format!("http://127.0.0.1:{}/v1", provider.port())
    );
    for (path, pointer) in [
        (CHAT, "/choices/0/message/content"),
        ("/v1/completions", "/choices/0/text"),
        (MESSAGES, "/content/0/text"),
        (RESPONSES, "/output/0/content/0/text"),
    ] {
        let answer = post(provider.port(), path, &ask("ok", false))
            .await
            .unwrap();
        assert_eq!(
            (answer.head.status, answer.end),
            (200, End::Clean),
            "{path}"
        );
        let body = answer.json();
        let text = body.pointer(pointer).unwrap().as_str().unwrap();
        assert_eq!(
            text, "legacy as ok was asked and answers in tokens.",
            "{path}"
        );
        assert!(body["usage"].is_object(), "{path}");
        assert_eq!(answer.head.header("X-Provider"), Some("legacy"));
    }
    let answer = post(provider.port(), "/v1/embeddings", &ask("ok", true)).await;
    assert_eq!(answer.unwrap().json()["object"], "list");
    let answer = post(
        provider.port(),
        "/v1/messages/count_tokens",
        &ask("ok", false),
    )
    .await;
    assert_eq!(answer.unwrap().json()["input_tokens"], 11);
}

#[tokio::test]
async fn streams_end_with_the_last_event_of_their_dialect() {
    let provider = Provider::start("legacy").await;
    for (path, last) in [
        (CHAT, "data: [DONE]\n\n"),
        ("/v1/completions", "data: [DONE]\n\n"),
        (MESSAGES, "data: {\"type\":\"message_stop\"}\n\n"),
        (RESPONSES, "\"type\":\"response.completed\"}\n\n"),
    ] {
        for model in [
            "ok",
            "fault-one-byte-writes",
            "fault-gap-1",
            "fault-slow-head-1",
        ] {
            let answer = post(provider.port(), path, &ask(model, true))
                .await
                .unwrap();
            let body = answer.text();
            assert_eq!(answer.end, End::Clean);
            assert!(body.ends_with(last), "{path} {model}: {body}");
            assert!(body.contains(model), "{path} {model}: {body}");
        }
    }
}

#[tokio::test]
async fn error_answers_have_their_status_and_words() {
    let provider = Provider::start("legacy").await;
    for (model, status, word, retry_after) in [
        ("fault-500", 500, "server_error", None),
        ("fault-529", 529, "overloaded_error", None),
        ("fault-503-retry-after-2", 503, "server_error", Some("2")),
        ("fault-429", 429, "rate_limit_exceeded", None),
        (
            "fault-429-retry-after-7",
            429,
            "rate_limit_exceeded",
            Some("7"),
        ),
        ("fault-429-quota", 429, "insufficient_quota", None),
        ("fault-400", 400, "invalid_request_error", None),
        ("fault-400-param", 400, "stream_options", None),
        ("fault-401", 401, "invalid_api_key", None),
        ("fault-404-model", 404, "model_not_found", None),
        ("fault-no-such-fault", 599, "no fault is called", None),
        ("fault-reset-at-99999", 599, "cuts behind", None),
        ("fault-soft-error", 200, "{\"error\":", None),
        ("fault-html", 200, "<html>", None),
    ] {
        for stream in [false, true] {
            let answer = chat(&provider, model, stream).await.unwrap();
            assert_eq!(
                (answer.head.status, answer.end),
                (status, End::Clean),
                "{model}"
            );
            assert!(answer.text().contains(word), "{model}: {}", answer.text());
            assert_eq!(answer.head.header("retry-after"), retry_after, "{model}");
        }
    }
    for (model, word) in [
        ("fault-429", "rate_limit_error"),
        ("fault-401", "authentication_error"),
        ("fault-404-model", "not_found_error"),
        ("fault-500", "api_error"),
    ] {
        let answer = post(provider.port(), MESSAGES, &ask(model, false))
            .await
            .unwrap();
        assert_eq!(answer.json()["error"]["type"], word);
        assert_eq!(answer.json()["type"], "error");
    }
}

#[tokio::test]
async fn a_connection_breaks_where_it_was_told_to() {
    let provider = Provider::start("legacy").await;
    for stream in [false, true] {
        for (model, end) in [
            ("fault-reset-before-head", End::Reset),
            ("fault-close-before-head", End::Closed),
        ] {
            assert_eq!(chat(&provider, model, stream).await, Err(end), "{model}");
        }
        let whole = chat(&provider, "ok", stream).await.unwrap().text();
        for (at, kind, end) in [
            (0, "reset-at", End::Reset),
            (40, "reset-at", End::Reset),
            (0, "truncate-at", End::Closed),
            (40, "truncate-at", End::Closed),
            (40, "end-at", End::Clean),
        ] {
            let model = format!("fault-{kind}-{at}");
            let answer = chat(&provider, &model, stream).await.unwrap();
            assert_eq!((answer.head.status, answer.end), (200, end), "{model}");
            assert_eq!(answer.body.len(), at, "{model}");
            assert_eq!(answer.text()[..at.min(20)], whole[..at.min(20)], "{model}");
        }
    }
    let answer = chat(&provider, "fault-until-fin", true).await.unwrap();
    assert_eq!(answer.end, End::Clean);
    assert_eq!(answer.head.header("connection"), Some("close"));
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stall_lasts_until_the_caller_hangs_up() {
    let provider = Provider::start("legacy").await;
    let quiet = Duration::from_millis(30);
    for (number, model) in [(1, "fault-stall-head"), (2, "fault-stall-after-30")] {
        let mut client = Client::connect(provider.port()).await.unwrap();
        let body = ask(model, true).to_string();
        client
            .request("POST", CHAT, &[], body.as_bytes())
            .await
            .unwrap();
        if model == "fault-stall-after-30" {
            client.head().await.unwrap();
            assert_eq!(client.part().await.unwrap().unwrap().len(), 30);
        }
        assert!(client.is_silent_for(quiet).await, "{model}");
        drop(client);
        provider.wait_hung_up(number).await;
    }
}

#[tokio::test]
async fn flaws_are_in_the_stream() {
    let provider = Provider::start("legacy").await;
    for path in [CHAT, MESSAGES, RESPONSES] {
        let whole = post(provider.port(), path, &ask("ok", true)).await.unwrap();
        let events = data_of(&whole.text()).len();
        let body_of = async |model: &str| {
            let answer = post(provider.port(), path, &ask(model, true))
                .await
                .unwrap();
            assert_eq!((answer.head.status, answer.end), (200, End::Clean));
            answer.text()
        };
        let inband = body_of("fault-inband-error").await;
        assert!(inband.contains("scripted error"), "{inband}");
        assert!(inband.contains("legacy") && !inband.contains("answers"));
        let early = body_of("fault-early-error").await;
        assert!(early.contains("scripted error") && !early.contains("\"legacy\""));
        assert!(data_of(&early).len() > 1, "{early}");
        let no_done = body_of("fault-no-done").await;
        for last in ["[DONE]", "message_stop", "response.completed"] {
            assert!(!no_done.contains(last), "{no_done}");
        }
        let malformed = body_of("fault-malformed-line").await;
        assert!(
            malformed.contains("data: {\"id\": broken\n\n"),
            "{malformed}"
        );
        assert!(body_of("fault-huge-event").await.len() > 1024 * 1024);
        let crlf = body_of("fault-crlf").await;
        assert_eq!(crlf.matches('\n').count(), crlf.matches("\r\n").count());
        assert_eq!(data_of(&crlf).len(), events);
        let comments = body_of("fault-comments").await;
        assert!(comments.matches(": still here\n\n").count() > events / 2);
        assert!(data_of(&body_of("fault-empty").await).len() < events);
        let no_usage = data_of(&body_of("fault-no-usage").await);
        let end = no_usage.iter().skip(1);
        let usage = end.filter(|e| e["usage"].is_object() || e["response"]["usage"].is_object());
        assert_eq!(usage.count(), 0, "{path}");
    }
}

#[tokio::test]
async fn flaws_touch_plain_answers_as_well() {
    let provider = Provider::start("legacy").await;
    let answer = |model: &'static str| chat(&provider, model, false);
    assert!(answer("fault-inband-error").await.unwrap().json()["error"].is_object());
    assert_eq!(
        answer("fault-malformed-line").await.unwrap().text(),
        "{\"id\": broken}"
    );
    assert_eq!(
        answer("fault-empty").await.unwrap().json()["choices"],
        json!([])
    );
    assert!(answer("fault-no-usage").await.unwrap().json()["usage"].is_null());
}

#[tokio::test]
async fn codings_are_real_and_flushed_after_each_event() {
    let legacy = Provider::start("legacy").await;
    let coded = async |model: &str, stream| chat(&legacy, model, stream).await.unwrap();
    for stream in [false, true] {
        let plain = coded("plain", stream).await.text();
        for (model, name) in [("fault-gzip", "gzip"), ("fault-deflate", "deflate")] {
            let answer = coded(model, stream).await;
            assert_eq!(answer.head.header("content-encoding"), Some(name));
            let mut text = String::new();
            let read = match name {
                "gzip" => GzDecoder::new(&answer.body[..]).read_to_string(&mut text),
                _ => ZlibDecoder::new(&answer.body[..]).read_to_string(&mut text),
            };
            read.unwrap();
            assert_eq!(text, plain.replace("plain", model));
            // An empty stored block ends each flushed part.
            let flushes = answer.body.windows(4).filter(|w| *w == [0, 0, 0xff, 0xff]);
            assert_eq!(
                flushes.count(),
                plain.matches("\n\n").count().max(1),
                "{model}"
            );
        }
        let garbled = coded("fault-garbled", stream).await;
        assert_eq!(garbled.head.header("content-encoding"), Some("gzip"));
        assert_eq!(garbled.text(), plain.replace("plain", "fault-garbled"));
        let foreign = coded("fault-br", stream).await;
        assert_eq!(foreign.head.header("content-encoding"), Some("br"));
        assert!(String::from_utf8(foreign.body).is_err());
    }
    let error = coded("fault-gzip-500", false).await;
    assert_eq!((error.head.status, error.body[0]), (500, 0x1f));
    assert_eq!(
        coded("fault-gzip-500@canary", false)
            .await
            .head
            .header("content-encoding"),
        None
    );
    let cut = coded("fault-gzip-end-at-20", true).await;
    assert_eq!((cut.end, cut.body.len()), (End::Clean, 20));
}

#[tokio::test]
async fn a_provider_may_refuse_the_question_for_usage_alone() {
    let provider = Provider::start("legacy").await;
    let mut ask = ask("fault-422-usage", true);
    let refused = post(provider.port(), CHAT, &ask).await.unwrap();
    assert_eq!(refused.head.status, 422);
    assert!(refused.text().contains("stream_options"));
    ask.as_object_mut().unwrap().remove("stream_options");
    assert_eq!(
        post(provider.port(), CHAT, &ask).await.unwrap().head.status,
        200
    );
}

#[tokio::test]
async fn a_fault_can_be_meant_for_one_provider() {
    let legacy = Provider::start("legacy").await;
    let canary = Provider::start("canary").await;
    let status = async |provider| {
        let answer = chat(provider, "fault-500@canary", false).await;
        answer.unwrap().head.status
    };
    assert_eq!((status(&legacy).await, status(&canary).await), (200, 500));
}

#[tokio::test]
async fn any_framing_is_understood_on_one_kept_connection() {
    let provider = Provider::start("legacy").await;
    let mut client = Client::connect(provider.port()).await.unwrap();
    // A chunked body with an extension and a trailer.
    let body = ask("ok", false).to_string();
    let (first, second) = body.split_at(10);
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         a;note=1\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nx-trailer: 1\r\n\r\n",
        second.len()
    );
    client.send(chunked.as_bytes()).await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    // Told to wait, a caller sends its body after the interim answer.
    let expect = [
        ("expect", "100-continue"),
        ("content-length", "2"),
        ("x-fault", "fault-503"),
    ];
    let put = client.request("PUT", "/v1/files/f1", &expect, b"");
    put.await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send(b"{}").await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 503);
    let head = client.request("HEAD", "/v1/models", &[], b"");
    head.await.unwrap();
    let head = client.answer().await.unwrap();
    assert_eq!((head.head.status, head.body.len()), (200, 0));
    let requests = provider.requests();
    assert_eq!(requests[0].body, body.as_bytes());
    assert_eq!(requests[0].json()["model"], "ok");
    assert_eq!(requests[1].body, b"{}");
    assert_eq!((requests.len(), provider.connections()), (3, 1));
}

#[tokio::test]
async fn requests_are_logged_as_they_came() {
    let provider = Provider::start("legacy").await;
    let mut client = Client::connect(provider.port()).await.unwrap();
    let body = ask("ok", false).to_string();
    let send = client.request("POST", CHAT, &[("X-Mixed", "One")], body.as_bytes());
    send.await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    let send = client.request("GET", "/v1/files?limit=1", &[("connection", "close")], b"");
    send.await.unwrap();
    let echo = client.answer().await.unwrap().json();
    assert_eq!(
        (&echo["method"], &echo["target"]),
        (&json!("GET"), &json!("/v1/files?limit=1"))
    );
    assert_eq!(client.head().await, Err(End::Closed));
    chat(&provider, "ok", true).await.unwrap();

    let requests = provider.requests();
    let mixed = ("X-Mixed".to_owned(), "One".to_owned());
    assert!(requests[0].headers.contains(&mixed));
    assert_eq!(requests[0].header("x-mixed"), Some("One"));
    assert_eq!(requests[0].body, body.as_bytes());
    assert_eq!(requests[1].method, "GET");
    assert_eq!(requests[1].target, "/v1/files?limit=1");
    let order: Vec<(u64, u64)> = requests.iter().map(|r| (r.order, r.connection)).collect();
    assert_eq!(order, [(0, 0), (1, 0), (2, 1)]);
    provider.clear();
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn a_killed_provider_refuses_until_it_is_revived_at_its_port() {
    let provider = Provider::start("legacy").await;
    let mut open = Client::connect(provider.port()).await.unwrap();
    let body = ask("fault-stall-after-30", true).to_string();
    open.request("POST", CHAT, &[], body.as_bytes())
        .await
        .unwrap();
    open.head().await.unwrap();
    provider.kill().await;
    provider.kill().await;
    assert_eq!(open.body().await.1, End::Reset);
    let refused = Client::connect(provider.port()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    provider.revive().await;
    assert_eq!(chat(&provider, "ok", true).await.unwrap().end, End::Clean);
}

#[tokio::test]
async fn a_mute_provider_takes_everything_and_says_nothing() {
    let provider = Provider::start("legacy").await;
    provider.mute();
    let mut client = Client::connect(provider.port()).await.unwrap();
    let body = ask("ok", false).to_string();
    client
        .request("POST", CHAT, &[], body.as_bytes())
        .await
        .unwrap();
    assert!(client.is_silent_for(Duration::from_millis(30)).await);
    assert_eq!(provider.requests().len(), 1);
    provider.revive().await;
    assert_eq!(client.head().await, Err(End::Reset));
    assert_eq!(chat(&provider, "ok", false).await.unwrap().head.status, 200);
}
