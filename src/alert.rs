//! Who is told: alerts on their way from the driver to Slack, PagerDuty and whoever takes plain JSON.
//!
//! One task on the control runtime hands each alert to the worker of each receiver that wants it, and each
//! worker delivers in order and at its own pace. The driver never waits: queues are bounded, what is dropped
//! is counted and shown. Nothing here may decide anything, and no address or key of a receiver is ever shown:
//! both are secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::config::{AlertsConfig, Webhook};

mod board;
mod deliver;
pub mod kind;
mod outbox;
pub mod shape;

pub use board::WebhookStatus;
pub use deliver::{deliver_once, shown};

use board::{Board, Boards};
use kind::{AlertKind, Severity};

/// Alerts between the driver and the task: it takes each one at once.
const QUEUE: usize = 128;
/// Messages between the task and a worker, which takes each one at once.
const INBOX: usize = 64;
/// How long the end waits for what is still queued.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One thing that people are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Tells it from all others, so that a receiver can know one that it got twice.
    pub id: String,
    /// What it is about.
    pub kind: AlertKind,
    /// How urgent it is.
    pub severity: Severity,
    /// The rollout, arm or budget that it is about; `None`: the whole daemon.
    pub subject: Option<String>,
    /// The rollout, if it is about one.
    pub rollout: Option<String>,
    /// One sentence with numbers; may be empty.
    pub text: String,
    /// When it happened.
    pub at: UnixMillis,
    /// Effective weight before and after, if a decision is behind it.
    pub weight: Option<(Weight, Weight)>,
    /// The decision's id, once the store has given it one.
    pub decision: Option<i64>,
    /// What was told of the same subject before and has ended with this.
    pub resolves: Vec<AlertKind>,
    /// People need not hear of it: it only closes what a receiver may still hold open.
    pub quiet: bool,
}

impl Alert {
    /// An alert of now, about the whole daemon.
    #[must_use]
    pub fn new(kind: AlertKind, text: String) -> Self {
        Self {
            id: String::new(),
            kind,
            severity: kind.severity(),
            subject: None,
            rollout: None,
            text,
            at: UnixMillis::now(),
            weight: None,
            decision: None,
            resolves: Vec::new(),
            quiet: false,
        }
    }

    /// The same about an arm, a model or a budget.
    #[must_use]
    pub fn about(self, subject: String) -> Self {
        Self {
            subject: Some(subject),
            ..self
        }
    }

    /// The same about a rollout.
    #[must_use]
    pub fn of_rollout(self, name: &str) -> Self {
        Self {
            subject: Some(name.to_owned()),
            rollout: Some(name.to_owned()),
            ..self
        }
    }

    /// The same as the end of what was told before.
    #[must_use]
    pub fn ends(self, resolves: Vec<AlertKind>) -> Self {
        Self { resolves, ..self }
    }

    /// Names what is open at a receiver: the same for the alert of a kind and for its end.
    #[must_use]
    pub fn key_of(&self, kind: AlertKind) -> String {
        match &self.subject {
            Some(subject) => format!("cutover/{subject}/{kind}"),
            None => format!("cutover/{kind}"),
        }
    }

    /// What is said of its subject.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match (self.kind, self.severity) {
            (AlertKind::Budget, Severity::Critical) => "the budget is spent",
            (kind, _) => kind.title(),
        }
    }
}

/// The driver's end: hands over and goes on.
#[derive(Debug, Clone)]
pub struct Alerts {
    queue: mpsc::Sender<Alert>,
    config: Arc<watch::Sender<AlertsConfig>>,
    boards: Boards,
    number: Arc<AtomicU64>,
    overflow: Arc<AtomicU64>,
}

impl Alerts {
    /// Hands an alert over. Never waits: one too many is counted and, the first time, told in the log.
    pub fn hand(&self, mut alert: Alert) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        alert.id = format!("{}-{number}", alert.at.0);
        let full = self.queue.try_send(alert).is_err();
        if full && self.overflow.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("alerts come faster than they are taken: some reach no receiver");
        }
    }

    /// Other receivers from now on. Those that stay keep what waits for them.
    pub fn configure(&self, config: &AlertsConfig) {
        self.config.send_if_modified(|current| {
            let differs = current != config;
            if differs {
                config.clone_into(current);
            }
            differs
        });
    }

    /// How each receiver fares, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<WebhookStatus> {
        self.boards.status()
    }

    /// Alerts that reached no receiver because the queue was full.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }
}

