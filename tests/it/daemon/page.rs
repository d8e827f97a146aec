//! The dashboard in a real browser: `tests/page/check.mjs` looks, this side moves the world.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tokio::sync::mpsc;

use super::PATIENCE;
use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;

/// Failures are asked for here, and must move nothing.
const STAGES: &str = r#"
warm-up = 0
trip = "off"
on-harm = "hold"
stages = [{ weight = "50%", dwell = "1h" }, { weight = "75%", dwell = "1h" }, "100%"]
"#;
const TOKEN: &str = "s3cret";
/// Fails on the canary, and is no friend of pages.
const HOSTILE: &str = "fault-503-<img src=x onerror=alert(1)>@canary";

/// The browser's side. Killed when dropped.
struct Check(Child);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn script(name: &str, browser: &std::ffi::OsStr) -> Command {
    let node = std::env::var_os("CUTOVER_SDK_NODE").unwrap_or_else(|| "node".into());
    let mut command = Command::new(node);
    command
        .arg(format!("{}/tests/page/{name}", env!("CARGO_MANIFEST_DIR")))
        .env("CUTOVER_CHROMIUM", browser);
    command
}

fn check(browser: &std::ffi::OsStr, daemon: &Daemon) -> Check {
    let child = script("check.mjs", browser)
        .env("BASE", format!("http://127.0.0.1:{}/", daemon.admin))
        .env("TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Check(child)
}

/// What the check asks for, line by line, until it ends.
fn demands(check: &mut Check) -> mpsc::UnboundedReceiver<String> {
    let (demand, demands) = mpsc::unbounded_channel();
    let lines = BufReader::new(check.0.stdout.take().unwrap()).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            demand.send(line).ok();
        }
    });
    demands
}

async fn operate(daemon: &Daemon, weight: &str) {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let body = format!(r#"{{"weight": "{weight}", "reason": "from outside"}}"#);
    let path = "/api/v1/rollouts/default/weight";
    let answer = daemon.ask("PUT", path, &headers, &body).await.unwrap();
    assert_eq!(answer.head.status, 200, "{}", answer.text());
}

#[test]
fn the_page_is_right_in_states_that_are_hard_to_bring_about() {
    let Some(browser) = std::env::var_os("CUTOVER_CHROMIUM") else {
        println!("skipped: CUTOVER_CHROMIUM names no browser; `make test` does");
        return;
    };
    let ended = script("scenes.mjs", &browser).status().unwrap();
    assert!(ended.success(), "the check failed; see above");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_and_moves_a_migration_in_a_browser() {
    let Some(browser) = std::env::var_os("CUTOVER_CHROMIUM") else {
        println!("skipped: CUTOVER_CHROMIUM names no browser; `make test` does");
        return;
    };
    let scene = Scene::new(STAGES).await;
    scene.edit("[admin]\n", "[admin]\ntoken = \"env:ADMIN_TOKEN\"\n");
    let mut daemon = scene.start().await;
    daemon
        .until("at half", |rollout| rollout["weight"] == 0.5)
        .await;
    let load = Load::start(daemon.proxy);
    load.answers(200).await;
    // It comes back where the browser looks for it.
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{}\"", daemon.admin);
    let before = "[admin]\ntoken = \"env:ADMIN_TOKEN\"\nlisten = \"127.0.0.1:0\"";
    let mut check = check(&browser, &daemon);
    let mut answers = check.0.stdin.take().unwrap();
    let mut demands = demands(&mut check);
    let next = async |demands: &mut mpsc::UnboundedReceiver<String>| {
        let waited = tokio::time::timeout(PATIENCE * 4, demands.recv()).await;
        waited.expect("the check says nothing any more")
    };
    while let Some(demand) = next(&mut demands).await {
        match demand.split_once(' ') {
            Some(("do", "fail")) => {
                load.set_model(HOSTILE);
                load.answers(60).await;
                load.set_model("ok");
            }
            Some(("do", "kill")) => daemon.kill(),
            Some(("do", "start")) => {
                scene.edit(before, &format!("{admin}\ntoken = \"env:ADMIN_TOKEN\""));
                daemon = scene.start().await;
                load.set_port(daemon.proxy);
            }
            Some(("do", what)) if what.starts_with("weight ") => {
                operate(&daemon, what.trim_start_matches("weight ")).await;
            }
            _ => panic!("the check asks for `{demand}`"),
        }
        writeln!(answers, "done").unwrap();
    }
    let ended = check.0.wait().unwrap();
    assert!(ended.success(), "the check failed; see above");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_its_charts_come_from_the_admin_port() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    daemon
        .until("at half", |rollout| rollout["weight"] == 0.5)
        .await;
    let page = daemon.get("/").await.unwrap();
    assert_eq!(page.head.status, 200);
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page.head.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let known = page.head.header("etag").unwrap().to_owned();
    let status = async |path: &str, header: (&str, &str)| {
        let answer = daemon.ask("GET", path, &[header], "").await.unwrap();
        answer.head.status
    };
    assert_eq!(status("/", ("if-none-match", &known)).await, 304);
    assert_eq!(
        status("/assets/page.js", ("if-none-match", &known)).await,
        304
    );
    for path in ["/assets/page.css", "/charts.json?rollout=default"] {
        let foreign = ("sec-fetch-site", "cross-site");
        assert_eq!(status(path, foreign).await, 403, "{path}");
    }

    let load = Load::start(daemon.proxy);
    load.answers(100).await;
    load.stop_without_failures().await;
    let path = "/charts.json?rollout=default&from=-1h&width=600&small=300&offset=120";
    let (mut charts, began) = (daemon.get(path).await.unwrap().json(), Instant::now());
    while charts["at_ms"].as_array().unwrap().is_empty() {
        assert!(began.elapsed() < PATIENCE, "the traffic is not recorded");
        charts = daemon.get(path).await.unwrap().json();
    }
    assert_eq!(charts["step_ms"], 60_000);
    assert_eq!(charts["weight"]["decisions"][0]["kind"], "start");
    let metrics = charts["metrics"].as_array().unwrap();
    assert_eq!(metrics.len(), 8);
    for metric in metrics {
        let svg = metric["svg"].as_str().unwrap();
        assert!(
            svg.starts_with("<svg ") && svg.contains(" width=\"300\""),
            "{svg}"
        );
        let points = charts["at_ms"].as_array().unwrap().len();
        assert_eq!(metric["legacy"].as_array().unwrap().len(), points);
    }
    let weight = charts["weight"]["svg"].as_str().unwrap();
    assert!(weight.contains(" width=\"600\""), "{weight}");
    for (path, status) in [
        ("/charts.json", 404),
        ("/charts.json?rollout=other", 404),
        ("/charts.json?rollout=default&from=soon", 400),
        ("/charts.json?rollout=default&colour=red", 400),
        ("/assets/other.js", 404),
    ] {
        let answer = daemon.get(path).await.unwrap();
        assert_eq!(answer.head.status, status, "{path}");
    }
}
