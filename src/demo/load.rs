//! Made-up callers: requests at a steady rate, counted as a caller sees their ends.
//!
//! An open loop: a slow answer does not slow the callers, and times run from the moment a request was
//! due. May only connect to the one address it was given; it must never retry, since a hidden retry
//! would hide the failure it is there to see.

mod call;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

pub use call::Failure;
use call::{Api, Call, Connections};

use crate::arm::{Arm, PerArm};
use crate::sketch::Sketch;

/// Beyond this many open requests the address is not keeping up at all: more would only eat memory.
const MAX_IN_FLIGHT: usize = 4_096;

/// What the callers ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Requests per second, on average; arrivals are random.
    pub rate_per_s: f64,
    /// Share of completions asked for as streams, 0.0 to 1.0.
    pub stream_share: f64,
    /// Share of requests for embeddings, 0.0 to 1.0; none if `embedding_models` is empty.
    pub embedding_share: f64,
    /// Same seed: same requests at the same times.
    pub seed: u64,
    /// Models asked for as OpenAI's chat completions.
    pub chat_models: Vec<String>,
    /// Models asked for as Anthropic's messages.
    pub message_models: Vec<String>,
    /// Models asked for embeddings.
    pub embedding_models: Vec<String>,
    /// How many different users ask, each under a lasting name.
    pub users: u32,
    /// The key that callers show.
    pub key: String,
    /// After this a caller gives up.
    pub timeout: Duration,
}

impl Settings {
    /// Chat completions of `model` at `rate_per_s`, half of them streams, by 1,000 users.
    #[must_use]
    pub fn new(model: &str, rate_per_s: f64, seed: u64) -> Self {
        Self {
            rate_per_s,
            stream_share: 0.5,
            embedding_share: 0.0,
            seed,
            chat_models: vec![model.to_owned()],
            message_models: Vec::new(),
            embedding_models: Vec::new(),
            users: 1_000,
            key: "demo-caller".to_owned(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// The ends of requests, as callers saw them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Requests that were due.
    pub sent: u64,
    /// Whole and correct answers.
    pub ok: u64,
    /// Everything else that has ended.
    pub failed: u64,
    /// The failed ones by kind, shown as [`Failure`] displays them.
    pub failures: BTreeMap<String, u64>,
    /// Answers by the arm named in their `x-cutover-arm` header.
    pub by_arm: PerArm<u64>,
    /// Answers by streams.
    pub streams: u64,
}

impl Counts {
    /// Requests without an end yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.ok + self.failed)
    }
}

#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    streams: AtomicU64,
    by_arm: PerArm<AtomicU64>,
    failures: Mutex<BTreeMap<Failure, u64>>,
    latency: Mutex<Sketch>,
    first_byte: Mutex<Sketch>,
}

impl Tally {
    fn fail(&self, failure: Failure) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(failure).or_insert(0) += 1;
    }

    fn saw_arm(&self, arm: Arm) {
        self.by_arm.get(arm).fetch_add(1, Ordering::Relaxed);
    }

    fn record(sketch: &Mutex<Sketch>, since: Instant) {
        let mut sketch = sketch.lock().unwrap_or_else(PoisonError::into_inner);
        sketch.record_ms(since.elapsed().as_secs_f64() * 1_000.0);
    }
}

/// Running callers. Dropping it ends them in the middle of what they do.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    /// `None` asks the callers to finish.
    rate_per_s: watch::Sender<Option<f64>>,
    running: JoinHandle<()>,
}

impl Load {
    /// Starts calling `base` on the current runtime.
    #[must_use]
    pub fn start(base: SocketAddr, settings: Settings) -> Self {
        let tally = Arc::new(Tally::default());
        let (rate_per_s, rate) = watch::channel(Some(settings.rate_per_s));
        let callers = Callers {
            rng: StdRng::seed_from_u64(settings.seed),
            connections: Arc::new(Connections::to(base)),
            tally: Arc::clone(&tally),
            settings,
            rate,
        };
        Self {
            tally,
            rate_per_s,
            running: tokio::spawn(callers.run()),
        }
    }