/// Makes the driver's end, and the task behind it: it ends when every clone of the first is gone, at most
/// two seconds after.
pub fn start(config: &AlertsConfig) -> (Alerts, impl Future<Output = ()> + Send + use<>) {
    let (queue, alerts) = mpsc::channel(QUEUE);
    let (config, changes) = watch::channel(config.clone());
    let boards = Boards::default();
    let handle = Alerts {
        queue,
        config: Arc::new(config),
        boards: boards.clone(),
        number: Arc::default(),
        overflow: Arc::default(),
    };
    (handle, run(alerts, changes, boards))
}

/// A receiver with its worker.
struct Line {
    webhook: Webhook,
    inbox: mpsc::Sender<Value>,
    board: Arc<Board>,
}

impl Line {
    fn is_for(&self, webhook: &Webhook) -> bool {
        let own = &self.webhook;
        (&own.url, own.format, &own.key) == (&webhook.url, webhook.format, &webhook.key)
    }

    fn begin(webhook: Webhook, workers: &mut JoinSet<()>) -> Self {
        let (inbox, messages) = mpsc::channel(INBOX);
        let board = Arc::new(Board::new(deliver::shown(&webhook), webhook.format));
        let work = deliver::work(webhook.clone(), messages, Arc::clone(&board));
        workers.spawn(work);
        Self {
            webhook,
            inbox,
            board,
        }
    }

    fn hand(&self, alert: &Alert, host: &str) {
        for message in shape::messages(alert, &self.webhook, host) {
            if self.inbox.try_send(message).is_err() {
                self.board.drop_some(1);
            }
        }
    }
}

async fn run(
    mut alerts: mpsc::Receiver<Alert>,
    mut config: watch::Receiver<AlertsConfig>,
    boards: Boards,
) {
    let host = host();
    let mut workers = JoinSet::new();
    let mut lines = Vec::new();
    config.mark_changed();
    loop {
        tokio::select! {
            // An alert that was told after a change goes to the new receivers.
            biased;
            Ok(()) = config.changed() => {
                let webhooks = config.borrow_and_update().webhooks.clone();
                lines = rearranged(lines, webhooks, &mut workers);
                boards.set(lines.iter().map(|line| Arc::clone(&line.board)).collect());
            }
            Some(_) = workers.join_next(), if !workers.is_empty() => {}
            alert = alerts.recv() => match alert {
                Some(alert) => lines.iter().for_each(|line| line.hand(&alert, &host)),
                None => break,
            },
        }
    }
    // The workers see the end of their inboxes, and deliver what they have.
    drop(lines);
    let rest = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, rest).await.is_err() {
        tracing::warn!("some alerts were not delivered before the end: a receiver is too slow");
    }
}

/// The receivers of a new configuration: those that were there before go on.
fn rearranged(
    mut before: Vec<Line>,
    webhooks: Vec<Webhook>,
    workers: &mut JoinSet<()>,
) -> Vec<Line> {
    let mut lines = Vec::with_capacity(webhooks.len());
    for webhook in webhooks {
        let known = before.iter().position(|line| line.is_for(&webhook));
        lines.push(match known.map(|place| before.remove(place)) {
            // Its filter may be another one.
            Some(line) => Line { webhook, ..line },
            None => Line::begin(webhook, workers),
        });
    }
    lines
}

/// The name of this machine, as receivers show it.
#[must_use]
pub fn host() -> String {
    let from_file = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().or_else(from_file);
    let name = name.map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "cutover".to_owned())
}

/// The driver's end alone, and what it hands over.
#[cfg(test)]
pub(crate) fn caught() -> (Alerts, mpsc::Receiver<Alert>) {
    let (queue, alerts) = mpsc::channel(QUEUE);
    let (config, _) = watch::channel(AlertsConfig {
        webhooks: Vec::new(),
        held_after: None,
    });
    let handle = Alerts {
        queue,
        config: Arc::new(config),
        boards: Boards::default(),
        number: Arc::default(),
        overflow: Arc::default(),
    };
    (handle, alerts)
}

#[cfg(test)]
mod tests;
