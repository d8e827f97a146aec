//! Reads the token counts of an answer into one meaning: input includes what caches gave and took.
//!
//! OpenAI's input count already includes cached tokens; Anthropic's excludes both reads and writes of
//! the cache, so they are added here, once. A cost that the provider states is read beside them. Pure.
#![deny(clippy::disallowed_methods)]

use super::json;
use crate::sample::{Sample, Usage};

/// Reads a `usage` object of any OpenAI dialect. `None` if it states no count at all.
pub(super) fn read_openai(raw: &str) -> Option<Usage> {
    let mut usage = Usage::default();
    let (mut stated, mut lifetimes) = (false, Lifetimes::default());
    json::fields(raw, |key, value| match key {
        "prompt_tokens" | "input_tokens" => {
            stated |= set(&mut usage.input_tokens, value);
        }
        "completion_tokens" | "output_tokens" => {
            stated |= set(&mut usage.output_tokens, value);
        }
        "prompt_tokens_details" | "input_tokens_details" => read_details(value, &mut usage),
        // Spellings of DeepSeek, and of relays in front of Anthropic models.
        "prompt_cache_hit_tokens" | "cache_read_input_tokens" => {
            set_if_some(&mut usage.cached_input_tokens, value);
        }
        "cache_creation_input_tokens" => set_if_some(&mut usage.cache_write_tokens, value),
        "cache_creation" => lifetimes = read_lifetimes(value),
        _ => {}
    });
    set_writes(&mut usage, 0, lifetimes);
    // Parts never exceed their whole, or a price would be charged twice.
    usage.cached_input_tokens = usage.cached_input_tokens.min(usage.input_tokens);
    let rest = usage.input_tokens - usage.cached_input_tokens;
    usage.cache_write_tokens = usage.cache_write_tokens.min(rest);
    usage.cache_write_1h_tokens = usage.cache_write_1h_tokens.min(usage.cache_write_tokens);
    stated.then_some(usage)
}

fn read_details(raw: &str, usage: &mut Usage) {
    let mut lifetimes = Lifetimes::default();
    json::fields(raw, |key, value| match key {
        "cached_tokens" => set_if_some(&mut usage.cached_input_tokens, value),
        "cache_write_tokens" => set_if_some(&mut usage.cache_write_tokens, value),
        "cache_creation_token_details" => lifetimes = read_lifetimes(value),
        _ => {}
    });
    set_writes(usage, 0, lifetimes);
}

/// What the provider says that the answer cost, in US dollars, in a `usage` object of any dialect
/// (OpenRouter's `cost`; its `cost_details` are parts of it).
pub(super) fn read_cost(raw: &str) -> Option<f64> {
    // Few providers state it: without the word, or an escape that could spell it, there is nothing to read.
    let may_state = memchr::memmem::find(raw.as_bytes(), b"cost").is_some() || raw.contains('\\');
    if !may_state {
        return None;
    }
    let cost = json::member(raw.as_bytes(), "cost")?;
    reported_cost(cost)
}

/// A stated cost in US dollars; `None` if it is no sane number.
#[must_use]
pub fn reported_cost(text: &str) -> Option<f64> {
    let cost: f64 = text.trim().parse().ok()?;
    (0.0..=Sample::REPORTED_COST_MAX_USD)
        .contains(&cost)
        .then_some(cost)
}

/// Merges an Anthropic `usage` object into what earlier events said. Counts are running totals: each
/// replaces its forerunner, but a zero replaces nothing, because some vendors send zeros at the end.
pub(super) fn merge_anthropic(before: Option<Usage>, raw: &str) -> Option<Usage> {
    let mut usage = before.unwrap_or_default();
    let mut uncached = usage
        .input_tokens
        .saturating_sub(usage.cached_input_tokens)
        .saturating_sub(usage.cache_write_tokens);
    let (mut stated, mut written, mut lifetimes) = (before.is_some(), 0, Lifetimes::default());
    json::fields(raw, |key, value| match key {
        "input_tokens" => {
            stated = true;
            set_if_some(&mut uncached, value);
        }
        "output_tokens" => {
            stated = true;
            set_if_some(&mut usage.output_tokens, value);
        }
        "cache_read_input_tokens" => set_if_some(&mut usage.cached_input_tokens, value),
        "cache_creation_input_tokens" => set_if_some(&mut written, value),
        "cache_creation" => lifetimes = read_lifetimes(value),
        _ => {}
    });
    set_writes(&mut usage, written, lifetimes);
    usage.input_tokens = uncached
        .saturating_add(usage.cached_input_tokens)
        .saturating_add(usage.cache_write_tokens);
    stated.then_some(usage)
}

/// Cache writes by how long they are kept.
#[derive(Debug, Clone, Copy, Default)]
struct Lifetimes {
    /// All of them.
    all: u32,
    /// Those of an hour.
    one_hour: u32,
}

fn read_lifetimes(raw: &str) -> Lifetimes {
    let mut found = Lifetimes::default();
    json::fields(raw, |key, value| {
        let tokens = count(value).unwrap_or(0);
        found.all = found.all.saturating_add(tokens);
        if key == "ephemeral_1h_input_tokens" {
            found.one_hour = tokens;
        }
    });
    found
}

/// Takes over what was stated of cache writes: their sum counts, and the split where the sum is missing.
fn set_writes(usage: &mut Usage, written: u32, lifetimes: Lifetimes) {
    if written > 0 {
        usage.cache_write_tokens = written;
    } else if lifetimes.all > 0 && usage.cache_write_tokens == 0 {
        usage.cache_write_tokens = lifetimes.all;
    }
    if lifetimes.one_hour > 0 {
        usage.cache_write_1h_tokens = lifetimes.one_hour;
    }
    usage.cache_write_1h_tokens = usage.cache_write_1h_tokens.min(usage.cache_write_tokens);
}

