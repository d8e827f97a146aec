//! Mixed load between a sound legacy and a canary that fails in another way every few seconds.
//!
//! No client may see an error that legacy alone would not have given, but for answers that break off after
//! their first content. Every request is one live sample, and the sums agree with the providers' logs.
//! Some seconds of it run with the other tests; `make mixed-load` runs ten minutes. The seed is printed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Answer, Client, End};
use crate::harness::{CHAT, Finished, MESSAGES, RESPONSES, Rig, Row, Setup, rollout};

const CLIENTS: usize = 16;
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

/// How the canary fails for a while; the words are those of the scripted provider.
const FAULTS: [&str; 29] = [
    "ok",
    "ok",
    "reset-before-head",
    "close-before-head",
    "stall-head",
    "slow-head-300",
    "gap-20",
    "stall-after-20",
    "stall-after-1500",
    "reset-at-20",
    "reset-at-1500",
    "truncate-at-20",
    "truncate-at-1500",
    "end-at-20",
    "no-done",
    "no-marker",
    "malformed-line",
    "early-error",
    "inband-error",
    "soft-error",
    "html",
    "204",
    "gzip",
    "500",
    "503-retry-after-2",
    "529",
    "429-retry-after-86400",
    "404-model",
    "401",
];

/// What the canary does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fault(&'static str),
    /// Refuses connections, and has reset those that were open.
    Down,
    /// Takes everything and says nothing.
    Mute,
}

/// What a client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saw {
    Whole,
    /// Content, and then an error event or a broken connection.
    BrokenOff,
    /// Something that legacy alone would not have given.
    Error,
}

fn judge(answer: &Result<Answer, End>, streamed: bool) -> Saw {
    let Ok(answer) = answer else {
        return Saw::Error;
    };
    let text = String::from_utf8_lossy(&answer.body);
    // The provider's name is the first word of every answer's content.
    let has_content = text.contains("canary") || text.contains("legacy");
    if answer.head.status != 200 || !(has_content || text.contains("embedding")) {
        return Saw::Error;
    }
    let is_canarys = answer.head.header("x-cutover-arm") == Some("canary");
    let has_error = text.contains("\"error\"") && !text.contains("\"error\":null");
    match answer.end {
        End::Clean if !has_error && !text.contains("broken") => Saw::Whole,
        _ if streamed && is_canarys => Saw::BrokenOff,
        _ => Saw::Error,
    }
}

async fn ask(
    port: u16,
    (path, streamed): (&str, bool),
    model: &str,
    mode: Mode,
) -> Result<Answer, End> {
    let fault = match mode {
        Mode::Fault(word) => format!("fault-{word}@canary"),
        Mode::Down | Mode::Mute => "ok".to_owned(),
    };
    let fault = fault.replace("fault-ok@canary", "ok");
    let body = json!({"model": model, "stream": streamed, "max_tokens": 50, "input": "hello",
        "prompt": "hello", "messages": [{"role": "user", "content": model}]});
    let headers = [
        ("content-type", "application/json"),
        ("x-fault", fault.as_str()),
    ];
    let mut client = Client::connect(port).await.map_err(|_| End::Reset)?;
    client
        .request("POST", path, &headers, body.to_string().as_bytes())
        .await
        .map_err(|_| End::Reset)?;
    client.answer().await
}

/// Asks until told to stop; returns how often it saw what.
async fn client(
    port: u16,
    seed: u64,
    numbers: Arc<AtomicU64>,
    mode: watch::Receiver<Option<Mode>>,
) -> HashMap<&'static str, u64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut saw = HashMap::new();
    loop {
        let Some(now) = *mode.borrow() else {
            return saw;
        };
        let path = [CHAT, MESSAGES, RESPONSES, COMPLETIONS, EMBEDDINGS][rng.random_range(0..5)];
        let streamed = path != EMBEDDINGS && rng.random_bool(0.6);
        let model = format!("request-{}", numbers.fetch_add(1, Ordering::Relaxed));
        let answer = ask(port, (path, streamed), &model, now).await;
        let what = match judge(&answer, streamed) {
            Saw::Whole => "whole",
            Saw::BrokenOff => "broken off after content",
            Saw::Error => {
                println!("{now:?} {path} stream {streamed} {model}: {answer:?}");
                "error"
            }
        };
        *saw.entry(what).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
    }
}

