//! Requests whose end two readers could see at different places, and what is no request at all.
//!
//! Every attack is followed by a second request on the same connection: behind a refusal, nobody may see it.

use crate::client::{Client, End};
use crate::harness::{CHAT, Rig, Setup, in_time};

use super::rig_with;
use super::sink::{Read, Sink};

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// This status, and then the end of the connection.
    Refusal(u16),
    /// 200 for this request alone, and then the end of the connection.
    LastAnswer,
    /// 200 for both requests: the first is well-formed.
    Both,
}
use Gets::{Both, LastAnswer, Refusal};

/// A name, the headers of a POST beside `host`, its body, and what the client gets.
type Attack = (&'static str, &'static str, &'static str, Gets);

const SECOND: &str = "GET /v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
const JSON: &str = r#"{"model":"m","messages":[]}"#;

/// `*` stands for the 27 bytes of JSON as a chunked body.
#[expect(clippy::too_many_lines, reason = "a table")]
fn attacks() -> Vec<(&'static str, String, String, Gets)> {
    let chunked = "transfer-encoding: chunked";
    let whole = format!("1b\r\n{JSON}\r\n0\r\n\r\n");
    let fixed: [Attack; 31] = [
        (
            "length then chunks",
            "content-length: 4\r\ntransfer-encoding: chunked",
            "*",
            LastAnswer,
        ),
        (
            "chunks then length",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "*",
            LastAnswer,
        ),
        (
            "two lengths",
            "content-length: 27\r\ncontent-length: 3",
            JSON,
            Refusal(400),
        ),
        (
            "the same length twice",
            "content-length: 27\r\ncontent-length: 27",
            JSON,
            Both,
        ),
        (
            "listed lengths",
            "content-length: 27, 27",
            JSON,
            Refusal(400),
        ),
        ("a signed length", "content-length: +27", JSON, Refusal(400)),
        (
            "a negative length",
            "content-length: -1",
            JSON,
            Refusal(400),
        ),
        (
            "a huge length",
            "content-length: 99999999999999999999999",
            JSON,
            Refusal(400),
        ),
        (
            "a length beyond the limit",
            "content-length: 9999999999999",
            JSON,
            Refusal(413),
        ),
        ("a hex length", "content-length: 0x1b", JSON, Refusal(400)),
        ("an empty length", "content-length: ", JSON, Refusal(400)),
        ("xchunked", "transfer-encoding: xchunked", "*", Refusal(400)),
        (
            "chunked not last",
            "transfer-encoding: chunked, identity",
            "*",
            Refusal(400),
        ),
        ("identity", "transfer-encoding: identity", "*", Refusal(400)),
        (
            "gzip before chunked",
            "transfer-encoding: gzip, chunked",
            "*",
            Refusal(501),
        ),
        (
            "gzip in a line of its own",
            "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
            "*",
            Refusal(501),
        ),
        (
            "chunked twice",
            "transfer-encoding: chunked, chunked",
            "*",
            Refusal(501),
        ),
        (
            "two lines of chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "*",
            Refusal(501),
        ),
        (
            "a space before the colon",
            "transfer-encoding : chunked",
            "*",
            Refusal(400),
        ),
        (
            "a tab before the colon",
            "transfer-encoding\t: chunked",
            "*",
            Refusal(400),
        ),
        (
            "a tab after the colon",
            "transfer-encoding:\tchunked",
            "*",
            Both,
        ),
        (
            "vertical tab",
            "transfer-encoding:\x0bchunked",
            "*",
            Refusal(400),
        ),
        (
            "quoted",
            "transfer-encoding: \"chunked\"",
            "*",
            Refusal(400),
        ),
        (
            "a folded line",
            "transfer-encoding:\r\n chunked",
            "*",
            Refusal(400),
        ),
        (
            "a folded length",
            "x-a: 1\r\n content-length: 5\r\ncontent-length: 27",
            JSON,
            Refusal(400),
        ),
        ("nul", "x-a: \0\r\ncontent-length: 27", JSON, Refusal(400)),
        (
            "a bare cr",
            "x-a: 1\rtransfer-encoding: chunked\r\ncontent-length: 27",
            JSON,
            Refusal(400),
        ),
        ("a bare lf", "x-a: 1\ncontent-length: 27", JSON, Both),
        ("no name", ": 1\r\ncontent-length: 27", JSON, Refusal(400)),
        (
            "a name with a space",
            "x a: 1\r\ncontent-length: 27",
            JSON,
            Refusal(400),
        ),
        (
            "a second host",
            "host: b\r\ncontent-length: 27",
            JSON,
            Refusal(400),
        ),
    ];
    let mut all: Vec<_> = fixed
        .map(|(name, head, body, gets)| (name, head.to_owned(), body.replace('*', &whole), gets))
        .into();
    let bodies = [
        ("no size", format!("\r\n{JSON}\r\n0\r\n\r\n"), Refusal(400)),
        (
            "a size that is no number",
            format!("zz\r\n{JSON}\r\n0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "a negative size",
            format!("-1b\r\n{JSON}\r\n0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "a hex mark",
            format!("0x1b\r\n{JSON}\r\n0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "a size that overflows",
            format!("fffffffffffffffff1b\r\n{JSON}\r\n0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "a chunk without its end",
            format!("1b\r\n{JSON}xx0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "a chunk that ends in a bare cr",
            format!("1b\r\n{JSON}\r0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "a size that ends in a bare cr",
            format!("1b\r{JSON}\r\n0\r\n\r\n"),
            Refusal(400),
        ),
        (
            "endless extension",
            format!("1b;{}", "x".repeat(1 << 17)),
            Refusal(400),
        ),
        (
            "endless trailers",
            format!("1b\r\n{JSON}\r\n0\r\n{}", "x-t: 1\r\n".repeat(1 << 15)),
            Refusal(400),
        ),
        (
            "an extension",
            format!("1b;a=b\r\n{JSON}\r\n0\r\n\r\n"),
            Both,
        ),
        (
            "a trailer",
            format!("1b\r\n{JSON}\r\n0\r\nhost: evil\r\n\r\n"),
            Both,
        ),
    ];
    all.extend(bodies.map(|(name, body, gets)| (name, chunked.to_owned(), body, gets)));
    let many = |count| format!("{}content-length: 27", "x: 1\r\n".repeat(count));
    all.push(("129 headers", many(127), JSON.to_owned(), Refusal(431)));
    let large = format!("x: {}\r\ncontent-length: 27", "y".repeat(1 << 16));
    all.push(("a large head", large, JSON.to_owned(), Refusal(431)));
    all
}

/// Heads that are wrong as a whole.
#[expect(clippy::too_many_lines, reason = "a table")]
fn whole_heads() -> Vec<(&'static str, Vec<u8>, Gets)> {
    let post = |line: &str, rest: &str| format!("{line}\r\n{rest}\r\n\r\n{JSON}").into_bytes();
    let length = "content-length: 27";
    vec![
        ("no host", post("POST /v1/x HTTP/1.1", length), Refusal(400)),
        (
            "http/1.0 with chunks",
            post(
                "POST /v1/x HTTP/1.0",
                "host: a\r\ntransfer-encoding: chunked",
            ),
            Refusal(400),
        ),
        (
            "http/1.2",
            post("POST /v1/x HTTP/1.2", "host: a\r\ncontent-length: 27"),
            Refusal(400),
        ),
        ("http/0.9", b"GET /v1/x\r\n".to_vec(), Refusal(400)),
        (
            "http/2 without its preface",
            post("POST /v1/x HTTP/2.0", "host: a"),
            Refusal(400),
        ),
        (
            "two spaces",
            post("POST  /v1/x HTTP/1.1", "host: a\r\ncontent-length: 27"),
            Refusal(400),
        ),
        (
            "a space in the target",
            post("POST /v1/x y HTTP/1.1", "host: a\r\ncontent-length: 27"),
            Refusal(400),
        ),
        (
            "no target",
            post("POST HTTP/1.1", "host: a\r\ncontent-length: 27"),
            Refusal(400),
        ),
        (
            "a target without a slash",
            post("POST v1/x HTTP/1.1", "host: a\r\ncontent-length: 27"),
            Refusal(400),
        ),
        (
            "a method of garbage",
            post("P\x01ST /v1/x HTTP/1.1", "host: a\r\ncontent-length: 27"),
            Refusal(400),
        ),
        (
            "a long method",
            post(
                &format!("{} /v1/x HTTP/1.1", "P".repeat(1 << 17)),
                "host: a",
            ),
            Refusal(431),
        ),
        (
            "a long target",
            post(&format!("GET /{} HTTP/1.1", "x".repeat(1 << 17)), "host: a"),
            Refusal(431),
        ),
        (
            "a tunnel",
            b"CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\n\r\n".to_vec(),
            Refusal(405),
        ),
        ("an endless line", vec![b'A'; 1 << 18], Refusal(431)),
        ("zeros", vec![0; 1 << 12], Refusal(400)),
        (
            "tls",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat(),
            Refusal(400),
        ),
    ]
}

/// Both arms are the sink, so that it is known to the byte what an arm sees.
async fn between() -> (Rig, Sink) {
    let sink = Sink::start().await;
    let rig = rig_with(Setup {
        legacy_url: Some(sink.url()),
        canary_url: Some(sink.url()),
        ..Setup::default()
    })
    .await;
    (rig, sink)
}

/// Sends an attack and the request behind it; the statuses that come until the connection ends, or both.
async fn statuses(port: u16, bytes: &[u8], expects_both: bool) -> Vec<u16> {
    let mut client = Client::connect(port).await.unwrap();
    // The refusal may come, and the connection end, before all is sent.
    client.send(&[bytes, SECOND.as_bytes()].concat()).await.ok();
    let mut statuses = Vec::new();
    while let Ok(answer) = in_time("an answer or an end", client.answer()).await {
        assert_eq!(answer.end, End::Clean);
        statuses.push(answer.head.status);
        if expects_both && statuses.len() == 2 {
            break;
        }
    }
    statuses
}

async fn check(rig: &Rig, sink: &Sink, name: &str, bytes: &[u8], gets: Gets) {
    sink.clear();
    let found = statuses(rig.port(), bytes, gets == Both).await;
    let expected: &[u16] = match &gets {
        Refusal(status) => std::slice::from_ref(status),
        LastAnswer => &[200],
        Both => &[200, 200],
    };
    assert_eq!(found, expected, "{name}");
    let (reads, raw) = sink.settled().await;
    let whole = reads.iter().map(|read| match read {
        // A body that is passed on while it comes is cut where it goes wrong, and its connection ended.
        Read::CutAfter(0) => 0,
        Read::Whole(count) => *count,
        other => panic!("{name}: {other:?}: {raw:?}"),
    });
    let served = expected.iter().filter(|status| **status == 200).count();
    assert_eq!(whole.sum::<usize>(), served, "{name}: {raw:?}");
    assert_eq!(
        raw.contains("/v1/smuggled "),
        gets == Both,
        "{name}: {raw:?}"
    );
}

#[tokio::test]
async fn every_malformed_body_is_refused_or_becomes_one_clean_request() {
    let (rig, sink) = between().await;
    for (name, head, body, gets) in attacks() {
        // The first is read whole before it is sent on, the second is passed on as it comes.
        for target in [CHAT, "/v1/files"] {
            let bytes = format!("POST {target} HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n{body}");
            let name = format!("{target}: {name}");
            check(&rig, &sink, &name, bytes.as_bytes(), gets).await;
        }
    }
    let rollout = rig.rollout("default").await;
    for arm in ["legacy", "canary"] {
        assert_eq!(rollout["arms"][arm]["errors"], 0, "{rollout}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_reaches_nobody() {
    let (rig, sink) = between().await;
    for (name, bytes, gets) in whole_heads() {
        check(&rig, &sink, name, &bytes, gets).await;
    }
}

#[tokio::test]
async fn what_looks_odd_and_is_sound_becomes_one_clean_request() {
    let (rig, sink) = between().await;
    for (name, bytes) in [
        (
            "empty lines before",
            "\r\n\r\nGET /v1/x HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        (
            "an absolute target",
            "GET http://evil:1/v1/x HTTP/1.1\r\nhost: b\r\n\r\n",
        ),
        (
            "h2c",
            "GET /v1/x HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        ),
        (
            "websocket",
            "GET /v1/x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n",
        ),
        (
            "an expectation of nothing",
            "POST /v1/x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n",
        ),
        ("an odd method", "BREW /v1/x HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        check(&rig, &sink, name, bytes.as_bytes(), Both).await;
    }
}
