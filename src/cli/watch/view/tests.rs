use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::*;
use crate::cli::watch::feed::News;
use crate::cli::watch::screen::{Answer, End};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn arm(errors: u64, p99: f64, cost: f64) -> Value {
    json!({
        "requests": 12_745, "errors": errors, "error_rate": errors as f64 / 12_745.0,
        "rate_limited": 2, "masked": 0, "latency_ms": {"p50": 134.0, "p99": p99},
        "ttft_ms": {"p50": 92.0, "p99": 234.0}, "tokens_per_s": {"p50": 148.0},
        "cache_hit_share": 0.0, "cost_usd": cost, "unpriced": 0, "no_usage": 0,
        "breaker": "closed", "headroom": null,
    })
}

fn guard(name: &str, verdict: &str, value: f64, limit: f64, evidence: f64) -> Value {
    let is_open = verdict == "undecided";
    json!({
        "name": name, "verdict": verdict, "value": value, "limit": limit, "evidence": evidence,
        "needed": 20.0, "requests_needed": is_open.then_some(1_893), "eta_s": is_open.then_some(551),
    })
}

fn rollout() -> Value {
    json!({
        "name": "default", "state": "running", "weight": 0.25, "attempt": 1,
        "stage": {"index": 3, "of": 7, "weight": 0.25, "since": "2023-11-14T21:42:20.000Z"},
        "stages": [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0], "next_action_at": null,
        "reason": "needs about 1,900 more canary requests, ~9m at this rate for ttft-p99",
        "guards": [
            guard("error-rate", "healthy", 0.0032, 0.0099, 4e9),
            guard("latency-p99", "healthy", 223.0, 882.0, 1_118.0),
            guard("ttft-p99", "undecided", 176.0, 668.0, 5.03),
            guard("rejected", "healthy", 0.0, 0.03, 7e14),
        ],
        "arms": {"legacy": arm(13, 285.0, 24.09), "canary": arm(40, 234.0, 16.5)},
    })
}

fn decisions() -> Vec<Value> {
    let decision = |id: u64, kind: &str, from: f64, to: f64, reason: &str| {
        json!({
            "id": id, "at": "2023-11-14T21:42:20.123Z", "rollout": "default", "kind": kind,
            "weight_from": from, "weight_to": to, "reason": reason,
        })
    };
    vec![
        decision(
            3,
            "promote",
            0.05,
            0.25,
            "after 31m \u{b7} errors 2/2614 vs 38/49120 (allowed 0.49%) \u{b7} p99 1.21s vs 1.34s (allowed x1.5) \u{b7} evidence 24.1 (needs 20)",
        ),
        decision(
            2,
            "promote",
            0.01,
            0.05,
            "after 30m \u{b7} errors 0/514 vs 38/49120 (allowed 0.49%)",
        ),
        decision(1, "start", 0.0, 0.01, "2000 legacy requests measured"),
    ]
}

fn screen(rollouts: &[Value]) -> Screen {
    let mut screen = Screen::new("127.0.0.1:8081", NOW);
    let status = json!({
        "version": "0.1.0", "uptime_s": 11_000, "store": {"healthy": true, "dropped_samples": 0},
        "config": {"error": null}, "rollouts": rollouts,
    });
    screen.hear(News::Status(status), NOW);
    screen.hear(News::Decisions("default".to_owned(), decisions()), NOW);
    screen
}

fn shown_at(screen: &Screen, width: u16, height: u16, now: UnixMillis) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, screen, Paint::PLAIN, now))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width));
    let text = rows.map(|row| {
        row.iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect::<String>()
    });
    text.map(|row| row.trim_end().to_owned() + "\n").collect()
}

fn shown(screen: &Screen, width: u16, height: u16) -> String {
    shown_at(screen, width, height, NOW)
}

