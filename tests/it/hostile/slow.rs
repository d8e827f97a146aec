//! Clients that take their time on purpose: with a head, a body, an answer, or with nothing at all.
//!
//! The limits are those of the configuration, set so low that no test has to wait for long.

use std::time::Duration;

use crate::client::{Client, End};
use crate::harness::{CHAT, Rig, Setup, ask, in_time};

use super::bystander::Bystander;
use super::h2::{DATA, END_STREAM, RST_STREAM, Raw, WINDOW_UPDATE, frame, get, post};
use super::{rig, rig_with};

/// Between two bytes of a client that sends them one by one.
const DRIP: Duration = Duration::from_millis(100);

/// Waits until the daemon hangs up, whatever it says before.
async fn hung_up_on(mut client: Client) {
    in_time("the end of the connection", async {
        while client.read_any().await {}
    })
    .await;
}

/// Sends byte after byte until the daemon hangs up or answers; the status, if it answered.
async fn drip(rig: &Rig, head: &str, byte: &[u8]) -> Option<u16> {
    let mut client = rig.client().await;
    client.send(head.as_bytes()).await.unwrap();
    let dripping = async {
        while client.is_silent_for(DRIP).await {
            if client.send(byte).await.is_err() {
                break;
            }
        }
        client.answer().await.ok().map(|answer| answer.head.status)
    };
    in_time("the end of the patience", dripping).await
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed_in_time() {
    let rig = rig("keep-alive = \"1s\"").await;
    let bystander = Bystander::start(rig.port());
    let mut idle = Vec::new();
    for bytes in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n",
    ] {
        let mut client = rig.client().await;
        client.send(bytes.as_bytes()).await.unwrap();
        idle.push(client);
    }
    // One that was served before, and one whose headers never end.
    let mut used = rig.client().await;
    used.request("GET", "/v1/models", &[], b"").await.unwrap();
    assert_eq!(used.answer().await.unwrap().head.status, 200);
    idle.push(used);
    for client in idle {
        hung_up_on(client).await;
    }
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx: ";
    assert_eq!(drip(&rig, head, b"y").await, None);
    bystander.must_be_well("slow heads").await;
}

#[tokio::test]
async fn a_body_that_hardly_comes_is_given_up_and_is_no_fault_of_an_arm() {
    // The arm's own limit is the shorter one: it does not count while the client is waited for.
    let short = "timeouts = { first-byte = \"300ms\", total = \"300ms\" }".to_owned();
    let rig = rig_with(Setup {
        proxy: "client-stall = \"1s\"".to_owned(),
        legacy: short,
        ..Setup::default()
    })
    .await;
    let bystander = Bystander::start(rig.port());
    for target in [CHAT, "/v1/files"] {
        for (framing, byte) in [
            ("content-length: 5000", "x"),
            ("transfer-encoding: chunked", "1\r\nx\r\n"),
        ] {
            let head = format!("POST {target} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
            let status = drip(&rig, &head, byte.as_bytes()).await;
            assert_eq!(status, Some(408), "{target} {framing}: byte by byte");
            // Nothing at all.
            let mut client = rig.client().await;
            client.send(head.as_bytes()).await.unwrap();
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.head.status, 408, "{target} {framing}");
            let kind = answer.head.header("x-cutover-error");
            assert_eq!(kind, Some("body-stalled"), "{target} {framing}");
        }
    }
    bystander.must_be_well("slow bodies").await;
    let finished = rig.finish().await;
    let pinned = finished.rows.iter().filter(|row| row.role == "pinned");
    let outcomes: Vec<_> = pinned.map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["client-gone"; 4]);
}

#[tokio::test]
async fn a_body_that_comes_steadily_is_served_however_short_the_arms_limit_is() {
    let rig = rig_with(Setup {
        legacy: "timeouts = { first-byte = \"3s\", total = \"3s\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    let mut client = rig.client().await;
    let head = "POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 8000\r\n\r\n";
    client.send(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        assert!(client.is_silent_for(Duration::from_millis(500)).await);
        client.send(&[b'x'; 1_000]).await.unwrap();
    }
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.head.status, answer.end), (200, End::Clean));
    let rows = rig.finish().await.rows;
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["ok"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_is_cut_and_lets_go_of_the_arm() {
    let rig = rig("client-stall = \"1s\"").await;
    let bystander = Bystander::start(rig.port());
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect_narrow(rig.port()).await.unwrap();
        let body = ask("fault-huge-event-16", true).to_string();
        client
            .request("POST", CHAT, &[], body.as_bytes())
            .await
            .unwrap();
        slow.push(client);
    }
    in_time("the provider is let go", rig.canary.wait_hung_up(2)).await;
    for mut client in slow {
        let answer = client.answer().await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.end != End::Clean));
    }
    bystander.must_be_well("slow readers").await;
    let rows = rig.finish().await.rows;
    let gone = rows.iter().filter(|row| row.outcome == "client-gone");
    assert_eq!(gone.count(), 2, "{rows:?}");
}

