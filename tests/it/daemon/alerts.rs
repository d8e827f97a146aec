//! Alerts end to end: what real receivers get, each transition once, and what a bad receiver cannot do.

mod receiver;

use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::Load;
use super::process::{Daemon, cutover};
use super::scene::Scene;
use crate::harness::wait_until;
use receiver::{Behaviour, Receiver};

const HALF: &str = r#"
warm-up = 0
stages = [{ weight = "50%", dwell = "1h" }, "100%"]
trip = { cooldown = "1h", max-per-day = 10 }
"#;
/// Nothing moves by itself.
const STILL: &str =
    "warm-up = 1000000\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
/// The design allows two seconds; a machine that runs all tests at once gets more.
const TRIPPED_WITHIN: Duration = Duration::from_secs(5);
/// As PagerDuty's are: 32 characters.
const PD_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Adds `[alerts]` to the configuration of a scene.
fn tell(scene: &Scene, alerts: &str) {
    let config = std::fs::read_to_string(scene.path()).unwrap();
    scene.write(&format!("{config}\n[alerts]\n{alerts}\n"));
}

/// One receiver of each format.
struct Three {
    json: Receiver,
    slack: Receiver,
    pagerduty: Receiver,
}

impl Three {
    async fn start() -> Self {
        Self {
            json: Receiver::start("json").await,
            slack: Receiver::start("slack").await,
            pagerduty: Receiver::start("pagerduty").await,
        }
    }

    fn config(&self) -> String {
        format!(
            "webhooks = [{{ url = \"{}\" }}, {{ url = \"{}\", format = \"slack\" }},\n\
             {{ url = \"{}\", format = \"pagerduty\", key = \"env:PD_KEY\" }}]",
            self.json.url(),
            self.slack.url(),
            self.pagerduty.url()
        )
    }

    /// Kinds in the order in which they arrived.
    fn kinds(&self) -> Vec<String> {
        let kind = |message: &Value| message["kind"].as_str().unwrap().to_owned();
        self.json.taken().iter().map(kind).collect()
    }

    async fn told(&self, kind: &str, times: usize) {
        let what = format!("{kind} is told");
        wait_until(&what, || {
            let kinds = self.kinds();
            kinds.iter().filter(|told| *told == kind).count() == times
        })
        .await;
    }

    /// What PagerDuty was told, without the ends that a start sends for what may have been left open.
    fn incidents(&self) -> Vec<String> {
        let of = |event: &Value| {
            let word = |key: &str| event[key].as_str().unwrap().to_owned();
            format!("{} {}", word("event_action"), word("dedup_key"))
        };
        self.pagerduty.taken().iter().skip(4).map(of).collect()
    }
}

async fn start(scene: &Scene) -> Daemon {
    Daemon::start_in(&scene.path(), "json", &[("PD_KEY", PD_KEY)]).await
}