    /// Changes the rate from the next request on.
    pub fn set_rate(&self, rate_per_s: f64) {
        self.rate_per_s.send_replace(Some(rate_per_s));
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Times from when a request was due to the end of its correct answer.
    #[must_use]
    pub fn latency(&self) -> Sketch {
        let latency = self.tally.latency.lock();
        latency.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Times from when a stream was due to the first bytes of its body.
    #[must_use]
    pub fn first_byte(&self) -> Sketch {
        let first_byte = self.tally.first_byte.lock();
        first_byte.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends no more, waits for the answers still open (at most the timeout) and gives the last counts.
    pub async fn stop(mut self) -> Counts {
        self.rate_per_s.send_replace(None);
        // The only failure is a panic of the callers, and the counts remain true up to it.
        (&mut self.running).await.ok();
        self.tally.counts()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Tally {
    fn counts(&self) -> Counts {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        // Ends are read before starts, so that a reader never sees more ends than starts.
        let ok = self.ok.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        Counts {
            sent: self.sent.load(Ordering::Acquire),
            ok,
            failed,
            failures: failures
                .iter()
                .map(|(failure, count)| (failure.to_string(), *count))
                .collect(),
            by_arm: PerArm::from_fn(|arm| self.by_arm.get(arm).load(Ordering::Relaxed)),
            streams: self.streams.load(Ordering::Relaxed),
        }
    }
}

struct Callers {
    settings: Settings,
    rng: StdRng,
    connections: Arc<Connections>,
    tally: Arc<Tally>,
    rate: watch::Receiver<Option<f64>>,
}

impl Callers {
    async fn run(mut self) {
        let mut open = JoinSet::new();
        let mut due = Instant::now();
        loop {
            let Some(rate_per_s) = *self.rate.borrow_and_update() else {
                break;
            };
            due += self.gap(rate_per_s);
            tokio::select! {
                () = sleep_until(due) => {}
                changed = self.rate.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    due = Instant::now();
                    continue;
                }
            }
            while open.try_join_next().is_some() {}
            self.tally.sent.fetch_add(1, Ordering::AcqRel);
            let call = self.next_call();
            if open.len() >= MAX_IN_FLIGHT {
                self.tally.fail(Failure::Flooded);
                continue;
            }
            open.spawn(follow(
                call,
                due,
                self.settings.timeout,
                Arc::clone(&self.connections),
                Arc::clone(&self.tally),
            ));
        }
        while open.join_next().await.is_some() {}
    }

    /// An exponential gap: arrivals know nothing of each other. A rate of zero looks again each second.
    fn gap(&mut self, rate_per_s: f64) -> Duration {
        let draw = -(1.0 - self.rng.random::<f64>()).ln();
        Duration::try_from_secs_f64(draw / rate_per_s).unwrap_or(Duration::from_secs(3_600))
    }

    fn next_call(&mut self) -> Call {
        let settings = &self.settings;
        let user = format!("user-{}", self.rng.random_range(0..settings.users.max(1)));
        let topic = self.rng.random_range(0..100_000);
        let text = format!("Please answer question {topic} in a few words.");
        let embedding = self.rng.random::<f64>() < settings.embedding_share;
        let stream = self.rng.random::<f64>() < settings.stream_share;
        let pick = self.rng.random::<u32>() as usize;
        if let (true, Some(model)) = (embedding, nth(&settings.embedding_models, pick)) {
            let body = json!({"model": model, "input": text, "user": user});
            return self.call(Api::Embeddings, false, &body);
        }
        let all = settings.chat_models.len() + settings.message_models.len();
        let pick = pick % all.max(1);
        let messages = json!([{"role": "user", "content": text}]);
        if let Some(model) = settings.chat_models.get(pick) {
            let mut body = json!({"model": model, "messages": messages, "user": user});
            if let (true, Some(body)) = (stream, body.as_object_mut()) {
                body.insert("stream".to_owned(), json!(true));
            }
            return self.call(Api::Chat, stream, &body);
        }
        let model = nth(&settings.message_models, pick);
        let body = json!({"model": model, "messages": messages, "max_tokens": 256,
            "stream": stream, "metadata": {"user_id": user}});
        self.call(Api::Messages, stream, &body)
    }

    fn call(&self, api: Api, stream: bool, body: &Value) -> Call {
        Call {
            api,
            stream,
            key: self.settings.key.clone(),
            body: body.to_string().into(),
        }
    }
}

fn nth(models: &[String], pick: usize) -> Option<&String> {
    models.get(pick % models.len().max(1))
}

async fn follow(
    call: Call,
    due: Instant,
    timeout: Duration,
    connections: Arc<Connections>,
    tally: Arc<Tally>,
) {
    let stream = call.stream;
    let first_byte = || {
        if stream {
            Tally::record(&tally.first_byte, due);
        }
    };
    let answer = call.make(&connections, |arm| tally.saw_arm(arm), first_byte);
    let end = tokio::time::timeout(timeout, answer).await;
    if stream {
        tally.streams.fetch_add(1, Ordering::Relaxed);
    }
    match end.unwrap_or(Err(Failure::Timeout)) {
        Ok(()) => {
            Tally::record(&tally.latency, due);
            tally.ok.fetch_add(1, Ordering::AcqRel);
        }
        Err(failure) => tally.fail(failure),
    }
}

#[cfg(test)]
mod tests;
