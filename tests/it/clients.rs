//! Clients with keys of their own: who is let in, how often, and where their keys end.

use cutover::config::clients::KeyHash;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::{CHAT, LEGACY_KEY, MESSAGES, RESPONSES, Rig, Setup, ask, exchange};

const APP: &str = "cutover_0123456789abcdef0123456789abcdef";
const BATCH: &str = "cutover_fedcba9876543210fedcba9876543210";

/// The daemon with two clients, half of the traffic on each arm.
async fn rig(rate_of_app: &str) -> Rig {
    let client = |name: &str, key: &str, rate: &str| {
        let hash = KeyHash::of(key.as_bytes());
        format!("[[proxy.clients]]\nname = \"{name}\"\nkey-hash = \"{hash}\"\n{rate}\n")
    };
    let rig = Rig::with(Setup {
        proxy: client("app", APP, rate_of_app) + &client("batch", BATCH, ""),
        legacy: "api-key = \"env:LEGACY_KEY\"".to_owned(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 50).await;
    rig
}

async fn post(rig: &Rig, target: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    exchange(&mut rig.client().await, target, headers, body).await
}

fn requests_of(rig: &Rig) -> usize {
    rig.legacy.requests().len() + rig.canary.requests().len()
}

async fn clients_of(rig: &Rig) -> Value {
    rig.admin("GET", "/api/v1/status", "").await.json()["clients"].clone()
}

#[tokio::test]
async fn only_the_key_of_a_client_opens_the_proxy() {
    let rig = rig("").await;
    let wrong = format!("Bearer {}", APP.replace('0', "1"));
    let cases: [(&str, &[(&str, &str)]); 6] = [
        (CHAT, &[]),
        (CHAT, &[("authorization", &wrong)]),
        (RESPONSES, &[("api-key", "")]),
        (MESSAGES, &[("x-api-key", LEGACY_KEY)]),
        (MESSAGES, &[]),
        ("/v1/files", &[("cookie", APP)]),
    ];
    let mut said = Vec::new();
    for (target, headers) in cases {
        let answer = post(&rig, target, headers, &ask("ok", false)).await;
        let what = format!("{target} {headers:?}: {}", answer.text());
        assert_eq!(answer.head.status, 401, "{what}");
        assert_eq!(answer.head.header("x-cutover-error"), Some("unauthorized"));
        assert_eq!(answer.head.header("x-should-retry"), Some("false"));
        assert_eq!(answer.head.header("www-authenticate"), Some("Bearer"));
        assert_eq!(answer.head.header("x-cutover-arm"), None, "{what}");
        let body = answer.json();
        if target == MESSAGES {
            assert_eq!(body["type"], "error", "{what}");
        }
        assert_eq!(body["error"]["type"], "authentication_error", "{what}");
        said.push(body["error"]["message"].to_string());
    }
    said.dedup();
    assert_eq!(said.len(), 1, "a wrong key is told from none: {said:?}");
    let mut models = rig.client().await;
    models.request("GET", "/v1/models", &[], b"").await.unwrap();
    assert_eq!(models.answer().await.unwrap().head.status, 401);
    assert_eq!(requests_of(&rig), 0, "a provider saw what was refused");

    let bearer = format!("Bearer {APP}");
    for (target, header, key) in [
        (CHAT, "authorization", bearer.as_str()),
        (RESPONSES, "api-key", BATCH),
        (MESSAGES, "x-api-key", APP),
        ("/v1/files", "authorization", &bearer),
    ] {
        let answer = post(&rig, target, &[(header, key)], &ask("ok", false)).await;
        assert_eq!(answer.head.status, 200, "{target}: {}", answer.text());
    }
    assert_eq!(requests_of(&rig), 4);
    let expected = json!({"unauthorized": 7, "known": [
        {"name": "app", "rate": null, "requests": 3, "limited": 0},
        {"name": "batch", "rate": null, "requests": 1, "limited": 0},
    ]});
    assert_eq!(clients_of(&rig).await, expected);
    let finished = rig.finish().await;
    assert_eq!(finished.rows.len(), 4, "{:?}", finished.rows);
    assert!(finished.rows.iter().all(|row| row.outcome == "ok"));
}

#[tokio::test]
async fn what_is_over_a_rate_gets_429_and_is_nobody_s_error() {
    let rig = rig("rate = \"2/min\"").await;
    let key = [("authorization", format!("Bearer {APP}"))];
    let key = [(key[0].0, key[0].1.as_str())];
    let first = post(&rig, CHAT, &key, &ask("ok", false)).await;
    assert_eq!(first.head.status, 200);
    for target in [CHAT, MESSAGES] {
        let answer = post(&rig, target, &key, &ask("ok", true)).await;
        assert_eq!(answer.head.status, 429, "{}", answer.text());
        let header = |name: &str| answer.head.header(name);
        assert_eq!(header("x-cutover-error"), Some("client-rate-limited"));
        assert_eq!(header("x-should-retry"), Some("true"));
        let after_s: u64 = header("retry-after").unwrap().parse().unwrap();
        let after_ms: u64 = header("retry-after-ms").unwrap().parse().unwrap();
        assert!((1..=30).contains(&after_s), "{after_s}");
        assert_eq!(after_s, after_ms.div_ceil(1_000));
        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    }
    // One client's rate is nothing to the other.
    let other = post(&rig, CHAT, &[("api-key", BATCH)], &ask("ok", false)).await;
    assert_eq!(other.head.status, 200);
    let clients = clients_of(&rig).await;
    assert_eq!(clients["known"][0]["requests"], 1);
    assert_eq!(clients["known"][0]["limited"], 2);
    assert_eq!(clients["known"][0]["rate"], "2/min");
    let metrics = rig.admin("GET", "/metrics", "").await.text();
    for line in [
        "cutover_client_requests_total{client=\"app\",result=\"admitted\"} 1",
        "cutover_client_requests_total{client=\"app\",result=\"limited\"} 2",
        "cutover_client_requests_total{client=\"batch\",result=\"admitted\"} 1",
        "cutover_unauthorized_requests_total 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    let rollout = rig.rollout("default").await;
    for arm in ["legacy", "canary"] {
        assert_eq!(rollout["arms"][arm]["rate_limited"], 0);
        assert_eq!(rollout["arms"][arm]["errors"], 0);
    }
    let finished = rig.finish().await;
    assert_eq!(finished.rows.len(), 2, "{:?}", finished.rows);
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_to_the_next_request() {
    let rig = rig("").await;
    let mut client = Client::connect(rig.port()).await.unwrap();
    let body = ask("ok", false);
    for _ in 0..3 {
        let refused = exchange(&mut client, CHAT, &[], &body).await;
        assert_eq!(refused.head.status, 401);
        let answer = exchange(&mut client, CHAT, &[("x-api-key", APP)], &body).await;
        assert_eq!(answer.head.status, 200);
    }
}

#[tokio::test]
async fn a_client_s_key_ends_at_the_proxy() {
    let rig = rig("").await;
    let bearer = format!("Bearer {APP}");
    for user in 0..20 {
        let mut body = ask(
            if user % 5 == 0 { "fault-500" } else { "ok" },
            user % 2 == 0,
        );
        body["user"] = json!(format!("user {user}"));
        let headers = [("authorization", bearer.as_str()), ("x-api-key", BATCH)];
        post(&rig, CHAT, &headers, &body).await;
        post(&rig, MESSAGES, &headers[1..], &body).await;
    }
    let mut shown = String::new();
    for path in ["/api/v1/status", "/api/v1/requests?limit=100", "/metrics"] {
        shown += &rig.admin("GET", path, "").await.text();
    }
    let (to_legacy, to_canary) = (rig.legacy.requests(), rig.canary.requests());
    assert!(to_legacy.len() > 5 && to_canary.len() > 5);
    let passed = format!("{to_legacy:?}{to_canary:?}");
    let finished = rig.finish().await;
    let database = String::from_utf8_lossy(&finished.database);
    for (key, name) in [(APP, "app"), (BATCH, "batch")] {
        let hash = KeyHash::of(key.as_bytes()).to_string();
        for secret in [key, &hash[7..]] {
            assert!(!passed.contains(secret), "a provider saw {name}");
            assert!(!shown.contains(secret), "the admin port shows {name}");
            assert!(!database.contains(secret), "the database holds {name}");
        }
    }
}
