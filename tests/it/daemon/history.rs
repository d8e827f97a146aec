//! What the admin port tells of the past: series and single requests, against what really happened.

use serde_json::{Value, json};

use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;
use crate::client::post;

const STAGES: &str =
    "warm-up = 1000000\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
const CHAT: &str = "/v1/chat/completions";

async fn get(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get(path).await.unwrap();
    assert_eq!(answer.head.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("{value}"));
    object.keys().map(String::as_str).collect()
}

/// Asks `count` times with this model, each time as somebody else.
async fn ask(daemon: &Daemon, model: &str, stream: bool, count: usize) {
    for number in 0..count {
        let body = json!({
            "model": model, "stream": stream, "user": format!("{model}-{number}"),
            "messages": [{"role": "user", "content": "what is new?"}],
        });
        post(daemon.proxy, CHAT, &body).await.unwrap();
    }
}

/// Waits until so many attempts are stored.
async fn stored(daemon: &Daemon, count: usize) -> Vec<Value> {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    loop {
        let all = get(daemon, "/api/v1/requests?limit=1000").await;
        let all = all["requests"].as_array().unwrap().clone();
        if all.len() == count {
            return all;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{} of {count}",
            all.len()
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn sum(series: &Value, arm: &str, field: &str) -> u64 {
    let points = series["points"].as_array().unwrap().iter();
    points
        .map(|point| point[arm][field].as_u64().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn a_series_tells_what_the_status_counted_and_what_was_decided() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let before = get(&daemon, "/api/v1/series").await;
    assert_eq!(before["points"], json!([]));
    assert_eq!(before["weight"][0]["weight"], 0.0, "{before}");
    let set = r#"{"weight": "50%", "reason": "half <b>each</b>"}"#;
    daemon.operate("weight", set).await;
    let load = Load::start(daemon.proxy);
    load.answers(40).await;
    load.stop_without_failures().await;
    ask(&daemon, "fault-500", false, 3).await;
    ask(&daemon, "ok", true, 5).await;
    let attempts = scene.legacy.requests().len() + scene.canary.requests().len();
    stored(&daemon, attempts).await;

    let series = get(&daemon, "/api/v1/series?from=-1h&to=now&step=5m").await;
    assert_eq!(
        keys(&series),
        [
            "decisions",
            "from",
            "points",
            "rollout",
            "rollout_id",
            "step_s",
            "to",
            "weight"
        ]
    );
    let rollout = daemon.rollout().await;
    assert_eq!(
        (&series["rollout"], &series["rollout_id"]),
        (&"default".into(), &rollout["id"])
    );
    assert_eq!(series["step_s"], 300);
    for arm in ["legacy", "canary"] {
        for field in ["requests", "errors", "rate_limited", "masked"] {
            assert_eq!(
                sum(&series, arm, field),
                rollout["arms"][arm][field].as_u64().unwrap(),
                "{arm} {field}"
            );
        }
        assert_eq!(
            sum(&series, arm, "output_tokens"),
            rollout["arms"][arm]["tokens"]["output"].as_u64().unwrap()
        );
        assert!(sum(&series, arm, "requests") > 0);
    }
    for point in series["points"].as_array().unwrap() {
        assert_eq!(keys(point), ["at", "at_ms", "canary", "legacy"]);
        assert_eq!(point["at_ms"].as_i64().unwrap() % 300_000, 0);
        assert!(point["at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            keys(&point["legacy"]),
            [
                "cost_usd",
                "error_rate",
                "errors",
                "input_tokens",
                "latency_ms",
                "masked",
                "output_tokens",
                "rate_limited",
                "requests",
                "tpot_ms",
                "ttft_ms"
            ]
        );
        assert_eq!(keys(&point["canary"]["ttft_ms"]), ["p50", "p90", "p99"]);
        assert!(point["canary"]["cost_usd"].is_null(), "unknown is not 0");
    }
    let point = series["points"].as_array().unwrap().last().unwrap();
    assert!(point["legacy"]["latency_ms"]["p50"].is_f64(), "{point}");

    let weights: Vec<_> = series["weight"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["weight"].as_f64())
        .collect();
    assert_eq!(weights, [Some(0.0), Some(0.5)]);
    let decision = &series["decisions"][0];
    assert_eq!(
        keys(decision),
        [
            "at",
            "at_ms",
            "id",
            "kind",
            "reason",
            "stage",
            "weight_from",
            "weight_to"
        ]
    );
    assert_eq!(decision["reason"], "half <b>each</b>");
    assert_eq!(series["weight"][1]["at_ms"], decision["at_ms"]);

    // By name, by id, and the same by other words for the times.
    let now_ms = cutover::clock::UnixMillis::now();
    let id = rollout["id"].as_str().unwrap();
    for query in [
        "rollout=default&from=-1h&step=5m".to_owned(),
        format!(
            "rollout={id}&from={}&to={}&step=5m",
            now_ms.0 - 3_600_000,
            now_ms.0
        ),
        format!(
            "rollout=d%65fault&from={}&to={now_ms}&step=5m",
            now_ms.plus_millis(-3_600_000)
        ),
    ] {
        let same = get(&daemon, &format!("/api/v1/series?{query}")).await;
        assert_eq!(same["points"], series["points"], "{query}");
    }
    let by_day = get(&daemon, "/api/v1/series?from=-30d").await;
    assert_eq!(by_day["step_s"], 6 * 3_600);
    assert_eq!(
        sum(&by_day, "canary", "requests"),
        sum(&series, "canary", "requests")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn requests_are_filtered_paged_and_never_tell_bodies_or_keys() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    ask(&daemon, "ok", false, 12).await;
    ask(&daemon, "fault-500", false, 6).await;
    ask(&daemon, "fault-429-retry-after-7", false, 4).await;
    let attempts = scene.legacy.requests().len() + scene.canary.requests().len();
    let all = stored(&daemon, attempts).await;
    assert_eq!(
        keys(&all[0]),
        [
            "arm",
            "assigned_arm",
            "at",
            "attempt",
            "blame",
            "cost_usd",
            "id",
            "input_tokens",
            "latency_ms",
            "model",
            "outcome",
            "output_tokens",
            "role",
            "rollout",
            "status",
            "streamed",
            "tag",
            "ttft_ms",
            "upstream_request_id"
        ]
    );
    assert!(
        all.is_sorted_by_key(|row| -row["id"].as_i64().unwrap()),
        "newest first"
    );
    let text = serde_json::to_string(&all).unwrap();
    for secret in [
        "what is new",
        "Bearer",
        super::process::CANARY_KEY,
        "fault-500-1",
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    type Wanted = fn(&Value) -> bool;
    let filters: [(&str, Wanted); 7] = [
        ("arm=canary", |row| row["arm"] == "canary"),
        ("outcome=server-error", |row| {
            row["outcome"] == "server-error" && row["blame"] == "arm"
        }),
        ("outcome=ok", |row| {
            row["outcome"] == "ok" && row["blame"] == "none"
        }),
        ("failed=true", |row| row["outcome"] != "ok"),
        ("failed=true&arm=legacy&outcome=rate-limited", |row| {
            row["arm"] == "legacy" && row["outcome"] == "rate-limited"
        }),
        ("rollout=default&failed=false", |row| {
            row["rollout"] == "default"
        }),
        ("rollout=other", |_| false),
    ];
    for (filter, wanted) in filters {
        let found = get(&daemon, &format!("/api/v1/requests?limit=1000&{filter}")).await;
        let expected: Vec<_> = all.iter().filter(|row| wanted(row)).cloned().collect();
        assert_eq!(found, json!({ "requests": expected }), "{filter}");
    }
    // Page by page it is the same.
    let (mut paged, mut before) = (Vec::new(), String::new());
    loop {
        let page = get(&daemon, &format!("/api/v1/requests?limit=5{before}")).await;
        let page = page["requests"].as_array().unwrap().clone();
        assert!(page.len() <= 5);
        let Some(last) = page.last() else { break };
        before = format!("&before={}", last["id"]);
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_keeps_no_requests_says_so() {
    let scene = Scene::new(STAGES).await;
    scene.edit("[store]\n", "[store]\nrequests = \"none\"\n");
    let daemon = scene.start().await;
    ask(&daemon, "ok", false, 2).await;
    let note = "store.requests = \"none\": single requests are not kept";
    let found = get(&daemon, "/api/v1/requests").await;
    assert_eq!(found, json!({"requests": [], "note": note}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_questions_get_a_sentence_and_foreign_pages_nothing() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    for (path, expected) in [
        ("series?speed=1", 400),
        ("series?from=yesterday", 400),
        ("series?from=-1h&to=-2h", 400),
        ("series?step=90s", 400),
        ("series?from=-24h&step=1m", 400),
        ("series?rollout=absent", 404),
        ("series?rollout=%zz", 400),
        ("requests?limit=x", 400),
        ("requests?arm=both", 400),
        ("requests?outcome=bad", 400),
        ("requests?failed=1", 400),
        ("requests?before=x", 400),
        ("requests?limit=1&limit=2", 400),
        ("decisions?rollout=a&rollout=b", 400),
        ("events?x=1", 400),
    ] {
        let answer = daemon.get(&format!("/api/v1/{path}")).await.unwrap();
        assert_eq!(answer.head.status, expected, "{path}");
        let message = answer.json()["error"]["message"].clone();
        assert!(message.as_str().is_some_and(|it| !it.is_empty()), "{path}");
    }
    let browser = ("user-agent", "Mozilla/5.0");
    let paths = [
        "status",
        "decisions",
        "series",
        "requests",
        "events",
        "nothing",
    ];
    for path in paths.map(|path| format!("/api/v1/{path}")) {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("origin", "https://evil.example")],
            &[("host", "rebound.evil.example:8081"), browser],
            &[
                ("host", "rebound.evil.example:8081"),
                ("accept-language", "*"),
            ],
        ] {
            let answer = daemon.ask("GET", &path, headers, "").await.unwrap();
            assert_eq!(answer.head.status, 403, "{path} {headers:?}");
        }
    }
    for path in ["/api/v1/status", "/api/v1/series", "/healthz", "/readyz"] {
        let own = [("sec-fetch-site", "same-origin"), browser];
        let scraper = [
            ("host", "cutover.example.com"),
            ("user-agent", "Prometheus/2.42.0"),
        ];
        for headers in [&own[..], &scraper] {
            let answer = daemon.ask("GET", path, headers, "").await.unwrap();
            assert_eq!(answer.head.status, 200, "{path} {headers:?}");
        }
    }
}
