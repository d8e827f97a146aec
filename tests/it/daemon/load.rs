//! Clients that never stop asking, each with another user every time, and count what they get.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, End};

/// Between two requests of a connection.
const PAUSE: Duration = Duration::from_millis(25);
const CONNECTIONS: u64 = 5;

#[derive(Debug)]
struct Shared {
    port: AtomicU16,
    model: Mutex<String>,
    asked: AtomicU64,
    answered: AtomicU64,
    by_canary: AtomicU64,
    failures: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

/// About 150 plain requests a second until it is stopped.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(port: u16) -> Self {
        let shared = Arc::new(Shared {
            port: AtomicU16::new(port),
            model: Mutex::new("ok".to_owned()),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            by_canary: AtomicU64::new(0),
            failures: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let tasks = (0..CONNECTIONS)
            .map(|_| tokio::spawn(keep_asking(Arc::clone(&shared))))
            .collect();
        Self { shared, tasks }
    }

    /// Requests from now on name this model, which selects the providers' faults.
    pub(super) fn set_model(&self, model: &str) {
        model.clone_into(&mut self.shared.model.lock().unwrap());
    }

    /// The daemon is somewhere else now.
    pub(super) fn set_port(&self, port: u16) {
        self.shared.port.store(port, Ordering::SeqCst);
    }

    /// Good answers so far.
    pub(super) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Good answers of the canary so far.
    pub(super) fn by_canary(&self) -> u64 {
        self.shared.by_canary.load(Ordering::SeqCst)
    }

    /// Waits for this many more good answers.
    pub(super) async fn answers(&self, count: u64) {
        let goal = self.answered() + count;
        let deadline = std::time::Instant::now() + super::PATIENCE;
        while self.answered() < goal {
            assert!(
                std::time::Instant::now() < deadline,
                "the load gets no answers"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends and demands that nobody has seen an error.
    pub(super) async fn stop_without_failures(self) {
        let shared = Arc::clone(&self.shared);
        self.stop().await;
        let failures = shared.failures.lock().unwrap();
        let answered = shared.answered.load(Ordering::SeqCst);
        assert!(answered > 0, "the load got no answer at all");
        assert!(
            failures.is_empty(),
            "{} of {} requests failed, the first: {:?}",
            failures.len(),
            answered + failures.len() as u64,
            &failures[..failures.len().min(5)]
        );
    }

    /// Lets requests under way finish and ends.
    pub(super) async fn stop(self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client gave up waiting");
        }
    }
}

async fn keep_asking(shared: Arc<Shared>) {
    let mut client: Option<Client> = None;
    while !shared.stopped.load(Ordering::SeqCst) {
        match ask(&shared, &mut client).await {
            Ok(answer) if answer.head.status == 200 && answer.end == End::Clean => {
                if answer.head.header("x-cutover-arm") == Some("canary") {
                    shared.by_canary.fetch_add(1, Ordering::SeqCst);
                }
                shared.answered.fetch_add(1, Ordering::SeqCst);
                // What every client has to heed.
                if answer.head.header("connection") == Some("close") {
                    client = None;
                }
            }
            Ok(answer) => {
                let text = format!("{} {:?} {}", answer.head.status, answer.end, answer.text());
                shared.failures.lock().unwrap().push(text);
                client = None;
            }
            Err(end) => {
                shared
                    .failures
                    .lock()
                    .unwrap()
                    .push(format!("no answer: {end:?}"));
                client = None;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(shared: &Shared, client: &mut Option<Client>) -> Result<Answer, End> {
    let client = match client {
        Some(client) => client,
        None => {
            let port = shared.port.load(Ordering::SeqCst);
            client.insert(Client::connect(port).await.map_err(|_| End::Reset)?)
        }
    };
    let number = shared.asked.fetch_add(1, Ordering::SeqCst);
    let body = json!({
        "model": *shared.model.lock().unwrap(),
        "user": format!("user-{number}"),
        "messages": [{"role": "user", "content": "what is new?"}],
    });
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer sk-client"),
    ];
    client
        .request(
            "POST",
            "/v1/chat/completions",
            &headers,
            body.to_string().as_bytes(),
        )
        .await
        .map_err(|_| End::Reset)?;
    client.answer().await
}
