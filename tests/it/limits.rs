//! The four limits in time, whose they are, and clients that are slower than the arm.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::client::{Client, End};
use crate::harness::{CHAT, RESPONSES, Rig, Setup, ask, in_time, rollout};

/// An upstream that plays `play` on each connection, with small buffers of its own.
fn upstream<F, Playing>(play: F) -> String
where
    F: Fn(TcpStream) -> Playing + Send + 'static,
    Playing: Future<Output = ()> + Send + 'static,
{
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(64).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(play(stream));
        }
    });
    format!("http://127.0.0.1:{port}/v1")
}

/// Reads a request with a length; false if the connection ended instead.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    loop {
        let mut next = [0; 4096];
        match stream.read(&mut next).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => seen.extend(&next[..read]),
        }
        let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if seen.len() >= end + 4 + length {
            return true;
        }
    }
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// An event with a text of this length, as a chunk.
fn event(text: usize) -> Vec<u8> {
    let delta = json!({"choices": [{"index": 0, "delta": {"content": "x".repeat(text)}}]});
    let event = format!("data: {delta}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn last_events() -> Vec<u8> {
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let event = format!("data: {stop}\n\ndata: [DONE]\n\n");
    format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into_bytes()
}

/// All traffic goes to a canary that nobody rescues.
async fn rig(canary: &str, canary_url: Option<String>) -> Rig {
    let rig = Rig::with(Setup {
        canary: canary.to_owned(),
        canary_url,
        rollouts: rollout("default", "failover = false"),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}

async fn outcomes(rig: Rig) -> Vec<String> {
    let rows = rig.finish().await.rows;
    rows.into_iter().map(|row| row.outcome).collect()
}

#[tokio::test]
async fn each_limit_ends_what_it_is_for() {
    let limits = "timeouts = { first-byte = \"400ms\", idle = \"500ms\", total = \"1s 500ms\" }";
    let rig = rig(limits, None).await;
    let check = async |model: &str, stream: bool, target: &str| {
        let answer = rig.post(target, &ask(model, stream)).await;
        (answer.head.status, answer.end)
    };
    for stream in [true, false] {
        for model in ["fault-stall-head", "fault-slow-head-5000"] {
            let found = check(model, stream, CHAT).await;
            assert_eq!(found, (504, End::Clean), "{model} {stream}");
        }
        // The head came, and nothing after it.
        let (status, end) = check("fault-stall-after-0", stream, CHAT).await;
        assert_eq!((status, end != End::Clean), (200, true), "{stream}");
    }
    // Chunk after chunk, each in time, and never an end.
    let (status, end) = check("fault-gap-300", true, RESPONSES).await;
    assert_eq!((status, end != End::Clean), (200, true));
    let expected = [
        ["timeout-first-byte"; 2].as_slice(),
        &["timeout-idle"],
        &["timeout-first-byte"; 2],
        &["timeout-idle", "timeout-total"],
    ];
    assert_eq!(outcomes(rig).await, expected.concat());
}

#[tokio::test]
async fn the_total_limit_bounds_a_stream_that_never_begins() {
    let rig = rig("timeouts = { first-byte = \"20s\", total = \"20s\" }\nmodel-timeouts = { \"fault-stall-*\" = { total = \"300ms\" } }", None).await;
    for stream in [true, false] {
        let answer = rig.post(CHAT, &ask("fault-stall-head", stream)).await;
        assert_eq!(answer.head.status, 504);
    }
    assert_eq!(outcomes(rig).await, ["timeout-total"; 2]);
}

#[tokio::test]
async fn a_model_has_limits_of_its_own_and_a_large_answer_has_more_time() {
    let canary = "timeouts = { total = \"300ms\" }
        model-timeouts = { \"fault-slow-*\" = { total = \"100ms\" }, \"fault-slow-head-90*\" = { total = \"20s\" }, \"fault-slow-head-80*\" = { tokens-per-second = 10 } }";
    let rig = rig(canary, None).await;
    for (model, max_tokens, status) in [
        ("fault-slow-head-900", None, 200),
        ("fault-slow-head-700", None, 504),
        ("fault-slow-head-800", None, 504),
        ("fault-slow-head-800", Some(200), 200),
        ("fault-slow-head-700", Some(200), 504),
    ] {
        for key in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            let mut body = ask(model, false);
            body.as_object_mut().unwrap().remove("max_tokens");
            if let Some(tokens) = max_tokens {
                body[key] = json!(tokens);
            }
            let answer = rig.post(CHAT, &body).await;
            assert_eq!(answer.head.status, status, "{model} {key}: {max_tokens:?}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_closes_its_half_within_the_answer_has_broken_it() {
    let half_closed = |mut stream: TcpStream| async move {
        if read_request(&mut stream).await {
            stream.write_all(STREAM_HEAD).await.unwrap();
            stream.write_all(&event(100)).await.unwrap();
            stream.shutdown().await.unwrap();
            // Its other half stays open for as long as cutover's does.
            drop(stream.read(&mut [0; 16]).await);
        }
    };
    let rig = rig("", Some(upstream(half_closed))).await;
    let answer = rig.post(CHAT, &ask("ok", true)).await;
    assert_ne!(answer.end, End::Clean);
    assert!(answer.text().contains("xxx"));
    assert_eq!(outcomes(rig).await, ["reset"]);
}

#[tokio::test]
async fn an_upstream_that_never_reads_the_request_is_given_up_in_time() {
    let read = Arc::new(AtomicU64::new(0));
    let (answered, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let deaf = {
        let (read, answered, ended) =
            (Arc::clone(&read), Arc::clone(&answered), Arc::clone(&ended));
        move |mut stream: TcpStream| {
            let (read, answered, ended) =
                (Arc::clone(&read), Arc::clone(&answered), Arc::clone(&ended));
            async move {
                answered.notified().await;
                let mut next = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut next).await {
                    read.fetch_add(length as u64, Ordering::SeqCst);
                }
                ended.notify_one();
            }
        }
    };
    let limits = "timeouts = { first-byte = \"500ms\" }";
    let rig = rig(limits, Some(upstream(deaf))).await;
    let mut body = ask("ok", true);
    body["padding"] = json!("x".repeat(7 << 20));
    let answer = rig.post(CHAT, &body).await;
    assert_eq!(answer.head.status, 504);
    // The upload was cut as well: of the rest nothing arrives however long somebody reads. One of the
    // connections was kept warm and never used.
    answered.notify_waiters();
    answered.notify_one();
    in_time("the upload to end", ended.notified()).await;
    assert!(read.load(Ordering::SeqCst) < 7 << 20);
    assert_eq!(outcomes(rig).await, ["timeout-first-byte"]);
}

#[tokio::test]
async fn an_upstream_that_floods_is_ended_by_the_total_limit() {
    let flood = |mut stream: TcpStream| async move {
        if read_request(&mut stream).await {
            stream.write_all(STREAM_HEAD).await.unwrap();
            while stream.write_all(&event(4_096)).await.is_ok() {}
        }
    };
    let rig = rig("timeouts = { total = \"700ms\" }", Some(upstream(flood))).await;
    let mut client = rig.client().await;
    let body = ask("ok", true).to_string();
    let request = client.request("POST", CHAT, &[], body.as_bytes());
    request.await.unwrap();
    client.head().await.unwrap();
    let ended = async {
        loop {
            match client.part().await {
                Ok(Some(_)) => {}
                Ok(None) => return End::Clean,
                Err(end) => return end,
            }
        }
    };
    assert_ne!(in_time("the flood to end", ended).await, End::Clean);
    assert_eq!(outcomes(rig).await, ["timeout-total"]);
}

/// Of a flood of this size little is taken in while the client does not read.
const FLOOD: u64 = 24 << 20;

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_upstream_and_is_not_its_fault() {
    let written = Arc::new(AtomicU64::new(0));
    let large = {
        let written = Arc::clone(&written);
        move |mut stream: TcpStream| {
            let written = Arc::clone(&written);
            async move {
                if !read_request(&mut stream).await {
                    return;
                }
                stream.write_all(STREAM_HEAD).await.unwrap();
                let event = event(16 * 1024);
                while written.load(Ordering::SeqCst) < FLOOD {
                    stream.write_all(&event).await.unwrap();
                    written.fetch_add(event.len() as u64, Ordering::SeqCst);
                }
                stream.write_all(&last_events()).await.unwrap();
                read_request(&mut stream).await;
            }
        }
    };
    // The rest of the flood has to pass in that time on a busy machine.
    let limits = "timeouts = { idle = \"1s\", total = \"6s\" }";
    let rig = rig(limits, Some(upstream(large))).await;
    let mut client = Client::connect_narrow(rig.port()).await.unwrap();
    let body = ask("ok", true).to_string();
    let request = client.request("POST", CHAT, &[], body.as_bytes());
    request.await.unwrap();
    client.head().await.unwrap();
    // Longer than both limits, and until nothing moves any more.
    let mut before = 0;
    let mut quiet = 0;
    while quiet < 65 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = written.load(Ordering::SeqCst);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    println!("{before} bytes were taken in without a reader");
    // Nearly all of it is in the kernel's buffers of the four socket ends.
    assert!((1..FLOOD / 2).contains(&before), "{before}");
    let rest = async {
        let mut length = 0;
        while let Some(part) = client.part().await.unwrap() {
            length += part.len() as u64;
        }
        length
    };
    let length = in_time("the rest of the answer", rest).await;
    assert!(length > FLOOD - (FLOOD / 50), "{length}");
    assert_eq!(outcomes(rig).await, ["ok"]);
}

#[tokio::test]
async fn an_arm_that_falls_silent_behind_a_slow_client_still_times_out() {
    let silent = |mut stream: TcpStream| async move {
        if read_request(&mut stream).await {
            stream.write_all(STREAM_HEAD).await.unwrap();
            stream.write_all(&event(1_000)).await.unwrap();
            read_request(&mut stream).await;
        }
    };
    let rig = rig("timeouts = { idle = \"300ms\" }", Some(upstream(silent))).await;
    let mut client = Client::connect_narrow(rig.port()).await.unwrap();
    let body = ask("ok", true).to_string();
    let request = client.request("POST", CHAT, &[], body.as_bytes());
    request.await.unwrap();
    client.head().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (body, _) = client.body().await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(text.contains("fell silent"), "{text}");
    assert_eq!(outcomes(rig).await, ["timeout-idle"]);
}
