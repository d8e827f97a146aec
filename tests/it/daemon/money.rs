//! Money from end to end: what providers state is what the account of costs says, and budgets tell once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::process::Daemon;
use super::scene::Scene;
use crate::client::{Client, End, post};
use crate::harness::wait_until;

/// Any answer states 11 input tokens, 2 of them cached, and 9 output tokens: 9 + 1 + 18 thousandths.
const COST: f64 = 0.028;
const PRICE: &str = "{ input = 1000, cached-input = 500, output = 2000 }";

/// Two arms with prices, the canary with a model of another name, and a budget of ten answers.
async fn scene() -> Scene {
    let scene = Scene::new("warm-up = 1000000\nstages = [\"5%\", \"100%\"]").await;
    scene.edit(
        "drain = \"20s\"",
        "drain = \"20s\"\ntag-header = \"X-Team\"",
    );
    let legacy = format!(
        "prices = {{ ok = {PRICE}, \"fault-500@canary\" = {PRICE}, \"fault-cost\" = {PRICE} }}\n\n[arms.canary]\n\
         models = {{ ok = \"ok-new\" }}\nprices = {{ ok-new = {PRICE}, \"fault-no-usage\" = {PRICE} }}"
    );
    scene.edit("[arms.canary]", &legacy);
    let budgets = "[[budget]]\nname = \"search\"\nusd-per-day = 0.28\ntag = \"search\"\n";
    let config = std::fs::read_to_string(scene.path()).unwrap();
    scene.write(&format!("{config}\n{budgets}"));
    scene
}

/// Sums of a day must not be divided by a midnight that passes.
async fn stay_clear_of_midnight() {
    loop {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        if since.as_secs() % 86_400 < 86_400 - 180 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Asks `count` times, each with another user.
async fn ask(daemon: &Daemon, model: &str, tag: &str, count: u64) {
    ask_for(daemon, model, tag, count, false).await;
}

async fn ask_for(daemon: &Daemon, model: &str, tag: &str, count: u64, stream: bool) {
    let mut client = Client::connect(daemon.proxy).await.unwrap();
    for number in 0..count {
        let mut body = json!({
            "model": model,
            "user": format!("{model}-{tag}-{number}"),
            "messages": [{"role": "user", "content": "hello"}],
        });
        if stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        let headers: &[(&str, &str)] = if tag.is_empty() {
            &[]
        } else {
            &[("x-team", tag)]
        };
        let body = body.to_string();
        client
            .request("POST", "/v1/chat/completions", headers, body.as_bytes())
            .await
            .unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.head.status, answer.end), (200, End::Clean));
    }
}

fn alerts(daemon: &Daemon, alert: &str) -> Vec<Value> {
    let lines = daemon.lines().into_iter();
    lines
        .map(|line| serde_json::from_str(&line).unwrap())
        .filter(|line: &Value| line["alert"] == alert)
        .collect()
}

/// The account over all days, summed by what `by` names.
fn account(scene: &Scene, by: &str) -> Vec<Value> {
    scene.sql(&format!(
        "SELECT {by}, sum(requests) AS requests, sum(unpriced) AS unpriced, sum(no_usage) AS no_usage,
             sum(input_tokens) AS input, sum(cached_input_tokens) AS cached, sum(output_tokens) AS output,
             round(sum(cost_usd), 9) AS cost, sum(reported_cost_usd) AS reported
         FROM cost_by_day GROUP BY {by} ORDER BY {by}"
    ))
}

fn booked(scene: &Scene) -> u64 {
    let all = account(scene, "1");
    all.first()
        .map_or(0, |sum| sum["requests"].as_u64().unwrap())
}

