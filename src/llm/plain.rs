//! Judges a whole answer body: a status of 200 alone proves nothing.
//!
//! Pure. SDKs hand an error object, a page of HTML or an empty answer on as if they were answers; here
//! they are what they are.
#![deny(clippy::disallowed_methods)]

use memchr::memmem;
use serde_json::value::RawValue;

use super::error::classify_status;
use super::stream::Seen;
use super::{Dialect, anthropic, json, openai, usage};
use crate::outcome::Outcome;
use crate::sample::Usage;

/// What a whole answer says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlainFacts {
    /// Its class, as if cutover's own key had been sent; see [`super::with_clients_own_key`].
    pub outcome: Outcome,
    /// Tokens, if stated.
    pub usage: Option<Usage>,
    /// The cost in US dollars that the provider itself states.
    pub reported_cost_usd: Option<f64>,
}

/// Judges a plain (non-stream) answer when its body is complete. A 2xx is judged by its body, any other
/// status as [`classify_status`] does.
#[must_use]
pub fn read_plain(
    dialect: Dialect,
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> PlainFacts {
    if !(200..=299).contains(&status) {
        return PlainFacts {
            outcome: classify_status(Some(dialect), status, true, Some(body)),
            usage: None,
            reported_cost_usd: None,
        };
    }
    let mut seen = Seen::default();
    let is_page = content_type.is_some_and(is_page);
    let whole = !is_page && read_body(dialect, body, &mut seen);
    let outcome = match seen.error {
        // There is no band within which it would be an event.
        Some(Outcome::InBandError) => Outcome::SoftError,
        Some(error) => error,
        None if whole && (seen.content || seen.output || seen.finished) => Outcome::Ok,
        None => Outcome::SoftError,
    };
    PlainFacts {
        outcome,
        usage: seen.usage,
        reported_cost_usd: seen.reported_cost_usd,
    }
}

/// True for the type of a page, which no API answers with.
#[must_use]
pub fn is_page(content_type: &str) -> bool {
    content_type.trim_start().starts_with("text/html")
}

/// The usage, and the cost, that stand at the end of a body whose beginning is not at hand.
#[must_use]
pub fn usage_at_the_end(dialect: Dialect, tail: &[u8]) -> (Option<Usage>, Option<f64>) {
    // In a text its quotes would be escaped, so what is found is a key, or a value that nothing follows.
    let Some(at) = memmem::rfind(tail, b"\"usage\"") else {
        return (None, None);
    };
    let after = tail.get(at + b"\"usage\"".len()..).unwrap_or_default();
    let Some(value) = after.trim_ascii_start().strip_prefix(b":") else {
        return (None, None);
    };
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<&RawValue>();
    let Some(Ok(raw)) = values.next() else {
        return (None, None);
    };
    let raw = raw.get();
    let usage = if dialect.is_anthropic() {
        usage::merge_anthropic(None, raw)
    } else {
        usage::read_openai(raw)
    };
    (usage, usage::read_cost(raw))
}

/// False if the body is not one JSON object.
fn read_body(dialect: Dialect, body: &[u8], seen: &mut Seen) -> bool {
    match dialect {
        Dialect::AnthropicMessages => anthropic::read_message(body, seen),
        Dialect::OpenAiResponses => openai::read_response(body, seen),
        Dialect::OpenAiChat | Dialect::OpenAiCompletions => openai::read_chunk(body, seen),
        Dialect::OpenAiEmbeddings => {
            seen.output = json::member(body, "data").is_some_and(json::is_set);
            openai::read_chunk(body, seen)
        }
    }
}

#[cfg(test)]
mod tests;
