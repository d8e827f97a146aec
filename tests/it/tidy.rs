//! The rules of the repository, as tests: layers, lengths, names.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file under `folder`, with its path relative to the crate's root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(at: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    found
        .iter()
        .map(|path| (relative(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The lines of code: no comments, and nothing from the test module on.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    let without_tests = text.split("#[cfg(test)]").next().unwrap();
    without_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn names(text: &str, word: &str) -> bool {
    code_lines(text).any(|line| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !part_of_word(before) && !part_of_word(after)
        })
    })
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn pure_files_name_no_runtime_no_network_and_no_database() {
    let pure = |path: &str| {
        path.starts_with("src/controller")
            || path.starts_with("src/driver/traffic")
            || path.starts_with("src/llm")
            || [
                "src/alert/kind.rs",
                "src/alert/outbox.rs",
                "src/alert/shape.rs",
                "src/outcome.rs",
                "src/sketch.rs",
                "src/sketch/bytes.rs",
                "src/learned.rs",
                "src/meter/whole.rs",
                "src/proxy/assign.rs",
                "src/proxy/budget.rs",
                "src/proxy/edit.rs",
                "src/proxy/failover.rs",
                "src/proxy/inflate.rs",
                "src/proxy/rate.rs",
                "src/upstream/addresses.rs",
                "src/upstream/breaker.rs",
                "src/upstream/pieces.rs",
                "src/upstream/warm.rs",
            ]
            .contains(&path)
            || path.starts_with("src/chart")
            || (path.starts_with("src/report") && !is_test_file(path))
            || (path.starts_with("src/backtest") && !is_test_file(path))
            || path == "src/config/change.rs"
            || path == "src/admin/auth.rs"
            || path == "src/admin/dashboard/metrics.rs"
            || path == "src/admin/query.rs"
    };
    let files: Vec<_> = rust_files("src")
        .into_iter()
        .filter(|(path, _)| pure(path))
        .collect();
    assert!(
        files.len() >= 15,
        "only {} pure files were found",
        files.len()
    );
    for (path, text) in files {
        for word in ["tokio", "hyper", "sqlx", "notify", "SystemTime"] {
            assert!(!names(&text, word), "{path} is pure and names {word}");
        }
        if !is_test_file(&path) {
            let denied = text.contains("#![deny(clippy::disallowed_methods)]");
            assert!(denied, "{path} is pure and does not deny clocks and chance");
        }
    }
}

#[test]
fn each_dependency_stays_in_its_layer() {
    let allowed: [(&str, &[&str]); 4] = [
        ("sqlx", &["src/store"]),
        ("toml", &["src/config"]),
        ("notify", &["src/config/reload"]),
        (
            "hyper",
            &[
                "src/proxy",
                "src/upstream",
                "src/meter.rs",
                "src/admin",
                "src/cli/client.rs",
                "src/demo",
            ],
        ),
    ];
    for (path, text) in rust_files("src") {
        for (word, places) in allowed {
            let is_path =
                names(&text, &format!("{word}::")) || text.contains(&format!("use {word}"));
            // Tests may read data of their own.
            let reads_data = word == "toml" && is_test_file(&path);
            let here = reads_data || places.iter().any(|place| path.starts_with(place));
            assert!(
                here || !is_path,
                "{path} names {word}, which lives in {places:?}"
            );
        }
    }
}

#[test]
fn only_the_driver_holds_the_publishing_end_of_the_weights() {
    for (path, text) in rust_files("src") {
        let here = path == "src/weights.rs" || path.starts_with("src/driver");
        assert!(
            here || !names(&text, "Publisher"),
            "{path} could change weights"
        );
    }
}

#[test]
fn files_stay_short_and_say_what_they_are_for() {
    for (path, text) in rust_files("src") {
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(
            is_test_file(&path) || lines <= 400,
            "{path} has {lines} lines without its tests"
        );
        assert!(
            is_test_file(&path) || text.starts_with("//!"),
            "{path} does not open with what it is for"
        );
        assert!(
            !path.ends_with("/mod.rs"),
            "{path}: write foo.rs beside foo/"
        );
        for bad in ["utils", "helper", "manager", "common", "misc"] {
            assert!(!path.contains(bad), "{path}: say what it is");
        }
        for mark in [
            concat!("FIX", "ME"),
            concat!("XX", "X"),
            concat!("TO", "DO"),
        ] {
            assert!(!text.contains(mark), "{path} holds a {mark}");
        }
    }
}
