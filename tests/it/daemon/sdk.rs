//! The real SDKs of the providers, unchanged but for their base URL, half on each arm.

use std::process::Command;

use serde_json::Value;

use super::process::CANARY_KEY;
use super::scene::Scene;
use crate::provider::Provider;

const HALF: &str = "warm-up = 0\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
const CLIENT_KEY: &str = "sk-client-only";
const USERS: usize = 200;

/// Every credential that a provider was shown, without the word before it.
fn keys_seen(provider: &Provider) -> Vec<String> {
    let mut keys: Vec<_> = provider
        .requests()
        .iter()
        .flat_map(|request| {
            let of = |name: &str| request.header(name).map(str::to_owned);
            [of("authorization"), of("x-api-key")]
        })
        .flatten()
        .map(|key| key.trim_start_matches("Bearer ").to_owned())
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdks_notice_nothing_but_the_arm_that_answers() {
    let Some(python) = std::env::var_os("CUTOVER_SDK_PYTHON") else {
        println!("skipped: CUTOVER_SDK_PYTHON names no Python with the SDKs; `make test` does");
        return;
    };
    let scene = Scene::new(HALF).await;
    let daemon = scene.start().await;
    daemon
        .until("at half", |rollout| rollout["weight"] == 0.5)
        .await;
    let base = format!("http://127.0.0.1:{}/v1", daemon.proxy);
    let mut check = Command::new(python);
    check
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/check.py"))
        .env("REPEAT", USERS.to_string());
    for kind in ["OPENAI", "ANTHROPIC"] {
        check
            .env(format!("BASE_{kind}"), &base)
            .env(format!("DIRECT_{kind}"), scene.legacy.base_url())
            .env(format!("CANARY_{kind}"), scene.canary.base_url())
            .env(format!("KEY_{kind}"), CLIENT_KEY)
            .env(format!("CANARY_KEY_{kind}"), CANARY_KEY);
    }
    let checked = tokio::task::spawn_blocking(move || check.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    println!("{said}");
    assert!(checked.status.success(), "{said}");

    let results: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let results = results.as_object().unwrap();
    assert_eq!(results.len(), 8 * USERS);
    let by_canary = |call: &str| {
        let of_call = results
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{call}/")));
        of_call
            .filter(|(_, result)| result["arm"] == "canary")
            .count()
    };
    // Five standard deviations around the half.
    let wide = (5.0 * (USERS as f64 / 4.0).sqrt()) as usize;
    let fair = USERS / 2 - wide..=USERS / 2 + wide;
    for call in [
        "chat.plain",
        "chat.stream",
        "chat.stream-usage",
        "embeddings",
    ] {
        let count = by_canary(&format!("openai.{call}"));
        assert!(
            fair.contains(&count),
            "{call}: {count} of {USERS} went to the canary"
        );
        assert_eq!(
            count,
            by_canary("openai.chat.plain"),
            "{call}: a user changed the arm"
        );
    }
    for call in ["messages.plain", "messages.stream", "messages.helper"] {
        let count = by_canary(&format!("anthropic.{call}"));
        assert!(
            fair.contains(&count),
            "{call}: {count} of {USERS} went to the canary"
        );
    }
    assert_eq!(
        by_canary("openai.models"),
        0,
        "what is no question to a model stays on legacy"
    );
    assert_eq!(keys_seen(&scene.legacy), [CLIENT_KEY]);
    assert_eq!(keys_seen(&scene.canary), [CANARY_KEY]);
    let rollout = daemon.rollout().await;
    assert_eq!(rollout["arms"]["canary"]["errors"], 0, "{rollout:#}");
}
