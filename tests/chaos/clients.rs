//! Clients that nobody wants, by the hundred.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;

use crate::CLIENT_KEY;
use crate::client::Client;

/// Requests of these clients name models that begin like this, so that no ledger misses them.
pub(crate) const STRAY: &str = "stray-";

static STRAYS: AtomicU64 = AtomicU64::new(0);

const CALL: &str =
    "POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n";

/// Opens this many connections and says nothing on them.
pub(crate) async fn idle(port: u16, count: usize, until: Instant) {
    let mut open = Vec::new();
    for _ in 0..count {
        // While cutover starts anew nobody listens.
        open.extend(Client::connect(port).await.ok());
    }
    tokio::time::sleep_until(until.into()).await;
    drop(open);
}

/// Sends heads byte by byte, and never the last one.
pub(crate) async fn slow(port: u16, count: usize, until: Instant) {
    let mut open = Vec::new();
    for _ in 0..count {
        open.extend(Client::connect(port).await.ok());
    }
    for byte in CALL.bytes().cycle() {
        for client in &mut open {
            // Whom cutover has hung up on has nothing more to say.
            client.send(&[byte]).await.ok();
        }
        if Instant::now() > until {
            return;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Sends what is no HTTP. Gives what was answered as if it were.
pub(crate) async fn malformed(port: u16, count: usize, seed: u64) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let mut rng = StdRng::seed_from_u64(seed ^ number as u64);
        tasks.spawn(async move {
            let bytes = garbage(&mut rng);
            let mut client = Client::connect(port).await.ok()?;
            client.send(&bytes).await.ok()?;
            let head = tokio::time::timeout(Duration::from_millis(500), client.head()).await;
            let status = head.ok()?.ok()?.status;
            let is_refused = (400..500).contains(&status);
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
            (!is_refused).then(|| format!("garbage {shown:?} was answered with {status}"))
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let text = match rng.random_range(0..9) {
        0 => "\r\n\r\n\r\n".repeat(50),
        1 => "GET\r\n\r\n".to_owned(),
        2 => format!("{CALL}content-length: -1\r\n\r\n"),
        3 => format!("{CALL}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
        4 => format!("{CALL}no colon here\r\n\r\n"),
        5 => format!("{CALL}x: {}\r\n\r\n", "a".repeat(300_000)),
        6 => "POST /v1/chat/completions HTTP/9.9\r\nhost: test\r\n\r\n".to_owned(),
        7 => format!("{CALL}x: a\0b\r\n\r\n"),
        _ => {
            let mut bytes = vec![0; rng.random_range(1..2_000)];
            rng.fill(&mut bytes[..]);
            return bytes;
        }
    };
    text.into_bytes()
}

/// Asks for streams and leaves in the middle of them.
pub(crate) async fn leaving(port: u16, count: usize, until: Instant) {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(async move {
            while Instant::now() < until {
                let client = Client::connect(port).await;
                if let Ok(mut client) = client
                    && ask(&mut client, "fault-gap-20").await.is_ok()
                    && client.head().await.is_ok()
                {
                    client.part().await.ok();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    tasks.join_all().await;
}

/// Asks for long answers and takes them in drop by drop.
pub(crate) async fn slow_readers(port: u16, count: usize, until: Instant) {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(async move {
            let Ok(mut client) = Client::connect_narrow(port).await else {
                return;
            };
            if ask(&mut client, "fault-huge-event-1").await.is_ok() {
                tokio::time::sleep_until(until.into()).await;
                client.answer().await.ok();
            }
        });
    }
    tasks.join_all().await;
}

async fn ask(client: &mut Client, fault: &str) -> std::io::Result<()> {
    let model = format!("{STRAY}{}", STRAYS.fetch_add(1, Ordering::Relaxed));
    let body = json!({"model": model, "user": model, "stream": true, "messages": [{"role": "user", "content": "hello"}]});
    let authorization = format!("Bearer {CLIENT_KEY}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", authorization.as_str()),
        ("x-fault", fault),
    ];
    let body = body.to_string();
    client
        .request("POST", "/v1/chat/completions", &headers, body.as_bytes())
        .await
}
