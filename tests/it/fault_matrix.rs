//! The fault matrix: what a client gets, what is counted, and whether legacy was asked, for each way in
//! which a canary can fail, with a plain answer and with a stream, in each dialect.
//!
//! [`rows`] says what must happen. Here every cell is played by a real daemon between two scripted
//! providers, and compared. What was seen is the table in `docs/fault-matrix.md`; `UPDATE_EXPECTED=1`
//! writes it anew.

mod rows;
mod seen;

use std::path::Path;

use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Answer, Client, End};
use crate::harness::{self, CHAT, MESSAGES, RESPONSES, Rig, Setup, rollout};
use rows::{Cell, Dialects, Fault, ROWS, Spec, UNRESCUED};
use seen::{Seen, table};

/// How long the canary may be silent here. Long enough for a busy machine, short enough to wait for.
const LIMITS: &str = "timeouts = { connect = \"2s\", first-byte = \"1s\", idle = \"1s\" }";

/// One request of the matrix.
#[derive(Debug, Clone, Copy)]
struct Play {
    spec: &'static Spec,
    /// Counts the rows of both tables.
    number: usize,
    path: &'static str,
    streamed: bool,
    expected: Cell,
}

impl Play {
    /// The model names the request, since the fault is asked for by a header.
    fn model(&self) -> String {
        let kind = if self.streamed { "stream" } else { "plain" };
        format!("{}-{kind}{}", self.number, self.path.replace('/', "-"))
    }
}

/// What one request led to.
#[derive(Debug)]
struct Played {
    play: Play,
    answer: Result<Answer, End>,
    /// What the canary says to the same request without cutover.
    direct: Option<Answer>,
}

fn plays(number: usize, spec: &'static Spec) -> Vec<Play> {
    let paths: &[&str] = match spec.dialects {
        Dialects::All => &[CHAT, MESSAGES, RESPONSES],
        Dialects::Chat => &[CHAT],
        Dialects::Messages => &[MESSAGES],
        Dialects::Marked => &[CHAT, MESSAGES],
    };
    let kinds = [(false, spec.plain), (true, spec.streamed)];
    let cells = kinds
        .into_iter()
        .filter_map(|(streamed, cell)| Some((streamed, cell?)));
    cells
        .flat_map(|(streamed, expected)| {
            paths.iter().map(move |path| Play {
                spec,
                number,
                path,
                streamed,
                expected,
            })
        })
        .collect()
}

async fn ask(port: u16, play: Play) -> Result<Answer, End> {
    let body = json!({"model": play.model(), "stream": play.streamed, "max_tokens": 50,
        "stream_options": {"include_usage": true}, "input": "hello",
        "messages": [{"role": "user", "content": "hello"}]});
    let fault = match play.spec.fault {
        Fault::Script(word) => format!("fault-{word}@canary"),
        Fault::Refused | Fault::Blackhole | Fault::Untrusted => "ok".to_owned(),
    };
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer client"),
        ("x-fault", fault.as_str()),
    ];
    let mut client = Client::connect(port).await.map_err(|_| End::Reset)?;
    client
        .request("POST", play.path, &headers, body.to_string().as_bytes())
        .await
        .map_err(|_| End::Reset)?;
    client.answer().await
}

async fn play(rig: &Rig, plays: Vec<Play>) -> Vec<Played> {
    let (port, canary) = (rig.port(), rig.canary.port());
    let mut running = JoinSet::new();
    for play in plays {
        running.spawn(async move {
            let answer = ask(port, play).await;
            let direct = if play.expected.is_passed_on() {
                Some(ask(canary, play).await.unwrap())
            } else {
                None
            };
            Played {
                play,
                answer,
                direct,
            }
        });
    }
    let mut played = running.join_all().await;
    played.sort_by_key(|played| (played.play.streamed, played.play.path));
    played
}

