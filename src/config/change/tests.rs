//! Which edits cost what, and how they read.

use super::*;
use crate::config::parse::parse;

const BASE: &str = r#"
[proxy]
listen = "127.0.0.1:8080"
[store]
url = "sqlite:a.db"
[arms.legacy]
base-url = "https://a.example.com"
[arms.canary]
base-url = "https://b.example.com"
api-key = "env:KEY_ONE"
models = { "m" = "n" }
timeouts = { connect = "1s" }
[[rollout]]
name = "default"
retreat = "50%"
[rollout.guards]
error-rate = { max = "5%" }
"#;

fn config(text: &str) -> Config {
    let env = |name: &str| Some(format!("secret-{name}"));
    parse(text, &env).expect(text).config
}

/// The changes made by replacing one text in [`BASE`] by another.
fn edit(from: &str, to: &str) -> Changes {
    assert!(BASE.contains(from), "{from}");
    compare(&config(BASE), &config(&BASE.replace(from, to)))
}

/// From, to, what it resets, and whether the policy changed.
const EDITS: &[(&str, &str, Reset, bool)] = &[
    ("\"5%\" }", "\"5%\" } # the same", Reset::None, false),
    ("\"5%\" }", "\"3%\" }", Reset::Ledgers, true),
    (
        "error-rate = { max = \"5%\" }",
        "error-rate = \"off\"",
        Reset::Ledgers,
        true,
    ),
    ("KEY_ONE", "KEY_TWO", Reset::Ledgers, false),
    ("\"n\"", "\"o\"", Reset::Ledgers, false),
    ("\"1s\"", "\"2s\"", Reset::Ledgers, false),
    (
        "\"1s\"",
        "\"1s\", tokens-per-second = 9",
        Reset::Ledgers,
        false,
    ),
    (
        "timeouts",
        "model-timeouts = { \"o*\" = { idle = \"1s\" } }\ntimeouts",
        Reset::Ledgers,
        false,
    ),
    (
        "[store]",
        "drain-after-disconnect = \"5s\"\n[store]",
        Reset::None,
        false,
    ),
    (
        "timeouts",
        "http = \"auto\"\ntimeouts",
        Reset::Ledgers,
        false,
    ),
    ("timeouts", "http = \"1\"\ntimeouts", Reset::None, false),
    (
        "timeouts",
        "max-concurrency = 9\ntimeouts",
        Reset::None,
        false,
    ),
    (
        "timeouts",
        "include-usage = false\ntimeouts",
        Reset::None,
        false,
    ),
    ("a.example.com", "c.example.com", Reset::Ledgers, false),
    ("b.example.com", "c.example.com", Reset::Rollout, false),
    ("b.example.com", "b.example.com/v1/", Reset::None, false),
    ("\"50%\"", "\"off\"", Reset::None, true),
    ("retreat", "stages = [\"5%\"]\nretreat", Reset::None, true),
    (
        "retreat",
        "match = { models = [\"x\"] }\nretreat",
        Reset::Ledgers,
        false,
    ),
    ("retreat", "failover = false\nretreat", Reset::None, false),
    // Money is no evidence.
    (
        "[store]",
        "tag-header = \"x-team\"\n[store]",
        Reset::None,
        false,
    ),
    (
        "timeouts",
        "prices = { n = { input = 1, output = 2 } }\ntimeouts",
        Reset::None,
        false,
    ),
];

#[test]
fn an_edit_costs_as_much_evidence_as_it_invalidates() {
    for &(from, to, reset, policy_changed) in EDITS {
        let changes = edit(from, to);
        let [rollout] = changes.rollouts.as_slice() else {
            panic!("{changes:?}")
        };
        let found = (rollout.fate, rollout.reset, rollout.policy_changed);
        assert_eq!(found, (Fate::Kept, reset, policy_changed), "{from} -> {to}");
        assert_eq!(changes.restart_needed, Vec::<String>::new());
        assert!(!format!("{changes:?}").contains("secret-"), "{changes:?}");
    }
}

/// From, to, and how it is told.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        "\"5%\" }",
        "\"0.3%\" }",
        "rollout.default.guards.error-rate.max: 5% -> 0.3%",
    ),
    (
        "{ max = \"5%\" }",
        "{ max = \"5%\", max-ratio = 1.2 }",
        "rollout.default.guards.error-rate.max-increase: (none) -> 0%\n\
             rollout.default.guards.error-rate.max-ratio: (none) -> 1.2",
    ),
    (
        "KEY_ONE",
        "KEY_TWO",
        "arms.canary.api-key: changed (secret)",
    ),
    (
        "env:KEY_ONE",
        "client",
        "arms.canary.api-key: (secret) -> client",
    ),
    ("\"1s\"", "\"2s\"", "arms.canary.timeouts.connect: 1s -> 2s"),
    (
        "\"1s\"",
        "\"1s\", total = \"5m\"",
        "arms.canary.timeouts.total: none (streams), 10m (plain) -> 5m",
    ),
    (
        "\"1s\"",
        "\"1s\", tokens-per-second = 9",
        "arms.canary.timeouts.tokens-per-second: (none) -> 9",
    ),
    (
        "timeouts",
        "model-timeouts = { \"o*\" = { total = \"1s\" } }\ntimeouts",
        "arms.canary.model-timeouts.o*.first-byte: (none) -> 1m (streams), none (plain)\n\
             arms.canary.model-timeouts.o*.idle: (none) -> 5m\n\
             arms.canary.model-timeouts.o*.total: (none) -> 1s",
    ),
    (
        "retreat",
        "confidence = \"99.9%\"\nretreat",
        "rollout.default.confidence: 99% -> 99.9%",
    ),
    (
        "retreat",
        "stages = [{ weight = \"5%\", approve = true }, \"100%\"]\nretreat",
        "rollout.default.stages: 1% 1h, 5% 1h, 25% 1h, 50% 1h, 75% 1h, 95% 1day, 100% 0s \
             -> 5% 1h approve, 100% 0s",
    ),
    (
        "timeouts",
        "prices = { n = { input = 1, cache-write = 3, output = 2 } }\ntimeouts",
        "arms.canary.prices.n: (none) -> input 1, cached-input 1, cache-write 3, cache-write-1h 3, output 2",
    ),
    (
        "[store]",
        "tag-header = \"X-Team\"\n[store]",
        "proxy.tag-header: (none) -> x-team",
    ),
    (
        "[store]",
        "max-body = \"100MB\"\n[store]",
        "proxy.max-body: 64MiB -> 100000000B",
    ),
];

