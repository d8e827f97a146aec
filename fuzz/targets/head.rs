//! Heads: what providers say of waiting and of rate limits, and paths that name state.
#![no_main]

use std::hint::black_box;

use cutover::clock::UnixMillis;
use cutover::llm;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 14] = [
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-ratelimit-reset",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "x-ratelimit-reset-requests-day",
];

fuzz_target!(|text: &str| {
    black_box(llm::state_in_path(text));
    black_box(llm::reported_cost(text));
    let mut headers = HeaderMap::new();
    for (line, name) in text.lines().zip(NAMES.iter().cycle()) {
        if let Ok(value) = HeaderValue::from_str(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let now = UnixMillis(1_800_000_000_000);
    let wait = llm::retry_after_ms(&headers, now);
    assert!(wait.is_none_or(|ms| ms <= llm::RETRY_AFTER_MS_MAX));
    black_box(llm::read_headroom(&headers));
    llm::clamp_retry_after(&mut headers, now);
    let clamped = headers.clone();
    llm::clamp_retry_after(&mut headers, now);
    assert_eq!(headers, clamped);
});
