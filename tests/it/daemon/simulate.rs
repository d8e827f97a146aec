//! `cutover simulate` as a person runs it: its answers, its faults and its exit codes.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::cutover;

/// Exit code, standard output and standard error in a folder.
fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command: Command = cutover();
    let output = command
        .arg("simulate")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

const SHORT: &str = "duration = \"3h\"\ntick = \"1m\"\n[traffic]\nrate = 5\n\
    [[change]]\nat = \"2h\"\nerror-rate = \"100%\"\n";

const QUICK: &str = "[arms.legacy]\nbase-url = \"http://127.0.0.1:1\"\n\
    [arms.canary]\nbase-url = \"http://127.0.0.1:2\"\napi-key = \"env:NOT_SET_ANYWHERE\"\n\
    [[rollout]]\nname = \"slow\"\nmatch = { models = [\"a\"] }\n\
    [[rollout]]\nname = \"quick\"\nwarm-up = 100\nstages = [ { weight = \"50%\", dwell = \"10m\" }, \"100%\" ]\n";

#[test]
fn the_answer_is_json_for_machines_and_sentences_for_people() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("short.toml"), SHORT).unwrap();
    fs::write(folder.path().join("cutover.toml"), QUICK).unwrap();
    let settings = [
        "short.toml",
        "--config",
        "cutover.toml",
        "--rollout",
        "quick",
        "--runs",
        "4",
        "--seed",
        "3",
    ];
    let (code, json, errors) = run(folder.path(), &[&settings[..], &["--json"]].concat());
    assert_eq!((code, errors.as_str()), (0, ""), "{json}");
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&answer["runs"], &answer["stopped"]),
        (&4.into(), &4.into())
    );
    assert_eq!(
        (&answer["completed"], &answer["false_trips"]),
        (&4.into(), &0.into())
    );
    assert!(answer["first_stop_s"]["p50"].as_f64().unwrap() < 60.0);
    let plotted = [&settings[..], &["--plot", "run.svg"]].concat();
    let (code, text, _) = run(folder.path(), &plotted);
    assert_eq!(code, 0);
    for part in [
        "Complete in 4 of 4 runs",
        "Stopped in 4 of 4 runs",
        "The first run:",
        "trip rollout=",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    let svg = fs::read_to_string(folder.path().join("run.svg")).unwrap();
    assert!(svg.starts_with("<svg"));
    let (code, text, _) = run(folder.path(), &["short.toml", "--runs", "2", "--rule", "c"]);
    assert!(code == 0 && text.contains("rule C"), "{text}");
}

#[test]
fn what_cannot_be_simulated_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.toml"), "tikc = \"1s\"\n").unwrap();
    fs::write(folder.path().join("cutover.toml"), QUICK).unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["bad.toml"],
            1,
            "bad.toml:1:1: tikc: unknown key; did you mean \"tick\"?",
        ),
        (&["absent.toml"], 3, "take one of healthy, "),
        (
            &["healthy", "--config", "absent.toml"],
            3,
            "there is no absent.toml",
        ),
        (
            &["healthy", "--config", "cutover.toml", "--rollout", "qick"],
            1,
            "it has: slow, quick",
        ),
        (&[], 2, "<SCENARIO>"),
        (&["healthy", "--runs", "0"], 2, "--runs"),
    ];
    for (args, expected, part) in cases {
        let (code, _, errors) = run(folder.path(), args);
        assert_eq!(code, expected, "{args:?}: {errors}");
        assert!(errors.contains(part), "{args:?}: {errors}");
    }
    let (code, text, _) = run(folder.path(), &["outage", "--show"]);
    assert!(code == 0 && text.contains("[[change]]"), "{text}");
}
