//! The metrics as Prometheus reads them: their shape, their sums, and what is built on their names.
#![expect(clippy::float_cmp, reason = "counts and shares are exact")]

mod exposition;
mod prometheus;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use cutover::alert::kind::{AlertKind, Severity};
use serde_json::{Value, json};

use super::PATIENCE;
use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Client, End};
use crate::harness::wait_until;
use exposition::Exposition;
use prometheus::{Prometheus, promtool};

const PRICE: &str = "{ input = 1000, output = 2000 }";

/// No evidence moves anything; some models have a price, and a budget counts them.
async fn scene() -> Scene {
    let scene = Scene::new(
        "warm-up = 0\ntrip = \"off\"\non-harm = \"hold\"\nstages = [{ weight = \"1%\", dwell = \"1h\" }, \"100%\"]\n",
    )
    .await;
    // One that is far off, so that a guard on times has something to show.
    scene.edit("latency-p50 = \"off\"", "latency-p50 = { max = \"10m\" }");
    let prices = format!("prices = {{ ok = {PRICE}, \"fault-cost\" = {PRICE} }}\n");
    for arm in ["legacy", "canary"] {
        let table = format!("[arms.{arm}]\n");
        scene.edit(&table, &format!("{table}{prices}"));
    }
    let config = fs::read_to_string(scene.path()).unwrap();
    let budget = "[[budget]]\nname = \"day\"\nusd-per-day = 1000\n";
    // Nobody listens there; what it wants does not happen.
    let alerts =
        "[alerts]\nwebhooks = [{ url = \"http://localhost:9/in/a8f3\", events = [\"clock\"] }]\n";
    scene.write(&format!("{config}\n{budget}{alerts}"));
    scene
}

async fn page(daemon: &Daemon) -> (Exposition, String) {
    let answer = daemon.get("/metrics").await.unwrap();
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    let content_type = answer.head.header("content-type");
    assert_eq!(content_type, Some("text/plain; version=0.0.4"));
    (Exposition::read(&answer.text()), answer.text())
}

/// Asks once for each user; gives how many answers were good.
async fn ask(daemon: &Daemon, model: &str, stream: bool, count: usize) -> usize {
    let mut good = 0;
    for user in 0..count {
        let body = json!({
            "model": model, "user": format!("{model}-{user}"), "stream": stream,
            "messages": [{"role": "user", "content": "hello"}],
        });
        let mut client = Client::connect(daemon.proxy).await.unwrap();
        let body = body.to_string();
        client
            .request("POST", "/v1/chat/completions", &[], body.as_bytes())
            .await
            .unwrap();
        let answer = client.answer().await;
        good += usize::from(answer.is_ok_and(|it| it.head.status == 200 && it.end == End::Clean));
    }
    good
}

/// Some of every kind of request and of failure, on both arms. What is under way has ended afterwards.
async fn load(daemon: &Daemon) {
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    let kinds = [
        "ok",
        "strange",
        "fault-500",
        "fault-500@canary",
        "fault-429",
        "fault-404-model@canary",
        "fault-400",
        "fault-reset-before-head@canary",
        "fault-soft-error",
        "fault-no-usage",
        "fault-cost",
        "fault-room-90-of-100",
        "fault-html@legacy",
    ];
    for model in kinds {
        ask(daemon, model, false, 8).await;
    }
    for model in [
        "ok",
        "fault-inband-error",
        "fault-early-error@canary",
        "fault-no-done",
    ] {
        ask(daemon, model, true, 8).await;
    }
    // Nobody waits for this one; and this one is no call of a model.
    let mut gone = Client::connect(daemon.proxy).await.unwrap();
    let body = json!({"model": "fault-stall-head", "messages": []}).to_string();
    gone.request("POST", "/v1/chat/completions", &[], body.as_bytes())
        .await
        .unwrap();
    daemon.until("asked", |it| under_way(it) == 1).await;
    drop(gone);
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    client.request("GET", "/v1/models", &[], b"").await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    let expected = 13 * 8 + 4 * 8 + 1;
    daemon
        .until("all counted", |rollout| {
            let of = |arm: &str| rollout["arms"][arm]["requests"].as_u64().unwrap();
            under_way(rollout) == 0 && of("legacy") + of("canary") == expected
        })
        .await;
}

