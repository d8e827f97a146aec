//! What no client of HTTP/2 may say: the connection ends with a reason, or the one stream does.

use std::time::Duration;

use super::bystander::Bystander;
use super::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, get, post,
};
use super::rig;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// How it is taken: the connection ends or one stream does, with one of these reasons, or the stream is
/// answered with 4xx.
#[derive(Debug, Clone, Copy)]
enum Ends {
    Connection(&'static [u32]),
    Stream(&'static [u32]),
    Answer4xx,
}
use Ends::{Answer4xx, Connection, Stream};

#[expect(clippy::too_many_lines, reason = "a table")]
fn misuses() -> Vec<(&'static str, Vec<u8>, Ends)> {
    let path = "/v1/models";
    let bad =
        |headers: &[(&str, &str)]| frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(headers));
    let must = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
    ];
    let with = |more: (&'static str, &'static str)| bad(&[&must[..], &[more]].concat());
    let open = || post(1, "/v1/chat/completions", &[]);
    vec![
        (
            "a stream of the server's",
            get(2, path, &[]),
            Connection(&[PROTOCOL]),
        ),
        ("stream 0", get(0, path, &[]), Connection(&[PROTOCOL])),
        (
            "an id that was passed over",
            [get(5, path, &[]), get(3, path, &[])].concat(),
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        (
            "data of no stream",
            frame(DATA, 0, 7, b"x"),
            Connection(&[PROTOCOL]),
        ),
        (
            "data after the end",
            [get(1, path, &[]), frame(DATA, 0, 1, b"x")].concat(),
            Stream(&[STREAM_CLOSED, PROTOCOL]),
        ),
        (
            "headers after the end",
            [get(1, path, &[]), get(1, path, &[])].concat(),
            Connection(&[STREAM_CLOSED, PROTOCOL]),
        ),
        (
            "more of no headers",
            frame(CONTINUATION, END_HEADERS, 1, b""),
            Connection(&[PROTOCOL]),
        ),
        (
            "headers that another frame parts",
            [
                frame(HEADERS, 0, 1, &block(&must)),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            Connection(&[PROTOCOL]),
        ),
        (
            "more headers of another stream",
            [
                frame(HEADERS, 0, 1, &block(&must)),
                frame(CONTINUATION, END_HEADERS, 3, b""),
            ]
            .concat(),
            Connection(&[PROTOCOL]),
        ),
        (
            "a push",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            Connection(&[PROTOCOL]),
        ),
        (
            "a reset of no stream",
            frame(RST_STREAM, 0, 9, &[0; 4]),
            Connection(&[PROTOCOL]),
        ),
        (
            "a window of no stream",
            frame(WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1]),
            Connection(&[PROTOCOL]),
        ),
        (
            "no more window",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            Connection(&[PROTOCOL]),
        ),
        (
            "too much window",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Connection(&[FLOW_CONTROL]),
        ),
        (
            "too much window of a stream",
            [
                open(),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat(),
            Stream(&[FLOW_CONTROL]),
        ),
        (
            "too large an initial window",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
            Connection(&[FLOW_CONTROL]),
        ),
        (
            "settings of a wrong length",
            frame(SETTINGS, 0, 0, &[0, 4, 0]),
            Connection(&[FRAME_SIZE]),
        ),
        (
            "settings of a stream",
            frame(SETTINGS, 0, 1, &[]),
            Connection(&[PROTOCOL]),
        ),
        (
            "an acknowledgement with settings",
            frame(SETTINGS, 1, 0, &[0; 6]),
            Connection(&[FRAME_SIZE]),
        ),
        (
            "a ping of a wrong length",
            frame(PING, 0, 0, &[0; 7]),
            Connection(&[FRAME_SIZE]),
        ),
        (
            "a ping of a stream",
            frame(PING, 0, 1, &[0; 8]),
            Connection(&[PROTOCOL]),
        ),
        (
            "a frame that is too long",
            frame(DATA, 0, 1, &vec![0; 16_385]),
            Connection(&[FRAME_SIZE]),
        ),
        (
            "more padding than frame",
            [open(), frame(DATA, 8, 1, &[200, 0, 0])].concat(),
            Connection(&[PROTOCOL]),
        ),
        (
            "headers that cannot be read",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 20]),
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "a stream that depends on itself",
            [open(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])].concat(),
            Stream(&[PROTOCOL]),
        ),
        ("upper case", with(("X-A", "1")), Stream(&[PROTOCOL])),
        (
            "a connection header",
            with(("connection", "close")),
            Stream(&[PROTOCOL]),
        ),
        (
            "a transfer coding",
            with(("transfer-encoding", "chunked")),
            Stream(&[PROTOCOL]),
        ),
        (
            "te of more than trailers",
            with(("te", "gzip")),
            Stream(&[PROTOCOL]),
        ),
        (
            "a line end in a value",
            with(("x-a", "1\r\nhost: b")),
            Stream(&[PROTOCOL]),
        ),
        (
            "a pseudo header behind others",
            bad(&[&must[..3], &[("x-a", "1"), must[3]]].concat()),
            Stream(&[PROTOCOL]),
        ),
        (
            "an unknown pseudo header",
            with((":version", "1")),
            Stream(&[PROTOCOL]),
        ),
        (
            "the path twice",
            with((":path", "/v1/y")),
            Stream(&[PROTOCOL]),
        ),
        (
            "no path",
            bad(&[must[0], must[1], must[3]]),
            Stream(&[PROTOCOL]),
        ),
        ("no method", bad(&must[1..]), Stream(&[PROTOCOL])),
        ("another host", with(("host", "b")), Answer4xx),
        ("no host", bad(&must[..3]), Answer4xx),
        (
            "a tunnel",
            bad(&[(":method", "CONNECT"), (":authority", "evil:443")]),
            Answer4xx,
        ),
        (
            "less than announced",
            [
                post(1, "/v1/chat/completions", &[("content-length", "9")]),
                frame(DATA, END_STREAM, 1, b"{}"),
            ]
            .concat(),
            Stream(&[PROTOCOL]),
        ),
        (
            "more than announced",
            [
                post(1, "/v1/chat/completions", &[("content-length", "1")]),
                frame(DATA, END_STREAM, 1, b"{}"),
            ]
            .concat(),
            Stream(&[PROTOCOL]),
        ),
        (
            "less than announced, passed on",
            [
                post(1, "/v1/files", &[("content-length", "9")]),
                frame(DATA, END_STREAM, 1, b"{}"),
            ]
            .concat(),
            Stream(&[PROTOCOL]),
        ),
    ]
}

