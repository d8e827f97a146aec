//! One process takes over from another on sockets that stay open: no client notices, no attempt is lost, and
//! at any time one of them decides.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::load::Load;
use super::process::{Daemon, cutover};
use super::scene::Scene;
use crate::client::{Client, End, post};
use crate::harness::{RESPONSES, ask, served_by, wait_until};
use crate::pinning::{after_response, response_id};

const HALF: &str = "warm-up = 0\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";

/// The sockets of a service manager.
fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A stream whose pieces come this far apart, up to its head.
async fn stream(port: u16, gap_ms: u64, user: u64) -> Result<Client, End> {
    let mut client = Client::connect(port).await.map_err(|_| End::Reset)?;
    let body = json!({
        "model": format!("fault-gap-{gap_ms}"),
        "user": format!("streaming-{user}"),
        "messages": [{"role": "user", "content": "what is new?"}],
        "stream": true,
    });
    let (headers, body) = ([("content-type", "application/json")], body.to_string());
    let asked = client.request("POST", "/v1/chat/completions", &headers, body.as_bytes());
    asked.await.map_err(|_| End::Reset)?;
    match client.head().await?.status {
        200 => Ok(client),
        _ => Err(End::Reset),
    }
}

/// Reads the rest; it must be whole.
async fn whole(mut client: Client) -> Result<(), String> {
    let (body, end) = client.body().await;
    let text = String::from_utf8_lossy(&body).into_owned();
    if end == End::Clean && text.contains("[DONE]") {
        Ok(())
    } else {
        Err(format!("{end:?}: {text}"))
    }
}

