//! Keys of clients, as an operator hands them out and takes them back while the daemon runs.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PATIENCE;
use super::process::{Daemon, cutover};
use super::scene::Scene;
use crate::client::Client;

const HALF: &str = "warm-up = 0\ntrip = \"off\"\non-harm = \"hold\"\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
const CHAT: &str = "/v1/chat/completions";

/// Both arms have keys of their own, so that there may be clients.
async fn scene() -> Scene {
    let scene = Scene::new(HALF).await;
    scene.edit(
        "[arms.legacy]",
        "[arms.legacy]\napi-key = \"env:ADMIN_TOKEN\"",
    );
    scene
}

/// `cutover client add`
fn add(scene: &Scene, args: &[&str]) -> Output {
    let mut command = cutover();
    command.args(["client", "add"]).args(args);
    command.arg("--config").arg(scene.path()).output().unwrap()
}

/// Adds a client to the file; gives its key.
fn added(scene: &Scene, args: &[&str]) -> String {
    let done = add(scene, &[args, &["--write", "--json"]].concat());
    assert!(done.status.success(), "{done:?}");
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["written"], true);
    answer["key"].as_str().unwrap().to_owned()
}

/// The first answer's status to one request with this key.
async fn ask(daemon: &Daemon, key: &str) -> u16 {
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    let body = json!({"model": "ok", "messages": []}).to_string();
    client
        .request("POST", CHAT, &[("x-api-key", key)], body.as_bytes())
        .await
        .unwrap();
    client.answer().await.unwrap().head.status
}

