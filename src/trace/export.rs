//! The way of spans to their collector: a bounded queue, batches, patience, and no hurry.
//!
//! Workers never wait: what the queue cannot take is dropped and counted. One task sends, on the control
//! runtime; a collector that hangs or refuses is left alone for longer and longer. It never shows the
//! collector's address or headers, which may hold secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Span, otlp};
use crate::config::TracesConfig;
use crate::proxy::plane::Plane;
use crate::upstream::post::Receiver;
use crate::upstream::via::ProxyEnv;

/// Spans that wait at most.
const QUEUE: usize = 4_096;
/// Spans of one message.
const BATCH: usize = 512;
/// The longest that a span waits for company.
const GATHER: Duration = Duration::from_secs(1);
/// A collector that takes longer has not taken it.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// Pause after a failure; doubles up to the second one.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A message that was refused so often is given up.
const TRIES: u32 = 5;

/// What became of spans since the process began.
#[derive(Debug, Default)]
pub struct Fates {
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Fates {
    /// Each fate with its word: taken by the collector, dropped because the queue was full, given up.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 3] {
        [
            ("sent", self.sent.load(Ordering::Relaxed)),
            ("dropped", self.dropped.load(Ordering::Relaxed)),
            ("failed", self.failed.load(Ordering::Relaxed)),
        ]
    }
}

/// The workers' end. Cloned once per worker.
#[derive(Debug, Clone)]
pub struct SpanSink {
    queue: mpsc::Sender<Span>,
    fates: Arc<Fates>,
}

/// The exporter's end.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Receiver<Span>,
    fates: Arc<Fates>,
}

/// Both ends of the queue.
#[must_use]
pub fn channel() -> (SpanSink, Spans) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let fates = Arc::new(Fates::default());
    let sink = SpanSink {
        queue: sender,
        fates: Arc::clone(&fates),
    };
    let queue = receiver;
    (sink, Spans { queue, fates })
}

impl SpanSink {
    /// Takes a span. Never waits.
    pub fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.fates.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What becomes of the spans.
    #[must_use]
    pub fn fates(&self) -> Arc<Fates> {
        Arc::clone(&self.fates)
    }
}