#[test]
fn differences_are_told_with_both_values_and_without_secrets() {
    for &(from, to, expected) in DIFFERENCES {
        assert_eq!(edit(from, to).lines.join("\n"), expected);
    }
    assert!(edit("n", "n").is_empty());
}

#[test]
fn what_needs_a_restart_is_named_and_keeps_its_running_value() {
    let changes = edit("8080", "9090");
    assert_eq!(changes.restart_needed, ["proxy.listen"]);
    assert_eq!(
        changes.lines,
        ["proxy.listen: 127.0.0.1:8080 -> 127.0.0.1:9090"]
    );
    assert_eq!(edit("a.db", "b.db").restart_needed, ["store.url"]);
    let (old, new) = (
        config(BASE),
        config(&BASE.replace("8080", "9090").replace("a.db", "b.db")),
    );
    assert_eq!(keep_running_values(&old, new), old);
}

#[test]
fn rollouts_come_and_go_by_name() {
    let changes = edit("name = \"default\"", "name = \"other\"");
    let found: Vec<(&str, Fate)> = changes
        .rollouts
        .iter()
        .map(|r| (r.name.as_str(), r.fate))
        .collect();
    assert_eq!(found, [("other", Fate::Added), ("default", Fate::Removed)]);
}

#[test]
fn clients_come_and_go_without_a_word_of_their_hashes() {
    let with = |clients: &[(&str, char, &str)]| {
        let clients = clients.iter().map(|(name, digit, rate)| {
            let hash = digit.to_string().repeat(64);
            let rate = if rate.is_empty() {
                String::new()
            } else {
                format!("rate = \"{rate}\"")
            };
            format!("[[proxy.clients]]\nname = \"{name}\"\nkey-hash = \"sha256:{hash}\"\n{rate}\n")
        });
        let legacy = "[arms.legacy]\napi-key = \"env:KEY_TWO\"";
        config(&(BASE.replace("[arms.legacy]", legacy) + &clients.collect::<String>()))
    };
    let (none, one) = (with(&[]), with(&[("app", 'a', "5/s")]));
    let other = with(&[("app", 'b', "6/s"), ("batch", 'c', "")]);
    let added = compare(&none, &one);
    assert_eq!(
        added.lines,
        [
            "proxy.clients.app.key-hash: (none) -> (secret)",
            "proxy.clients.app.rate: (none) -> 5/s"
        ]
    );
    let changed = compare(&one, &other);
    assert_eq!(
        changed.lines,
        [
            "proxy.clients.app.key-hash: changed (secret)",
            "proxy.clients.app.rate: 5/s -> 6/s",
            "proxy.clients.batch.key-hash: (none) -> (secret)",
            "proxy.clients.batch.rate: (none) -> none"
        ]
    );
    for changes in [added, changed, compare(&other, &none)] {
        assert!(changes.restart_needed.is_empty());
        assert!(
            changes
                .rollouts
                .iter()
                .all(|rollout| rollout.reset == Reset::None)
        );
    }
}

#[test]
fn a_port_that_stays_open_keeps_what_guards_it() {
    const CLIENT: &str = "[[proxy.clients]]\nname = \"app\"\n\
        key-hash = \"sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\"\n";
    let of = |listen: &str, more: &str, token: &str, key: &str| {
        config(&format!(
            "[proxy]\nlisten = \"{listen}:8080\"\n{more}[admin]\nlisten = \"{listen}:8081\"\n{token}\
             [arms.legacy]\nbase-url = \"https://a.example.com\"\napi-key = \"{key}\"\n\
             [arms.canary]\nbase-url = \"https://b.example.com\"\napi-key = \"{key}\"\n"
        ))
    };
    let (open, closed, token) = ("0.0.0.0", "127.0.0.1", "token = \"env:TOKEN\"\n");
    let relay = "danger-open-relay = true\n";
    let running = of(open, CLIENT, token, "env:KEY_ONE");
    let check = |old: &Config, new: Config, expected: &str| {
        let checked = check_kept_ports(&keep_running_values(old, new));
        let said = checked.err().unwrap_or_default();
        assert_eq!(said.split(' ').next(), Some(expected), "{said}");
    };
    check(&running, of(open, CLIENT, token, "env:KEY_TWO"), "");
    check(&running, of(closed, CLIENT, token, "env:KEY_ONE"), "");
    check(&running, of(closed, "", token, "client"), "");
    check(&running, of(closed, relay, token, "env:KEY_ONE"), "");
    check(
        &running,
        of(closed, "", token, "env:KEY_ONE"),
        "proxy.listen",
    );
    check(
        &running,
        of(closed, CLIENT, "", "env:KEY_ONE"),
        "admin.listen",
    );
    let local = of(closed, CLIENT, token, "env:KEY_ONE");
    check(&local, of(closed, "", "", "env:KEY_ONE"), "");
}