fn spent(budget: &Value) -> f64 {
    budget["spent_usd"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_told_once_per_threshold_also_over_a_restart() {
    stay_clear_of_midnight().await;
    let scene = scene().await;
    let mut daemon = scene.start().await;
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    ask(&daemon, "ok", "search", 8).await;
    daemon
        .line("warned", |line| line.contains("80% of this day's budget"))
        .await;
    // Others spend as well, but not of this budget.
    ask(&daemon, "ok", "chat", 20).await;
    ask(&daemon, "ok", "", 2).await;
    wait_until("the account is stored", || booked(&scene) == 30).await;
    daemon.kill();

    let mut daemon = scene.start().await;
    let restored = daemon.status().await["budgets"][0].clone();
    assert!((spent(&restored) - 8.0 * COST).abs() < 1e-9, "{restored}");
    ask(&daemon, "ok", "search", 1).await;
    ask(&daemon, "ok", "search", 4).await;
    let line = daemon
        .line("told", |line| line.contains("day's budget is spent"))
        .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["budget"]),
        (&"ERROR".into(), &"search".into())
    );
    assert_eq!(
        (&line["usd_per_day"], &line["covers"]),
        (&0.28.into(), &"tag search".into())
    );
    wait_until("the account is stored", || booked(&scene) == 35).await;
    assert_eq!(alerts(&daemon, "budget").len(), 1);
    let budget = daemon.status().await["budgets"][0].clone();
    assert!((spent(&budget) - 13.0 * COST).abs() < 1e-9, "{budget}");
    daemon.kill();

    let mut daemon = scene.start().await;
    ask(&daemon, "ok", "search", 5).await;
    wait_until("the account is stored", || booked(&scene) == 40).await;
    assert_eq!(alerts(&daemon, "budget"), Vec::<Value>::new());
    let weight = daemon.rollout().await["weight"].clone();
    assert_eq!(weight, 0.5, "budgets never change traffic");
    for sum in account(&scene, "tag") {
        let requests = sum["requests"].as_f64().unwrap();
        let cost = sum["cost"].as_f64().unwrap();
        assert!((cost - requests * COST).abs() < 1e-6, "{sum}");
    }
    daemon.kill();

    // Lowered while nothing runs, it is another budget, and told once as well.
    scene.edit("usd-per-day = 0.28", "usd-per-day = 0.2");
    let mut daemon = scene.start().await;
    daemon
        .line("told at the start", |line| {
            line.contains("day's budget is spent") && line.contains("\"usd_per_day\":0.2,")
        })
        .await;
    let told = "SELECT percent, usd_per_day FROM budget_told ORDER BY usd_per_day, percent";
    let expected = json!([[100, 0.2], [80, 0.28], [100, 0.28]]);
    let rows = || -> Value {
        let rows = scene.sql(told).into_iter();
        rows.map(|row| json!([row["percent"], row["usd_per_day"]]))
            .collect()
    };
    wait_until("it is stored", || rows() == expected).await;
    daemon.kill();
    let daemon = scene.start().await;
    daemon.status().await;
    assert_eq!(alerts(&daemon, "budget"), Vec::<Value>::new());
}

/// What so many answers of priced models cost.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn cost(requests: u64) -> f64 {
    (requests as f64 * COST * 1e9).round() / 1e9
}

