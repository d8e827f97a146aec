//! The task with receivers that are real sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::WebhookFormat;
use crate::config::values::Secret;

fn webhook(url: &str) -> Webhook {
    Webhook {
        url: Secret::new(url),
        format: WebhookFormat::Json,
        key: None,
        events: Vec::new(),
    }
}

fn config(webhooks: &[Webhook]) -> AlertsConfig {
    AlertsConfig {
        webhooks: webhooks.to_vec(),
        held_after: None,
    }
}

fn alert(text: &str) -> Alert {
    Alert::new(AlertKind::Trip, text.to_owned()).of_rollout("default")
}

/// Answers each request with 200 and passes on its JSON.
async fn receiver() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tx, rx) = mpsc::channel(256);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut seen = Vec::new();
            let body = loop {
                let mut piece = [0; 4096];
                let n = tcp.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..n]);
                let text = String::from_utf8_lossy(&seen).into_owned();
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
                if let Some(Ok(body)) = body.map(serde_json::from_str) {
                    break body;
                }
            };
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
            tx.send(body).await.unwrap();
        }
    });
    (url, rx)
}

async fn next(receiver: &mut mpsc::Receiver<Value>) -> Value {
    let next = tokio::time::timeout(Duration::from_secs(30), receiver.recv());
    next.await.expect("an alert arrives").unwrap()
}

/// A receiver that takes connections and says nothing.
async fn hanging() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (
        format!("http://{}/hook", listener.local_addr().unwrap()),
        listener,
    )
}

#[tokio::test]
async fn one_slow_receiver_holds_up_neither_the_other_nor_the_end() {
    let (slow, _listener) = hanging().await;
    let (quick, mut told) = receiver().await;
    let (alerts, task) = start(&config(&[webhook(&slow), webhook(&quick)]));
    let task = tokio::spawn(task);
    for number in 0..120 {
        alerts.hand(alert(&number.to_string()));
        // The task has the time that the driver gives it.
        tokio::task::yield_now().await;
    }
    for number in 0..120 {
        assert_eq!(next(&mut told).await["text"], number.to_string());
    }
    let status = alerts.status();
    assert_eq!(
        (status[0].sent, status[0].webhook.ends_with("/****")),
        (0, true)
    );
    assert_eq!(status[0].queued + status[0].dropped, 120, "{status:?}");
    assert!(status[0].queued <= 101, "bounded: {status:?}");
    assert_eq!((status[1].dropped, status[1].failed), (0, 0), "{status:?}");
    drop(alerts);
    let ended = tokio::time::timeout(Duration::from_secs(10), task);
    ended.await.expect("it ends within two seconds").unwrap();
}

#[tokio::test]
async fn receivers_come_and_go_and_those_that_stay_keep_what_waits() {
    let (first, mut told_first) = receiver().await;
    let (second, mut told_second) = receiver().await;
    let (slow, _listener) = hanging().await;
    let (alerts, task) = start(&config(&[webhook(&slow), webhook(&first)]));
    let task = tokio::spawn(task);
    alerts.hand(alert("1"));
    assert_eq!(next(&mut told_first).await["text"], "1");
    alerts.configure(&config(&[webhook(&second), webhook(&slow)]));
    alerts.hand(alert("2"));
    assert_eq!(next(&mut told_second).await["text"], "2");
    let status = alerts.status();
    assert_eq!(status[1].queued, 2, "{status:?}");
    let mut only_complete = webhook(&second);
    only_complete.events = vec![AlertKind::Complete];
    alerts.configure(&config(&[only_complete]));
    alerts.hand(alert("3"));
    alerts.hand(Alert::new(AlertKind::Complete, "4".to_owned()));
    assert_eq!(next(&mut told_second).await["text"], "4");
    drop(alerts);
    task.await.unwrap();
    assert!(told_first.try_recv().is_err(), "it was removed");
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_still_delivered() {
    let (url, mut told) = receiver().await;
    let (alerts, task) = start(&config(&[webhook(&url)]));
    for number in 0..5 {
        alerts.hand(alert(&number.to_string()));
    }
    drop(alerts);
    task.await;
    for number in 0..5 {
        assert_eq!(told.try_recv().unwrap()["text"], number.to_string());
    }
}
