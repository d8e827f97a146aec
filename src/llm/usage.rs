//! Reads the token counts of an answer into one meaning: input includes what caches gave and took.
//!
//! OpenAI's input count already includes cached tokens; Anthropic's excludes both reads and writes of
//! the cache, so they are added here, once. Pure.
#![deny(clippy::disallowed_methods)]

use super::json;
use crate::sample::Usage;

/// Reads a `usage` object of any OpenAI dialect. `None` if it states no count at all.
pub(super) fn read_openai(raw: &str) -> Option<Usage> {
    let mut usage = Usage::default();
    let mut stated = false;
    json::members(raw.as_bytes(), |key, value| match key {
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
        _ => {}
    });
    // Parts never exceed their whole, or a price would be charged twice.
    usage.cached_input_tokens = usage.cached_input_tokens.min(usage.input_tokens);
    let rest = usage.input_tokens - usage.cached_input_tokens;
    usage.cache_write_tokens = usage.cache_write_tokens.min(rest);
    stated.then_some(usage)
}

fn read_details(raw: &str, usage: &mut Usage) {
    json::members(raw.as_bytes(), |key, value| match key {
        "cached_tokens" => set_if_some(&mut usage.cached_input_tokens, value),
        "cache_write_tokens" => set_if_some(&mut usage.cache_write_tokens, value),
        _ => {}
    });
}

/// Merges an Anthropic `usage` object into what earlier events said. Counts are running totals: each
/// replaces its forerunner, but a zero replaces nothing, because some vendors send zeros at the end.
pub(super) fn merge_anthropic(before: Option<Usage>, raw: &str) -> Option<Usage> {
    let mut usage = before.unwrap_or_default();
    let mut uncached = usage
        .input_tokens
        .saturating_sub(usage.cached_input_tokens)
        .saturating_sub(usage.cache_write_tokens);
    let (mut stated, mut write_stated, mut write_split) = (before.is_some(), false, 0);
    json::members(raw.as_bytes(), |key, value| match key {
        "input_tokens" => {
            stated = true;
            set_if_some(&mut uncached, value);
        }
        "output_tokens" => {
            stated = true;
            set_if_some(&mut usage.output_tokens, value);
        }
        "cache_read_input_tokens" => set_if_some(&mut usage.cached_input_tokens, value),
        "cache_creation_input_tokens" => {
            write_stated = json::uint(value).is_some_and(|count| count > 0);
            set_if_some(&mut usage.cache_write_tokens, value);
        }
        "cache_creation" => write_split = sum_of_counts(value),
        _ => {}
    });
    if !write_stated && write_split > 0 {
        usage.cache_write_tokens = write_split;
    }
    usage.input_tokens = uncached
        .saturating_add(usage.cached_input_tokens)
        .saturating_add(usage.cache_write_tokens);
    stated.then_some(usage)
}

/// The split of cache writes by lifetime, added up.
fn sum_of_counts(raw: &str) -> u32 {
    let mut sum = 0u32;
    json::members(raw.as_bytes(), |_, value| {
        sum = sum.saturating_add(count(value).unwrap_or(0));
    });
    sum
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn usage(input: u32, cached: u32, write: u32, output: u32) -> Usage {
        Usage {
            input_tokens: input,
            cached_input_tokens: cached,
            cache_write_tokens: write,
            output_tokens: output,
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
        let split = r#"{"input_tokens":1,"output_tokens":1,"cache_creation":
            {"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":12}}"#;
        assert_eq!(merge_anthropic(None, split), Some(usage(43, 0, 42, 1)));
        let both = r#"{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":42,"cache_creation":
            {"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":12}}"#;
        assert_eq!(merge_anthropic(None, both), Some(usage(43, 0, 42, 1)));
    }
}
