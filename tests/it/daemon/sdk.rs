//! The real SDKs of the providers, unchanged but for their base URL, half on each arm.

use std::ffi::OsStr;
use std::process::Command;

use serde_json::{Map, Value};

use super::process::{CANARY_KEY, Daemon};
use super::scene::Scene;
use crate::provider::Provider;

/// Refusals are asked for here, and must move nothing.
const HALF: &str = "warm-up = 0\ntrip = \"off\"\non-harm = \"hold\"\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
const CLIENT_KEY: &str = "sk-client-only";
const USERS: usize = 200;

async fn at_half() -> (Scene, Daemon) {
    let scene = Scene::new(HALF).await;
    for arm in ["legacy", "canary"] {
        let named = format!("[arms.{arm}]\nmodels = {{ fast = \"{arm}-model\" }}");
        scene.edit(&format!("[arms.{arm}]"), &named);
    }
    let daemon = scene.start().await;
    daemon
        .until("at half", |rollout| rollout["weight"] == 0.5)
        .await;
    (scene, daemon)
}

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

/// Asks the same through the proxy and directly; all answers must be the same. `language` runs `script`.
async fn check(
    scene: &Scene,
    daemon: &Daemon,
    (language, script): (&OsStr, &str),
    only: &str,
    repeat: usize,
) -> Map<String, Value> {
    let base = format!("http://127.0.0.1:{}/v1", daemon.proxy);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");
    let mut check = Command::new(language);
    check
        .arg(format!("{folder}/{script}"))
        .env("ONLY", only)
        .env("REPEAT", repeat.to_string())
        .env("ALIAS", "fast")
        .env("ALIAS_LEGACY", "legacy-model")
        .env("ALIAS_CANARY", "canary-model");
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
    results.as_object().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdks_notice_nothing_but_the_arm_that_answers() {
    let Some(python) = std::env::var_os("CUTOVER_SDK_PYTHON") else {
        println!("skipped: CUTOVER_SDK_PYTHON names no Python with the SDKs; `make test` does");
        return;
    };
    let (scene, daemon) = at_half().await;
    let python = (python.as_os_str(), "check.py");
    let all = check(&scene, &daemon, python, "", 2).await;
    assert_eq!(all.len(), (15 + 7 + 6) * 2);
    let calls = [
        "openai.chat.plain",
        "openai.chat.stream",
        "anthropic.messages.plain",
    ];
    let only = "chat.plain,chat.stream,messages.plain";
    let results = check(&scene, &daemon, python, only, USERS).await;
    assert_eq!(results.len(), calls.len() * USERS);
    let by_canary = |call: &str| {
        let of_call = results
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{call}/")));
        of_call
            .filter(|(_, result)| result["arm"] == "canary")
            .count()
    };
    // Five standard deviations around the half.
    let fair = 65..=135;
    for call in calls {
        let count = by_canary(call);
        println!("{call}: {count} of {USERS} by the canary");
        assert!(
            fair.contains(&count),
            "{call}: {count} of {USERS} went to the canary"
        );
    }
    assert_eq!(
        by_canary(calls[0]),
        by_canary(calls[1]),
        "a user changed the arm"
    );
    let models = all
        .iter()
        .filter(|(name, _)| name.starts_with("openai.models"));
    let on_legacy = models
        .filter(|(_, result)| result["arm"] == "legacy")
        .count();
    assert_eq!(
        on_legacy, 2,
        "what is no question to a model stays on legacy"
    );
    assert_eq!(keys_seen(&scene.legacy), [CLIENT_KEY]);
    assert_eq!(keys_seen(&scene.canary), [CANARY_KEY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_for_node_notices_nothing_either() {
    let Some(node) = std::env::var_os("CUTOVER_SDK_NODE") else {
        println!("skipped: CUTOVER_SDK_NODE names no Node with the SDK; `make test` does");
        return;
    };
    let (scene, daemon) = at_half().await;
    let all = check(&scene, &daemon, (&node, "check.mjs"), "", 12).await;
    assert_eq!(all.len(), 8 * 12);
    let by_canary = all.values().filter(|result| result["arm"] == "canary");
    let by_canary = by_canary.count();
    assert!(
        (10..=86).contains(&by_canary),
        "{by_canary} of {}",
        all.len()
    );
}