/// Plays rows one after the other, the cells of a row at once.
async fn play_rows(rig: Rig, rows: &[(usize, &'static Spec)]) -> Vec<Seen> {
    let mut all = Vec::new();
    for (number, spec) in rows {
        // Three refusals of the account in a row would end the canary's traffic, twenty timeouts open its
        // breaker: a good request follows each row, or each request of such a row.
        let at_once = if spec.is_about_the_account { 1 } else { 6 };
        for some in plays(*number, spec).chunks(at_once) {
            all.extend(play(&rig, some.to_vec()).await);
            if matches!(spec.fault, Fault::Script(_)) {
                let good = rig.post(CHAT, &harness::ask("ok", false)).await;
                assert_eq!(good.head.status, 200);
            }
        }
    }
    let finished = rig.finish().await;
    all.into_iter()
        .map(|played| Seen::of(played, &finished))
        .collect()
}

async fn rig(canary: &str, canary_url: Option<String>, rollout_lines: &str) -> Rig {
    let rig = Rig::with(Setup {
        canary: canary.to_owned(),
        canary_url,
        rollouts: rollout("default", rollout_lines),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}

/// A port whose queue of connections is full: the kernel drops what comes.
fn blackhole() -> (socket2::Socket, Vec<socket2::Socket>, u16) {
    let tcp = || {
        socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )
        .unwrap()
    };
    let listener = tcp();
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.as_socket().unwrap().port();
    let fillers = (0..4).map(|_| {
        let filler = tcp();
        filler.set_nonblocking(true).unwrap();
        drop(filler.connect(&address));
        filler
    });
    (listener, fillers.collect(), port)
}

/// A provider of a connection's own fault: its rows need a daemon of their own.
async fn play_connection_faults(rows: &[(usize, &'static Spec)], lines: &str) -> Vec<Seen> {
    let mut all = Vec::new();
    for row in rows {
        let played = match row.1.fault {
            Fault::Refused => {
                let rig = rig("", None, lines).await;
                rig.canary.kill().await;
                play_rows(rig, &[*row]).await
            }
            Fault::Blackhole => {
                let (_listener, _fillers, port) = blackhole();
                let limits = "timeouts = { connect = \"300ms\" }";
                let url = format!("http://127.0.0.1:{port}/v1");
                play_rows(rig(limits, Some(url), lines).await, &[*row]).await
            }
            Fault::Untrusted => {
                let end = crate::tls::TlsEnd::start(1).await;
                let url = format!("https://localhost:{}/v1", end.port);
                play_rows(rig("", Some(url), lines).await, &[*row]).await
            }
            Fault::Script(_) => Vec::new(),
        };
        all.extend(played);
    }
    all
}

async fn play_table(rows: &[(usize, &'static Spec)], rollout_lines: &str) -> Vec<Seen> {
    let mut seen = play_connection_faults(rows, rollout_lines).await;
    // Short limits are for those rows alone that wait for them: a busy machine is slow as well.
    for (limits, waits) in [("", false), (LIMITS, true)] {
        let scripted: Vec<_> = rows
            .iter()
            .filter(|(_, spec)| matches!(spec.fault, Fault::Script(_)) && spec.waits() == waits)
            .copied()
            .collect();
        let rig = rig(limits, None, rollout_lines).await;
        seen.extend(play_rows(rig, &scripted).await);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_answered_counted_and_rescued_as_the_matrix_says() {
    let rescued: Vec<_> = ROWS.iter().enumerate().collect();
    let unrescued: Vec<_> = (ROWS.len()..).zip(UNRESCUED).collect();
    let first = play_table(&rescued, "").await;
    let second = play_table(&unrescued, "failover = false").await;
    let wrong: Vec<String> = first
        .iter()
        .chain(&second)
        .filter_map(Seen::difference)
        .collect();
    let document = seen::document(&table(&rescued, &first), &table(&unrescued, &second));
    println!("{document}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fault-matrix.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document,
        "docs/fault-matrix.md is not what was seen; UPDATE_EXPECTED=1 writes it anew"
    );
}
