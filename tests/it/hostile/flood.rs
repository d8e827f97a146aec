//! Floods over HTTP/2: much that costs the sender little. Each is refused or ends its connection.

use std::time::Duration;

use crate::harness::in_time;

use super::bystander::Bystander;
use super::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    WINDOW_UPDATE, block, frame, get, post,
};
use super::misuse::is_refused;
use super::rig;

const PATH: &str = "/v1/chat/completions";
/// The reason for somebody who overdoes it.
const CALM: u32 = 11;

/// Sends a flood in portions until it is all sent or the daemon hangs up. Reads what comes beside it.
async fn flood(raw: &mut Raw, portions: u32, portion: impl Fn(u32) -> Vec<u8>) -> bool {
    for number in 0..portions {
        if !raw.send(&portion(number)).await || !raw.drain(Duration::from_millis(1)).await {
            return false;
        }
    }
    true
}

/// The reason of the daemon's goodbye, if it still comes.
async fn goodbye(raw: &mut Raw) -> Option<u32> {
    let frame = raw.wait(GOAWAY, 0).await?;
    Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_in_one_breath_cost_the_arms_nothing() {
    let rig = rig("").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[]).await;
    let portion = |number: u32| {
        let ids = (0..500).map(|at| (number * 500 + at) * 2 + 1);
        let reset = |id| {
            [
                get(id, "/v1/reset", &[]),
                frame(RST_STREAM, 0, id, &[0, 0, 0, 8]),
            ]
            .concat()
        };
        ids.flat_map(reset).collect()
    };
    flood(&mut raw, 40, portion).await;
    bystander.must_be_well("rapid reset").await;
    let sent = rig.legacy.requests();
    let sent = sent
        .iter()
        .filter(|request| request.target == "/v1/reset")
        .count();
    println!("{sent} of 20000 reached the arm");
    // What was reset before it was looked at is never asked for.
    assert!(sent < 2_000, "{sent}");
    drop(raw);
    in_time("the end of all of them", rig.finish()).await;
}

#[tokio::test]
async fn streams_that_the_daemon_is_made_to_reset_end_the_connection() {
    let rig = rig("").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[]).await;
    let portion = |number: u32| {
        let ids = (0..100).map(|at| (number * 100 + at) * 2 + 1);
        let wrong = |id| {
            [
                post(id, PATH, &[]),
                frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat()
        };
        ids.flat_map(wrong).collect::<Vec<u8>>()
    };
    for number in 0..200 {
        raw.send(&portion(number)).await;
    }
    assert_eq!(goodbye(&mut raw).await, Some(CALM));
    bystander.must_be_well("made you reset").await;
    assert_eq!(rig.legacy.requests().len(), 0);
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let rig = rig("").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[]).await;
    raw.send(&frame(
        HEADERS,
        END_STREAM,
        1,
        &block(&[(":method", "GET")]),
    ))
    .await;
    let more = frame(
        CONTINUATION,
        0,
        1,
        &block(&[("x-a", &"y".repeat(120))]).repeat(100),
    );
    assert!(
        !flood(&mut raw, 4_000, |_| more.clone()).await,
        "48 MB are borne"
    );
    let mut raw = Raw::connect(rig.port(), &[]).await;
    raw.send(&frame(
        HEADERS,
        END_STREAM,
        1,
        &block(&[(":method", "GET")]),
    ))
    .await;
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1_000);
    assert!(
        !flood(&mut raw, 1_000, |_| empty.clone()).await,
        "a million are borne"
    );
    bystander.must_be_well("endless headers").await;
}

#[tokio::test]
async fn a_few_bytes_that_stand_for_many_headers_are_refused() {
    let rig = rig("").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[]).await;
    // One header of nearly 4 KiB goes into the table, and each byte after it stands for it again.
    let value = "y".repeat(3_900);
    let mut bomb = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", PATH),
        (":authority", "a"),
    ]);
    bomb.extend([0x40, 1, b'x', 0x7f]);
    // Lengths beyond a prefix of 7 bits go on in bytes of 7 bits each.
    let rest = u16::try_from(value.len()).unwrap() - 127;
    bomb.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
    bomb.push(u8::try_from(rest >> 7).unwrap());
    bomb.extend(value.as_bytes());
    bomb.extend([0xbe; 12_000]);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb))
        .await;
    let refused = in_time("the refusal", async {
        while let Some(frame) = raw.next().await {
            if frame.stream == 1 && frame.kind == HEADERS {
                return is_refused(&frame);
            }
            if frame.kind == RST_STREAM || frame.kind == GOAWAY {
                return true;
            }
        }
        // It hung up.
        true
    });
    assert!(refused.await);
    bystander.must_be_well("a header bomb").await;
    let seen = [rig.legacy.requests(), rig.canary.requests()].concat();
    assert!(seen.iter().all(|request| request.header("x").is_none()));
}

#[tokio::test]
async fn frames_whose_answers_are_never_read_end_their_connection() {
    let rig = rig("client-stall = \"1s\"").await;
    let bystander = Bystander::start(rig.port());
    for (name, one) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
    ] {
        let mut raw = Raw::connect_narrow(rig.port()).await;
        let many = one.repeat(10_000);
        // The daemon stops reading when its own answers are not read, and does not wait for ever.
        let mut portions = 0;
        while raw.send(&many).await {
            portions += 1;
            assert!(portions < 2_000, "{name}: 20 million are borne");
        }
    }
    bystander.must_be_well("frames without end").await;
}

#[tokio::test]
async fn empty_frames_are_no_progress_of_a_body() {
    let rig = rig("client-stall = \"1s\"").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[]).await;
    raw.send(&post(1, PATH, &[])).await;
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    let ends = in_time("the end of the patience", async {
        loop {
            if !raw.send(&empty).await {
                return true;
            }
            let wait = Duration::from_millis(20);
            while let Ok(next) = tokio::time::timeout(wait, raw.next()).await {
                match next {
                    Some(frame) if frame.stream == 1 && frame.kind == HEADERS => {
                        return is_refused(&frame);
                    }
                    Some(frame) if frame.kind == RST_STREAM => return true,
                    Some(_) => {}
                    None => return true,
                }
            }
        }
    });
    assert!(ends.await);
    bystander.must_be_well("empty frames").await;
    assert_eq!(rig.legacy.requests().len(), 0);
}

#[tokio::test]
async fn streams_above_the_cap_are_refused_alone() {
    let rig = rig("client-stall = \"2s\"").await;
    let bystander = Bystander::start(rig.port());
    let mut raw = Raw::connect(rig.port(), &[]).await;
    let (_, lives) = raw.until_pong().await;
    assert!(lives);
    let all: Vec<u8> = (0..1_100)
        .flat_map(|at| post(at * 2 + 1, PATH, &[]))
        .collect();
    raw.send(&all).await;
    let mut refused = 0;
    let counting = async {
        while refused < 100 {
            let frame = raw.next().await.expect("the connection stays");
            // A body that never comes is given up later.
            if frame.kind == RST_STREAM && frame.stream > 2_000 {
                assert_eq!(frame.payload, [0, 0, 0, 7], "{frame:?}");
                refused += 1;
            }
        }
    };
    in_time("100 refusals", counting).await;
    bystander.must_be_well("too many streams").await;
    assert_eq!(rig.legacy.requests().len(), 0);
}
