//! A receiver of alerts that behaves as the test says, and refuses what Slack or PagerDuty would refuse.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Part of every address; nobody else may see it.
pub(super) const SECRET: &str = "B0TOPSECRETHOOK";

/// What a receiver does with a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    Take,
    /// Answers with this status.
    Fail(u16),
    /// Answers 429 with so many seconds to wait.
    Wait(u64),
    /// Answers as Slack does to an address that is gone, and repeats it.
    Refuse,
    /// Never answers.
    Hang,
}

#[derive(Debug)]
struct Shared {
    format: &'static str,
    next: Mutex<(Vec<Behaviour>, Behaviour)>,
    taken: Mutex<Vec<Value>>,
    asked: Mutex<usize>,
    faults: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

impl Receiver {
    pub(super) async fn start(format: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            format,
            next: Mutex::new((Vec::new(), Behaviour::Take)),
            taken: Mutex::default(),
            asked: Mutex::default(),
            faults: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, Arc::clone(&serving)));
            }
        });
        Self { port, shared }
    }

    /// A port that nobody listens on.
    pub(super) async fn closed_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/services/T0SECRET/{SECRET}", self.port)
    }

    /// First these, one message each, then always the last.
    pub(super) fn behave(&self, first: &[Behaviour], then: Behaviour) {
        *self.shared.next.lock().unwrap() = (first.to_vec(), then);
    }

    /// The messages that it took. Fails if one was not as its format wants it.
    pub(super) fn taken(&self) -> Vec<Value> {
        let faults = self.shared.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        self.shared.taken.lock().unwrap().clone()
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        *self.shared.asked.lock().unwrap()
    }
}

async fn serve(mut tcp: TcpStream, shared: Arc<Shared>) {
    let Some((head, body)) = read(&mut tcp).await else {
        return;
    };
    *shared.asked.lock().unwrap() += 1;
    let behaviour = {
        let mut next = shared.next.lock().unwrap();
        if next.0.is_empty() {
            next.1
        } else {
            next.0.remove(0)
        }
    };
    let (status, header, answer) = match behaviour {
        Behaviour::Take => {
            let fault = fault_of(shared.format, &head, &body);
            match fault {
                Some(fault) => {
                    shared
                        .faults
                        .lock()
                        .unwrap()
                        .push(format!("{fault}: {head}{body}"));
                    (400, String::new(), fault)
                }
                None => {
                    let message: Value = serde_json::from_str(&body).unwrap();
                    let answer = match shared.format {
                        "pagerduty" => {
                            let key = &message["dedup_key"];
                            json!({"status": "success", "message": "Event processed", "dedup_key": key})
                                .to_string()
                        }
                        _ => "ok".to_owned(),
                    };
                    shared.taken.lock().unwrap().push(message);
                    let status = if shared.format == "pagerduty" {
                        202
                    } else {
                        200
                    };
                    (status, String::new(), answer)
                }
            }
        }
        Behaviour::Fail(status) => (status, String::new(), "not now".to_owned()),
        Behaviour::Wait(seconds) => {
            let header = format!("retry-after: {seconds}\r\n");
            (429, header, "slow down".to_owned())
        }
        Behaviour::Refuse => {
            let path = head.split(' ').nth(1).unwrap_or_default();
            (404, String::new(), format!("no_service at {path}"))
        }
        Behaviour::Hang => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            return;
        }
    };
    let length = answer.len();
    let text = format!("HTTP/1.1 {status} X\r\n{header}content-length: {length}\r\n\r\n{answer}");
    // A sender that went away needs no answer.
    tcp.write_all(text.as_bytes()).await.ok();
}

/// Head and body of one request.
async fn read(tcp: &mut TcpStream) -> Option<(String, String)> {
    let mut seen = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = tcp.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        seen.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&seen);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            })
            .and_then(|length| length.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

/// Why this format would not take it.
fn fault_of(format: &str, head: &str, body: &str) -> Option<String> {
    let lower = head.to_ascii_lowercase();
    if !lower.starts_with("post /") || !lower.contains("content-type: application/json") {
        return Some("no POST of JSON".to_owned());
    }
    let Ok(message) = serde_json::from_str::<Value>(body) else {
        return Some("invalid_payload".to_owned());
    };
    match format {
        "slack" => slack_fault(&message),
        "pagerduty" => pagerduty_fault(&message),
        _ => (message["version"] != 1).then(|| "another version".to_owned()),
    }
}

/// By Slack's reference: a text, colours, and blocks within their limits, without mentions.
fn slack_fault(message: &Value) -> Option<String> {
    let text = message["text"].as_str().unwrap_or_default();
    let attachments = message["attachments"].as_array()?;
    let blocks = attachments
        .iter()
        .flat_map(|a| a["blocks"].as_array().unwrap());
    let mut fields = blocks.clone().flat_map(|block| {
        let one = |value: &Value| value.as_object().map(|_| value.clone());
        let many = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let parts = [many(&block["fields"]), many(&block["elements"])].concat();
        parts.into_iter().chain(one(&block["text"]))
    });
    let known = ["section", "context"];
    if text.is_empty()
        || attachments
            .iter()
            .any(|a| !a["color"].as_str().is_some_and(|c| c.starts_with('#')))
    {
        return Some("no_text".to_owned());
    }
    if blocks
        .clone()
        .any(|block| !known.iter().any(|kind| block["type"] == *kind))
    {
        return Some("invalid_blocks".to_owned());
    }
    let is_bad = |field: Value| {
        let text = field["text"].as_str().unwrap_or_default();
        field["type"] != "mrkdwn"
            || text.is_empty()
            || text.len() > 3_000
            || text.contains(['<', '>'])
    };
    (text.contains(['<', '>']) || fields.any(is_bad)).then(|| "invalid_blocks_format".to_owned())
}

/// By the reference of Events API v2.
fn pagerduty_fault(event: &Value) -> Option<String> {
    if event["routing_key"].as_str().map(str::len) != Some(32) {
        return Some("Length of 'routing_key' is incorrect (should be 32 characters)".to_owned());
    }
    let key = event["dedup_key"].as_str().unwrap_or_default();
    if key.is_empty() || key.len() > 255 {
        return Some("'dedup_key' is wrong".to_owned());
    }
    match event["event_action"].as_str() {
        Some("resolve") => None,
        Some("trigger") => {
            let payload = &event["payload"];
            let text = |name: &str| payload[name].as_str().unwrap_or_default();
            let severities = ["critical", "error", "warning", "info"];
            let is_good = !text("summary").is_empty()
                && text("summary").chars().count() <= 1_024
                && !text("source").is_empty()
                && severities.contains(&text("severity"));
            (!is_good).then(|| "Event object is invalid".to_owned())
        }
        _ => Some("'event_action' is wrong".to_owned()),
    }
}