fn reason(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().unwrap())
}

/// True if the stream was answered with 4xx, whatever table the status came from.
pub(super) fn is_refused(frame: &Frame) -> bool {
    // Of the statuses 4xx the static table holds 400 and 404; any other is written out, maybe in Huffman
    // code: its name has index 8, and is the first.
    let first = frame.payload.first().copied().unwrap_or_default();
    let is_4xx = [0x8c, 0x8d].contains(&first) || first & 0x3f == 8 || first == 0x08;
    frame.kind == HEADERS && frame.stream == 1 && is_4xx
}

fn is_as_told(frames: &[Frame], lives: bool, ends: Ends) -> bool {
    let goaway = frames.iter().find(|frame| frame.kind == GOAWAY);
    let goaway = goaway.map(|frame| reason(&frame.payload[4..8]));
    let reset = frames.iter().find(|frame| frame.kind == RST_STREAM);
    let reset = reset.map(|frame| reason(&frame.payload));
    match ends {
        // The general reason does for each of the others.
        Connection(reasons) => {
            !lives && goaway.is_some_and(|found| found == PROTOCOL || reasons.contains(&found))
        }
        // To end the whole connection is always allowed.
        Stream(reasons) if lives => reset.is_some_and(|found| reasons.contains(&found)),
        Stream(reasons) => goaway.is_some_and(|found| reasons.contains(&found)),
        Answer4xx => lives && frames.iter().any(is_refused),
    }
}

#[tokio::test]
async fn what_no_client_may_say_ends_its_stream_or_its_connection_and_reaches_no_arm() {
    let rig = rig("").await;
    let bystander = Bystander::start(rig.port());
    let mut wrong = Vec::new();
    for (name, bytes, ends) in misuses() {
        let mut raw = Raw::connect(rig.port(), &[]).await;
        // Whatever was sent before it went wrong is served as any other request.
        raw.send(&bytes).await;
        let mut lived = true;
        let mut seen = Vec::new();
        // What a task answers may come behind the pong.
        for _ in 0..200 {
            let (frames, lives) = raw.until_pong().await;
            seen.extend(frames);
            lived = lives;
            if !lived || is_as_told(&seen, lived, ends) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !is_as_told(&seen, lived, ends) {
            wrong.push(format!("{name}: {lived} {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for request in rig.legacy.requests() {
        assert_eq!(request.target, "/v1/models", "{request:?}");
        assert_eq!(request.header("x-a"), None);
    }
    bystander.must_be_well("misuse").await;
}

#[tokio::test]
async fn what_is_no_http_2_after_its_first_bytes_ends_the_connection() {
    let rig = rig("").await;
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut client = rig.client().await;
        client.send(bytes).await.unwrap();
        let all = async { while client.read_any().await {} };
        crate::harness::in_time("the end of the connection", all).await;
    }
    assert_eq!(rig.legacy.requests().len(), 0);
}
