//! Arms that answer with something else than HTTP, or with more than one answer.
//!
//! The client gets 502 or an answer that visibly breaks off, and no bytes of one answer ever reach another
//! client.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Answer, End, post};
use crate::harness::{CHAT, Setup, ask};

use super::rig_with;

const JSON: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#;

/// An arm that answers every request with the same bytes, in one go.
#[derive(Debug, Clone)]
struct Puppet {
    port: u16,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Puppet {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::default();
        let puppet = Self { port, line };
        let shared = puppet.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().serve(stream));
            }
        });
        puppet
    }

    fn says(&self, bytes: &[u8]) {
        *self.line.lock().unwrap() = bytes.to_vec();
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut seen = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut seen).await {
            if !is_whole(&seen) {
                continue;
            }
            seen.clear();
            let line = self.line.lock().unwrap().clone();
            // What is cut by the other side is what the tests are about.
            stream.write_all(&line).await.ok();
            if line.ends_with(b"<FIN>") {
                return;
            }
        }
    }
}

/// True if a request with a length is there to its end.
fn is_whole(seen: &[u8]) -> bool {
    let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    seen.len() >= end + 4 + length
}

/// True if a client takes this for a good answer.
fn looks_good(answer: &Result<Answer, End>) -> bool {
    let good = |answer: &Answer| answer.head.status == 200 && answer.end == End::Clean;
    answer.as_ref().is_ok_and(good)
}

fn good(head: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}\r\n\r\n{JSON}")
}

fn with_length() -> String {
    good(&format!("content-length: {}", JSON.len()))
}

/// A name, and what the arm says.
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_answers() -> Vec<(&'static str, Vec<u8>)> {
    let length = JSON.len();
    let (more, less) = (length + 100, length - 1);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let large = "y".repeat(1 << 20);
    let texts = [
        (
            "garbage",
            "\x16\x03\x01 this is not HTTP\r\n\r\n<FIN>".to_owned(),
        ),
        (
            "another protocol",
            "SSH-2.0-OpenSSH_9.2\r\n<FIN>".to_owned(),
        ),
        (
            "a head of 1 MiB",
            good(&format!("x: {large}\r\ncontent-length: {length}")),
        ),
        (
            "1000 headers",
            good(&format!(
                "{}content-length: {length}",
                "x: 1\r\n".repeat(1_000)
            )),
        ),
        (
            "a head without end",
            format!("HTTP/1.1 200 OK\r\nx: {large}<FIN>"),
        ),
        (
            "two lengths",
            good(&format!(
                "content-length: {length}\r\ncontent-length: {less}"
            )),
        ),
        (
            "listed lengths",
            good(&format!("content-length: {length}, {less}")),
        ),
        ("a negative length", good("content-length: -1")),
        (
            "a length beyond the end",
            good(&format!("content-length: {more}")) + "<FIN>",
        ),
        (
            "a status of two digits",
            "HTTP/1.1 20 OK\r\n\r\n<FIN>".to_owned(),
        ),
        (
            "a folded line",
            good(&format!("x: 1\r\n 2\r\ncontent-length: {length}")),
        ),
        ("nul", good(&format!("x: \0\r\ncontent-length: {length}"))),
        (
            "a bare cr",
            good(&format!("x: 1\rx-b: 2\r\ncontent-length: {length}")),
        ),
        (
            "a space before the colon",
            good(&format!("x : 1\r\ncontent-length: {length}")),
        ),
        (
            "a tunnel",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
                .to_owned(),
        ),
        (
            "a size that is no number",
            format!("{chunked}zz\r\n{JSON}\r\n0\r\n\r\n"),
        ),
        (
            "a size that overflows",
            format!("{chunked}fffffffffffffffff\r\n{JSON}\r\n0\r\n\r\n"),
        ),
        (
            "a negative size",
            format!("{chunked}-1\r\n{JSON}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk without its end",
            format!("{chunked}{less:x}\r\n{JSON}\r\n0\r\n\r\n"),
        ),
        (
            "chunks without end",
            format!("{chunked}{length:x}\r\n{JSON}\r\n<FIN>"),
        ),
        (
            "an endless extension",
            format!("{chunked}{length:x};{large}\r\n{JSON}\r\n0\r\n\r\n"),
        ),
    ];
    texts.map(|(name, text)| (name, text.into_bytes())).into()
}

#[tokio::test]
async fn an_arm_that_speaks_no_http_gives_no_answer_that_looks_good() {
    let puppet = Puppet::start().await;
    let rig = rig_with(Setup {
        canary_url: Some(format!("http://127.0.0.1:{}/v1", puppet.port)),
        canary: "timeouts = { first-byte = \"5s\", total = \"5s\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    puppet.says(with_length().as_bytes());
    assert!(looks_good(&post(rig.port(), CHAT, &ask("m", false)).await));
    let (mut bad, mut wrong) = (0, Vec::new());
    for (name, bytes) in bad_answers() {
        puppet.says(&bytes);
        let answer = post(rig.port(), CHAT, &ask("m", false)).await;
        let is_told = answer.as_ref().map_or(true, |answer| {
            [502, 504].contains(&answer.head.status) || answer.end != End::Clean
        });
        if !is_told {
            wrong.push(format!("{name}: {answer:?}"));
        }
        bad += 1;
        // The connection that went wrong is not used again.
        puppet.says(with_length().as_bytes());
        let next = post(rig.port(), CHAT, &ask("m", false)).await;
        assert!(looks_good(&next), "after {name}: {next:?}");
        assert_eq!(next.unwrap().text(), JSON, "after {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rows = rig.finish().await.rows;
    let failed = rows
        .iter()
        .filter(|row| row.role == "live" && row.outcome != "ok");
    assert_eq!(failed.count(), bad, "{rows:#?}");
}

#[tokio::test]
async fn what_an_arm_says_behind_its_answer_reaches_nobody() {
    let puppet = Puppet::start().await;
    let rig = rig_with(Setup {
        canary_url: Some(format!("http://127.0.0.1:{}/v1", puppet.port)),
        ..Setup::default()
    })
    .await;
    let poison = with_length().replace("hello", "evil!");
    for (name, first) in [
        ("a second answer", with_length()),
        (
            "a second answer behind an early end",
            good(&format!(
                "content-length: {}\r\nconnection: keep-alive",
                JSON.len()
            )),
        ),
        (
            "an answer behind no content",
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        ),
        (
            "an answer behind length and chunks",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{JSON}\r\n0\r\n\r\n",
                JSON.len()
            ),
        ),
    ] {
        puppet.says(format!("{first}{poison}").as_bytes());
        for _ in 0..20 {
            let answer = post(rig.port(), CHAT, &ask("m", false)).await;
            let text = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            assert!(
                !text.clone().is_ok_and(|text| text.contains("evil!")),
                "{name}: {text:?}"
            );
        }
    }
}