#[tokio::test]
async fn a_stream_without_a_window_is_reset_alone() {
    let rig = rig("client-stall = \"1s\"").await;
    let bystander = Bystander::start(rig.port());
    // No stream may send anything before its client says so.
    let mut raw = Raw::connect(rig.port(), &[(4, 0)]).await;
    let body = ask("ok", true).to_string();
    let ask = |stream| {
        let body = frame(DATA, END_STREAM, stream, body.as_bytes());
        [post(stream, CHAT, &[]), body].concat()
    };
    raw.send(&[ask(1), get(3, "/v1/models", &[])].concat())
        .await;
    let mut reset = Vec::new();
    while reset.len() < 2 {
        let frame = raw.next().await.expect("the connection stays");
        if frame.kind == RST_STREAM {
            reset.push(frame.stream);
        }
    }
    reset.sort_unstable();
    assert_eq!(reset, [1, 3]);
    // The connection serves on.
    let window = frame(WINDOW_UPDATE, 0, 5, &[0, 1, 0, 0]);
    raw.send(&[ask(5), window].concat()).await;
    loop {
        let frame = raw.next().await.expect("the connection stays");
        assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
        if (frame.kind, frame.stream, frame.flags & END_STREAM) == (DATA, 5, END_STREAM) {
            break;
        }
    }
    bystander.must_be_well("no window").await;
}

#[tokio::test]
async fn a_stream_with_next_to_no_window_is_reset_and_lets_go_of_the_arm() {
    let rig = rig("client-stall = \"1s\"").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[(4, 1)]).await;
    let body = ask("fault-huge-event-4", true).to_string();
    let body = frame(DATA, END_STREAM, 1, body.as_bytes());
    raw.send(&[post(1, CHAT, &[]), body].concat()).await;
    let reset = raw.wait(RST_STREAM, 1).await;
    assert!(reset.is_some(), "the connection stays");
    in_time("the provider is let go", rig.canary.wait_hung_up(1)).await;
    bystander.must_be_well("a window of one byte").await;
}

#[tokio::test]
async fn idle_connections_over_the_cap_lock_nobody_out_for_long() {
    let rig = rig("keep-alive = \"1s\"\nmax-connections = 50").await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(rig.client().await);
    }
    // It waits behind all of them.
    let mut late = rig.client().await;
    late.request("GET", "/v1/models", &[], b"").await.unwrap();
    let answer = in_time("the late client's turn", late.answer())
        .await
        .unwrap();
    assert_eq!(answer.head.status, 200);
    for client in idle {
        hung_up_on(client).await;
    }
    // Every place is free again: as many as there may be are served at once.
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(rig.client().await);
    }
    for client in &mut clients {
        client.request("GET", "/v1/models", &[], b"").await.unwrap();
    }
    for client in &mut clients {
        let answer = in_time("a free place", client.answer()).await.unwrap();
        assert_eq!(answer.head.status, 200);
    }
}

#[tokio::test]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let rig = rig("max-connections = 20").await;
    let bystander = Bystander::start(rig.port());
    let body = ask("fault-stall-head", false).to_string();
    for round in 0..300 {
        let mut client = rig.client().await;
        match round % 4 {
            0 => {}
            1 => client.send(b"POST /v1/ch").await.unwrap(),
            2 => client
                .send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx")
                .await
                .unwrap(),
            _ => client
                .request("POST", CHAT, &[], body.as_bytes())
                .await
                .unwrap(),
        }
        drop(client);
    }
    bystander.must_be_well("churn").await;
    // All places are free, or the last of these would wait for ever.
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = rig.client().await;
        client.request("GET", "/v1/models", &[], b"").await.unwrap();
        let answer = in_time("a free place", client.answer()).await.unwrap();
        assert_eq!(answer.head.status, 200);
        clients.push(client);
    }
    drop(clients);
    let rows = rig.finish().await.rows;
    let blamed = rows
        .iter()
        .find(|row| !["ok", "client-gone"].contains(&row.outcome.as_str()));
    assert_eq!(blamed, None);
}
