//! What a strict proxy refuses, and that nothing of it reaches a provider.

use std::time::Duration;

use crate::client::{Client, End};
use crate::harness::{CHAT, MESSAGES, Rig, Setup, ask, in_time, served_by, wait_until};

/// Sends these bytes and says with which status they were answered; `None`: the connection closed.
async fn status_of(rig: &Rig, bytes: &[u8]) -> Option<u16> {
    let mut client = rig.client().await;
    // The answer may come, and the connection close, before all is sent.
    client.send(bytes).await.ok();
    client.answer().await.ok().map(|answer| answer.head.status)
}

fn requests_of(rig: &Rig) -> usize {
    rig.legacy.requests().len() + rig.canary.requests().len()
}

/// What is wrong, the headers of a POST, its body, and the status that it gets.
const MALFORMED: [(&str, &str, &str, u16); 15] = [
    ("no host", "content-length: 2", "{}", 400),
    (
        "two hosts",
        "host: a\r\nhost: b\r\ncontent-length: 2",
        "{}",
        400,
    ),
    (
        "twice the same host",
        "host: a\r\nhost: a\r\ncontent-length: 2",
        "{}",
        400,
    ),
    (
        "gzip",
        "host: a\r\ntransfer-encoding: gzip, chunked",
        "0\r\n\r\n",
        501,
    ),
    (
        "gzip alone",
        "host: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked",
        "0\r\n\r\n",
        501,
    ),
    (
        "not last",
        "host: a\r\ntransfer-encoding: chunked, identity",
        "0\r\n\r\n",
        400,
    ),
    (
        "unknown coding",
        "host: a\r\ntransfer-encoding: xchunked",
        "0\r\n\r\n",
        400,
    ),
    (
        "space before the colon",
        "host: a\r\ntransfer-encoding : chunked",
        "0\r\n\r\n",
        400,
    ),
    (
        "two lengths",
        "host: a\r\ncontent-length: 2\r\ncontent-length: 3",
        "{}",
        400,
    ),
    (
        "a list of lengths",
        "host: a\r\ncontent-length: 2, 2",
        "{}",
        400,
    ),
    (
        "a signed length",
        "host: a\r\ncontent-length: +2",
        "{}",
        400,
    ),
    (
        "a folded line",
        "host: a\r\nx-a: 1\r\n 2\r\ncontent-length: 2",
        "{}",
        400,
    ),
    ("nul", "host: a\r\nx-a: \0\r\ncontent-length: 2", "{}", 400),
    (
        "bare cr",
        "host: a\r\nx-a: 1\rx-b: 2\r\ncontent-length: 2",
        "{}",
        400,
    ),
    ("no name", "host: a\r\n: 1\r\ncontent-length: 2", "{}", 400),
];