/// Neither the log nor the status shows what makes an address secret.
async fn assert_no_secret(daemon: &Daemon) {
    let status = daemon.status().await.to_string();
    for text in daemon.lines().iter().chain([&status]) {
        for secret in [receiver::SECRET, PD_KEY, "T0SECRET"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_one_trip_and_one_resume_for_everybody_also_over_a_restart() {
    let scene = Scene::new(HALF).await;
    let receivers = Three::start().await;
    tell(&scene, &receivers.config());
    let mut daemon = start(&scene).await;
    let load = Load::start(daemon.proxy);
    daemon
        .until("at its stage", |rollout| rollout["weight"] == 0.5)
        .await;
    receivers.told("start", 1).await;
    load.set_model("fault-500@canary");
    receivers.told("trip", 1).await;
    load.set_model("ok");
    // Some looks later it is still one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(receivers.kinds(), ["start", "trip"]);
    assert_no_secret(&daemon).await;

    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    let mut daemon = start(&scene).await;
    load.set_port(daemon.proxy);
    load.answers(20).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(receivers.kinds(), ["start", "trip"], "nothing new happened");
    daemon.operate("resume", r#"{"reason": "mended"}"#).await;
    receivers.told("resume", 1).await;
    daemon
        .operate("rollback", r#"{"reason": "lunch <!channel>"}"#)
        .await;
    receivers.told("roll-back", 1).await;
    daemon.operate("retry", "{}").await;
    receivers.told("retry", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let expected = ["start", "trip", "resume", "roll-back", "retry"];
    assert_eq!(receivers.kinds(), expected);
    assert_eq!(receivers.slack.taken().len(), expected.len());

    assert_told_in_full(&receivers, &daemon).await;
    assert_no_secret(&daemon).await;
    load.stop().await;
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
}

/// The numbers of the trip, and the incidents of the whole story.
async fn assert_told_in_full(receivers: &Three, daemon: &Daemon) {
    let trip = receivers.json.taken()[1].clone();
    assert_eq!(
        (&trip["severity"], &trip["rollout"]),
        (&"critical".into(), &"default".into())
    );
    assert_eq!(
        (&trip["weight_from"], &trip["weight_to"]),
        (&0.5.into(), &0.0.into())
    );
    assert_eq!(trip["runbook"], "docs/runbook.md#trip");
    let decisions = daemon.decisions().await;
    let tripped = decisions.iter().find(|decision| decision["kind"] == "trip");
    assert_eq!(trip["decision"], tripped.unwrap()["id"]);
    assert_eq!(
        receivers.json.taken()[2]["resolves"],
        serde_json::json!(["trip"])
    );
    // The second start closes what the first may have left open.
    let begun = [
        "resolve cutover/store-failing",
        "resolve cutover/config-rejected",
    ];
    let arms = [
        "resolve cutover/legacy/arm-unreachable",
        "resolve cutover/canary/arm-unreachable",
    ];
    let mut incidents = vec!["trigger cutover/default/trip"];
    incidents.extend(begun.iter().chain(&arms));
    incidents.extend([
        "resolve cutover/default/trip",
        "trigger cutover/default/roll-back",
        "resolve cutover/default/roll-back",
    ]);
    assert_eq!(receivers.incidents(), incidents);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_file_is_told_once_and_so_is_its_end() {
    let scene = Scene::new(STILL).await;
    let receivers = Three::start().await;
    tell(&scene, &receivers.config());
    let daemon = start(&scene).await;
    for wrong in ["stagez =", "stagezz ="] {
        let config = std::fs::read_to_string(scene.path()).unwrap();
        let from = if config.contains("stagez") {
            "stagez ="
        } else {
            "stages ="
        };
        scene.edit(from, wrong);
        daemon
            .line("rejects", |line| {
                line.contains("config-rejected") && line.contains(wrong.trim_end_matches(" ="))
            })
            .await;
    }
    receivers.told("config-rejected", 1).await;
    scene.edit("stagezz =", "stages =");
    receivers.told("config-accepted", 1).await;
    assert_eq!(receivers.kinds(), ["config-rejected", "config-accepted"]);
    let (rejected, key) = (&receivers.json.taken()[0], "cutover/config-rejected");
    assert!(
        rejected["text"]
            .as_str()
            .unwrap()
            .contains("did you mean \"stages\"?"),
        "{rejected}"
    );
    let incidents = [format!("trigger {key}"), format!("resolve {key}")];
    wait_until("the incident is over", || {
        receivers.incidents() == incidents
    })
    .await;
    assert_no_secret(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_store_is_told_once_and_so_is_its_recovery() {
    let scene = Scene::new(HALF).await;
    let receivers = Three::start().await;
    tell(&scene, &receivers.config());
    let daemon = start(&scene).await;
    let (folder, away) = (scene.database_folder(), scene.folder.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    receivers.told("store-failing", 1).await;
    // A rollback needs no store, and is told without its number.
    daemon.operate("rollback", "{}").await;
    receivers.told("roll-back", 1).await;
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    receivers.told("store-recovered", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let kinds = receivers.kinds();
    let of = |kind: &str| kinds.iter().filter(|told| *told == kind).count();
    assert_eq!(
        (of("store-failing"), of("store-recovered"), of("roll-back")),
        (1, 1, 1),
        "{kinds:?}"
    );
    let incidents = receivers.incidents().join(", ");
    assert!(
        incidents.contains("trigger cutover/store-failing"),
        "{incidents}"
    );
    assert!(
        incidents.contains("resolve cutover/store-failing"),
        "{incidents}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_that_hang_or_are_gone_delay_neither_a_trip_nor_the_end() {
    let scene = Scene::new(HALF).await;
    let hanging = Receiver::start("json").await;
    hanging.behave(&[], Behaviour::Hang);
    let closed = Receiver::closed_port().await;
    let well = Receiver::start("json").await;
    let alerts = format!(
        "webhooks = [{{ url = \"{}\" }}, {{ url = \"http://127.0.0.1:{closed}/{}\" }}, {{ url = \"{}\" }}]",
        hanging.url(),
        receiver::SECRET,
        well.url()
    );
    tell(&scene, &alerts);
    let mut daemon = start(&scene).await;
    let load = Load::start(daemon.proxy);
    daemon
        .until("at its stage", |rollout| rollout["weight"] == 0.5)
        .await;
    load.answers(50).await;
    let broken_at = Instant::now();
    load.set_model("fault-500@canary");
    daemon
        .until("tripped", |rollout| rollout["weight"] == 0.0)
        .await;
    let took = broken_at.elapsed();
    println!("weight 0 after {took:?}");
    assert!(took < TRIPPED_WITHIN, "it took {took:?}");
    wait_until("the one that is well is told", || {
        well.taken().iter().any(|message| message["kind"] == "trip")
    })
    .await;
    daemon
        .until_status("counted", |status| status["alerts"][2]["sent"] == 2)
        .await;
    let alerts = daemon.status().await["alerts"].clone();
    assert_eq!(alerts[0]["sent"], 0, "{alerts}");
    assert_eq!(alerts[0]["queued"], 2, "{alerts}");
    let error = alerts[1]["last_error"].as_str().unwrap();
    assert!(error.starts_with("no connection"), "{error}");
    assert_no_secret(&daemon).await;
    load.stop_without_failures().await;
    let ended_at = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
    let took = ended_at.elapsed();
    println!("ended after {took:?}");
    assert!(took < Duration::from_secs(8), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_gets_it_later_and_one_that_refuses_is_left_alone() {
    let scene = Scene::new(STILL).await;
    let failing = Receiver::start("slack").await;
    let slowing = Receiver::start("json").await;
    let refusing = Receiver::start("slack").await;
    failing.behave(
        &[Behaviour::Fail(500), Behaviour::Fail(503)],
        Behaviour::Take,
    );
    slowing.behave(&[Behaviour::Wait(3)], Behaviour::Take);
    refusing.behave(&[], Behaviour::Refuse);
    let alerts = format!(
        "webhooks = [{{ url = \"{}\", format = \"slack\" }}, {{ url = \"{}\", events = [\"roll-back\"] }}, {{ url = \"{}\", format = \"slack\" }}]",
        failing.url(),
        slowing.url(),
        refusing.url()
    );
    tell(&scene, &alerts);
    let mut daemon = start(&scene).await;
    let told_at = Instant::now();
    daemon.operate("weight", r#"{"weight": "10%"}"#).await;
    daemon.operate("rollback", "{}").await;
    wait_until("both get all", || {
        failing.taken().len() == 2 && slowing.taken().len() == 1
    })
    .await;
    assert!(
        told_at.elapsed() >= Duration::from_secs(3),
        "Retry-After was not waited for"
    );
    assert_eq!(failing.asked(), 4, "two failures, then in order");
    let titles: Vec<Value> = failing.taken().iter().map(|m| m["text"].clone()).collect();
    assert!(
        titles[0]
            .as_str()
            .unwrap()
            .contains("an operator set the weight"),
        "{titles:?}"
    );
    assert!(
        titles[1].as_str().unwrap().contains("rolled back"),
        "{titles:?}"
    );
    wait_until("both are refused", || refusing.asked() == 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(refusing.asked(), 2, "a refusal is final");
    let status = daemon.status().await["alerts"].clone();
    assert_eq!(
        (&status[2]["failed"], &status[2]["sent"]),
        (&2.into(), &0.into()),
        "{status}"
    );
    let error = status[2]["last_error"].as_str().unwrap();
    assert!(
        error.contains("answered 404") && error.contains("no_service"),
        "{error}"
    );
    assert_eq!(daemon.count("this receiver refuses alerts"), 1);
    assert_eq!(daemon.count("this receiver takes alerts again"), 2);
    assert_no_secret(&daemon).await;
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_hold_is_told_once_per_hold_and_receivers_change_live() {
    let scene = Scene::new(STILL).await;
    let receivers = Three::start().await;
    tell(&scene, "held-after = \"2s\"");
    let daemon = start(&scene).await;
    daemon.operate("hold", r#"{"reason": "lunch"}"#).await;
    daemon
        .line("is held", |line| line.contains("\"alert\":\"held\""))
        .await;
    scene.edit("held-after", &format!("{}\nheld-after", receivers.config()));
    daemon
        .line("applies", |line| line.contains("configuration applied"))
        .await;
    daemon.operate("resume", "{}").await;
    receivers.told("resume", 1).await;
    daemon.operate("hold", r#"{"reason": "tea"}"#).await;
    receivers.told("held", 1).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(receivers.kinds(), ["resume", "held"]);
    let told = receivers.json.taken();
    let told_held = serde_json::json!(["held"]);
    assert_eq!(told[0]["resolves"], told_held);
    let text = told[1]["text"].as_str().unwrap();
    let (held_for, why) = text.split_once(" · ").unwrap();
    assert!(held_for.starts_with("held for "), "{text}");
    assert_eq!(why, "held by an operator: tea");
    assert_eq!(daemon.count("\"alert\":\"held\""), 2);
    // Another name is another rollout; what was told of this one ends with it.
    scene.edit("[[rollout]]", "[[rollout]]\nname = \"other\"");
    receivers.told("stop", 1).await;
    let stop = receivers.json.taken().pop().unwrap();
    assert_eq!(
        (&stop["rollout"], &stop["resolves"]),
        (&"default".into(), &told_held)
    );
    daemon
        .line("stops", |line| line.contains("stop rollout=default"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alert_test_tries_each_receiver_and_says_which_one_failed() {
    let scene = Scene::new(HALF).await;
    let receivers = Three::start().await;
    tell(&scene, &receivers.config());
    let run = |args: &[&str]| {
        let mut command = cutover();
        let path = scene.path();
        command.env("PD_KEY", PD_KEY).arg("alert-test").args(args);
        command.arg("--config").arg(path);
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        for secret in [receiver::SECRET, PD_KEY] {
            assert!(
                !text.contains(secret) && !error.contains(secret),
                "{text}{error}"
            );
        }
        (output.status.code(), text, error)
    };
    let (code, text, _) = run(&["--print"]);
    assert_eq!((code, receivers.kinds().len()), (Some(0), 0), "{text}");
    assert!(text.contains("\"event_action\": \"resolve\""), "{text}");

    let (code, text, error) = run(&[]);
    assert_eq!(
        (code, text.matches("ok  ").count()),
        (Some(0), 3),
        "{text}{error}"
    );
    assert_eq!(
        (receivers.kinds(), receivers.slack.taken().len()),
        (vec!["test".to_owned()], 1)
    );
    let events = receivers.pagerduty.taken();
    let actions: Vec<_> = events
        .iter()
        .map(|event| event["event_action"].clone())
        .collect();
    assert_eq!(actions, ["trigger", "resolve"]);

    receivers.slack.behave(&[], Behaviour::Refuse);
    let (code, text, error) = run(&["--json"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("1 of 3 receivers failed"), "{error}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["webhooks"][0]["ok"], true);
    let failed = &report["webhooks"][1];
    assert_eq!(
        (&failed["ok"], &failed["format"]),
        (&false.into(), &"slack".into())
    );
    assert!(
        failed["error"].as_str().unwrap().contains("make a new one"),
        "{failed}"
    );
}