/// Streams without a pause, each on a connection of its own.
struct Streams {
    stopped: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Streams {
    fn start(port: u16) -> Self {
        let mut streams = Self {
            stopped: Arc::default(),
            answered: Arc::default(),
            failures: Arc::default(),
            tasks: Vec::new(),
        };
        for lane in 0..3 {
            let (stopped, answered) = (Arc::clone(&streams.stopped), Arc::clone(&streams.answered));
            let failures = Arc::clone(&streams.failures);
            streams.tasks.push(tokio::spawn(async move {
                while !stopped.load(Ordering::SeqCst) {
                    let user = lane * 1_000_000 + answered.load(Ordering::SeqCst);
                    let done = match stream(port, 20, user).await {
                        Ok(client) => whole(client).await,
                        Err(end) => Err(format!("no head: {end:?}")),
                    };
                    answered.fetch_add(1, Ordering::SeqCst);
                    if let Err(failure) = done {
                        failures.lock().unwrap().push(failure);
                    }
                }
            }));
        }
        streams
    }

    async fn stop_without_failures(self) -> u64 {
        self.stopped.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        self.answered.load(Ordering::SeqCst)
    }
}

async fn takes_over(next: &Daemon) {
    next.line("decides", |line| line.contains("this process decides now"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_lose_no_request_and_no_record() {
    let scene = Scene::new(HALF).await;
    let (proxy, admin) = (socket(), socket());
    let port = proxy.local_addr().unwrap().port();
    let mut old = Daemon::start_on(&scene.path(), &proxy, Some(&admin)).await;
    let load = Load::start(port);
    let streams = Streams::start(port);
    load.answers(50).await;
    let mut long_ones = 0;
    for is_told_first in [false, true, false, true] {
        // It keeps the old process for some seconds; it is opened until the old one has it.
        let long = stream(port, 300, 77).await.unwrap();
        long_ones += 1;
        let mut next = if is_told_first {
            old.signal("TERM");
            Daemon::start_on(&scene.path(), &proxy, Some(&admin)).await
        } else {
            let next = Daemon::start_on(&scene.path(), &proxy, Some(&admin)).await;
            load.answers(20).await;
            old.signal("TERM");
            next
        };
        load.answers(20).await;
        whole(long).await.unwrap();
        assert_eq!(old.exit_code().await, Some(0));
        takes_over(&next).await;
        load.answers(20).await;
        let rollout = next.rollout().await;
        assert_eq!(rollout["weight"], 0.5, "{rollout:#}");
        std::mem::swap(&mut old, &mut next);
    }
    let answered = load.answered();
    load.stop_without_failures().await;
    let streamed = streams.stop_without_failures().await;
    old.signal("TERM");
    assert_eq!(old.exit_code().await, Some(0));
    let served = scene.served();
    assert!(served as u64 >= answered + streamed + long_ones);
    let rows = scene.sql("SELECT count(*) AS rows FROM request WHERE outcome = 'ok'");
    assert_eq!(rows[0]["rows"], served);
    let counted =
        scene.sql("SELECT sum(requests) AS requests, sum(errors) AS errors FROM arm_total");
    assert_eq!(counted[0], json!({"requests": served, "errors": 0}));
}

/// As `cutover-restart` does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bridge_has_the_store_before_the_next_process_and_nothing_is_lost() {
    let scene = Scene::new(HALF).await;
    let (proxy, admin) = (socket(), socket());
    let mut old = Daemon::start_on(&scene.path(), &proxy, Some(&admin)).await;
    let load = Load::start(proxy.local_addr().unwrap().port());
    load.answers(50).await;
    let mut bridge = Daemon::start_on(&scene.path(), &proxy, Some(&admin)).await;
    load.answers(20).await;
    old.signal("TERM");
    assert_eq!(old.exit_code().await, Some(0));
    let next = Daemon::start_on(&scene.path(), &proxy, Some(&admin)).await;
    takes_over(&bridge).await;
    assert_eq!(next.count("this process decides now"), 0);
    load.answers(20).await;
    bridge.signal("TERM");
    assert_eq!(bridge.exit_code().await, Some(0));
    takes_over(&next).await;
    load.answers(20).await;
    load.stop_without_failures().await;
    let mut next = next;
    next.signal("TERM");
    assert_eq!(next.exit_code().await, Some(0));
    let rows = scene.sql("SELECT count(*) AS rows FROM request WHERE outcome = 'ok'");
    assert_eq!(rows[0]["rows"], scene.served());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_by_learns_what_the_other_learns_and_edits_wait_with_it() {
    let scene = Scene::new(HALF).await;
    let proxy = socket();
    let mut old = Daemon::start_on(&scene.path(), &proxy, None).await;
    old.operate("weight", r#"{"weight": "100%"}"#).await;
    old.until("all is the canary's", |rollout| rollout["weight"] == 1.0)
        .await;
    // Both accept on the socket; one that is stopped does not.
    let next = Daemon::start_on(&scene.path(), &proxy, None).await;
    next.signal("STOP");
    let first = post(old.proxy, RESPONSES, &ask("state", true)).await;
    let first = first.unwrap();
    assert_eq!(served_by(&first), "canary");
    let id = response_id(&first, true);
    old.operate("rollback", r#"{"reason": "a test"}"#).await;
    wait_until("the id is stored", || {
        !scene.sql("SELECT hash FROM learned_id").is_empty()
    })
    .await;
    next.signal("CONT");
    until_notice(&next, "default 0%").await;
    old.signal("STOP");
    let deadline = std::time::Instant::now() + super::PATIENCE;
    loop {
        let answer = post(next.proxy, RESPONSES, &after_response(&id)).await;
        if served_by(&answer.unwrap()) == "canary" {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never learned");
    }
    scene.edit("\"100%\"]", "\"60%\", \"100%\"]");
    next.line("tells of the edit", |line| {
        line.contains("takes effect when")
    })
    .await;
    old.kill();
    takes_over(&next).await;
    let (rollout, _) = next
        .until("the edit applies", |rollout| rollout["stage"]["of"] == 3)
        .await;
    assert_eq!(rollout["weight"], 0.0);
}

/// What the admin port of a process that stands by says.
async fn notice(daemon: &Daemon) -> String {
    let answer = daemon.get("/api/v1/status").await.unwrap();
    let message = answer.json()["error"]["message"].clone();
    message.as_str().unwrap_or_default().to_owned()
}

async fn until_notice(daemon: &Daemon, words: &str) {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    loop {
        let notice = notice(daemon).await;
        if notice.contains(words) {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "never `{words}`: {notice}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_by_follows_the_stored_weight_says_so_and_decides_after_a_kill() {
    let scene = Scene::new(HALF).await;
    let proxy = socket();
    let mut old = Daemon::start_on(&scene.path(), &proxy, None).await;
    old.operate("weight", r#"{"weight": "30%"}"#).await;
    let next = Daemon::start_on(&scene.path(), &proxy, None).await;
    assert_eq!(next.proxy, old.proxy);
    assert_eq!(next.get("/readyz").await.unwrap().head.status, 200);
    until_notice(&next, "standing by").await;
    until_notice(&next, "default 30%").await;
    let refused = next.try_operate("rollback", "{}").await.unwrap();
    assert_eq!(refused.head.status, 503);
    old.operate("rollback", r#"{"reason": "enough"}"#).await;
    until_notice(&next, "default 0%").await;
    old.kill();
    takes_over(&next).await;
    let rollout = next.rollout().await;
    assert_eq!(
        (&rollout["state"], &rollout["weight"]),
        (&json!("rolled-back"), &json!(0.0))
    );
    next.operate("weight", r#"{"weight": "10%"}"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_legacys_and_is_counted_later() {
    let scene = Scene::new(HALF).await;
    let lock = File::create(scene.database_folder().join("cutover.db.lock")).unwrap();
    lock.lock().unwrap();
    let proxy = socket();
    let port = proxy.local_addr().unwrap().port();
    let daemon = Daemon::begin_on(&scene.path(), &proxy, None);
    daemon
        .line("stands by", |line| {
            line.contains("another cutover holds the store")
        })
        .await;
    let load = Load::start(port);
    load.answers(100).await;
    assert_eq!(
        load.by_canary(),
        0,
        "it is not known what the canary may get"
    );
    assert_eq!(daemon.count("\"ready\""), 0);
    lock.unlock().unwrap();
    let mut daemon = daemon.until_ready().await;
    wait_until("the canary gets its share", || load.by_canary() > 0).await;
    load.stop_without_failures().await;
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    let rows: Vec<Value> = scene.sql("SELECT count(*) AS rows FROM request");
    assert_eq!(rows[0]["rows"], scene.served());
    let counted = scene.sql("SELECT sum(requests) AS requests FROM arm_total");
    assert_eq!(counted[0]["requests"], scene.served());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sockets_to_share_a_second_daemon_is_refused() {
    let scene = Scene::new(HALF).await;
    let first = scene.start().await;
    let second = tokio::task::block_in_place(|| {
        let mut command = cutover();
        command.args(["run", "--config"]).arg(scene.path());
        command.output().unwrap()
    });
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert!(said.contains("another cutover uses"), "{said}");
    first.operate("hold", "{}").await;
}
