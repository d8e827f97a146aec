//! Traces: passed on as they came while nobody collects them, and one span per request when somebody does.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Answer, Client};
use crate::harness::wait_until;
use crate::provider::{Provider, Request};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
/// Nothing moves by evidence; what fails on the canary is rescued.
const STILL: &str = "warm-up = 0\ntrip = \"off\"\non-harm = \"hold\"\nstages = [{ weight = \"1%\", dwell = \"1h\" }, \"100%\"]\n";

/// The table that names a collector, with further lines.
fn traces(collector: &Provider, lines: &str) -> String {
    format!(
        "[traces]\nendpoint = \"http://127.0.0.1:{}/v1/traces\"\n{lines}\n",
        collector.port()
    )
}

async fn start(table: &str, env: &[(&str, &str)]) -> (Scene, Daemon) {
    let scene = Scene::new(STILL).await;
    scene.edit("[store]\n", &format!("{table}[store]\n"));
    let daemon = Daemon::start_in(&scene.path(), "json", env).await;
    (scene, daemon)
}

/// Asks for this model with these headers.
async fn ask(daemon: &Daemon, model: &str, stream: bool, headers: &[(&str, &str)]) -> Answer {
    let body = json!({
        "model": model, "stream": stream,
        "messages": [{"role": "user", "content": "a secret prompt"}],
    });
    let mut all = vec![("authorization", "Bearer sk-client-only")];
    all.extend(headers);
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    client
        .request(
            "POST",
            "/v1/chat/completions",
            &all,
            body.to_string().as_bytes(),
        )
        .await
        .unwrap();
    client.answer().await.unwrap()
}

/// The trace headers that a provider saw, one pair per request.
fn seen(requests: &[Request]) -> Vec<(Option<String>, Option<String>)> {
    let of = |request: &Request, name: &str| request.header(name).map(str::to_owned);
    let pair = |request: &Request| (of(request, "traceparent"), of(request, "tracestate"));
    requests.iter().map(pair).collect()
}

/// The spans of all messages that a collector took.
fn collected(collector: &Provider) -> Vec<Value> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!(request.target, "/v1/traces");
        assert_eq!(request.header("content-type"), Some("application/json"));
        let message = request.json();
        let found = message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
        spans.extend(found.unwrap().iter().cloned());
    }
    spans
}

