//! What harm from outside does to the process: its open files, its memory, its admin port.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;
use crate::client::Client;
use crate::harness::{CHAT, ask, in_time};

const ONE_STAGE: &str = "warm-up = 0\nstages = [{ weight = \"10%\", dwell = \"1h\" }, \"100%\"]";

fn open_files(daemon: &Daemon) -> usize {
    let folder = format!("/proc/{}/fd", daemon.pid());
    fs::read_dir(folder).unwrap().count()
}

/// Bytes of memory that are its own, and the most there ever were.
fn memory(daemon: &Daemon) -> [u64; 2] {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib * 1_024
    })
}

/// Allows a running process so many open files.
fn allow_files(daemon: &Daemon, count: usize) {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", daemon.pid()))
        .arg(format!("--nofile={count}:"))
        .status()
        .unwrap();
    assert!(status.success());
}

async fn until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + super::PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_free_files_nobody_is_let_in_and_no_arm_is_blamed() {
    let scene = Scene::new(ONE_STAGE).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    load.answers(50).await;
    allow_files(&daemon, open_files(&daemon) + 10);
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(Client::connect(daemon.proxy).await.unwrap());
    }
    daemon
        .line("ran out of files", |line| line.contains("accept failed"))
        .await;
    // It tries again, and not all the time.
    let before = daemon.count("accept failed");
    load.answers(200).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tries = daemon.count("accept failed") - before;
    assert!(tries < 40, "{tries} in about three seconds");
    crowd.clear();
    // Nobody is blamed for it.
    let rollout = daemon.rollout().await;
    for arm in ["legacy", "canary"] {
        assert_eq!(rollout["arms"][arm]["errors"], 0, "{rollout}");
    }
    let mut late = Client::connect(daemon.proxy).await.unwrap();
    late.request("GET", "/v1/models", &[], b"").await.unwrap();
    assert_eq!(late.answer().await.unwrap().head.status, 200);
    load.answers(50).await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_leave_neither_files_nor_memory_behind() {
    let scene = Scene::new(ONE_STAGE).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    load.answers(50).await;
    let (files, [before, _]) = (open_files(&daemon), memory(&daemon));
    let large = "y".repeat(1 << 16);
    for round in 0..400 {
        let mut client = Client::connect(daemon.proxy).await.unwrap();
        let bytes = match round % 5 {
            0 => "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n".to_owned(),
            1 => format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nx: {large}\r\n\r\n"),
            2 => {
                format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 8000000\r\n\r\n{large}")
            }
            3 => format!(
                "POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n10000\r\n{large}\r\n"
            ),
            _ => format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{large}"),
        };
        // It may be refused before all is sent.
        client.send(bytes.as_bytes()).await.ok();
    }
    load.answers(50).await;
    until("all files are closed again", || {
        open_files(&daemon) <= files + 10
    })
    .await;
    let [after, most] = memory(&daemon);
    println!("RSS {before} before, {most} at most, {after} after");
    assert!(most < before + (64 << 20), "{before} {most}");
    load.stop_without_failures().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_or_a_bomb_of_any_size_passes_in_little_memory() {
    let scene = Scene::new(ONE_STAGE).await;
    let daemon = scene.start().await;
    let [before, _] = memory(&daemon);
    for model in ["fault-huge-event-32", "fault-gzip-huge-event-32"] {
        let mut client = Client::connect(daemon.proxy).await.unwrap();
        let body = ask(model, true).to_string();
        client
            .request("POST", CHAT, &[], body.as_bytes())
            .await
            .unwrap();
        assert_eq!(client.head().await.unwrap().status, 200, "{model}");
        let mut length = 0;
        let reading = async {
            while let Some(part) = client.part().await.unwrap() {
                length += part.len();
            }
        };
        in_time(model, reading).await;
        assert!(length > 32 << 20, "{model}: {length}");
    }
    let [after, most] = memory(&daemon);
    println!("RSS {before} before, {most} at most, {after} after");
    assert!(most < before + (24 << 20), "{before} {most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_bears_what_the_data_port_bears() {
    let scene = Scene::new(ONE_STAGE).await;
    let daemon = scene.start().await;
    let action = "PUT /api/v1/rollouts/default/weight HTTP/1.1\r\nhost: localhost\r\n";
    let large = "y".repeat(1 << 17);
    for (name, bytes, expected) in [
        ("garbage", "\x16\x03\x01\x02\r\n\r\n".to_owned(), Some(400)),
        (
            "a large head",
            format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {large}\r\n\r\n"),
            Some(431),
        ),
        (
            "100 headers",
            format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(100)),
            Some(431),
        ),
        (
            "a large body",
            format!("{action}content-length: 131072\r\n\r\n{large}"),
            Some(413),
        ),
        (
            "a large body in chunks",
            format!("{action}transfer-encoding: chunked\r\n\r\n20000\r\n{large}\r\n0\r\n\r\n"),
            Some(413),
        ),
        (
            "two lengths",
            format!("{action}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
            Some(400),
        ),
        (
            "a body that never comes",
            format!("{action}content-length: 20\r\n\r\n{{"),
            Some(408),
        ),
        (
            "a head that never ends",
            "GET /healthz HTTP/1.1\r\nhost: loc".to_owned(),
            None,
        ),
        ("nothing", String::new(), None),
    ] {
        let mut client = Client::connect(daemon.admin).await.unwrap();
        client.send(bytes.as_bytes()).await.ok();
        let answer = client.answer().await;
        assert_eq!(
            answer.ok().map(|answer| answer.head.status),
            expected,
            "{name}"
        );
        assert_eq!(
            daemon.get("/healthz").await.unwrap().head.status,
            200,
            "{name}"
        );
    }
    // More idle readers than there are places wait for one another, and then all is as before.
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(Client::connect(daemon.admin).await.unwrap());
    }
    drop(idle);
    assert_eq!(daemon.get("/healthz").await.unwrap().head.status, 200);
    assert_eq!(daemon.rollout().await["weight"], 0.1);
}
