//! Configurations and scenarios: every text is read, or refused with faults that have a place.
#![no_main]

use cutover::config::{parse, scenario};
use libfuzzer_sys::fuzz_target;

/// No fault may show it.
const SECRET: &str = "sk-9f8e7d6c5b4a";

fuzz_target!(|text: &str| {
    // A secret from a file reads that file.
    if text.contains("file:") || text.contains("\\u") {
        return;
    }
    let env = |name: &str| (name.len() < 20).then(|| SECRET.to_owned());
    if let Err(faults) = parse::parse(text, &env) {
        assert!(!faults.is_empty());
        let shown = parse::render_all(&faults, "cutover.toml");
        assert!(!shown.contains(SECRET) || text.contains(SECRET));
    }
    if let Err(faults) = scenario::parse(text) {
        assert!(!faults.is_empty());
    }
});