#[tokio::test]
async fn malformed_heads_are_refused_and_nothing_is_forwarded() {
    let rig = Rig::at(100).await;
    for target in [CHAT, "/v1/files"] {
        for (name, headers, body, expected) in MALFORMED {
            let bytes = format!("POST {target} HTTP/1.1\r\n{headers}\r\n\r\n{body}");
            assert_eq!(
                status_of(&rig, bytes.as_bytes()).await,
                Some(expected),
                "{target}: {name}"
            );
            assert_eq!(requests_of(&rig), 0, "{target}: {name}");
        }
    }
    let tunnel = b"CONNECT provider:443 HTTP/1.1\r\nhost: provider:443\r\n\r\n";
    assert_eq!(status_of(&rig, tunnel).await, Some(405));
    let old =
        format!("POST {CHAT} HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(status_of(&rig, old.as_bytes()).await, Some(400));
    assert_eq!(requests_of(&rig), 0);
}

#[tokio::test]
async fn heads_above_the_limits_are_refused() {
    let rig = Rig::at(100).await;
    let post = |headers: &str| format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let many = post(&"x-h: 1\r\n".repeat(128));
    assert_eq!(status_of(&rig, many.as_bytes()).await, Some(431));
    let large = post(&format!("x: {}\r\n", "y".repeat(70_000)));
    assert_eq!(status_of(&rig, large.as_bytes()).await, Some(431));
    let long = format!("GET /v1/{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000));
    let refused = status_of(&rig, long.as_bytes()).await;
    assert!(matches!(refused, Some(414 | 431)), "{refused:?}");
    assert_eq!(requests_of(&rig), 0);
}

#[tokio::test]
async fn a_hundred_and_twenty_eight_headers_are_served() {
    let rig = Rig::at(100).await;
    let head = format!(
        "GET /v1/models HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "x-h: 1\r\n".repeat(127)
    );
    assert_eq!(status_of(&rig, head.as_bytes()).await, Some(200));
}

#[tokio::test]
async fn broken_chunks_never_become_a_request() {
    let rig = Rig::at(100).await;
    for target in [CHAT, "/v1/files"] {
        for body in [
            "zz\r\n{}\r\n0\r\n\r\n",
            "2\r\n{}xx0\r\n\r\n",
            "fffffffffffffffff\r\n{}",
            "-2\r\n{}",
        ] {
            let bytes = format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"
            );
            let status = status_of(&rig, bytes.as_bytes()).await;
            assert!(
                matches!(status, None | Some(400 | 502)),
                "{target} {body:?}: {status:?}"
            );
            assert_eq!(requests_of(&rig), 0, "{target} {body:?}");
        }
    }
    // None of it is an error of an arm.
    let rollout = rig.rollout("default").await;
    assert_eq!(rollout["arms"]["canary"]["errors"], 0);
    for row in rig.finish().await.rows {
        assert_eq!(
            (row.role.as_str(), row.outcome.as_str()),
            ("pinned", "client-gone"),
            "{row:?}"
        );
    }
}

#[tokio::test]
async fn of_length_and_chunks_the_chunks_count_and_one_framing_is_forwarded() {
    let rig = Rig::at(100).await;
    let body = ask("ok", false).to_string();
    for (target, provider) in [(CHAT, &rig.canary), ("/v1/files", &rig.legacy)] {
        let bytes = format!(
            "POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
            body.len()
        );
        let mut client = rig.client().await;
        client.send(bytes.as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap().head.status, 200);
        // An ambiguous request is the last one of its connection.
        assert!(client.head().await.is_err(), "{target}");
        let requests = provider.requests();
        assert_eq!(
            (requests.len(), requests[0].body == body.as_bytes()),
            (1, true),
            "{target}"
        );
        let framed = ["content-length", "transfer-encoding"].map(|name| requests[0].header(name));
        assert_eq!(framed.iter().flatten().count(), 1, "{framed:?}");
    }
}

#[tokio::test]
async fn a_header_that_connection_names_is_not_forwarded_even_on_the_last_request() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let headers = [
        ("connection", "close, x-secret"),
        ("x-secret", "1"),
        ("x-open", "2"),
    ];
    let body = ask("ok", false).to_string();
    client
        .request("POST", MESSAGES, &headers, body.as_bytes())
        .await
        .unwrap();
    assert_eq!(served_by(&client.answer().await.unwrap()), "canary");
    assert!(
        client.head().await.is_err(),
        "the client asked for the end of the connection"
    );
    let seen = rig.canary.requests().pop().unwrap();
    assert_eq!(
        (seen.header("x-secret"), seen.header("x-open")),
        (None, Some("2"))
    );
}

#[tokio::test]
async fn expectations_are_answered_here_and_not_forwarded() {
    let rig = Rig::at(100).await;
    for (target, provider) in [(CHAT, &rig.canary), ("/v1/files", &rig.legacy)] {
        let mut client = rig.client().await;
        let body = ask("ok", false).to_string();
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        client.send(head.as_bytes()).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 100, "{target}");
        client.send(body.as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap().head.status, 200, "{target}");
        let seen = provider.requests().pop().unwrap();
        assert_eq!(
            (seen.header("expect"), seen.body == body.as_bytes()),
            (None, true)
        );
    }
}

