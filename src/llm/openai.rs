//! What the events and answers of OpenAI's APIs say, as OpenAI and the many that imitate it send them.
//!
//! Pure. Reads single JSON values; framing is the scanner's work, judging the stream's.
#![deny(clippy::disallowed_methods)]

use std::ops::ControlFlow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::error::classify_in_band;
use super::stream::Seen;
use super::{json, usage};
use crate::outcome::Outcome;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\""));

/// True if a chunk may say more than text. After the first content most chunks do not, and reading
/// them whole would cost more than all the rest.
pub(super) fn may_matter(data: &[u8], finished: bool) -> bool {
    may_be_set(&USAGE, data) || (!finished && may_be_set(&FINISH, data)) || may_be_set(&ERROR, data)
}

/// True if the word occurs with anything but `null` behind its colon.
pub(super) fn may_be_set(word: &Finder<'_>, data: &[u8]) -> bool {
    word.find_iter(data).any(|at| {
        let after = data.get(at + word.needle().len()..).unwrap_or_default();
        let value = after.trim_ascii_start().strip_prefix(b":");
        !value.is_some_and(|value| value.trim_ascii_start().starts_with(b"null"))
    })
}

/// Reads one chunk of a chat or text completion, or a whole answer. False if it is not one object.
pub(super) fn read_chunk(chunk: &[u8], seen: &mut Seen) -> bool {
    let (mut is_flat_error, mut error, mut choices) = (false, None, None);
    let mut has_usage = false;
    let whole = json::members(chunk, |key, raw| match key {
        "choices" => choices = Some(raw),
        "usage" => {
            let tokens = usage::read_openai(raw);
            has_usage = tokens.is_some();
            seen.take_usage(tokens, raw);
        }
        "error" if json::is_set(raw) => error = Some(raw),
        "object" => is_flat_error = raw == "\"error\"",
        _ => {}
    });
    if is_flat_error {
        error = error.or_else(|| std::str::from_utf8(chunk).ok());
    }
    // It knows better than a choice that finishes with "error", wherever it stands.
    if let Some(raw) = error {
        seen.fail(classify_in_band(raw, Outcome::InBandError));
    }
    let mut has_choices = false;
    json::elements(choices.unwrap_or_default(), |choice| {
        has_choices = true;
        read_choice(choice, seen);
        ControlFlow::Continue(())
    });
    seen.usage_alone |= has_usage && !has_choices;
    whole
}

/// Reads one choice, of a chunk or of a whole answer.
fn read_choice(choice: &str, seen: &mut Seen) {
    let (mut has_failed, mut error) = (false, None);
    json::fields(choice, |key, raw| match key {
        "finish_reason" if raw == "\"error\"" => has_failed = true,
        "finish_reason" if json::is_text(raw) => seen.finished = true,
        "error" if json::is_set(raw) => error = Some(raw),
        "delta" | "message" => seen.content |= delta_has_content(raw),
        "text" => seen.content |= json::is_text(raw),
        _ => {}
    });
    if has_failed || error.is_some() {
        let raw = error.unwrap_or_default();
        seen.fail(classify_in_band(raw, Outcome::InBandError));
    }
}

/// True for text, reasoning, refusal, tool arguments, sound or images; a role alone is nothing yet.
fn delta_has_content(delta: &str) -> bool {
    let mut has = false;
    json::fields(delta, |key, raw| {
        has |= match key {
            "content" | "reasoning_content" | "reasoning" | "reasoning_details" | "refusal"
            | "images" => is_filled(raw),
            "tool_calls" => {
                let mut any = false;
                json::elements(raw, |call| {
                    any |= call_has_arguments(call);
                    ControlFlow::Continue(())
                });
                any
            }
            "function_call" => has_text(raw, &["arguments"]),
            "audio" => has_text(raw, &["data", "transcript"]),
            _ => false,
        };
    });
    has
}

fn is_filled(raw: &str) -> bool {
    json::is_text(raw) || (raw.starts_with(['[', '{']) && json::is_set(raw))
}

fn call_has_arguments(call: &str) -> bool {
    let mut has = false;
    json::fields(call, |key, raw| match key {
        "function" => has |= has_text(raw, &["arguments"]),
        "custom" => has |= has_text(raw, &["input"]),
        _ => {}
    });
    has
}

fn has_text(object: &str, names: &[&str]) -> bool {
    let mut has = false;
    json::fields(object, |key, raw| {
        has |= names.contains(&key) && is_filled(raw);
    });
    has
}

/// True if an event of the Responses API may say more than content, once content has been seen. Some relays
/// drop the names of events, or call them all `message`.
pub(super) fn response_may_matter(name: &[u8]) -> bool {
    !name.starts_with(b"response.") || is_last_response_event(name)
}

/// True for the Responses events that end a stream.
pub(super) fn is_last_response_event(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"response.completed"
            | b"response.incomplete"
            | b"response.failed"
            | b"response.cancelled"
            | b"error"
    )
}

/// Reads one event of the Responses API. `name` is the event's name, which some relays drop.
pub(super) fn read_response_event(name: &[u8], event: &[u8], seen: &mut Seen) {
    let (mut kind, mut delta, mut response, mut error) = (name, None, None, None);
    json::members(event, |key, raw| match key {
        "type" if json::is_text(raw) => kind = raw.trim_matches('"').as_bytes(),
        "delta" => delta = Some(raw),
        "response" => response = Some(raw),
        "error" if json::is_set(raw) => error = Some(raw),
        _ => {}
    });
    if kind.ends_with(b".delta") {
        seen.content |= delta.is_some_and(is_filled);
    } else if kind == b"error" || error.is_some() {
        let raw = error.or_else(|| std::str::from_utf8(event).ok());
        seen.fail(classify_in_band(
            raw.unwrap_or_default(),
            Outcome::InBandError,
        ));
    } else if is_last_response_event(kind) {
        seen.done = true;
        read_response(response.unwrap_or_default().as_bytes(), seen);
        if kind == b"response.failed" {
            seen.fail(Outcome::InBandError);
        }
        seen.finished |= kind == b"response.incomplete";
    }
}

/// Reads a response object, of a terminal event or of a whole answer. Work in the background has no
/// output yet and is no failure. False if it is not one object.
pub(super) fn read_response(response: &[u8], seen: &mut Seen) -> bool {
    let (mut failed, mut error) = (false, None);
    let whole = json::members(response, |key, raw| match key {
        "usage" => seen.take_usage(usage::read_openai(raw), raw),
        "output" => seen.output |= json::is_set(raw),
        "error" if json::is_set(raw) => error = Some(raw),
        "status" => match raw {
            "\"failed\"" => failed = true,
            "\"incomplete\"" | "\"queued\"" | "\"in_progress\"" | "\"cancelled\"" => {
                seen.finished = true;
            }
            _ => {}
        },
        _ => {}
    });
    if failed || error.is_some() {
        seen.fail(classify_in_band(
            error.unwrap_or_default(),
            Outcome::InBandError,
        ));
    }
    whole
}
