//! A long quiet run: a steady rate through the whole program, and nothing may grow but the store.
//!
//! `make soak` runs it against the release binary: `SOAK_S` seconds (1800) at `SOAK_RATE` requests a second
//! (1000), a tenth of them streams, between two providers that are processes of their own, with the controller
//! on. Every ten seconds it writes down what the process takes.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::daemon::{Daemon, Size};
use crate::judge::{CALLS, Saw, judge};
use crate::standin::Standin;
use crate::store::Home;
use crate::storm::number;
use crate::{CLIENT_KEY, PATIENCE};

/// Connections of the clients: enough for every stream that is open at once, and some more for a busy machine.
const CONNECTIONS: u64 = 128;
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a request takes in the file, its share of the indexes and of the evidence included: with a model's name
/// of ten bytes, a request id of twenty, a sticky key and token counts. So 1,000 requests a second take 0.25 GB an hour.
const BYTES_PER_ROW: f64 = 69.0;
/// Schema, and what is kept per minute and per hour.
const BYTES_AT_FIRST: f64 = 110_000.0;
/// How far the file's true size may be from what these say.
const SIZE_WITHIN: f64 = 0.2;
/// What the last third of the run may take more than the second.
const GROWTH: f64 = 1.05;
/// The journal is written back long before this.
const JOURNAL_MAX: u64 = 64 << 20;

/// What a look found.
#[derive(Debug, Clone, Copy)]
struct Look {
    size: Size,
    database: u64,
    journal: u64,
}

fn config(home: &Home, legacy: &Standin, canary: &Standin) -> String {
    format!(
        r#"[proxy]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[store]
url = "sqlite:{}"

[arms.legacy]
base-url = "{}"

[arms.canary]
base-url = "{}"
api-key = "env:CANARY_KEY"

[[rollout]]
stages = [
    {{ weight = "5%", dwell = "30s" }}, {{ weight = "25%", dwell = "30s" }}, {{ weight = "50%", dwell = "30d" }}, "100%",
]
"#,
        home.database().display(),
        legacy.base_url(),
        canary.base_url()
    )
}

#[derive(Debug, Default)]
struct Totals {
    /// The next request.
    next: AtomicU64,
    failures: AtomicU64,
    /// Microseconds that the latest request was late; the generator or the machine is too slow if it grows.
    late_us: AtomicU64,
}

/// Asks whenever its turn comes, on one connection, until all turns are over.
async fn client(
    port: u16,
    began: Instant,
    rate: u64,
    count: u64,
    totals: Arc<Totals>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut open: Option<Client> = None;
    loop {
        let turn = totals.next.fetch_add(1, Ordering::Relaxed);
        if turn >= count {
            return failures;
        }
        let due = began + Duration::from_nanos(turn * 1_000_000_000 / rate);
        tokio::time::sleep_until(due.into()).await;
        let late = Instant::now().saturating_duration_since(due);
        totals
            .late_us
            .store(u64::try_from(late.as_micros()).unwrap(), Ordering::Relaxed);
        let streamed = turn.is_multiple_of(10);
        let body = format!(
            "{{\"model\":\"gpt-4o-one\",\"user\":\"user-{}\",\"stream\":{streamed},\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}",
            turn % 5_000
        );
        let answer = async {
            let client = match &mut open {
                Some(client) => client,
                None => open.insert(Client::connect(port).await.ok()?),
            };
            let authorization = format!("Bearer {CLIENT_KEY}");
            let headers = [
                ("content-type", "application/json"),
                ("authorization", authorization.as_str()),
            ];
            let sent = client.request("POST", CALLS[0].0, &headers, body.as_bytes());
            sent.await.ok()?;
            Some(client.answer().await)
        };
        let saw = answer
            .await
            .map(|answer| judge(&answer, CALLS[0], streamed));
        if saw != Some(Saw::Whole) {
            totals.failures.fetch_add(1, Ordering::Relaxed);
            failures.push(format!("request {turn}, stream {streamed}: {saw:?}"));
            open = None;
        }
    }
}

fn look(daemon: &Daemon, home: &Home) -> Look {
    let length = |name: &str| fs::metadata(home.store().join(name)).map_or(0, |it| it.len());
    Look {
        size: daemon.size(),
        database: length("cutover.db"),
        journal: length("cutover.db-wal"),
    }
}

/// One line of what was found.
fn tell(look: &Look, at: Duration, totals: &Totals) {
    let Look {
        size,
        database,
        journal,
    } = look;
    // What the clients hold now is not asked yet.
    let next = totals.next.load(Ordering::Relaxed);
    println!(
        "{:>5} s: {:>6} KiB, {} descriptors, {} threads, database {} KiB, journal {} KiB, {} asked, {} failed, {} ms late",
        at.as_secs(),
        size.rss_kib,
        size.descriptors,
        size.threads,
        database / 1024,
        journal / 1024,
        next.saturating_sub(CONNECTIONS),
        totals.failures.load(Ordering::Relaxed),
        totals.late_us.load(Ordering::Relaxed) / 1_000,
    );
}

/// The mean over a part of the looks.
fn mean(looks: &[Look], of: impl Fn(&Look) -> u64) -> f64 {
    let sum: u64 = looks.iter().map(of).sum();
    sum as f64 / looks.len().max(1) as f64
}

fn most(looks: &[Look], of: impl Fn(&Look) -> u64) -> u64 {
    looks.iter().map(of).max().unwrap_or(0)
}

