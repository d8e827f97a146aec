//! One receiver's worker: messages in order, one at a time, again after a failure, never two at once.
//!
//! It may open connections. It must never show an address, a key, or an answer that repeats them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::board::Board;
use super::outbox::{Outbox, Waiting};
use crate::clock::monotonic_ms;
use crate::config::{Webhook, WebhookFormat};
use crate::upstream::post::{Answer, Receiver};
use crate::upstream::via::ProxyEnv;

/// No receiver needs longer for some lines of JSON.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Of what a receiver answers, so much is shown.
const SAID_MOST: usize = 200;
/// Shorter parts of an address are no secrets, and words of any sentence.
const SECRET_LEAST: usize = 6;

/// What became of a message.
#[derive(Debug, PartialEq)]
enum Verdict {
    Delivered,
    /// The receiver will not take it, however often it is sent.
    Refused(String),
    /// Later perhaps; the receiver may say when.
    Again(String, Option<Duration>),
}

/// An address as people may see it.
#[must_use]
pub fn shown(webhook: &Webhook) -> String {
    let url = webhook.url.expose();
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before an @ would be a password.
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/****")
}

/// Sends one message once.
///
/// # Errors
/// Why it was not taken; shows no secret.
pub async fn deliver_once(webhook: &Webhook, message: &Value) -> Result<(), String> {
    let receiver = Receiver::new(&webhook.url, None, &ProxyEnv::read())?;
    match send(&receiver, webhook, message).await {
        Verdict::Delivered => Ok(()),
        Verdict::Refused(why) | Verdict::Again(why, _) => Err(why),
    }
}

async fn send(receiver: &Receiver, webhook: &Webhook, message: &Value) -> Verdict {
    let body = Bytes::from(message.to_string());
    match receiver.post(&[], body, ANSWER_WITHIN).await {
        Ok(answer) => judge(&answer, webhook),
        Err(error) => {
            let why = format!("{error}; is it up, and can this machine reach it?");
            Verdict::Again(why, None)
        }
    }
}

/// What an answer means.
fn judge(answer: &Answer, webhook: &Webhook) -> Verdict {
    let status = answer.status;
    if status.is_success() {
        return Verdict::Delivered;
    }
    let mut why = format!("it answered {}", status.as_u16());
    let said = redacted(&String::from_utf8_lossy(&answer.body), webhook);
    if !said.is_empty() {
        why.push_str(&format!(": {said}"));
    }
    let may_change = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if may_change {
        return Verdict::Again(why, answer.retry_after);
    }
    why.push_str(match status.as_u16() {
        300..=399 => "; write the address that it leads to into the configuration",
        401 | 403 | 404 | 410 => "; its address or key is no longer good: make a new one",
        _ if webhook.format == WebhookFormat::PagerDuty => "; is the key an Events v2 key?",
        _ => "; does it take this format?",
    });
    Verdict::Refused(why)
}

/// What a receiver said, on one short line and without the parts of its address and its key.
fn redacted(said: &str, webhook: &Webhook) -> String {
    let url = webhook.url.expose();
    let parts = url.split(['/', '?', '&', '=', '#', ':']).skip(4);
    let key = webhook.key.as_ref().map(|key| key.expose());
    let mut text = said.to_owned();
    // The longest first: one part may stand within another.
    let mut secrets: Vec<&str> = parts.chain(key).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets.iter().filter(|part| part.len() >= SECRET_LEAST) {
        text = text.replace(secret, "****");
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = line.chars().filter(|c| !c.is_control());
    clean.take(SAID_MOST).collect()
}

/// Delivers until the inbox ends, then what is left, without waiting for a second try.
pub(super) async fn work(webhook: Webhook, mut inbox: mpsc::Receiver<Value>, board: Arc<Board>) {
    let receiver = match Receiver::new(&webhook.url, None, &ProxyEnv::read()) {
        Ok(receiver) => receiver,
        Err(error) => return refuse_all(&error, &mut inbox, &board).await,
    };
    let target = Arc::new((receiver, webhook));
    let mut worker = Worker {
        outbox: Outbox::new(),
        sending: JoinSet::new(),
        has_failed: false,
        was_refused: false,
        board,
    };
    let mut is_ending = false;
    loop {
        worker.send_next(&target);
        let under_way = !worker.sending.is_empty();
        if is_ending && !under_way {
            return;
        }
        let due_ms = worker.outbox.due_ms();
        let until_due = async {
            let wait_ms = due_ms.unwrap_or_default().saturating_sub(monotonic_ms());
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        };
        tokio::select! {
            message = inbox.recv(), if !is_ending => match message {
                Some(message) => {
                    let out = worker.outbox.push(message, monotonic_ms());
                    worker.board.drop_some(out);
                }
                None => {
                    is_ending = true;
                    worker.outbox.hurry();
                }
            },
            Some(done) = worker.sending.join_next(), if under_way => {
                // A lost task is a lost message; nothing else would tell of it.
                let Ok((waiting, verdict)) = done else {
                    worker.board.drop_some(1);
                    continue;
                };
                let failed = worker.settle(waiting, verdict);
                if failed && is_ending {
                    return worker.give_up();
                }
            }
            () = until_due, if !under_way && due_ms.is_some() => {}
        }
    }
}

/// A receiver that cannot be reached as configured: said once, then counted.
async fn refuse_all(error: &str, inbox: &mut mpsc::Receiver<Value>, board: &Board) {
    tracing::error!(
        webhook = board.webhook(),
        error,
        "this receiver of alerts cannot be used"
    );
    board.set_error(Some(error.to_owned()));
    while inbox.recv().await.is_some() {
        board.failed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Worker {
    outbox: Outbox<Value>,
    /// One at most. Aborted with the worker.
    sending: JoinSet<(Waiting<Value>, Verdict)>,
    /// That it fails has been told.
    has_failed: bool,
    /// That it refuses has been told.
    was_refused: bool,
    board: Arc<Board>,
}

impl Worker {
    /// Sends the oldest message if nothing is under way and it is due.
    fn send_next(&mut self, target: &Arc<(Receiver, Webhook)>) {
        if self.sending.is_empty() {
            let (taken, too_old) = self.outbox.take(monotonic_ms());
            self.board.drop_some(too_old);
            if let Some(waiting) = taken {
                let target = Arc::clone(target);
                self.sending.spawn(async move {
                    let (receiver, webhook) = &*target;
                    let verdict = send(receiver, webhook, &waiting.message).await;
                    (waiting, verdict)
                });
            }
        }
        let queued = self.outbox.len() + self.sending.len();
        let queued = u64::try_from(queued).unwrap_or(u64::MAX);
        self.board.queued.store(queued, Ordering::Relaxed);
    }

    /// Books what became of a message; true if it has to be sent again. One line of the log when a receiver
    /// fails, one when it takes messages again.
    fn settle(&mut self, waiting: Waiting<Value>, verdict: Verdict) -> bool {
        let webhook = self.board.webhook();
        match verdict {
            Verdict::Delivered => {
                self.board.sent.fetch_add(1, Ordering::Relaxed);
                self.board.set_error(None);
                if self.has_failed || self.was_refused {
                    tracing::info!(webhook, "this receiver takes alerts again");
                }
                (self.has_failed, self.was_refused) = (false, false);
                self.outbox.over();
                false
            }
            Verdict::Refused(error) => {
                self.board.failed.fetch_add(1, Ordering::Relaxed);
                if !self.was_refused {
                    tracing::error!(webhook, error, "this receiver refuses alerts");
                }
                self.was_refused = true;
                self.board.set_error(Some(error));
                self.outbox.over();
                false
            }
            Verdict::Again(error, asked) => {
                if !self.has_failed {
                    tracing::warn!(
                        webhook,
                        error,
                        "an alert is not delivered yet; it is tried again"
                    );
                }
                self.has_failed = true;
                self.board.set_error(Some(error));
                let draw = rand::random();
                let out = self.outbox.put_back(waiting, asked, draw, monotonic_ms());
                self.board.drop_some(out);
                true
            }
        }
    }

    fn give_up(&self) {
        let undelivered = self.outbox.len();
        let webhook = self.board.webhook();
        tracing::warn!(
            webhook,
            undelivered,
            "these alerts were not delivered before the end"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Secret;

    fn webhook(url: &str, key: Option<&str>) -> Webhook {
        Webhook {
            url: Secret::new(url),
            format: WebhookFormat::PagerDuty,
            key: key.map(Secret::new),
            events: Vec::new(),
        }
    }

    #[test]
    fn an_address_is_shown_without_what_makes_it_secret() {
        let check = |url: &str, expected: &str| assert_eq!(shown(&webhook(url, None)), expected);
        check(
            "https://hooks.slack.com/services/T0/B0/xyz",
            "https://hooks.slack.com/****",
        );
        check("http://127.0.0.1:9?token=xyz", "http://127.0.0.1:9/****");
        check("https://me:xyz@example.com/a", "https://example.com/****");
    }

    #[test]
    fn what_a_receiver_says_is_shown_without_the_secrets_that_it_repeats() {
        let webhook = webhook(
            "https://hooks.example.com/services/T0SECRET/B0SECRET?token=tokentoken",
            Some("0123456789abcdef0123456789abcdef"),
        );
        let said = "no such hook: /services/T0SECRET/B0SECRET?token=tokentoken\r\n\
            (key 0123456789abcdef0123456789abcdef)";
        let shown = redacted(said, &webhook);
        for secret in ["T0SECRET", "B0SECRET", "tokentoken", "0123456789abcdef"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.starts_with("no such hook: "), "{shown}");
        assert!(redacted(&"x".repeat(9_999), &webhook).len() <= SAID_MOST);
    }

    #[test]
    fn only_what_may_change_is_tried_again() {
        let check = |status: u16, retry_s: Option<u64>, expected: Option<bool>| {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                retry_after: retry_s.map(Duration::from_secs),
                body: Bytes::from_static(b"no_service"),
            };
            let again = match judge(&answer, &webhook("https://a.example.com/x", None)) {
                Verdict::Delivered => None,
                Verdict::Refused(why) => {
                    assert!(
                        why.contains(&format!("answered {status}: no_service;")),
                        "{why}"
                    );
                    Some(false)
                }
                Verdict::Again(_, asked) => {
                    assert_eq!(asked, retry_s.map(Duration::from_secs));
                    Some(true)
                }
            };
            assert_eq!(again, expected, "{status}");
        };
        check(200, None, None);
        check(202, None, None);
        check(302, None, Some(false));
        check(400, None, Some(false));
        check(404, None, Some(false));
        check(408, None, Some(true));
        check(429, Some(7), Some(true));
        check(500, None, Some(true));
        check(503, Some(60), Some(true));
    }
}