/// The account of the story below, with what each arm served of the model that both have.
fn expected_account(by_legacy: u64, by_canary: u64) -> Vec<Value> {
    let line = |arm: &str, model: &str, requests: u64, cost: Value| {
        json!({
            "arm": arm, "model": model, "requests": requests, "unpriced": 0, "no_usage": 0,
            "input": requests * 11, "cached": requests * 2, "output": requests * 9,
            "cost": cost, "reported": null,
        })
    };
    let unpriced = |model: &str, requests: u64, reported: Value| {
        let mut line = line("canary", model, requests, Value::Null);
        line["unpriced"] = requests.into();
        line["reported"] = reported;
        line
    };
    let mut silent = line("canary", "fault-no-usage", 0, Value::Null);
    silent["requests"] = 5.into();
    silent["no_usage"] = 5.into();
    vec![
        unpriced("fault-cost", 3, json!(0.75)),
        unpriced("fault-cost-header", 3, json!(0.25)),
        silent,
        line("canary", "ok-new", by_canary, json!(cost(by_canary))),
        unpriced("strange", 4, Value::Null),
        line("legacy", "fault-500@canary", 3, json!(cost(3))),
        line("legacy", "ok", by_legacy, json!(cost(by_legacy))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_says_what_the_providers_stated() {
    stay_clear_of_midnight().await;
    let scene = scene().await;
    let daemon = scene.start().await;
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    ask(&daemon, "ok", "chat", 40).await;
    let by_legacy = scene.legacy.requests().len() as u64;
    let by_canary = scene.canary.requests().len() as u64;
    assert_eq!(by_legacy + by_canary, 40);
    daemon.operate("weight", r#"{"weight": "100%"}"#).await;
    // A rescue costs money too; a model without a price and an answer without tokens cost who knows what.
    ask(&daemon, "fault-500@canary", "", 3).await;
    ask(&daemon, "strange", "", 4).await;
    ask(&daemon, "fault-no-usage", "", 5).await;
    ask(&daemon, "fault-cost", "", 2).await;
    ask(&daemon, "fault-cost-header", "", 2).await;
    // Of a stream, the events tell what it cost; its head cannot know.
    ask_for(&daemon, "fault-cost", "", 1, true).await;
    ask_for(&daemon, "fault-cost-header", "", 1, true).await;
    wait_until("the account is stored", || booked(&scene) == 58).await;

    assert_eq!(
        account(&scene, "arm, model"),
        expected_account(by_legacy, by_canary)
    );
    wait_until("the log is read", || alerts(&daemon, "unpriced").len() == 3).await;
    let warned = alerts(&daemon, "unpriced");
    let mut warned: Vec<_> = warned
        .iter()
        .map(|line| line["model"].as_str().unwrap())
        .collect();
    // Two workers hand their answers over in an order of their own.
    warned.sort_unstable();
    assert_eq!(warned, ["fault-cost", "fault-cost-header", "strange"]);

    let canary = daemon.rollout().await["arms"]["canary"].clone();
    assert_eq!(
        (&canary["unpriced"], &canary["no_usage"]),
        (&10.into(), &5.into())
    );
    assert_eq!(canary["reported_cost_usd"], 1.0);
    for speed in ["tpot_ms", "tokens_per_s"] {
        assert!(canary[speed]["p50"].is_f64(), "{speed}: {canary}");
    }
    let live_cost = canary["cost_usd"].as_f64().unwrap();
    assert!((live_cost - cost(by_canary)).abs() < 1e-6, "{canary}");
    let text = daemon.cli(&["status"]).stdout;
    let text = String::from_utf8(text).unwrap();
    let said = "canary: not in its cost: 10 without a price or cut short, 5 without tokens";
    assert!(text.contains(said), "{text}");
    assert!(text.contains("search  $0.2800"), "{text}");
    // The tag is in the rows of single requests, and the header went on to the provider.
    let tags = scene.sql("SELECT count(*) AS count FROM request WHERE tag = 'chat'");
    assert_eq!(tags[0]["count"], 40);
    assert_eq!(scene.canary.requests()[0].header("x-team"), Some("chat"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_body_was_too_large_to_be_read_is_of_unknown_cost() {
    let scene = scene().await;
    scene.edit(
        "drain = \"20s\"",
        "drain = \"20s\"\nreplay-body = \"64KiB\"",
    );
    let daemon = scene.start().await;
    let body = json!({
        "model": "fault-no-usage",
        "messages": [{"role": "user", "content": "x".repeat(100 * 1024)}],
    });
    let answer = post(daemon.proxy, "/v1/chat/completions", &body).await;
    assert_eq!(answer.unwrap().head.status, 200);
    wait_until("the account is stored", || booked(&scene) == 1).await;
    let line = account(&scene, "arm, model").remove(0);
    assert_eq!(
        (&line["arm"], &line["model"]),
        (&"legacy".into(), &"".into())
    );
    assert_eq!(
        (&line["no_usage"], &line["cost"]),
        (&1.into(), &Value::Null)
    );
}
