//! What the events and answers of Anthropic's Messages API say.
//!
//! Pure. Reads single JSON values; framing is the scanner's work, judging the stream's.
#![deny(clippy::disallowed_methods)]

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::error::classify_in_band;
use super::openai::may_be_set;
use super::stream::Seen;
use super::{json, usage};
use crate::outcome::Outcome;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
static STOP: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"stop_reason\""));
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"message_stop\""));

/// True if an event may say more than content, once content has been seen.
pub(super) fn may_matter(name: &[u8], data: &[u8]) -> bool {
    match name {
        b"ping" => false,
        name if name.starts_with(b"content_block_") => false,
        b"" => [&USAGE, &ERROR, &STOP, &END]
            .into_iter()
            .any(|word| may_be_set(word, data)),
        _ => true,
    }
}

/// Reads one event. `name` is the event's name, which some relays drop.
pub(super) fn read_event(name: &[u8], event: &[u8], seen: &mut Seen) {
    let mut kind = name;
    let (mut message, mut block, mut delta, mut tokens, mut error) = (None, None, None, None, None);
    json::members(event, |key, raw| match key {
        "type" if json::is_text(raw) => kind = raw.trim_matches('"').as_bytes(),
        "message" => message = Some(raw),
        "content_block" => block = Some(raw),
        "delta" => delta = Some(raw),
        "usage" => tokens = Some(raw),
        "error" if json::is_set(raw) => error = Some(raw),
        _ => {}
    });
    match kind {
        b"content_block_delta" => seen.content |= delta.is_some_and(has_content),
        b"content_block_start" => seen.content |= block.is_some_and(has_content),
        b"message_start" => {
            let raw = message.and_then(|raw| json::member(raw.as_bytes(), "usage"));
            if let Some(raw) = raw {
                seen.take_usage(usage::merge_anthropic(seen.usage, raw), raw);
            }
            if !seen.named {
                // Anthropic's SDK goes by the names of events: its users would see an empty answer.
                seen.fail(Outcome::SoftError);
            }
        }
        b"message_delta" => {
            let reason = delta.and_then(|raw| json::member(raw.as_bytes(), "stop_reason"));
            seen.finished |= reason.is_some_and(json::is_text);
            if let Some(raw) = tokens {
                seen.take_usage(usage::merge_anthropic(seen.usage, raw), raw);
            }
        }
        b"message_stop" => seen.done = true,
        _ if kind == b"error" || error.is_some() => {
            let raw = error.or_else(|| std::str::from_utf8(event).ok());
            seen.fail(classify_in_band(
                raw.unwrap_or_default(),
                Outcome::InBandError,
            ));
        }
        _ => {}
    }
}

/// True for text, thinking, tool arguments, citations or results; an empty block is only announced,
/// and a signature is no content.
fn has_content(raw: &str) -> bool {
    let mut has = false;
    json::fields(raw, |key, value| {
        has |= match key {
            "text" | "thinking" | "partial_json" | "data" => json::is_text(value),
            "citation" | "content" => json::is_set(value),
            _ => false,
        };
    });
    has
}

/// Reads a whole message. False if it is not one object.
pub(super) fn read_message(message: &[u8], seen: &mut Seen) -> bool {
    let mut error = None;
    let whole = json::members(message, |key, raw| match key {
        "content" => seen.output |= json::is_set(raw),
        "stop_reason" => seen.finished |= json::is_text(raw),
        "usage" => seen.take_usage(usage::merge_anthropic(None, raw), raw),
        "error" if json::is_set(raw) => error = Some(raw),
        "type" if raw == "\"error\"" => error = error.or(Some(raw)),
        _ => {}
    });
    if let Some(raw) = error {
        seen.fail(classify_in_band(raw, Outcome::InBandError));
    }
    whole
}