async fn until_collected(collector: &Provider, count: usize) -> Vec<Value> {
    wait_until("the spans are there", || {
        collected(collector).len() >= count
    })
    .await;
    let spans = collected(collector);
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

/// The value of an attribute, whatever its type; null if there is none.
fn attribute(span: &Value, key: &str) -> Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = found.and_then(|it| it["value"].as_object());
    value.map_or(Value::Null, |value| value.values().next().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_traces_pass_as_they_came() {
    let (scene, daemon) = start("", &[]).await;
    daemon.operate("weight", r#"{"weight": "100%"}"#).await;
    for stream in [false, true] {
        for model in ["ok", "fault-500@canary", "fault-early-error@canary"] {
            for parent in [PARENT, UNSAMPLED, "00-1-2-01", "not one"] {
                let headers = [("traceparent", parent), ("tracestate", "a=1,b=2")];
                let answer = ask(&daemon, model, stream, &headers).await;
                assert_eq!(answer.head.status, 200, "{model}");
                let expected = (Some(parent.to_owned()), Some("a=1,b=2".to_owned()));
                let asked = [scene.canary.requests(), scene.legacy.requests()].concat();
                let rescued = usize::from(model.contains("canary"));
                assert_eq!(asked.len(), 1 + rescued, "{model}");
                assert!(seen(&asked).iter().all(|it| *it == expected), "{asked:?}");
                scene.canary.clear();
                scene.legacy.clear();
            }
        }
    }
    ask(&daemon, "ok", true, &[]).await;
    assert_eq!(seen(&scene.canary.requests()), [(None, None)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_collector_providers_see_the_request_as_their_parent() {
    let collector = Provider::start("collector").await;
    let (scene, daemon) = start(&traces(&collector, ""), &[]).await;
    daemon.operate("weight", r#"{"weight": "100%"}"#).await;
    let state = ("tracestate", "a=1,b=2");
    ask(
        &daemon,
        "fault-500@canary",
        false,
        &[("traceparent", PARENT), state],
    )
    .await;
    ask(&daemon, "ok", true, &[]).await;
    ask(&daemon, "ok", false, &[("traceparent", "00-1-2-01"), state]).await;
    // Its trace is not recorded, so neither is this.
    ask(&daemon, "ok", true, &[("traceparent", UNSAMPLED), state]).await;
    let spans = until_collected(&collector, 3).await;
    let canary = seen(&scene.canary.requests());
    let parent_of = |span: &Value| {
        let [trace, id] = ["traceId", "spanId"].map(|key| span[key].as_str().unwrap());
        format!("00-{trace}-{id}-01")
    };
    let by_model = |stream: bool, parent: bool| {
        let is_it = |span: &&Value| {
            attribute(span, "gen_ai.request.stream") == stream
                && span["parentSpanId"].is_string() == parent
        };
        spans.iter().find(is_it).unwrap()
    };
    let (first, second, third) = (
        by_model(false, true),
        by_model(true, false),
        by_model(false, false),
    );
    assert_eq!(first["traceId"], TRACE);
    assert_eq!(first["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(first["traceState"], "a=1,b=2");
    assert_eq!(
        canary[0],
        (Some(parent_of(first)), Some("a=1,b=2".to_owned()))
    );
    assert_eq!(
        seen(&scene.legacy.requests()),
        [canary[0].clone()],
        "one span for both arms"
    );
    assert_eq!(canary[1], (Some(parent_of(second)), None));
    // What cannot be read is no trace, and its state belongs to none.
    assert_eq!(canary[2], (Some(parent_of(third)), None));
    assert_ne!(second["traceId"], third["traceId"]);
    assert_eq!(
        canary[3],
        (Some(UNSAMPLED.to_owned()), Some("a=1,b=2".to_owned()))
    );
}

/// The attributes of a stream that the canary answered well.
fn is_a_good_answer(ok: &Value) {
    for (key, expected) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.usage.input_tokens", json!("11")),
        ("gen_ai.usage.output_tokens", json!("9")),
        ("gen_ai.usage.cache_read.input_tokens", json!("2")),
        ("http.response.status_code", json!("200")),
        ("server.address", json!("127.0.0.1")),
        ("cutover.rollout", json!("default")),
        ("cutover.arm", json!("canary")),
        ("cutover.role", json!("live")),
        ("cutover.outcome", json!("ok")),
        ("cutover.masked", json!(false)),
        ("cutover.weight", json!(1.0)),
        ("error.type", Value::Null),
    ] {
        assert_eq!(attribute(ok, key), expected, "{key}");
    }
    assert!(attribute(ok, "gen_ai.response.time_to_first_chunk").is_f64());
    assert_eq!((&ok["name"], &ok["kind"]), (&json!("chat ok"), &json!(3)));
    assert_eq!(ok["status"], json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_says_what_became_of_its_request_and_no_secret() {
    let collector = Provider::start("collector").await;
    let table = traces(&collector, "headers = { authorization = \"env:OTLP_KEY\" }");
    let (_scene, daemon) = start(&table, &[("OTLP_KEY", "Bearer s3cret-collector")]).await;
    daemon.operate("weight", r#"{"weight": "100%"}"#).await;
    ask(&daemon, "ok", true, &[]).await;
    ask(&daemon, "fault-500@canary", false, &[]).await;
    ask(&daemon, "fault-400", false, &[]).await;
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    client
        .request("GET", "/v1/models/secret-id", &[], b"")
        .await
        .unwrap();
    client.answer().await.unwrap();
    let spans = until_collected(&collector, 4).await;
    let named = |model: &str| {
        let is_it = |span: &&Value| attribute(span, "gen_ai.request.model") == model;
        spans.iter().find(is_it).unwrap()
    };
    let ok = named("ok");
    is_a_good_answer(ok);
    let rescued = named("fault-500@canary");
    assert_eq!(attribute(rescued, "cutover.arm"), "legacy");
    assert_eq!(attribute(rescued, "cutover.masked"), true);
    let outcomes: Vec<_> = rescued["events"].as_array().unwrap().iter().collect();
    assert_eq!(outcomes.len(), 2);
    assert_eq!(attribute(outcomes[0], "cutover.outcome"), "server-error");
    assert_eq!(attribute(outcomes[1], "cutover.role"), "rescue");
    let failed = named("fault-400");
    assert_eq!(
        failed["status"],
        json!({"code": 2, "message": "client-error"})
    );
    assert_eq!(attribute(failed, "error.type"), "client-error");
    assert!(spans.iter().any(|span| span["name"] == "GET"), "{spans:#?}");

    let requests = collector.requests();
    assert_eq!(
        requests[0].header("authorization"),
        Some("Bearer s3cret-collector")
    );
    let mut all: String = requests
        .iter()
        .map(|it| String::from_utf8_lossy(&it.body).into_owned())
        .collect();
    for secret in [
        "a secret prompt",
        "sk-client-only",
        super::process::CANARY_KEY,
        "secret-id",
    ] {
        assert!(!all.contains(secret), "{secret}");
    }
    all = daemon.lines().join("\n");
    assert!(!all.contains("s3cret-collector"), "{all}");
    let sent = daemon.get("/metrics").await.unwrap().text();
    assert!(
        sent.contains("cutover_spans_total{result=\"sent\"} 4\n"),
        "{sent}"
    );
    real_readers_take(&requests);
}

/// What protobuf's own reader says of it, if it is there.
fn real_readers_take(requests: &[Request]) {
    let Some(python) = std::env::var_os("CUTOVER_SDK_PYTHON") else {
        println!(
            "skipped: CUTOVER_SDK_PYTHON names no Python with opentelemetry-proto; `make test` does"
        );
        return;
    };
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/otlp.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for request in requests {
        stdin.write_all(&request.body).unwrap();
        stdin.write_all(b"\n").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let spans: Value = serde_json::from_slice(&output.stdout).unwrap();
    let spans = spans.as_array().unwrap();
    assert_eq!(spans.len(), 4);
    let ok = spans.iter().find(|span| span["name"] == "chat ok").unwrap();
    assert_eq!(ok["attributes"]["gen_ai.usage.input_tokens"], 11);
    assert_eq!(ok["attributes"]["cutover.masked"], false);
    assert_eq!((&ok["kind"], &ok["parent"]), (&json!(3), &json!("")));
    assert_eq!(ok["events"][0]["cutover.arm"], "canary");
    println!("read by opentelemetry-proto: {}", json!(spans));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_delays_neither_requests_nor_the_end() {
    let collector = Provider::start("collector").await;
    let table = traces(&collector, "headers = { x-fault = \"env:FAULT\" }");
    let (_scene, mut daemon) = start(&table, &[("FAULT", "fault-stall-head")]).await;
    ask(&daemon, "ok", false, &[]).await;
    wait_until("the collector is asked", || {
        !collector.requests().is_empty()
    })
    .await;
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(&daemon, "ok", false, &[]).await.head.status, 200);
    }
    // One wait for the collector takes ten seconds.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_is_told_of_once_and_counted() {
    let collector = Provider::start("collector").await;
    let table = traces(&collector, "headers = { x-fault = \"env:FAULT\" }");
    let (_scene, daemon) = start(&table, &[("FAULT", "fault-400")]).await;
    for round in 1..=2 {
        ask(&daemon, "ok", false, &[]).await;
        wait_until("the collector is asked", || {
            collector.requests().len() == round
        })
        .await;
    }
    let failed = "cutover_spans_total{result=\"failed\"} 2\n";
    let deadline = Instant::now() + super::PATIENCE;
    while !daemon
        .get("/metrics")
        .await
        .unwrap()
        .text()
        .contains(failed)
    {
        assert!(Instant::now() < deadline, "never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(daemon.count("the collector takes no spans"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_begin_and_end_with_the_configuration() {
    let collector = Provider::start("collector").await;
    let (scene, daemon) = start("", &[]).await;
    let loaded = |count: usize| {
        let daemon = &daemon;
        async move {
            daemon
                .line("applied it", |_| {
                    daemon.count("configuration applied") == count
                })
                .await;
            // Each worker follows by itself.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    ask(&daemon, "ok", false, &[]).await;
    let table = traces(&collector, "");
    scene.edit("[store]\n", &format!("{table}[store]\n"));
    loaded(1).await;
    ask(&daemon, "ok", false, &[]).await;
    let spans = until_collected(&collector, 1).await;
    assert!(spans[0]["parentSpanId"].is_null());
    assert!(seen(&scene.legacy.requests())[1].0.is_some());
    scene.edit(&table, "");
    loaded(2).await;
    ask(&daemon, "ok", false, &[]).await;
    assert_eq!(seen(&scene.legacy.requests())[2], (None, None));
    // A share of the requests that begin a trace.
    scene.edit(
        "[store]\n",
        &format!("{}[store]\n", traces(&collector, "share = \"25%\"")),
    );
    loaded(3).await;
    for _ in 0..200 {
        ask(&daemon, "ok", false, &[]).await;
    }
    let traced = seen(&scene.legacy.requests())[3..]
        .iter()
        .filter(|it| it.0.is_some())
        .count();
    // Five standard deviations around the quarter.
    assert!((20..=81).contains(&traced), "{traced} of 200");
    until_collected(&collector, 1 + traced).await;
}