#[tokio::test]
async fn an_absolute_target_leads_to_the_provider_and_nowhere_else() {
    let rig = Rig::at(100).await;
    let bytes = b"GET http://evil.example:81/v1/models?x=1 HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    assert_eq!(status_of(&rig, bytes).await, Some(200));
    let seen = rig.legacy.requests().pop().unwrap();
    assert_eq!(seen.target, "/v1/models?x=1");
    assert_eq!(
        seen.header("host"),
        Some(format!("127.0.0.1:{}", rig.legacy.port()).as_str())
    );
}

#[tokio::test]
async fn an_upgrade_becomes_no_tunnel() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let bytes = b"GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\
        GET /v1/second HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(bytes).await.unwrap();
    for target in ["/v1/realtime", "/v1/second"] {
        assert_eq!(client.answer().await.unwrap().head.status, 200);
        let seen = rig.legacy.requests().pop().unwrap();
        assert_eq!(
            (seen.target.as_str(), seen.header("upgrade")),
            (target, None)
        );
    }
}

#[tokio::test]
async fn refusals_speak_the_clients_dialect() {
    let rig = Rig::at(100).await;
    for (path, pointer) in [(CHAT, "/error/code"), (MESSAGES, "/error/code")] {
        let mut client = rig.client().await;
        let bytes = format!("POST {path} HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}");
        client.send(bytes.as_bytes()).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.head.status, answer.end), (400, End::Clean));
        assert_eq!(answer.head.header("x-cutover-error"), Some("bad-host"));
        let body = answer.json();
        assert_eq!(body.pointer(pointer).unwrap(), "bad-host", "{body}");
        assert_eq!(body.get("type").is_some(), path == MESSAGES, "{body}");
    }
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_one_that_closes() {
    let proxy = "max-connections = 2".to_owned();
    let rig = Rig::with(Setup {
        proxy,
        ..Setup::default()
    })
    .await;
    let mut served: Vec<Client> = Vec::new();
    for _ in 0..2 {
        let mut client = rig.client().await;
        client.request("GET", "/v1/models", &[], b"").await.unwrap();
        assert_eq!(client.answer().await.unwrap().head.status, 200);
        served.push(client);
    }
    let mut waiting = rig.client().await;
    waiting.request("GET", "/v1/third", &[], b"").await.unwrap();
    assert!(waiting.is_silent_for(Duration::from_millis(150)).await);
    assert_eq!(rig.legacy.requests().len(), 2);
    drop(served.pop());
    let answer = in_time("the third connection", waiting.answer())
        .await
        .unwrap();
    assert_eq!(answer.head.status, 200);
    wait_until("all three were served", || rig.legacy.requests().len() == 3).await;
}

#[tokio::test]
async fn a_provider_that_answers_too_much_does_not_poison_the_next_request() {
    let rig = Rig::at(0).await;
    // The provider breaks off within its answer; the next request gets a connection of its own.
    let broken = rig
        .post(CHAT, &ask("fault-truncate-at-20@legacy", false))
        .await;
    assert_ne!(broken.end, End::Clean);
    for _ in 0..3 {
        let answer = rig.post(CHAT, &ask("ok", false)).await;
        assert_eq!(
            (answer.head.status, answer.end, served_by(&answer)),
            (200, End::Clean, "legacy")
        );
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_without_chunks() {
    let rig = Rig::at(100).await;
    for stream in [false, true] {
        let body = ask("ok", stream).to_string();
        let length = body.len();
        let head = format!("POST {CHAT} HTTP/1.0\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        let mut client = rig.client().await;
        client
            .send(&[head.as_bytes(), body.as_bytes()].concat())
            .await
            .unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.head.status, served_by(&answer)), (200, "canary"));
        assert_eq!(answer.head.header("transfer-encoding"), None);
        let direct = crate::client::post(rig.canary.port(), CHAT, &ask("ok", stream)).await;
        assert!(answer.body == direct.unwrap().body, "{}", answer.text());
    }
}
