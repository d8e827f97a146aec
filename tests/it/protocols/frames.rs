//! A provider that speaks HTTP/2 frame by frame, as no library would: ends that come alone, ends that come
//! too early, and streams that it refuses.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Answer, End, post};
use crate::harness::{CHAT, Finished, Rig, Setup, ask, rollout};

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

/// What is done to each request.
#[derive(Debug, Clone, Copy)]
enum Habit {
    /// The end of the body comes in a frame of its own, after all of its bytes.
    EndsAlone,
    /// Half of the body, and then an end that calls itself no error.
    EndsEarly,
    /// The first two requests are refused, which promises that nothing was done with them.
    RefusesFirst,
}

async fn start(habit: Habit) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(tcp, habit, Arc::clone(&refused)));
        }
    });
    port
}

async fn serve(tcp: TcpStream, habit: Habit, refused: Arc<AtomicU32>) {
    let Ok(mut connection) = server::handshake(tcp).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, habit, Arc::clone(&refused)));
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    habit: Habit,
    refused: Arc<AtomicU32>,
) {
    if matches!(habit, Habit::RefusesFirst) && refused.fetch_add(1, Ordering::SeqCst) < 2 {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let mut body = request.into_body();
    while let Some(Ok(chunk)) = body.data().await {
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    let head = Response::builder()
        .header("content-type", "application/json")
        .header("content-length", ANSWER.len())
        .body(())
        .unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    let bytes = Bytes::from_static(ANSWER.as_bytes());
    if matches!(habit, Habit::EndsEarly) {
        stream
            .send_data(bytes.slice(..ANSWER.len() / 2), false)
            .unwrap();
        // What is queued goes out first.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        return stream.send_reset(Reason::NO_ERROR);
    }
    stream.send_data(bytes, false).unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
}

/// What a client of HTTP/1.1 gets, once, and what is recorded. Nothing is held back for a rescue.
async fn ask_once(habit: Habit) -> (Result<Answer, End>, Finished) {
    let port = start(habit).await;
    let rig = Rig::with(Setup {
        canary: "http = \"2\"".to_owned(),
        canary_url: Some(format!("http://127.0.0.1:{port}/v1")),
        rollouts: rollout("default", "failover = false"),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let answer = post(rig.port(), CHAT, &ask("m", false)).await;
    (answer, rig.finish().await)
}

/// Outcome and output tokens of each attempt.
fn outcomes(finished: &Finished) -> Vec<(&str, Option<i64>)> {
    let rows = finished.rows.iter();
    rows.map(|row| {
        (
            row.outcome.as_str(),
            row.tokens.map(|(_, _, output)| output),
        )
    })
    .collect()
}

#[tokio::test]
async fn an_answer_whose_end_comes_in_a_frame_of_its_own_is_whole() {
    let (answer, finished) = ask_once(Habit::EndsAlone).await;
    let answer = answer.unwrap();
    assert_eq!((answer.text().as_str(), answer.end), (ANSWER, End::Clean));
    assert_eq!(outcomes(&finished), [("ok", Some(1))]);
}

#[tokio::test]
async fn an_end_before_the_last_byte_is_no_end_whatever_it_calls_itself() {
    let (answer, finished) = ask_once(Habit::EndsEarly).await;
    let looks_whole =
        answer.is_ok_and(|answer| answer.head.status == 200 && answer.end == End::Clean);
    assert!(!looks_whole);
    let first = outcomes(&finished)[0];
    assert_eq!(first, ("reset", None));
}

#[tokio::test]
async fn what_a_provider_refuses_on_a_fresh_connection_is_sent_again_and_no_failure() {
    let (answer, finished) = ask_once(Habit::RefusesFirst).await;
    assert_eq!(answer.unwrap().text(), ANSWER);
    assert_eq!(outcomes(&finished), [("ok", Some(1))]);
}