/// A collector as it is configured.
struct Collector {
    config: TracesConfig,
    receiver: Receiver,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Collector {
    fn of(config: &TracesConfig) -> Option<Self> {
        let receiver = Receiver::new(config.endpoint.as_ref()?, None, &ProxyEnv::read());
        let receiver = match receiver {
            Ok(receiver) => receiver,
            Err(error) => {
                tracing::error!(error, "the collector of traces cannot be used");
                return None;
            }
        };
        let headers = config.headers.iter().filter_map(|(name, value)| {
            let mut value = HeaderValue::from_str(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        });
        Some(Self {
            config: config.clone(),
            receiver,
            headers: headers.collect(),
        })
    }

    /// Sends one message. Gives why it was not taken, and for how long the collector wants to be left alone;
    /// `Refused` if it will never take it.
    async fn send(&self, body: Bytes) -> Result<(), Failure> {
        let answer = self.receiver.post(&self.headers, body, SEND_WITHIN).await;
        let answer =
            answer.map_err(|why| Failure::Later(format!("{}: {why}", self.receiver), None))?;
        if answer.status.is_success() {
            return Ok(());
        }
        let why = format!("{} answered {}", self.receiver, answer.status);
        match answer.status.as_u16() {
            429 | 502..=504 => Err(Failure::Later(why, answer.retry_after)),
            _ => Err(Failure::Refused(why)),
        }
    }
}

enum Failure {
    Later(String, Option<Duration>),
    Refused(String),
}

/// Sends spans to the collector that the configuration in force names, until every sink is gone.
pub async fn run(mut spans: Spans, planes: watch::Receiver<Arc<Plane>>) {
    let mut collector: Option<Collector> = None;
    let mut exporter = Exporter {
        fates: Arc::clone(&spans.fates),
        was_well: true,
    };
    while let Some(batch) = next_batch(&mut spans.queue).await {
        let config = planes.borrow().config.traces.clone();
        if collector
            .as_ref()
            .is_none_or(|known| known.config != config)
        {
            collector = Collector::of(&config);
        }
        match &collector {
            Some(collector) => exporter.send(collector, &batch, &planes).await,
            // Traces were turned off while these were under way.
            None => exporter.count_failed(batch.len()),
        }
    }
}

/// What comes within a second of the first span, up to a full message; `None` at the end.
async fn next_batch(queue: &mut mpsc::Receiver<Span>) -> Option<Vec<Span>> {
    let mut batch = vec![queue.recv().await?];
    let until = Instant::now() + GATHER;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        match tokio::time::timeout_at(until, queue.recv_many(&mut batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Some(batch)
}

struct Exporter {
    fates: Arc<Fates>,
    was_well: bool,
}

impl Exporter {
    fn count_failed(&self, spans: usize) {
        self.fates.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Sends a batch, with pauses; gives it up when it was refused, or too often, or when the collector is
    /// another one by now.
    async fn send(&mut self, to: &Collector, batch: &[Span], planes: &watch::Receiver<Arc<Plane>>) {
        let Ok(body) = serde_json::to_vec(&otlp::message(batch)) else {
            return self.count_failed(batch.len());
        };
        let body = Bytes::from(body);
        let mut pause = BACK_OFF.0;
        for _ in 0..TRIES {
            let (why, retry_after) = match to.send(body.clone()).await {
                Ok(()) => {
                    self.tell(None);
                    let sent = batch.len() as u64;
                    self.fates.sent.fetch_add(sent, Ordering::Relaxed);
                    return;
                }
                Err(Failure::Refused(why)) => {
                    self.tell(Some(&why));
                    break;
                }
                Err(Failure::Later(why, retry_after)) => (why, retry_after),
            };
            self.tell(Some(&why));
            tokio::time::sleep(retry_after.unwrap_or(pause).min(BACK_OFF.1)).await;
            pause = (pause * 2).min(BACK_OFF.1);
            if planes.borrow().config.traces != to.config {
                break;
            }
        }
        self.count_failed(batch.len());
    }

    /// One line when the collector fails, one when it is back.
    fn tell(&mut self, error: Option<&str>) {
        let is_well = error.is_none();
        if is_well == self.was_well {
            return;
        }
        self.was_well = is_well;
        match error {
            Some(error) => tracing::warn!(
                error,
                "the collector takes no spans; requests are not harmed, and some spans will be lost"
            ),
            None => tracing::info!("the collector takes spans again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::trace::Context;

    fn span() -> Span {
        Span {
            context: Context::new(None, (1, 1)),
            trace_state: None,
            started_at: UnixMillis(0),
            method: http::Method::GET,
            dialect: None,
            rollout: None,
            attempts: Vec::new(),
        }
    }

    #[test]
    fn what_the_queue_cannot_take_is_dropped_and_counted() {
        let (sink, spans) = channel();
        for _ in 0..QUEUE + 3 {
            sink.record(span());
        }
        let fates = sink.fates().read();
        assert_eq!(fates, [("sent", 0), ("dropped", 3), ("failed", 0)]);
        drop(spans);
    }

    #[tokio::test]
    async fn a_batch_is_full_or_a_second_old() {
        let (sink, mut spans) = channel();
        for _ in 0..BATCH + 2 {
            sink.record(span());
        }
        assert_eq!(next_batch(&mut spans.queue).await.unwrap().len(), BATCH);
        let began = Instant::now();
        assert_eq!(next_batch(&mut spans.queue).await.unwrap().len(), 2);
        assert!(began.elapsed() >= GATHER);
        sink.record(span());
        drop(sink);
        assert_eq!(next_batch(&mut spans.queue).await.unwrap().len(), 1);
        assert!(next_batch(&mut spans.queue).await.is_none());
    }
}