/// What has grown in the last third of the run, against the second.
fn growth(looks: &[Look]) -> Vec<String> {
    let third = looks.len() / 3;
    let (middle, last) = (&looks[third..2 * third], &looks[2 * third..]);
    let mut found = Vec::new();
    let (before, after) = (
        mean(middle, |it| it.size.rss_kib),
        mean(last, |it| it.size.rss_kib),
    );
    println!("RSS {before:.0} KiB in the second third, {after:.0} KiB in the last");
    if after > before * GROWTH {
        found.push(format!("RSS grew from {before:.0} to {after:.0} KiB"));
    }
    let descriptors = |looks| most(looks, |it| it.size.descriptors);
    if descriptors(last) > descriptors(middle) + 8 {
        found.push(format!(
            "descriptors grew from {} to {}",
            descriptors(middle),
            descriptors(last)
        ));
    }
    let threads = |looks| most(looks, |it| it.size.threads);
    if threads(last) > threads(middle) + 2 {
        found.push(format!(
            "threads grew from {} to {}",
            threads(middle),
            threads(last)
        ));
    }
    let journal = most(looks, |it| it.journal);
    println!("journal at most {} KiB", journal / 1024);
    if journal > JOURNAL_MAX {
        found.push(format!("the journal grew to {journal} bytes"));
    }
    found
}

/// All that was asked is in the status and in the store, whose size is as predicted.
async fn sums(daemon: &mut Daemon, home: &Home, asked: u64) -> Vec<String> {
    let mut found = Vec::new();
    let requests = |status: &Value| {
        let arms = &status["rollouts"][0]["arms"];
        let of = |arm: &str| arms[arm]["requests"].as_u64().unwrap_or(0);
        (of("legacy"), of("canary"))
    };
    let status = daemon
        .until("aware of all requests", |status| {
            let (legacy, canary) = requests(status);
            legacy + canary >= asked
        })
        .await;
    let (legacy, canary) = requests(&status);
    println!(
        "{legacy} by legacy, {canary} by the canary; {}",
        status["rollouts"][0]["reason"]
    );
    if legacy + canary != asked || canary == 0 {
        found.push(format!("{asked} were asked, {legacy} + {canary} are told"));
    }
    for arm in ["legacy", "canary"] {
        let errors = &status["rollouts"][0]["arms"][arm]["errors"];
        if *errors != 0 {
            found.push(format!("{errors} errors of {arm}"));
        }
    }
    if status["store"]["dropped_samples"] != 0 {
        found.push(format!("samples were dropped: {}", status["store"]));
    }
    assert_eq!(daemon.terminate().await, Some(0));
    let rows = home.sql("SELECT count(*) AS rows FROM request")[0]["rows"]
        .as_u64()
        .unwrap();
    if rows != asked {
        found.push(format!("{rows} rows of {asked} requests"));
    }
    let size = fs::metadata(home.database()).unwrap().len() as f64;
    let predicted = BYTES_AT_FIRST + BYTES_PER_ROW * rows as f64;
    println!(
        "database {size:.0} bytes, {:.1} a row; predicted {predicted:.0}, off by {:+.1}%",
        size / rows as f64,
        100.0 * (size / predicted - 1.0)
    );
    if (size / predicted - 1.0).abs() > SIZE_WITHIN {
        found.push(format!(
            "the database has {size} bytes, not about {predicted:.0}"
        ));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour of load; `make soak` runs it"]
async fn half_an_hour_of_load_leaves_nothing_behind_but_rows() {
    let (seconds, rate) = (
        number("SOAK_S").unwrap_or(1_800),
        number("SOAK_RATE").unwrap_or(1_000),
    );
    println!("SOAK_S={seconds} SOAK_RATE={rate}");
    let (legacy, canary) = (
        Standin::start_quiet("legacy").await,
        Standin::start_quiet("canary").await,
    );
    let home = Home::new();
    fs::write(home.config(), config(&home, &legacy, &canary)).unwrap();
    let mut daemon = Daemon::start(&home.config(), None).await;
    let totals = Arc::new(Totals::default());
    let (began, count) = (Instant::now(), seconds * rate);
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS.min(count) {
        clients.spawn(client(
            daemon.proxy,
            began,
            rate,
            count,
            Arc::clone(&totals),
        ));
    }
    let mut looks = Vec::new();
    let ends = began + Duration::from_secs(seconds);
    while Instant::now() + LOOK_EVERY <= ends {
        tokio::time::sleep(LOOK_EVERY).await;
        let look = look(&daemon, &home);
        tell(&look, began.elapsed(), &totals);
        assert!(
            daemon.is_running(),
            "it ended by itself: {:#?}",
            daemon.lines()
        );
        looks.push(look);
    }
    // On a machine that is too busy the clients fall behind and take longer.
    let behind = PATIENCE * 5 + Duration::from_secs(seconds * 2);
    let all = tokio::time::timeout(behind, clients.join_all()).await;
    let took = began.elapsed();
    println!(
        "{count} requests in {took:?}: {:.0} a second",
        count as f64 / took.as_secs_f64()
    );
    if took > Duration::from_secs(seconds) + PATIENCE / 10 {
        println!(
            "this machine was too slow or too busy for {rate} a second: the clients fell behind"
        );
    }
    let mut found: Vec<_> = all
        .expect("the clients end")
        .into_iter()
        .flatten()
        .take(20)
        .collect();
    found.extend(growth(&looks));
    found.extend(sums(&mut daemon, &home, count).await);
    assert!(found.is_empty(), "{found:#?}");
}
