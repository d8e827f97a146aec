//! The decision log: one line per transition, for people and for machines.

use serde_json::Value;

use super::load::Load;
use super::process::Daemon;
use super::scene::Scene;

const STAGES: &str = r#"
warm-up = 30
stages = [{ weight = "20%", dwell = "0s" }, { weight = "50%", dwell = "1h" }, "100%"]
trip = { cooldown = "5m", max-per-day = 10 }
"#;

/// Walks through the kinds: start, promote, hold, resume, set-weight, trip, resume, roll-back, retry.
async fn story(daemon: &Daemon) {
    let load = Load::start(daemon.proxy);
    daemon
        .until("promoted by proof", |rollout| rollout["weight"] == 0.5)
        .await;
    daemon.operate("hold", r#"{"reason": "lunch"}"#).await;
    daemon
        .operate("resume", r#"{"reason": "back again"}"#)
        .await;
    daemon
        .operate("weight", r#"{"weight": "40%", "reason": "less for now"}"#)
        .await;
    load.answers(50).await;
    load.set_model("fault-529@canary");
    daemon
        .until("tripped", |rollout| rollout["weight"] == 0.0)
        .await;
    load.set_model("ok");
    daemon.operate("resume", "{}").await;
    daemon
        .operate("rollback", r#"{"reason": "complaints"}"#)
        .await;
    daemon.operate("retry", r#"{"reason": "mended"}"#).await;
    load.stop_without_failures().await;
}

/// Each number as `N`, but those of shares that the story sets, the stage and the decision.
fn masked(line: &str) -> String {
    let masked: Vec<_> = line.split(" · ").map(masked_part).collect();
    // How a number is written depends on its size.
    masked.join(" · ").replace("Nms", "Ns").replace("NeN", "N")
}

fn masked_part(part: &str) -> String {
    let fixed = ["decision ", "never above "];
    if fixed.iter().any(|start| part.starts_with(start)) {
        return part.to_owned();
    }
    let (kept, rest) = match part.split_once(" after ") {
        Some((kept, rest)) => (format!("{kept} after "), rest),
        None if part.contains("rollout=") => (part.to_owned(), ""),
        None => (String::new(), part),
    };
    let mut out = kept;
    let mut in_number = false;
    for c in rest.chars() {
        let part_of_one = c.is_ascii_digit() || (in_number && (c == '.' || c == ':' || c == ','));
        if part_of_one && !in_number {
            out.push('N');
        }
        if !part_of_one {
            out.push(c);
        }
        in_number = part_of_one;
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_reads_one_line_per_transition() {
    let scene = Scene::new(STAGES).await;
    let daemon = Daemon::start(&scene.path(), "text").await;
    story(&daemon).await;
    daemon
        .line("retries", |line| line.contains("retry rollout="))
        .await;
    let lines: Vec<_> = daemon
        .lines()
        .iter()
        .filter(|line| line.contains("rollout=default") && line.contains("decision "))
        .map(|line| masked(&line[line.find("INFO ").unwrap() + 5..]))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    start rollout=default 0% -> 20% stage 1/3 · warm-up: N legacy requests in Ns · decision 1
    promote rollout=default 20% -> 50% stage 1/3 after Ns · errors N/N vs N/N (allowed N%) · evidence N (needs N) · decision 2
    hold rollout=default 50% stage 2/3 · lunch · decision 3
    resume rollout=default 50% stage 2/3 · back again · decision 4
    set-weight rollout=default 50% -> 40% stage 2/3 · less for now · decision 5
    trip rollout=default 40% -> 0% (stage kept) · errors N/N in Ns: Nx N · never above 20% · N rescued by failover, N clients failed · retry N · decision 6
    resume rollout=default 0% -> 40% stage 1/3 · no reason given · decision 7
    roll-back rollout=default 40% -> 0% stage 1/3 · complaints · decision 8
    retry rollout=default 0% -> 20% stage 1/3 · mended · decision 9
    "#);
    let trip = daemon
        .line("trips", |line| line.contains("trip rollout="))
        .await;
    assert!(
        trip.contains("x 529 ·") && trip.contains(" 0 clients failed"),
        "{trip}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_reads_the_same_as_fields() {
    let scene = Scene::new(STAGES).await;
    let daemon = scene.start().await;
    story(&daemon).await;
    daemon
        .line("retries", |line| line.contains("retry rollout="))
        .await;
    let lines: Vec<Value> = daemon
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let decisions: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"].is_string())
        .collect();
    let rows = decisions.iter().map(|line| {
        format!(
            "{} {} {} -> {} stage {} by {} #{} {}",
            line["rollout"],
            line["kind"],
            line["weight_from"],
            line["weight_to"],
            line["stage"],
            line["by"],
            line["decision"],
            line["level"]
        )
    });
    insta::assert_snapshot!(rows.collect::<Vec<_>>().join("\n").replace('"', ""), @r"
    default start 0.0 -> 0.2 stage 1 by controller #1 INFO
    default promote 0.2 -> 0.5 stage 1 by controller #2 INFO
    default hold 0.5 -> 0.5 stage 2 by operator #3 INFO
    default resume 0.5 -> 0.5 stage 2 by operator #4 INFO
    default set-weight 0.5 -> 0.4 stage 2 by operator #5 INFO
    default trip 0.4 -> 0.0 stage 1 by controller #6 INFO
    default resume 0.0 -> 0.4 stage 1 by operator #7 INFO
    default roll-back 0.4 -> 0.0 stage 1 by operator #8 INFO
    default retry 0.0 -> 0.2 stage 1 by operator #9 INFO
    ");
    // The same transitions as the API tells, with the same numbers.
    let told = daemon.decisions().await;
    assert_eq!(told.len(), decisions.len());
    for (line, told) in decisions.iter().zip(&told) {
        let pairs = [
            ("decision", "id"),
            ("kind", "kind"),
            ("weight_from", "weight_from"),
            ("weight_to", "weight_to"),
            ("stage", "stage"),
            ("by", "by"),
            ("rollout", "rollout"),
        ];
        for (in_line, in_api) in pairs {
            assert_eq!(line[in_line], told[in_api], "{in_line} of {line}");
        }
        assert!(
            line["message"]
                .as_str()
                .unwrap()
                .contains(told["reason"].as_str().unwrap())
        );
    }
}