/// Lets the canary fail in another way every few seconds, for so long.
async fn torment(rig: &Rig, rng: &mut StdRng, mode: &watch::Sender<Option<Mode>>, until: Instant) {
    while Instant::now() < until {
        let next = match rng.random_range(0..FAULTS.len() + 4) {
            0..2 => Mode::Down,
            2..4 => Mode::Mute,
            number => Mode::Fault(FAULTS[number - 4]),
        };
        match next {
            Mode::Down => rig.canary.kill().await,
            Mode::Mute => rig.canary.mute(),
            Mode::Fault(_) => {}
        }
        mode.send_replace(Some(next));
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..3_000))).await;
        rig.canary.revive().await;
        // A refused key ends the canary's traffic whatever is configured: the operator leads it back.
        if rig.rollout("default").await["weight"] != 0.5 {
            rig.set_weight("default", 50).await;
        }
    }
    mode.send_replace(None);
}

/// Every request one live sample; samples and the providers' logs tell the same.
fn check_sums(finished: &Finished, requests: u64) {
    let mut rows: HashMap<&str, Vec<&Row>> = HashMap::new();
    for row in &finished.rows {
        let model = row.model.as_deref().unwrap();
        rows.entry(model).or_default().push(row);
    }
    let logged = |provider: &crate::provider::Provider| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for request in provider.requests() {
            let model = request.json()["model"].as_str().unwrap().to_owned();
            *counts.entry(model).or_default() += 1;
        }
        counts
    };
    let (legacy, canary) = (logged(&finished.legacy), logged(&finished.canary));
    assert_eq!(rows.len() as u64, requests, "a request without a sample");
    for (model, rows) in &rows {
        let of_first = |row: &&&Row| matches!(row.role.as_str(), "live" | "probe" | "override");
        assert_eq!(rows.iter().filter(of_first).count(), 1, "{rows:?}");
        let on = |arm: &str| rows.iter().filter(|row| row.arm == arm).count();
        let asked = legacy.get(*model).copied().unwrap_or(0);
        assert_eq!(on("legacy"), asked, "legacy's samples of {model}: {rows:?}");
        let was_asked = canary.contains_key(*model);
        assert!(!was_asked || on("canary") == 1, "{model}: {rows:?}");
        let answered = rows
            .iter()
            .any(|row| row.arm == "canary" && row.status.is_some());
        assert!(!answered || was_asked, "{model}: {rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_no_error_that_legacy_alone_would_not_have_given() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seconds = number("CUTOVER_MIXED_LOAD_S").unwrap_or(8);
    let seed = number("CUTOVER_SEED").unwrap_or(20_261_121);
    println!("seed {seed}, {seconds} s (CUTOVER_SEED, CUTOVER_MIXED_LOAD_S)");
    let rig = Rig::with(Setup {
        canary: "timeouts = { first-byte = \"800ms\", idle = \"800ms\" }".to_owned(),
        rollouts: rollout("default", "sticky = \"none\""),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 50).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mode, now) = watch::channel(Some(Mode::Fault("ok")));
    let numbers = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let seed = rng.random();
        clients.spawn(client(rig.port(), seed, Arc::clone(&numbers), now.clone()));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    torment(&rig, &mut rng, &mode, until).await;
    let mut saw: HashMap<&str, u64> = HashMap::new();
    for counts in clients.join_all().await {
        for (what, count) in counts {
            *saw.entry(what).or_default() += count;
        }
    }
    let requests = numbers.load(Ordering::Relaxed);
    let status = rig.admin("GET", "/api/v1/status", "").await.json();
    assert_eq!(status["store"]["dropped_samples"], 0);
    println!("{requests} requests: {saw:?}");
    let finished = rig.finish().await;
    let mut outcomes: HashMap<(&str, &str, &str), u64> = HashMap::new();
    for row in &finished.rows {
        *outcomes
            .entry((&row.arm, &row.role, &row.outcome))
            .or_default() += 1;
    }
    let mut outcomes: Vec<_> = outcomes.into_iter().collect();
    outcomes.sort_unstable();
    println!("{outcomes:#?}");
    assert_eq!(saw.values().sum::<u64>(), requests);
    assert_eq!(saw.get("error"), None, "seed {seed}");
    check_sums(&finished, requests);
}