/// The page once guards on times have a value: evidence counts when its cell closes, after a minute or
/// with a new configuration.
async fn full_page(scene: &Scene, daemon: &Daemon) -> Exposition {
    load(daemon).await;
    scene.edit("drain = \"20s\"", "drain = \"21s\"");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (page, text) = page(daemon).await;
        if page.has("cutover_guard_value_seconds", &[]) {
            return page;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn under_way(rollout: &Value) -> u64 {
    let of = |arm: &str| rollout["arms"][arm]["under_way"].as_u64().unwrap();
    of("legacy") + of("canary")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// What metrics say, and where `status` says the same of an arm.
const SAME: [(&str, &str, &str); 10] = [
    ("cutover_requests_total", "", "/requests"),
    ("cutover_errors_total", "", "/errors"),
    ("cutover_requests_total", "rate-limited", "/rate_limited"),
    ("cutover_masked_failures_total", "", "/masked"),
    ("cutover_input_tokens_total", "", "/tokens/input"),
    (
        "cutover_cached_input_tokens_total",
        "",
        "/tokens/cached_input",
    ),
    ("cutover_output_tokens_total", "", "/tokens/output"),
    ("cutover_unpriced_requests_total", "", "/unpriced"),
    ("cutover_no_usage_requests_total", "", "/no_usage"),
    ("cutover_reported_cost_usd_total", "", "/reported_cost_usd"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_those_of_status_after_failures_of_every_kind() {
    let scene = scene().await;
    let daemon = scene.start().await;
    let (before, _) = page(&daemon).await;
    assert_eq!(before.sum("cutover_requests_total", &[]), 0.0);
    assert!(before.has("cutover_requests_total", &[("outcome", "truncated")]));
    assert!(
        !before.has("cutover_cost_usd_total", &[]),
        "unknown is not 0"
    );
    load(&daemon).await;
    let (page, _) = page(&daemon).await;
    let status = daemon.rollout().await;
    for arm in ["legacy", "canary"] {
        let of = &status["arms"][arm];
        for (name, outcome, place) in SAME {
            let mut labels = vec![("rollout", "default"), ("arm", arm)];
            if !outcome.is_empty() {
                labels.push(("outcome", outcome));
            }
            let (found, expected) = (page.sum(name, &labels), number(of.pointer(place).unwrap()));
            assert!(
                (found - expected).abs() < 1e-6,
                "{name}{labels:?}: {found}, {expected}"
            );
            assert!(arm == "legacy" || expected > 0.0, "{place} is not tried");
        }
        let live = [("arm", arm), ("role", "live")];
        let cost = page.sum("cutover_cost_usd_total", &live);
        assert!((cost - number(&of["cost_usd"])).abs() < 1e-6, "{cost}");
        let ok = [("arm", arm), ("outcome", "ok")];
        let count = page.sum("cutover_request_duration_seconds_count", &[("arm", arm)]);
        assert_eq!(count, page.sum("cutover_requests_total", &ok));
    }
    let outcomes: BTreeSet<_> = page
        .series
        .iter()
        .filter(|series| series.name == "cutover_requests_total" && series.value > 0.0)
        .map(|series| series.labels["outcome"].as_str())
        .collect();
    let expected = [
        "client-error",
        "client-gone",
        "in-band-error",
        "ok",
        "parity",
        "rate-limited",
        "reset",
        "server-error",
        "soft-error",
        "truncated",
    ];
    assert_eq!(outcomes, BTreeSet::from(expected));
    let rescues = [("role", "rescue"), ("arm", "legacy"), ("outcome", "ok")];
    let masked = page.sum("cutover_masked_failures_total", &[("arm", "canary")]);
    assert_eq!(page.sum("cutover_other_attempts_total", &rescues), masked);
    let pinned = [("rollout", "(none)"), ("role", "pinned"), ("outcome", "ok")];
    assert_eq!(page.sum("cutover_other_attempts_total", &pinned), 1.0);
    // Ok, a price, and seen: a name of its own. All others are one.
    let models: BTreeSet<_> = page
        .series
        .iter()
        .filter_map(|series| series.labels.get("gen_ai_request_model"))
        .map(String::as_str)
        .collect();
    assert_eq!(models, BTreeSet::from(["fault-cost", "ok", "other"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gauges_say_where_everything_stands() {
    let scene = scene().await;
    let daemon = scene.start().await;
    load(&daemon).await;
    let (page, _) = page(&daemon).await;
    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        assert!(page.has(name, labels), "{name}{labels:?} is missing");
        assert_eq!(page.sum(name, labels), expected, "{name}{labels:?}");
    };
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    is("cutover_build_info", &version, 1.0);
    is("cutover_weight_ratio", &[("rollout", "default")], 0.5);
    is("cutover_state", &[], 1.0);
    is("cutover_stages", &[], 2.0);
    is("cutover_decisions_total", &[("kind", "set-weight")], 1.0);
    is("cutover_decisions_total", &[("kind", "trip")], 0.0);
    is("cutover_store_healthy", &[], 1.0);
    is("cutover_dropped_records_total", &[], 0.0);
    is("cutover_config_loads_total", &[("result", "applied")], 1.0);
    is("cutover_breaker_state", &[("state", "closed")], 2.0);
    is("cutover_workers", &[], 2.0);
    is(
        "cutover_rate_limit",
        &[("arm", "canary"), ("kind", "requests")],
        100.0,
    );
    is("cutover_budget_usd", &[("budget", "day")], 1000.0);
    let receiver = [("webhook", "1 localhost:9"), ("format", "json")];
    is("cutover_alerts_total", &receiver, 0.0);
    is("cutover_alerts_queued", &receiver, 0.0);
    is("cutover_alerts_overflowed_total", &[], 0.0);
    assert!(page.sum("cutover_budget_spent_ratio", &[]) > 0.0);
    assert!(page.sum("cutover_guard_evidence_needed", &[("guard", "error-rate")]) > 1.0);
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        assert!(page.sum(name, &[]) > 0.0, "{name}");
    }
    daemon.operate("hold", r#"{"reason": "lunch"}"#).await;
    // Workers tell of their connections once a second.
    wait_until("both arms were dialled", || {
        let page = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current()
                .block_on(self::page(&daemon))
                .0
        });
        assert_eq!(page.sum("cutover_held", &[("cause", "operator")]), 1.0);
        let opened = |arm| page.sum("cutover_upstream_connections_opened_total", &[("arm", arm)]);
        opened("legacy") > 0.0 && opened("canary") > 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_the_shape_that_dashboards_are_built_on() {
    let scene = scene().await;
    let daemon = scene.start().await;
    let found = full_page(&scene, &daemon).await.shape();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/daemon/metrics/shape.txt"
    );
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, &found).unwrap();
    }
    assert_eq!(
        found,
        fs::read_to_string(path).unwrap(),
        "names and labels are a contract; UPDATE_EXPECTED=1 rewrites {path}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_goes_away_goes_away_from_the_metrics() {
    let scene = scene().await;
    let daemon = scene.start().await;
    ask(&daemon, "ok", false, 3).await;
    scene.edit("[[rollout]]\n", "[[rollout]]\nname = \"next\"\n");
    daemon
        .until("replaced", |rollout| rollout["name"] == "next")
        .await;
    let (page, text) = page(&daemon).await;
    assert!(!text.contains("\"default\""), "{text}");
    assert_eq!(
        page.sum("cutover_requests_total", &[("rollout", "next")]),
        0.0
    );
    assert_eq!(
        page.sum("cutover_config_loads_total", &[("result", "applied")]),
        2.0
    );
    scene.edit("[[rollout]]\n", "[[rollout]]\nnonsense = 1\n");
    let rejected = |status: &Value| status["config"]["error"].is_string();
    daemon.until_status("rejected", rejected).await;
    let (page, _) = self::page(&daemon).await;
    assert_eq!(page.sum("cutover_config_last_reload_successful", &[]), 0.0);
    assert_eq!(
        page.sum("cutover_config_loads_total", &[("result", "rejected")]),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_answers_without_token_and_without_store() {
    let scene = scene().await;
    scene.edit("[admin]\n", "[admin]\ntoken = \"env:ADMIN_TOKEN\"\n");
    let daemon = scene.start().await;
    fs::remove_dir_all(scene.database_folder()).unwrap();
    daemon
        .line("is failing", |line| line.contains("store-failing"))
        .await;
    ask(&daemon, "ok", false, 3).await;
    daemon
        .until("counted", |it| {
            it["arms"]["legacy"]["requests"].as_u64() > Some(0)
        })
        .await;
    let (page, text) = page(&daemon).await;
    assert_eq!(page.sum("cutover_store_healthy", &[]), 0.0);
    assert!(page.sum("cutover_requests_total", &[]) > 0.0);
    for secret in ["s3cret", "a8f3", super::process::CANARY_KEY, "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// Every metric that a text of queries names.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_word(c));
    let labels = ["cutover_arm", "gen_ai_request_model", "gen_ai_token_type"];
    words
        .filter(|word| {
            let families = ["cutover_", "gen_ai_", "process_"];
            families.iter().any(|family| word.starts_with(family)) && !labels.contains(word)
        })
        .map(str::to_owned)
        .collect()
}

const RULES: &str = include_str!("../../../deploy/prometheus/cutover.rules.yml");
const RULE_TESTS: &str = include_str!("../../../deploy/prometheus/cutover.rules.test.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/cutover.json");

/// The expressions of the dashboard, with its variables filled in.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    let filled = found.into_iter().map(|expression: String| {
        expression
            .replace("$__rate_interval", "5m")
            .replace("$__range", "1h")
            .replace("$rollout", ".*")
            .replace("$instance", ".*")
    });
    filled.collect()
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(expression) = members.get("expr").and_then(Value::as_str) {
                found.push(expression.to_owned());
            }
            members.values().for_each(|value| collect(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_dashboard_name_only_metrics_that_there_are() {
    let scene = scene().await;
    let daemon = scene.start().await;
    let page = full_page(&scene, &daemon).await;
    let expressions = expressions();
    assert!(expressions.len() > 20, "{}", expressions.len());
    for (what, text) in [
        ("rules", RULES),
        ("their tests", RULE_TESTS),
        ("dashboard", &expressions.join("\n")),
    ] {
        let names = names_in(text);
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(page.names().contains(&*name), "{what}: there is no {name}");
        }
    }
}

#[test]
fn every_alert_has_a_severity_a_section_of_the_runbook_and_a_test() {
    let alerts: Vec<_> = RULES.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    for alert in alerts {
        let (name, rest) = alert.split_once('\n').unwrap();
        for part in [
            "severity: ",
            "summary: ",
            "description: ",
            "runbook_url: docs/runbook.md#",
        ] {
            assert!(rest.contains(part), "{name} has no {part}");
        }
        let fires = RULE_TESTS.split("eval_time").any(|test| {
            test.contains(&format!("alertname: {name}\n")) && test.contains("exp_labels")
        });
        assert!(fires, "{name} is never seen to fire");
        let after = |key: &str| {
            let (_, value) = rest.split_once(key).unwrap();
            value.lines().next().unwrap()
        };
        // Some tell of what no daemon could.
        let Some(kind) = AlertKind::from_word(after("docs/runbook.md#")) else {
            continue;
        };
        let severity = match name {
            // A spent budget is more than one that is nearly spent.
            "CutoverBudgetSpent" => Severity::Critical,
            _ => kind.severity(),
        };
        assert_eq!(after("severity: "), severity.as_str(), "{name}");
    }
}

#[test]
fn annotations_of_the_dashboard_take_no_restart_for_a_decision() {
    assert!(DASHBOARD.contains("increase(cutover_decisions_total"));
    assert!(!DASHBOARD.contains("changes("), "it counts resets as well");
}

#[test]
fn promtool_takes_the_rules_and_they_fire_as_their_tests_say() {
    if prometheus::folder().is_none() {
        return;
    }
    for args in [
        &["check", "rules", "cutover.rules.yml"][..],
        &["test", "rules", "cutover.rules.test.yml"],
        &["check", "config", "prometheus.yml"],
    ] {
        let output = promtool(args, "");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_sees_what_status_says() {
    if prometheus::folder().is_none() {
        return;
    }
    let scene = scene().await;
    let daemon = scene.start().await;
    load(&daemon).await;
    let linted = promtool(&["check", "metrics"], &page(&daemon).await.1);
    let said = [linted.stdout.as_slice(), &linted.stderr].concat();
    assert!(
        linted.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert_eq!(String::from_utf8_lossy(&said), "");

    let prometheus = Prometheus::start(daemon.admin).await;
    let status = daemon.rollout().await;
    prometheus.becomes("up{job=\"cutover\"}", 1.0).await;
    for arm in ["legacy", "canary"] {
        for (name, outcome, place) in SAME {
            let expected = status["arms"][arm].pointer(place).unwrap();
            let outcome = if outcome.is_empty() { ".*" } else { outcome };
            let query =
                format!("sum({name}{{rollout=\"default\",arm=\"{arm}\",outcome=~\"{outcome}\"}})");
            if expected.is_number() {
                prometheus.becomes(&query, number(expected)).await;
            }
        }
    }
    daemon.operate("weight", r#"{"weight": "20%"}"#).await;
    prometheus
        .becomes("cutover_weight_ratio{rollout=\"default\"}", 0.2)
        .await;
    prometheus.becomes("sum(cutover_state)", 1.0).await;
    for expression in expressions() {
        let answer = prometheus.query(&expression).await;
        assert!(answer.is_ok(), "{expression}: {answer:?}");
    }
    // The rules run as well.
    prometheus
        .becomes("count(ALERTS{alertname=\"CutoverDown\"}) or vector(0)", 0.0)
        .await;
}
