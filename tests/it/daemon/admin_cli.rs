//! Every command of the command line against the running program, and the admin port's refusals.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use super::load::Load;
use super::process::{Daemon, cutover};
use super::scene::Scene;

const STAGES: &str = "warm-up = 1000000\nstages = [{ weight = \"5%\", dwell = \"1h\" }, { weight = \"25%\", dwell = \"1h\" }, \"100%\"]\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code and what was printed, the daemon's volatile words masked.
fn told(output: &Output) -> (i32, String) {
    let all = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap(), masked(&all))
}

/// Times and durations as `#`; everything that is the same in each run stays.
pub(super) fn masked(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').map(masked_word).collect();
        out += &words.join(" ");
        out.push('\n');
    }
    out
}

fn masked_word(word: &str) -> String {
    let is_time = word.len() >= 20 && word.contains('T') && word.ends_with('Z');
    if is_time {
        "#TIME".to_owned()
    } else {
        word.to_owned()
    }
}

/// Numbers as `N`, and the room around them as one space.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words = line.split_whitespace().map(|word| {
            let bare = word
                .trim_start_matches(['$', '#', '>'])
                .trim_end_matches(['%', 's', 'm']);
            if bare.parse::<f64>().is_ok() {
                "N"
            } else {
                word
            }
        });
        out += words.collect::<Vec<_>>().join(" ").trim_end();
        out.push('\n');
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn operators_commands_say_what_they_did_and_why_not() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let cases: [(&[&str], i32, &str); 14] = [
        (&["decisions"], 0, "no decisions yet\n"),
        (
            &["retry"],
            1,
            "cutover: the rollout is not rolled back; there is nothing to retry\n",
        ),
        (
            &["set-weight", "25%", "--reason", "load test"],
            0,
            "set-weight rollout=default 0% -> 25% stage 1/3 · load test · decision 1\n",
        ),
        (
            &["hold", "--reason", "lunch"],
            0,
            "hold rollout=default 25% stage 2/3 · lunch · decision 2\n",
        ),
        (
            &["hold"],
            1,
            "cutover: the rollout is held already; `cutover resume` lifts the hold\n",
        ),
        (
            &["resume"],
            0,
            "resume rollout=default 25% stage 2/3 · no reason given · decision 3\n",
        ),
        (
            &["resume"],
            1,
            "cutover: the rollout is neither held nor tripped; there is nothing to resume\n",
        ),
        (
            &["promote", "--rollout", "default"],
            0,
            "promote rollout=default 25% -> 100% stage 2/3 · no reason given · decision 4\n",
        ),
        (
            &["rollback", "--reason", "complaints"],
            0,
            "roll-back rollout=default 100% -> 0% stage 3/3 · complaints · decision 6\n",
        ),
        (
            &["rollback"],
            1,
            "cutover: the rollout is rolled back already; `cutover retry` starts a new attempt\n",
        ),
        (
            &["retry"],
            0,
            "retry rollout=default 0% -> 5% stage 3/3 · no reason given · decision 7\n",
        ),
        (
            &["promote", "--rollout", "absent"],
            1,
            "cutover: no such rollout; there is default\n",
        ),
        (&["set-weight", "25"], 2, ""),
        (&["set-weight", "101%"], 2, ""),
    ];
    for (args, code, expected) in cases {
        if args[0] == "rollback" && code == 0 {
            // The last stage has no dwell: it is complete at once.
            daemon
                .line("is complete", |line| line.contains("decision 5"))
                .await;
        }
        let (found_code, found) = told(&daemon.cli(args));
        assert_eq!(found_code, code, "{args:?}: {found}");
        if !expected.is_empty() {
            assert_eq!(found, expected, "{args:?}");
        }
    }
    let (_, decisions) = told(&daemon.cli(&["decisions", "--limit", "3"]));
    insta::assert_snapshot!(decisions, @r"
    #TIME  #5     default      complete     100%           at 100%
    #TIME  #6     default      roll-back    100% -> 0%     complaints
    #TIME  #7     default      retry        0% -> 5%       no reason given
    ");
    let json: Value = serde_json::from_slice(&daemon.cli(&["hold", "--json"]).stdout).unwrap();
    assert_eq!(
        json,
        json!({
            "rollout": "default", "kind": "hold", "decision": 8, "weight": 0.05,
            "message": "hold rollout=default 5% stage 1/3 · no reason given · decision 8",
        })
    );
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn status_and_decisions_have_the_fields_of_the_contract() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let load = Load::start(daemon.proxy);
    daemon
        .operate("weight", r#"{"weight": "25%", "reason": "go"}"#)
        .await;
    let proven = |rollout: &Value| rollout["guards"][0]["verdict"] == "healthy";
    daemon.until("proven", proven).await;
    load.stop_without_failures().await;
    let counted = |rollout: &Value| {
        let arms = &rollout["arms"];
        let of = |arm: &str| arms[arm]["requests"].as_u64().unwrap();
        (of("legacy"), of("canary"))
            == (
                scene.legacy.requests().len() as u64,
                scene.canary.requests().len() as u64,
            )
    };
    daemon.until("counted everything", counted).await;

    let output = daemon.cli(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let has = |value: &Value, expected: &[&str]| {
        let found = keys(value);
        for key in expected {
            assert!(found.contains(key), "`{key}` is missing in {found:?}");
        }
    };
    has(
        &status,
        &[
            "version",
            "uptime_s",
            "window_s",
            "store",
            "config",
            "learned_ids",
            "rollouts",
            "budgets",
        ],
    );
    has(&status["store"], &["kind", "healthy", "dropped_samples"]);
    has(&status["config"], &["path", "loaded_at", "error"]);
    let rollout = &status["rollouts"][0];
    has(
        rollout,
        &[
            "name",
            "id",
            "state",
            "stage",
            "weight",
            "attempt",
            "next_action_at",
            "reason",
            "guards",
            "arms",
        ],
    );
    has(&rollout["stage"], &["index", "of", "weight", "since"]);
    has(
        &rollout["guards"][0],
        &["name", "verdict", "value", "limit", "evidence", "needed"],
    );
    for arm in ["legacy", "canary"] {
        let arm = &rollout["arms"][arm];
        has(
            arm,
            &[
                "requests",
                "errors",
                "error_rate",
                "rate_limited",
                "masked",
                "latency_ms",
                "ttft_ms",
                "tokens",
                "cost_usd",
                "breaker",
                "tpot_ms",
                "tokens_per_s",
                "cache_hit_share",
                "unpriced",
                "no_usage",
                "reported_cost_usd",
            ],
        );
        has(&arm["latency_ms"], &["p50", "p90", "p99"]);
        has(&arm["ttft_ms"], &["p50", "p90", "p99"]);
        has(&arm["tpot_ms"], &["p50", "p90", "p99"]);
        has(&arm["tokens_per_s"], &["p50", "p10", "p1"]);
        has(&arm["tokens"], &["input", "output", "cached_input"]);
        assert_eq!(arm["cache_hit_share"], 0.181_818, "2 of 11: {arm}");
        assert_eq!(arm["unpriced"], arm["requests"], "none has a price");
        assert!(arm["latency_ms"]["p50"].is_f64() && arm["tokens"]["output"].as_u64() > Some(0));
        assert_eq!(arm["error_rate"], 0.0);
        assert!(
            arm["cost_usd"].is_null() && arm["ttft_ms"]["p50"].is_null(),
            "null is not 0: {arm}"
        );
    }
    assert_eq!(
        (&rollout["state"], &rollout["weight"]),
        (&"running".into(), &0.25.into())
    );
    assert_eq!(
        (&rollout["stage"]["index"], &rollout["stage"]["weight"]),
        (&2.into(), &0.25.into())
    );

    let answer = daemon
        .get("/api/v1/decisions?rollout=default&limit=1")
        .await
        .unwrap()
        .json();
    let decision = &answer["decisions"][0];
    has(
        decision,
        &[
            "id",
            "at",
            "rollout",
            "kind",
            "weight_from",
            "weight_to",
            "stage",
            "by",
            "reason",
            "evidence",
        ],
    );
    assert!(
        decision["at"].as_str().unwrap().ends_with('Z'),
        "{decision}"
    );
    assert_eq!(
        (&decision["weight_from"], &decision["weight_to"]),
        (&0.0.into(), &0.25.into())
    );
    assert_eq!(
        (&decision["kind"], &decision["by"]),
        (&"set-weight".into(), &"operator".into())
    );

    let (code, human) = told(&daemon.cli(&["status"]));
    assert_eq!(code, 0);
    assert!(human.contains("next    may go up in "), "{human}");
    let is_steady = |line: &&str| !line.starts_with("  next");
    let human: Vec<&str> = human.lines().filter(is_steady).collect();
    insta::assert_snapshot!(without_numbers(&human.join("\n")), @r"
    default RUNNING N to the canary stage 2/3 attempt N
    stages N > [25%] > N
    why dwell: N N left

    requests errors rate N masked p50 p99 ttft p50 ttft p99 tok/s cached cost reported
    legacy N N N N N N N - - N N - -
    canary N N N N N N N - - N N - -

    guard verdict canary limit evidence needs
    error-rate healthy N N N of N proven
    ");
}

async fn refused(
    daemon: &Daemon,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let answer = daemon.ask(method, path, headers, body).await.unwrap();
    let json = answer.json();
    (
        answer.head.status,
        json["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// Method, path, headers, body, and the status that they get.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_pages_garbage_and_unknown_names_are_refused() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let hold = "/api/v1/rollouts/default/hold";
    let weight = "/api/v1/rollouts/default/weight";
    // One byte too many: all is read before the answer, so that no reset overtakes it.
    let huge = "x".repeat(64 * 1024 + 1);
    let cases: [Case; 16] = [
        ("POST", hold, &[("origin", "https://evil.example")], "", 403),
        ("POST", hold, &[("sec-fetch-site", "cross-site")], "", 403),
        (
            "POST",
            hold,
            &[("host", "rebound.evil.example:8081")],
            "",
            403,
        ),
        ("POST", "/api/v1/rollouts/absent/hold", &[], "", 404),
        ("POST", "/api/v1/rollouts/default/explode", &[], "", 404),
        ("POST", "/api/v1/rollouts//hold", &[], "", 404),
        ("GET", "/api/v1/nothing", &[], "", 404),
        ("PUT", hold, &[], "", 405),
        ("POST", weight, &[], r#"{"weight": "25%"}"#, 405),
        ("DELETE", hold, &[], "", 405),
        ("POST", hold, &[], "{", 400),
        ("POST", hold, &[], "[1]", 400),
        ("PUT", weight, &[], "{}", 400),
        ("PUT", weight, &[], r#"{"weight": "much"}"#, 400),
        ("PUT", weight, &[], r#"{"weight": "101%"}"#, 400),
        ("POST", hold, &[], &huge, 413),
    ];
    for (method, path, headers, body, expected) in cases {
        let (status, message) = refused(&daemon, method, path, headers, body).await;
        let shown = &body[..body.len().min(30)];
        assert_eq!(
            status, expected,
            "{method} {path} {headers:?} {shown}: {message}"
        );
        assert!(
            !message.is_empty(),
            "{method} {path} {shown}: no reason is given"
        );
    }
    for query in ["limit=x", "before=x", "speed=1"] {
        let path = format!("/api/v1/decisions?{query}");
        assert_eq!(
            refused(&daemon, "GET", &path, &[], "").await.0,
            400,
            "{query}"
        );
    }
    assert!(
        daemon.decisions().await.is_empty(),
        "nothing of this did anything"
    );
    assert_eq!(daemon.rollout().await["state"], "warming-up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_asked_for_when_one_is_set_and_found_in_the_configuration() {
    let scene = Scene::new(STAGES).await;
    scene.edit("[admin]\n", "[admin]\ntoken = \"env:ADMIN_TOKEN\"\n");
    let daemon = scene.start().await;
    let hold = "/api/v1/rollouts/default/hold";
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "s3cret")],
    ] {
        assert_eq!(
            refused(&daemon, "POST", hold, headers, "").await.0,
            401,
            "{headers:?}"
        );
    }
    let (code, said) = told(&daemon.cli(&["hold"]));
    assert_eq!((code, said.contains("admin.token")), (1, true), "{said}");

    // With --config the command line knows both, the address and the token.
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{}\"", daemon.admin);
    let config = fs::read_to_string(scene.path()).unwrap();
    let config = config.replace("[admin]\ntoken", &format!("{admin}\ntoken"));
    let config = config.replacen(
        "\"\nlisten = \"127.0.0.1:0\"\n\n[store]",
        "\"\n\n[store]",
        1,
    );
    let own = scene.folder.path().join("client.toml");
    fs::write(&own, &config).unwrap();
    let held = cutover()
        .args(["hold", "--config"])
        .arg(&own)
        .output()
        .unwrap();
    assert!(held.status.success(), "{held:?}");
    assert!(!daemon.lines().join("\n").contains("s3cret"));
    // The data port does not know the admin API.
    let through = crate::client::post(daemon.proxy, hold, &json!({}))
        .await
        .unwrap();
    assert!(
        through.head.header("x-provider").is_some(),
        "{:?}",
        through.head
    );
}

#[test]
fn commands_that_need_no_daemon_tell_and_exit_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = cutover()
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, example, _) = run(&["example-config"]);
    assert_eq!(
        (code, example),
        (0, include_str!("../../../config/cutover.toml").to_owned())
    );

    let minimal = include_str!("../../../config/minimal.toml");
    fs::write(folder.path().join("cutover.toml"), minimal).unwrap();
    let (code, _, errors) = run(&["check"]);
    assert!(
        code == 1 && errors.contains("RELAY_API_KEY"),
        "{code} {errors}"
    );
    fs::write(
        folder.path().join("cutover.toml"),
        minimal.replace("RELAY_API_KEY", "CANARY_KEY"),
    )
    .unwrap();
    let (code, out, errors) = run(&["check"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    insta::assert_snapshot!(out, @r"
    cutover.toml: ok
      legacy  https://api.openai.com/v1
      canary  https://relay.example.com/v1
      rollout default: 1% -> 5% -> 25% -> 50% -> 75% -> 95% -> 100%
    ");

    fs::write(
        folder.path().join("bad.toml"),
        "[proxy]\nlistn = 1\n[arms.legacy]\nbase-url = \"x\"\n",
    )
    .unwrap();
    let (code, _, errors) = run(&["check", "--config", "bad.toml"]);
    assert_eq!(code, 1);
    for place in ["bad.toml:2:1", "bad.toml:4:", "listen"] {
        assert!(errors.contains(place), "`{place}` is missing: {errors}");
    }
    assert_eq!(run(&["run", "--config", "bad.toml"]).0, 1);
    assert_eq!(run(&["check", "--config", "absent.toml"]).0, 3);
    assert_eq!(run(&["run", "--config", "absent.toml"]).0, 3);
    let (code, _, errors) = run(&["status", "--admin", "127.0.0.1:1"]);
    assert!(
        code == 3 && errors.contains("127.0.0.1:1"),
        "{code} {errors}"
    );
    assert_eq!(run(&["launch"]).0, 2);
    let (code, table, _) = run(&["plan", "--rate", "10/min"]);
    assert!(code == 0 && table.contains("1/7"), "{code} {table}");
    assert_eq!(run(&["plan", "--rate", "10"]).0, 2);
    assert_eq!(run(&["plan", "--rate", "10/min", "--rollout", "x"]).0, 1);
    assert_eq!(
        run(&["plan", "--rate", "10/min", "--config", "absent.toml"]).0,
        3
    );
    let (code, _, errors) = run(&["preflight", "--rate", "10/min"]);
    let expected = "cutover: `cutover preflight` is not part of this version yet\n";
    assert_eq!((code, errors.as_str()), (1, expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_ends_the_start_with_a_remedy() {
    let scene = Scene::new(STAGES).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    scene.edit(
        "[proxy]\nlisten = \"127.0.0.1:0\"",
        &format!("[proxy]\nlisten = \"{addr}\""),
    );
    let output = cutover()
        .args(["run", "--config"])
        .arg(scene.path())
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{errors}");
    assert!(
        errors.contains("proxy.listen") && errors.contains(&addr.to_string()),
        "{errors}"
    );
}
