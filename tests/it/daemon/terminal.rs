//! What people see of the running program: followed logs, the live view in a real terminal, shells, pages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PATIENCE;
use super::process::{Daemon, cutover};
use super::scene::Scene;
use crate::client::post;
use crate::harness::wait_until;

const STAGES: &str =
    "warm-up = 1000000\nstages = [{ weight = \"50%\", dwell = \"1h\" }, \"100%\"]\n";
const CHAT: &str = "/v1/chat/completions";

/// A command that goes on, and the lines that it prints.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Running {
    fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut child = cutover()
            .args(args)
            .args(["--admin", &format!("127.0.0.1:{}", daemon.admin)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line, which must come in time.
    fn line(&self) -> String {
        let next = || self.lines.recv_timeout(PATIENCE);
        tokio::task::block_in_place(next).expect("the next line did not come")
    }

    fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(all).unwrap()
}

/// A scene whose daemon has the same admin port after a restart.
async fn scene_with_port() -> Scene {
    let scene = Scene::new(STAGES).await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = format!("[admin]\nlisten = \"{}\"", port.local_addr().unwrap());
    scene.edit("[admin]\nlisten = \"127.0.0.1:0\"", &admin);
    scene
}

/// Asks once with this model, as somebody else each time.
async fn ask(daemon: &Daemon, model: &str, user: usize) {
    let body = json!({
        "model": model, "user": format!("user-{user}"),
        "messages": [{"role": "user", "content": "what is new?"}],
    });
    post(daemon.proxy, CHAT, &body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followed_decisions_come_once_each_over_a_kill_of_the_daemon() {
    let scene = scene_with_port().await;
    let mut daemon = scene.start().await;
    daemon
        .operate("weight", r#"{"weight": "50%", "reason": "one"}"#)
        .await;
    daemon.operate("hold", r#"{"reason": "two"}"#).await;
    let people = Running::start(&daemon, &["decisions", "--follow"]);
    let scripts = Running::start(
        &daemon,
        &["decisions", "--follow", "--json", "--limit", "1"],
    );
    assert!(people.line().ends_with("one"));
    assert!(people.line().ends_with("two"));
    assert_eq!(
        scripts.json()["reason"],
        "two",
        "the last one, as --limit says"
    );
    daemon.operate("resume", r#"{"reason": "three"}"#).await;
    assert!(people.line().ends_with("three"));
    assert_eq!(scripts.json()["id"], 3);

    daemon.kill();
    let daemon = scene.start().await;
    daemon.operate("hold", r#"{"reason": "four"}"#).await;
    daemon.operate("resume", r#"{"reason": "five"}"#).await;
    for (id, reason) in [(4, "four"), (5, "five")] {
        let line = people.line();
        assert!(
            line.contains(&format!("#{id} ")) && line.ends_with(reason),
            "{line}"
        );
        assert_eq!(scripts.json()["id"], id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_requests_are_found_and_nothing_in_them_reaches_the_terminal() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let follower = Running::start(&daemon, &["requests", "--failed", "--follow", "--json"]);
    for user in 0..3 {
        ask(&daemon, "gpt\u{1b}]0;owned\u{7}\u{9b}31m", user).await;
    }
    ask(&daemon, "fault-500", 7).await;
    let failed = follower.json();
    assert_eq!(
        (&failed["outcome"], &failed["model"]),
        (&"server-error".into(), &"fault-500".into())
    );

    let all = |args: &[&str]| {
        let output = daemon.cli(&[&["requests", "--json"], args].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["requests"].as_array().unwrap().clone()
    };
    wait_until("all are stored", || all(&[]).len() >= 4).await;
    let first = all(&["--failed"]);
    // All tries are there, the newest first.
    assert_eq!(first.last(), Some(&failed));
    assert_eq!(all(&["--failed", "--limit", "1"]).len(), 1);
    assert_eq!(
        all(&[
            "--outcome",
            "server-error",
            "--arm",
            "legacy",
            "--rollout",
            "default"
        ]),
        first
    );
    assert!(all(&["--arm", "canary"]).is_empty());
    assert!(all(&["--rollout", "a&failed=false"]).is_empty());

    let shown = daemon.cli(&["requests"]);
    let shown = text(&shown);
    assert!(
        shown.contains("gpt\\u{1b}]0;owned\\u{7}\\u{9b}31m"),
        "{shown}"
    );
    assert!(
        !shown.chars().any(|c| c.is_control() && c != '\n'),
        "{shown:?}"
    );
    assert!(shown.lines().next().unwrap().starts_with("at "), "{shown}");
    let json = text(&daemon.cli(&["requests", "--json"]));
    assert!(
        !json.chars().any(|c| c.is_control() && c != '\n'),
        "{json:?}"
    );
    assert_eq!(
        text(&daemon.cli(&["requests", "--arm", "canary"])),
        "no such requests\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_gets_one_status_per_line_and_no_picture() {
    let scene = scene_with_port().await;
    let mut daemon = scene.start().await;
    let refused = daemon.cli(&["status", "--watch"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("needs a terminal"),
        "{}",
        text(&refused)
    );

    let stream = Running::start(&daemon, &["status", "--watch", "--json"]);
    assert_eq!(stream.json()["rollouts"][0]["state"], "warming-up");
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    let is_up = || stream.json()["rollouts"][0]["weight"] == 0.5;
    assert!((0..20).any(|_| is_up()), "the new weight never came");
    daemon.kill();
    let daemon = scene.start().await;
    daemon.operate("weight", r#"{"weight": "10%"}"#).await;
    let is_down = || stream.json()["rollouts"][0]["weight"] == 0.1;
    assert!(
        (0..20).any(|_| is_down()),
        "it did not go on after the restart"
    );

    let coloured = |vars: &[(&str, &str)]| {
        let mut command = cutover();
        command
            .envs(vars.iter().copied())
            .args(["status", "--admin"]);
        command.arg(format!("127.0.0.1:{}", daemon.admin));
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        text(&output).contains('\x1b')
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

/// A terminal of 80x24 with the live view in it, by the program `script`.
struct Screen {
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The view first: without its terminal it must end by itself, which a failed test did not see.
        if let Some(pid) = self.pid().filter(|_| self.is_there()) {
            Command::new("kill").args(["-KILL", &pid]).status().ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Screen {
    fn open(daemon: &Daemon) -> Self {
        Self::open_with(daemon, "")
    }

    /// With another program before the live view's.
    fn open_with(daemon: &Daemon, before: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_cutover");
        // In the background only so that its id is known; it reads the same terminal.
        let shell = format!(
            "stty rows 24 cols 80; {before} {program} status --watch --admin 127.0.0.1:{} </dev/tty & \
             echo PID=$!=; wait $!; echo ENDED $?; stty -a",
            daemon.admin
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--command", &shell, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program `script` is there");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut stdout = child.stdout.take().unwrap();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(size @ 1..) = stdout.read(&mut part) {
                kept.lock().unwrap().extend_from_slice(&part[..size]);
            }
        });
        Self { child, seen }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn press(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// The id of the live view's process.
    fn pid(&self) -> Option<String> {
        let seen = self.seen();
        let (_, rest) = seen.split_once("PID=")?;
        Some(rest.split_once('=')?.0.to_owned())
    }

    /// Whether the live view still runs. One that ended may wait for a parent that never asks.
    fn is_there(&self) -> bool {
        let pid = self.pid().unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(cutover)") && !stat.contains("(cutover) Z")
    }

    /// Sends SIGTERM to the live view.
    fn terminate(&self) {
        let pid = self.pid().unwrap();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(killed.success(), "{pid}");
    }

    /// Waits until this was drawn after the first `from` bytes; gives how much was drawn by then.
    async fn shows(&self, what: &str, from: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen();
            if seen.get(from..).is_some_and(|rest| rest.contains(what)) {
                return seen.len();
            }
            assert!(
                Instant::now() < deadline,
                "`{what}` was never drawn:\n{seen}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The view has ended like this, and the terminal is as it was.
    async fn ended(&self, code: &str) {
        self.shows(code, 0).await;
        self.shows(" icanon", 0).await;
        let seen = self.seen();
        let (_, after) = seen
            .rsplit_once("\x1b[?1049l")
            .expect("the other screen was left");
        assert!(after.contains(code) && after.contains(" echo "), "{after}");
        assert!(seen.contains("\x1b[?2004l"), "pasting is as it was");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_is_held_from_the_live_view_and_the_terminal_comes_back() {
    let scene = scene_with_port().await;
    let mut daemon = scene.start().await;
    daemon.operate("weight", r#"{"weight": "50%"}"#).await;
    let mut screen = Screen::open(&daemon);
    screen.shows("RUNNING", 0).await;
    screen.press("h");
    let drawn = screen.shows("hold default", 0).await;
    // A pasted line end is no Enter, and a pasted key no order.
    screen.press("\x1b[200~late\rp\x1b[201~");
    screen.shows("latep", drawn).await;
    assert_eq!(daemon.decisions().await.len(), 1);
    screen.press("\r");
    let drawn = screen.shows("HELD", drawn).await;
    let decisions = daemon.decisions().await;
    assert_eq!(decisions.len(), 2);
    assert_eq!(
        (&decisions[1]["kind"], &decisions[1]["reason"]),
        (&"hold".into(), &"latep".into())
    );

    daemon.kill();
    screen.shows("trying again", drawn).await;
    let daemon = scene.start().await;
    let drawn = screen.seen().len();
    screen.shows("live", drawn).await;
    daemon.operate("resume", "{}").await;
    screen.shows("RUNNING", drawn).await;
    screen.press("q");
    screen.ended("ENDED 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_c_and_a_signal_give_the_terminal_back() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    let mut screen = Screen::open(&daemon);
    screen.shows("WARMING-UP", 0).await;
    screen.press("\x03");
    screen.ended("ENDED 0").await;

    let screen = Screen::open(&daemon);
    screen.shows("WARMING-UP", 0).await;
    screen.terminate();
    screen.ended("ENDED 0").await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_view_does_not_outlive_its_terminal() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    // A process of another session gets no signal when the terminal hangs up.
    for before in ["", "setsid"] {
        let mut screen = Screen::open_with(&daemon, before);
        screen.shows("WARMING-UP", 0).await;
        assert!(screen.is_there());
        screen.child.kill().unwrap();
        screen.child.wait().unwrap();
        wait_until("the view has ended", || !screen.is_there()).await;
    }
}

#[test]
fn a_sourced_completion_completes_words_values_and_options() {
    for (words, expected) in [
        (vec!["stat"], "status"),
        (vec!["requests", "--outcome", "server-"], "server-error"),
        (vec!["set-w"], "set-weight"),
        (vec!["decisions", "--fol"], "--follow"),
    ] {
        let place = words.len();
        let line = words.join(" ");
        let (current, before) = (
            words[place - 1],
            ["cutover"].iter().chain(&words).nth(place - 1),
        );
        let script = format!(
            "set -e; source <({} completions bash); COMP_WORDS=(cutover {line}); COMP_CWORD={place}; \
             _cutover cutover '{current}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            env!("CARGO_BIN_EXE_cutover"),
            before.unwrap(),
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(text(&output).trim(), expected, "{line}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = cutover().args(["completions", shell]).output().unwrap();
        let script = text(&output);
        assert!(
            script.contains("set-weight") && script.contains("follow"),
            "{shell}"
        );
        if shell == "bash" {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("cutover");
            std::fs::write(&file, script).unwrap();
            let output = Command::new("bash").arg("-n").arg(&file).output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
        }
    }
}

#[test]
fn there_is_a_page_for_each_command_and_they_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man1");
    let output = cutover()
        .arg("man")
        .arg("--out")
        .arg(&man)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let main = cutover().arg("man").output().unwrap();
    let in_folder = std::fs::read_to_string(man.join("cutover.1")).unwrap();
    assert_eq!(in_folder, String::from_utf8(main.stdout.clone()).unwrap());
    let names = [
        "cutover",
        "cutover-run",
        "cutover-status",
        "cutover-requests",
        "cutover-set-weight",
    ];
    for name in names {
        let path = man.join(format!("{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(
            page.contains(".TH ") && page.contains(".SH SYNOPSIS"),
            "{name}: {page}"
        );
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let known = [
                ".ie", ".el", ".TH", ".SH", ".TP", ".br", ".RS", ".RE", ".IP", ".PP", ".nf", ".fi",
            ];
            assert!(
                known.iter().any(|macro_| line.starts_with(macro_)),
                "{name}: {line}"
            );
        }
        // Where the formatter is installed it judges, too.
        let mut judged = Command::new("groff");
        judged.args(["-man", "-z", "-ww", "-Tutf8", "-K", "utf8"]);
        if let Ok(output) = judged.arg(&path).output() {
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{}",
                text(&output)
            );
        }
    }
    let main = text(&main);
    assert!(main.contains("Exit codes"), "{main}");
}
