//! Clients that never stop asking, and write down what they got.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::CLIENT_KEY;
use crate::client::{Answer, Client, End};
use crate::judge::{CALLS, Saw, arm_of, judge};
use crate::ledger::Entry;

const CLIENTS: u64 = 12;
/// An answer that takes longer is none. Every fault is shorter, and so are the timeouts of both arms together.
const ANSWERED_WITHIN: Duration = Duration::from_secs(18);

#[derive(Debug)]
struct Shared {
    port: AtomicU16,
    /// Which fault the providers are asked for.
    fault: Mutex<String>,
    numbers: AtomicU64,
    entries: Mutex<Vec<Entry>>,
    stopped: AtomicBool,
}

/// About 100 requests a second until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(port: u16, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            port: AtomicU16::new(port),
            fault: Mutex::new("ok".to_owned()),
            numbers: AtomicU64::new(0),
            entries: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let client =
            |number| keep_asking(Arc::clone(&shared), StdRng::seed_from_u64(seed ^ number));
        let tasks = (0..CLIENTS)
            .map(|number| tokio::spawn(client(number)))
            .collect();
        Self { shared, tasks }
    }

    /// The daemon is somewhere else now.
    pub(crate) fn set_port(&self, port: u16) {
        self.shared.port.store(port, Ordering::SeqCst);
    }

    /// Requests from now on ask for this fault, as the scripted provider calls it.
    pub(crate) fn set_fault(&self, fault: &str) {
        fault.clone_into(&mut self.shared.fault.lock().unwrap());
    }

    /// Whole answers so far.
    pub(crate) fn answered(&self) -> usize {
        let entries = self.shared.entries.lock().unwrap();
        entries
            .iter()
            .filter(|entry| entry.saw == Saw::Whole)
            .count()
    }

    /// Lets requests under way finish and gives the ledger.
    pub(crate) async fn stop(self) -> Vec<Entry> {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client failed by itself");
        }
        std::mem::take(&mut self.shared.entries.lock().unwrap())
    }
}

async fn keep_asking(shared: Arc<Shared>, mut rng: StdRng) {
    let mut open: Option<(u16, Client)> = None;
    while !shared.stopped.load(Ordering::SeqCst) {
        let port = shared.port.load(Ordering::SeqCst);
        // A connection to a daemon that is gone is no use, and most clients keep theirs.
        open = open.filter(|(of, _)| *of == port && rng.random_bool(0.9));
        let call = CALLS[rng.random_range(0..CALLS.len())];
        let streamed = !call.1.is_empty() && rng.random_bool(0.6);
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let model = format!("request-{number}");
        let fault = shared.fault.lock().unwrap().clone();
        let started = Instant::now();
        let asked = ask(&mut open, port, (call.0, streamed), &model, &fault);
        let answer = tokio::time::timeout(ANSWERED_WITHIN, asked).await;
        let (saw, arm) = match &answer {
            Err(_) => (
                Saw::Lie(format!("nothing within {ANSWERED_WITHIN:?}")),
                None,
            ),
            Ok(answer) => match answer.as_ref().map_or(Ok(None), arm_of) {
                Err(lie) => (Saw::Lie(lie), None),
                Ok(arm) => (judge(answer, call, streamed), arm),
            },
        };
        if saw != Saw::Whole {
            open = None;
        }
        let failed = matches!(saw, Saw::Failed(_));
        let entry = Entry {
            model,
            started,
            ended: Instant::now(),
            arm,
            streamed,
            saw,
        };
        shared.entries.lock().unwrap().push(entry);
        let pause = if failed { 50..100 } else { 20..160 };
        tokio::time::sleep(Duration::from_millis(rng.random_range(pause))).await;
    }
}

async fn ask(
    open: &mut Option<(u16, Client)>,
    port: u16,
    (path, streamed): (&str, bool),
    model: &str,
    fault: &str,
) -> Result<Answer, End> {
    let (_, client) = match open {
        Some(open) => open,
        None => open.insert((port, Client::connect(port).await.map_err(|_| End::Reset)?)),
    };
    let body = json!({"model": model, "user": model, "stream": streamed, "max_tokens": 50,
        "input": "hello", "prompt": "hello", "messages": [{"role": "user", "content": "hello"}]});
    let authorization = format!("Bearer {CLIENT_KEY}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", authorization.as_str()),
        ("x-fault", fault),
    ];
    let body = body.to_string();
    let sent = client.request("POST", path, &headers, body.as_bytes());
    sent.await.map_err(|_| End::Reset)?;
    client.answer().await
}