fn press(screen: &mut Screen, keys: &str) {
    for c in keys.chars() {
        let code = if c == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(c)
        };
        screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

#[test]
fn a_healthy_rollout_says_where_it_stands_and_why_it_waits() {
    insta::assert_snapshot!(shown(&screen(&[rollout()]), 100, 26), @r"
    cutover  127.0.0.1:8081  0.1.0  up 3h 3m                                         live 22:13:20 UTC
     RUNNING   25% to the canary  stage 3/7, 31m in it
    stages 1% > 5% > [25%] > 50% > 75% > 95% > 100%
    why   needs about 1,900 more canary requests, ~9m at this rate for ttft-p99
    next  goes up as soon as every guard has proof
    arms ──────────────────────────────────────────────────────────────────────────────────────────────
             requests   errors  429  masked    p50    p99  ttft p50  ttft p99  tok/s  cost/1k    cost
    legacy     12,745     0.1%    2       0  134ms  285ms      92ms     234ms    148    $1.89  $24.09
    canary     12,745    0.31%    2       0  134ms  234ms      92ms     234ms    148    $1.30  $16.50
    differs            +0.21pp                  0%   -18%        0%        0%     0%     -31%
    the canary saved about $7.54 so far: 31% less per answer
    guards: proof towards the next stage ──────────────────────────────────────────────────────────────
    ttft-p99     undecided  176ms of 668ms  ████████████░░░░░░░░░░░░  1,900 more requests, ~9m
    error-rate   healthy    0.32% of 0.99%  ████████████████████████  proven
    latency-p99  healthy    223ms of 882ms  ████████████████████████  proven
    rejected     healthy          0% of 3%  ████████████████████████  proven
    decisions, newest first ───────────────────────────────────────────────────────────────────────────
    11-14 21:42:20  promote       5% -> 25%  after 31m · errors 2/2614 vs 38/49120 (allowed 0.49%) ·
                                             p99 1.21s vs 1.34s (allowed x1.5) · evidence 24.1 (needs
                                             20)
    11-14 21:42:20  promote       1% -> 5%   after 30m · errors 0/514 vs 38/49120 (allowed 0.49%)
    11-14 21:42:20  start         0% -> 1%   2000 legacy requests measured



    h hold  r resume  p promote  b roll back  t retry  w set weight  ? help  q quit
    ");
}

#[test]
fn a_tripped_canary_says_when_it_is_probed() {
    let mut tripped = rollout();
    tripped["state"] = json!("tripped");
    tripped["weight"] = json!(0.0);
    tripped["reason"] = json!("tripped; probes begin in 4m 30s");
    tripped["next_action_at"] = json!("2023-11-14T22:17:50.000Z");
    tripped["arms"]["canary"]["breaker"] = json!("open");
    insta::assert_snapshot!(shown(&screen(&[tripped]), 80, 24), @r"
    cutover  127.0.0.1:8081  0.1.0  up 3h 3m                     live 22:13:20 UTC
     TRIPPED   0% to the canary  stage 3/7, 31m in it
    stages 1% > 5% > [25%] > 50% > 75% > 95% > 100%
    why   tripped; probes begin in 4m 30s
    next  probes the canary in 4m 30s (22:17:50 UTC), five good probes bring it
          back; `cutover resume` does not wait
    arms ──────────────────────────────────────────────────────────────────────────
             requests   errors  429    p50    p99  ttft p50  ttft p99  cost/1k
    legacy     12,745     0.1%    2  134ms  285ms      92ms     234ms    $1.89
    canary     12,745    0.31%    2  134ms  234ms      92ms     234ms    $1.30
    differs            +0.21pp          0%   -18%        0%        0%     -31%
    canary: its connections fail, so it is not dialled (breaker open)
    the canary saved about $7.54 so far: 31% less per answer
    guards: proof towards the next stage ──────────────────────────────────────────
    ttft-p99     undecided  176ms of 668ms  ███████░░░░░░  1,900 more requests, ~9m
    error-rate   healthy    0.32% of 0.99%  █████████████  proven
    latency-p99  healthy    223ms of 882ms  █████████████  proven
    rejected     healthy          0% of 3%  █████████████  proven
    decisions, newest first ───────────────────────────────────────────────────────
    21:42:20  promote       5% -> 25%  after 31m · errors 2/2614 vs 38/49120
                                       (allowed 0.49%) · p99 1.21s vs 1.34s
                                       (allowed x1.5) · evidence 24.1 (needs 20)
    21:42:20  promote       1% -> 5%   after 30m · errors 0/514 vs 38/49120 (allo..
    h hold  r resume  p promote  b roll back  t retry  w set weight  ? help  q quit
    ");
}

#[test]
fn a_rollback_says_what_was_proven_and_how_to_go_on() {
    let mut back = rollout();
    back["state"] = json!("rolled-back");
    back["weight"] = json!(0.0);
    back["reason"] = json!("rolled back; `cutover retry` starts a new attempt");
    back["guards"][0] = guard("error-rate", "harm", 0.031, 0.0099, 2_400.0);
    insta::assert_snapshot!(shown(&screen(&[back]), 80, 24), @r"
    cutover  127.0.0.1:8081  0.1.0  up 3h 3m                     live 22:13:20 UTC
     ROLLED-BACK   0% to the canary  stage 3/7, 31m in it
    stages 1% > 5% > 25% > 50% > 75% > 95% > 100%
    why   rolled back; `cutover retry` starts a new attempt
    arms ──────────────────────────────────────────────────────────────────────────
             requests   errors  429    p50    p99  ttft p50  ttft p99  cost/1k
    legacy     12,745     0.1%    2  134ms  285ms      92ms     234ms    $1.89
    canary     12,745    0.31%    2  134ms  234ms      92ms     234ms    $1.30
    differs            +0.21pp          0%   -18%        0%        0%     -31%
    the canary saved about $7.54 so far: 31% less per answer
    guards: proof towards the next stage ──────────────────────────────────────────
    error-rate   harm        3.1% of 0.99%  █████████████  proven harm
    ttft-p99     undecided  176ms of 668ms  ███████░░░░░░  1,900 more requests, ~9m
    latency-p99  healthy    223ms of 882ms  █████████████  proven
    rejected     healthy          0% of 3%  █████████████  proven
    decisions, newest first ───────────────────────────────────────────────────────
    21:42:20  promote       5% -> 25%  after 31m · errors 2/2614 vs 38/49120
                                       (allowed 0.49%) · p99 1.21s vs 1.34s
                                       (allowed x1.5) · evidence 24.1 (needs 20)
    21:42:20  promote       1% -> 5%   after 30m · errors 0/514 vs 38/49120 (allo..
    21:42:20  start         0% -> 1%   2000 legacy requests measured


    h hold  r resume  p promote  b roll back  t retry  w set weight  ? help  q quit
    ");
}

#[test]
fn a_tiny_terminal_keeps_what_tells_most() {
    insta::assert_snapshot!(shown(&screen(&[rollout()]), 60, 20), @r"
    cutover  127.0.0.1:8081                  live 22:13:20 UTC
     RUNNING   25% to the canary  stage 3/7, 31m in it
    stages 1% > 5% > [25%] > 50% > 75% > 95% > 100%
    why   needs about 1,900 more canary requests, ~9m at this
          rate for ttft-p99
    next  goes up as soon as every guard has proof
    arms ──────────────────────────────────────────────────────
             requests   errors    p50    p99  ttft p99
    legacy     12,745     0.1%  134ms  285ms     234ms
    canary     12,745    0.31%  134ms  234ms     234ms
    differs            +0.21pp     0%   -18%        0%
    the canary saved about $7.54 so far: 31% less per answer
    guards: proof towards the next stage ──────────────────────
    ttft-p99     undecided  ████░░░░░  1,900 more requests, ~9m
    error-rate   healthy    █████████  proven
    latency-p99  healthy    █████████  proven
    rejected     healthy    █████████  proven
    decisions, newest first ───────────────────────────────────
    21:42:20  promote       5% -> 25%  after 31m · errors
    h hold r resume p promote b back t retry w weight ? q quit
    ");
    let tinier = shown(&screen(&[rollout()]), 40, 10);
    assert!(
        tinier.contains("RUNNING") && tinier.contains("? keys"),
        "{tinier}"
    );
    let least = shown(&screen(&[rollout()]), 30, 5);
    assert!(least.contains("too small"), "{least}");
}

#[test]
fn a_daemon_that_is_gone_is_told_with_the_age_of_what_is_shown() {
    let mut screen = screen(&[rollout()]);
    screen.hear(
        News::Lost("no daemon at 127.0.0.1:8081: connection refused".to_owned()),
        NOW,
    );
    let text = shown_at(&screen, 80, 24, NOW.plus_millis(12_300));
    let head: Vec<&str> = text.lines().take(4).collect();
    insta::assert_snapshot!(head.join("\n"), @r"
    cutover  127.0.0.1:8081  0.1.0  up 3h 3m            NOT REACHABLE 22:13:32 UTC
    not reachable since 12s, trying again: no daemon at 127.0.0.1:8081: connection
    refused; what stands below is as old
     RUNNING   25% to the canary  stage 3/7, 31m 12s in it
    ");
    // It comes back.
    let status = screen.status.clone().unwrap();
    screen.hear(News::Status(status), NOW);
    let text = shown(&screen, 80, 24);
    assert!(
        text.contains("live") && !text.contains("reachable"),
        "{text}"
    );

    let mut never = Screen::new("127.0.0.1:8081", NOW);
    assert!(shown(&never, 80, 24).contains("asking the daemon"));
    never.hear(News::Lost("no daemon at 127.0.0.1:8081".to_owned()), NOW);
    assert!(shown(&never, 80, 24).contains("not reachable since 1s, trying again"));
}

#[test]
fn an_order_says_what_will_happen_before_enter() {
    let mut screen = screen(&[rollout()]);
    press(&mut screen, "pgo on");
    insta::assert_snapshot!(shown(&screen, 80, 24), @r"
    cutover  127.0.0.1:8081  0.1.0  up 3h 3m                     live 22:13:20 UTC
     RUNNING   25% to the canary  stage 3/7, 31m in it
    stages 1% > 5% > [25%] > 50% > 75% > 95% > 100%
    why   needs about 1,900 more canary requests, ~9m at this rate for ttft-p99
    next  goes up as soon as every guard has proof
    arms ──────────────────────────────────────────────────────────────────────────
             requests   errors  429    p50    p99  ttft p50  ttft p99  cost/1k
    legacy     12,745     0.1%    2  134ms  285ms      92ms     234ms    $1.89
    c┌ promote default ─────────────────────────────────────────────────────────┐
    d│ now RUNNING                                                              │
    t│ 25% -> 50%: the next stage now, without waiting for proof                │
    g│                                                                          │──
    t│ reason: go on_                                                           │9m
    e│                                                                          │
    l│ Enter: do it   Esc: leave it                                             │
    r└──────────────────────────────────────────────────────────────────────────┘
    decisions, newest first ───────────────────────────────────────────────────────
    21:42:20  promote       5% -> 25%  after 31m · errors 2/2614 vs 38/49120
                                       (allowed 0.49%) · p99 1.21s vs 1.34s
                                       (allowed x1.5) · evidence 24.1 (needs 20)
    21:42:20  promote       1% -> 5%   after 30m · errors 0/514 vs 38/49120 (allo..
    21:42:20  start         0% -> 1%   2000 legacy requests measured

    h hold  r resume  p promote  b roll back  t retry  w set weight  ? help  q quit
    ");
    press(&mut screen, "\n");
    assert!(shown(&screen, 80, 24).contains("promote default: sent"));
    let text = "the store is failing, so nothing can go up; mend it and ask again";
    for (end, head) in [
        (End::Refused, "refused: the store"),
        (End::Unknown, "look whether it was done: the"),
        (End::Done, " the store is failing"),
    ] {
        let text = text.to_owned();
        screen.hear(News::Answered(Answer { end, text }), NOW);
        assert!(shown(&screen, 100, 24).contains(head), "{head}");
    }

    press(&mut screen, "w250\n");
    assert!(shown(&screen, 80, 24).contains("`250%` is no weight"));
    press(&mut screen, "?");
}

#[test]
fn several_rollouts_are_named_and_the_finished_one_says_what_to_keep() {
    let mut finished = rollout();
    finished["name"] = json!("search");
    finished["state"] = json!("complete");
    finished["reason"] = json!("complete at 100%");
    let mut screen = screen(&[rollout(), finished]);
    screen.press(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE));
    let text = shown(&screen, 100, 30);
    for expected in [
        " default   search: complete  Tab",
        "COMPLETE",
        "keep  legacy's credentials",
        " not read yet",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    screen.hear(News::Decisions("search".to_owned(), Vec::new()), NOW);
    assert!(shown(&screen, 100, 30).contains(" none yet"));
}

#[test]
fn the_help_explains_every_key() {
    let mut screen = screen(&[rollout()]);
    press(&mut screen, "?");
    let text = shown(&screen, 100, 30);
    for expected in [
        "h  hold",
        "r  resume",
        "p  promote",
        "b  roll back",
        "t  retry",
        "w  set",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
}

#[test]
fn every_size_can_be_drawn_in_every_mode() {
    let mut lost = screen(&[rollout()]);
    lost.hear(News::Lost("gone".to_owned()), NOW);
    let mut asking = screen(&[rollout()]);
    press(&mut asking, "w");
    let mut help = screen(&[rollout()]);
    press(&mut help, "?");
    let empty = Screen::new("127.0.0.1:8081", NOW);
    let mut bare = screen(&[json!({})]);
    bare.decisions.insert("-".to_owned(), vec![json!({})]);
    for screen in [lost, asking, help, empty, bare, screen(&[])] {
        for width in [1, 2, 7, 29, 30, 59, 80, 139, 300] {
            for height in [1, 2, 7, 8, 9, 15, 24, 90] {
                shown(&screen, width, height);
            }
        }
    }
}

#[test]
fn words_break_between_words_and_only_then_within() {
    for (text, width, expected) in [
        ("one two three", 7, vec!["one two", "three"]),
        ("one two three", 100, vec!["one two three"]),
        ("abcdefgh ij", 3, vec!["abc", "def", "gh", "ij"]),
        ("", 5, vec![""]),
    ] {
        assert_eq!(wrapped(text, width), expected);
    }
    assert_eq!(clipped("abcdef", 6), "abcdef");
    assert_eq!(clipped("abcdefg", 6), "abcd..");
}

#[test]
fn room_goes_to_what_tells_most() {
    let section = |lines: usize, least: usize, rank: u8| Section {
        title: "",
        lines: vec![Line::default(); lines],
        least,
        rank,
    };
    let sections = [section(3, 1, 0), section(10, 4, 2), section(5, 2, 1)];
    for (room, expected) in [
        (100, [3, 10, 5]),
        (18, [3, 10, 5]),
        (10, [3, 4, 3]),
        (7, [1, 4, 2]),
        (6, [3, 0, 3]),
        (2, [2, 0, 0]),
        (0, [0, 0, 0]),
    ] {
        assert_eq!(shared_out(&sections, room), expected, "{room}");
    }
}