/// Waits until requests with this key are answered so: each worker takes a new configuration up by itself.
async fn answered(daemon: &Daemon, key: &str, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = ask(daemon, key).await;
        if found == status {
            return;
        }
        assert!(Instant::now() < deadline, "still {found} and not {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_and_go_while_the_daemon_runs() {
    let scene = scene().await;
    let daemon = Daemon::start_in(&scene.path(), "json", &[("RUST_LOG", "debug")]).await;
    let before = fs::read_to_string(scene.path()).unwrap();
    assert_eq!(ask(&daemon, "anything").await, 200, "nobody is asked yet");
    let app = added(&scene, &["app"]);
    answered(&daemon, "anything", 401).await;
    answered(&daemon, &app, 200).await;
    let only_app = fs::read_to_string(scene.path()).unwrap();
    assert!(only_app.starts_with(&before), "{only_app}");
    let slow = added(&scene, &["slow", "--rate", "1/min"]);
    answered(&daemon, &slow, 200).await;
    answered(&daemon, &slow, 429).await;

    // What is under way goes on without its client.
    let mut stream = Client::connect(daemon.proxy).await.unwrap();
    let body = json!({"model": "fault-gap-1500", "stream": true, "messages": []}).to_string();
    let key = [("authorization", format!("Bearer {app}"))];
    let key = [(key[0].0, key[0].1.as_str())];
    stream
        .request("POST", CHAT, &key, body.as_bytes())
        .await
        .unwrap();
    assert_eq!(stream.head().await.unwrap().status, 200);
    scene.write(&only_app.replace("sha256:", "sha256:ab"));
    // A hash of 66 digits is none: nothing changes, and it is told without the hash.
    let is_told = |status: &Value| status["config"]["error"].is_string();
    daemon.until_status("told", is_told).await;
    answered(&daemon, &app, 200).await;
    scene.write(&before);
    answered(&daemon, "anything", 200).await;
    let other = added(&scene, &["other"]);
    answered(&daemon, &other, 200).await;
    answered(&daemon, &app, 401).await;
    let arms = daemon.rollout().await["arms"].clone();
    let under_way = ["legacy", "canary"].map(|arm| arms[arm]["under_way"].as_u64().unwrap());
    assert_eq!(
        under_way.iter().sum::<u64>(),
        1,
        "the stream ended too early"
    );
    let mut parts = 0;
    while stream.part().await.unwrap().is_some() {
        parts += 1;
    }
    assert!(parts > 0);

    let log = daemon.lines().join("\n");
    assert!(
        log.contains("proxy.clients.app.key-hash: (none) -> (secret)"),
        "{log}"
    );
    let shown = daemon.status().await.to_string() + &log;
    let hashes = only_app.split("sha256:").skip(1).map(|rest| &rest[..64]);
    for secret in [app.as_str(), slow.as_str()].into_iter().chain(hashes) {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_and_its_hash_is_what_hash_says() {
    let scene = scene().await;
    let before = fs::read_to_string(scene.path()).unwrap();
    let done = add(&scene, &["app", "--rate", "600/min"]);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{said}");
    assert_eq!(fs::read_to_string(scene.path()).unwrap(), before);
    let key = said.lines().next().unwrap();
    let (_, block) = said.split_once("[[proxy.clients]]").unwrap();
    assert!(block.contains("name = \"app\"") && block.contains("rate = \"600/min\""));
    let hash = |key: &str| {
        let mut hash = cutover();
        let hash = hash.args(["client", "hash"]).stdin(Stdio::piped());
        let hash = hash.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut hash = hash.spawn().unwrap();
        hash.stdin
            .take()
            .unwrap()
            .write_all(key.as_bytes())
            .unwrap();
        hash.wait_with_output().unwrap()
    };
    let hashed = hash(&format!("{key}\n"));
    let hashed = String::from_utf8(hashed.stdout).unwrap();
    assert!(block.contains(hashed.trim()), "{hashed}{block}");
    let short = hash("sk-short\n");
    assert_eq!(short.status.code(), Some(1));
    let said = String::from_utf8(short.stderr).unwrap();
    assert!(
        said.contains("at least 32") && !said.contains("sk-short"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_be_added_is_refused_with_the_reason() {
    let scene = scene().await;
    added(&scene, &["app"]);
    let text = fs::read_to_string(scene.path()).unwrap();
    let check = |args: &[&str], code: i32, words: &str| {
        let done = add(&scene, args);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(done.stdout.is_empty(), "{args:?} shows a key");
    };
    check(&["app"], 1, "has a client \"app\" already");
    check(&["app", "--write"], 1, "has a client \"app\" already");
    check(&["App"], 2, "a-z, 0-9");
    check(&["b", "--rate", "5/h"], 2, "100/s or 600/min");
    assert_eq!(fs::read_to_string(scene.path()).unwrap(), text);
    // Legacy gets the clients' own keys here: the lines are shown with what is missing, and never written.
    scene.write(&text.replace("api-key = \"env:ADMIN_TOKEN\"\n", ""));
    check(&["b", "--write"], 1, "no key for legacy");
    let done = add(&scene, &["b"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && said.contains("no key for legacy"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdks_raise_the_errors_that_their_users_know() {
    let Some(python) = std::env::var_os("CUTOVER_SDK_PYTHON") else {
        println!("skipped: CUTOVER_SDK_PYTHON names no Python with the SDKs; `make test` does");
        return;
    };
    let scene = scene().await;
    let key = added(&scene, &["app", "--rate", "1/min"]);
    let daemon = scene.start().await;
    assert_eq!(ask(&daemon, &key).await, 200);
    let wrong = key.replace("cutover_", "cutover-");
    for (key, error, status, kind) in [
        (wrong, "AuthenticationError", 401, "unauthorized"),
        (key, "RateLimitError", 429, "client-rate-limited"),
    ] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/refusals.py");
        let base = format!("http://127.0.0.1:{}/v1", daemon.proxy);
        let mut sdk = std::process::Command::new(&python);
        let sdk = sdk.arg(script).env("BASE", base).env("KEY", &key);
        let done = tokio::task::block_in_place(|| sdk.output().unwrap());
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        let results: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(results.as_object().unwrap().len(), 5);
        for (call, result) in results.as_object().unwrap() {
            let package = call.split('.').next().unwrap();
            assert_eq!(result["error"], format!("{package}.{error}"), "{call}");
            assert_eq!(result["status"], status, "{call}");
            assert_eq!(result["kind"], kind, "{call}");
            assert_eq!(result["retry_after"].is_string(), status == 429, "{call}");
            assert!(!result["text"].as_str().unwrap().contains(&key), "{call}");
        }
    }
    assert_eq!(scene.served(), 1, "a provider saw what was refused");
}