fn count(raw: &str) -> Option<u32> {
    json::uint(raw).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

fn set(field: &mut u32, raw: &str) -> bool {
    let value = count(raw);
    *field = value.unwrap_or(*field);
    value.is_some()
}

fn set_if_some(field: &mut u32, raw: &str) {
    if let Some(value) = count(raw).filter(|&count| count > 0) {
        *field = value;
    }
}

/// The header in which LiteLLM states the cost. The head of a stream leaves before anybody knows it, so
/// there only the events count.
pub const REPORTED_COST_HEADER: &str = "x-litellm-response-cost";

#[cfg(test)]
mod tests {
    use super::*;

    const fn usage(input: u32, cached: u32, write: u32, output: u32) -> Usage {
        Usage {
            input_tokens: input,
            cached_input_tokens: cached,
            cache_write_tokens: write,
            output_tokens: output,
            cache_write_1h_tokens: 0,
        }
    }

    #[test]
    fn openai_counts_include_their_parts() {
        let cases = [
            (
                r#"{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,
                    "prompt_tokens_details":{"cached_tokens":80,"audio_tokens":0},
                    "completion_tokens_details":{"reasoning_tokens":15}}"#,
                Some(usage(100, 80, 0, 20)),
            ),
            (
                r#"{"input_tokens":50,"input_tokens_details":{"cached_tokens":10,"cache_write_tokens":5},
                    "output_tokens":7}"#,
                Some(usage(50, 10, 5, 7)),
            ),
            (
                r#"{"prompt_tokens":9,"total_tokens":9}"#,
                Some(usage(9, 0, 0, 0)),
            ),
            (
                r#"{"prompt_tokens":10,"prompt_cache_hit_tokens":4,"completion_tokens":1,"prompt_tokens_details":null}"#,
                Some(usage(10, 4, 0, 1)),
            ),
            (
                r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":99,"cache_write_tokens":9}}"#,
                Some(usage(10, 10, 0, 0)),
            ),
            (
                r#"{"prompt_tokens":99999999999,"completion_tokens":-1}"#,
                Some(usage(u32::MAX, 0, 0, 0)),
            ),
            (
                r#"{"prompt_tokens":90,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":10,
                    "cache_creation_token_details":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":30}}}"#,
                Some(Usage {
                    cache_write_1h_tokens: 30,
                    ..usage(90, 10, 50, 1)
                }),
            ),
            ("{}", None),
            ("[]", None),
            (r#"{"prompt_tokens":"many"}"#, None),
        ];
        for (raw, expected) in cases {
            assert_eq!(read_openai(raw), expected, "{raw}");
        }
    }

    #[test]
    fn anthropic_counts_replace_and_zeros_do_not() {
        let steps = [
            (
                r#"{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":1}"#,
                usage(3210, 3000, 200, 1),
            ),
            (r#"{"output_tokens":15}"#, usage(3210, 3000, 200, 15)),
            (
                r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":40}"#,
                usage(3210, 3000, 200, 40),
            ),
            (
                r#"{"input_tokens":12,"cache_read_input_tokens":3100,"output_tokens":41}"#,
                usage(3312, 3100, 200, 41),
            ),
        ];
        let mut sofar = None;
        for (raw, expected) in steps {
            sofar = merge_anthropic(sofar, raw);
            assert_eq!(sofar, Some(expected), "{raw}");
        }
    }

    #[test]
    fn a_cache_write_split_by_lifetime_counts_once() {
        let expected = Some(Usage {
            cache_write_1h_tokens: 12,
            ..usage(43, 0, 42, 1)
        });
        let split = r#"{"input_tokens":1,"output_tokens":1,"cache_creation":
            {"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":12}}"#;
        assert_eq!(merge_anthropic(None, split), expected);
        let both = r#"{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":42,"cache_creation":
            {"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":12}}"#;
        let merged = merge_anthropic(None, both);
        assert_eq!(merged, expected);
        // The end of a stream repeats the sum alone, or says nothing of it.
        let end = r#"{"output_tokens":1,"cache_creation_input_tokens":42}"#;
        assert_eq!(merge_anthropic(merged, end), expected);
        assert_eq!(merge_anthropic(merged, r#"{"output_tokens":1}"#), expected);
    }

    #[test]
    fn a_stated_cost_is_a_sane_number_or_none() {
        let cases = [
            (
                r#"{"cost":0.00012,"cost_details":{"upstream_inference_cost":9}}"#,
                Some(0.000_12),
            ),
            (r#"{"prompt_tokens":1,"cost":0}"#, Some(0.0)),
            (r#"{"cost":1e-7}"#, Some(1e-7)),
            (r#"{"cost":-0.1}"#, None),
            (r#"{"cost":1e9}"#, None),
            (r#"{"\u0063ost":0.5}"#, Some(0.5)),
            (r#"{"cost":null}"#, None),
            (r#"{"cost":"0.1"}"#, None),
            (r#"{"cost":1e999}"#, None),
            (r#"{"cost_details":{"upstream_inference_cost":9}}"#, None),
            ("null", None),
        ];
        for (raw, expected) in cases {
            assert_eq!(read_cost(raw), expected, "{raw}");
        }
        for (text, expected) in [
            (" 0.5 ", Some(0.5)),
            ("NaN", None),
            ("inf", None),
            ("", None),
            ("None", None),
        ] {
            assert_eq!(reported_cost(text), expected, "{text}");
        }
    }
}
