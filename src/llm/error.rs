//! Whose fault a refusal is, and how we word our own.
//!
//! Pure. Providers and relays spell the same fault in many ways; the table in the tests is the contract.
//! Error bodies are read up to a bound and never kept, because they may quote the request.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::{Value, json as value};

use super::{Dialect, json};
use crate::outcome::Outcome;

/// An error body is looked at up to here.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A message is searched up to here.
const MESSAGE_BYTES_MAX: usize = 2048;

const QUOTA: [&str; 16] = [
    "insufficient_quota",
    "enforced_spend_limit",
    "billing_hard_limit",
    "billing_not_active",
    "billing_error",
    "insufficient_balance",
    "insufficient_credit",
    "insufficient balance",
    "insufficient credit",
    "credit balance is too low",
    "out of credit",
    "requires more credits",
    "spend limit",
    "spending limit",
    "specified api usage limits",
    "payment_required",
];
const PARITY: [&str; 22] = [
    "model_not_found",
    "unsupported_model",
    "unknown_model",
    "invalid_model",
    "model_not_supported",
    "deploymentnotfound",
    "unknown_parameter",
    "unsupported_parameter",
    "extra_forbidden",
    "unknown parameter",
    "unsupported parameter",
    "unrecognized request argument",
    "extra inputs are not permitted",
    "extra fields not permitted",
    "stream_options",
    "stream options",
    "anthropic-beta",
    "invalid beta flag",
    "not a valid model",
    "no such model",
    "unknown model",
    "unsupported model",
];
const CALLER: [&str; 13] = [
    "invalid_request",
    "invalid_prompt",
    "context_length_exceeded",
    "string_above_max_length",
    "content_policy",
    "content_filter",
    "moderation",
    "flagged",
    "cyber_policy",
    "invalid_image",
    "invalid_base64_image",
    "previous_response_not_found",
    "request_too_large",
];
const RATE: [&str; 5] = [
    "rate_limit",
    "rate limit",
    "too many requests",
    "too_many_requests",
    "resource_exhausted",
];
const CREDENTIAL: [&str; 4] = [
    "authentication_error",
    "permission_error",
    "invalid_api_key",
    "permission_denied",
];

/// Classifies an answer by its status, and by its body as far as one was read. `injected_key` says that
/// cutover sent a key of its own: only then can the account be at fault.
#[must_use]
pub fn classify_status(
    dialect: Option<Dialect>,
    status: u16,
    injected_key: bool,
    body: Option<&[u8]>,
) -> Outcome {
    let outcome = match status {
        200..=299 => Outcome::Ok,
        // 498 is Cloudflare's and others' "token expired" of the provider itself.
        408 | 409 | 498 | 500..=599 => Outcome::ServerError,
        400..=499 => classify_refusal(dialect, status, body),
        _ => Outcome::Other,
    };
    match outcome {
        _ if injected_key => outcome,
        Outcome::Quota if status == 429 => Outcome::RateLimited,
        _ => with_clients_own_key(outcome),
    }
}

/// What an outcome means when the client's own key was sent: cutover's account cannot be at fault.
#[must_use]
pub fn with_clients_own_key(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Auth | Outcome::Quota => Outcome::ClientError,
        other => other,
    }
}

fn classify_refusal(dialect: Option<Dialect>, status: u16, body: Option<&[u8]>) -> Outcome {
    let error = body.and_then(ErrorWords::read);
    let has = |words: &[&str]| error.as_ref().is_some_and(|error| error.has(words));
    match status {
        // A spend limit is no rate limit: waiting does not help.
        429 if has(&QUOTA) => Outcome::Quota,
        429 => Outcome::RateLimited,
        402 => Outcome::Quota,
        401 => Outcome::Auth,
        403 if has(&PARITY) => Outcome::Parity,
        403 if has(&["content_policy", "content_filter", "moderation", "flagged"]) => {
            Outcome::ClientError
        }
        403 => Outcome::Auth,
        _ if has(&QUOTA) => Outcome::Quota,
        _ if error
            .as_ref()
            .is_some_and(ErrorWords::names_missing_feature) =>
        {
            Outcome::Parity
        }
        // No provider answers so: the arm lacks the route, or its base URL is wrong.
        404 | 405 if dialect.is_some() && body.is_some() && error.is_none() => Outcome::Parity,
        _ => Outcome::ClientError,
    }
}

/// Classifies an error inside a 200. `error` is the raw error value, or the object that holds it.
/// Assumes that cutover's own key was sent; see [`with_clients_own_key`].
pub(super) fn classify_in_band(error: &str, otherwise: Outcome) -> Outcome {
    let Some(words) = ErrorWords::of_value(error) else {
        return otherwise;
    };
    if words.has(&QUOTA) || words.status == Some(402) {
        Outcome::Quota
    } else if words.has(&RATE) || words.status == Some(429) {
        Outcome::RateLimited
    } else if words.has(&CREDENTIAL) || matches!(words.status, Some(401)) {
        Outcome::Auth
    } else if words.names_missing_feature() {
        Outcome::Parity
    } else if words.code_has(&CALLER) || matches!(words.status, Some(400 | 403 | 413 | 422)) {
        Outcome::ClientError
    } else {
        otherwise
    }
}

/// The words of an error body that say what happened, in lower case.
struct ErrorWords {
    /// Codes and types.
    code: String,
    message: String,
    /// Some relays put a status into `code`.
    status: Option<u64>,
}

impl ErrorWords {
    /// `None` if the body is not an error as providers word it.
    fn read(body: &[u8]) -> Option<Self> {
        let body = body.get(..BODY_BYTES_MAX).unwrap_or(body);
        let text = std::str::from_utf8(body).ok()?.trim_ascii();
        // Gemini wraps its error in a list of one.
        let mut first = text;
        if text.starts_with('[') {
            json::elements(text, |element| {
                first = element;
                ControlFlow::Break(())
            });
        }
        let mut error = None;
        let mut is_flat = false;
        json::fields(first, |key, raw| match key {
            "error" if json::is_set(raw) => error = Some(raw),
            "message" | "detail" => is_flat |= json::is_text(raw) || raw.starts_with('['),
            _ => {}
        });
        match error {
            Some(error) => Self::of_value(error),
            // FastAPI says so for a route that it does not have.
            None if first.contains("\"Not Found\"") => None,
            None if is_flat => Self::of_value(first),
            None => None,
        }
    }

    /// Reads the value of `error`: an object, or just a text.
    fn of_value(raw: &str) -> Option<Self> {
        let mut words = Self {
            code: String::new(),
            message: String::new(),
            status: None,
        };
        if let Some(text) = json::text(raw) {
            words.message = lower(&text);
            return Some(words);
        }
        if !raw.starts_with('{') {
            return None;
        }
        json::fields(raw, |key, value| match key {
            "code" | "type" | "status" | "param" => {
                words.status = json::uint(value).or(words.status);
                if let Some(text) = json::text(value) {
                    words.code.push_str(&lower(&text));
                    words.code.push(' ');
                }
            }
            "message" => words.message = json::text(value).map_or_else(String::new, |t| lower(&t)),
            // The list of faults that FastAPI and Mistral send.
            "detail" => words.message = lower(value),
            // The Responses API and some relays nest once more.
            "error" => {
                if let Some(inner) = Self::of_value(value) {
                    words.code.push_str(&inner.code);
                    words.message.push_str(&inner.message);
                    words.status = inner.status.or(words.status);
                }
            }
            _ => {}
        });
        Some(words)
    }

    fn has(&self, needles: &[&str]) -> bool {
        self.code_has(needles) || needles.iter().any(|needle| self.message.contains(needle))
    }

    fn code_has(&self, needles: &[&str]) -> bool {
        needles.iter().any(|needle| self.code.contains(needle))
    }

    /// An unknown model, parameter or beta flag.
    fn names_missing_feature(&self) -> bool {
        let message = self.message.as_str();
        self.has(&PARITY)
            // Anthropic words an unknown model as `model: name`.
            || (self.code.contains("not_found") && message.starts_with("model:"))
            || (message.contains("model")
                && ["does not exist", "not supported", "not found", "not available"]
                    .iter()
                    .any(|words| message.contains(words)))
    }
}

fn lower(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_ascii_lowercase()
}

/// An error body of our own, worded so that the client's SDK raises the right exception. `kind` is our
/// word for the fault; `dialect` `None` speaks like OpenAI, as most clients do.
#[must_use]
pub fn error_body(dialect: Option<Dialect>, status: u16, kind: &str, message: &str) -> Bytes {
    let body = if dialect.is_some_and(Dialect::is_anthropic) {
        anthropic_error(anthropic_type(status), kind, message)
    } else {
        value!({ "error": openai_error(openai_type(status), kind, message) })
    };
    Bytes::from(body.to_string())
}

/// The event that tells a client that its stream broke after content had been sent. SDKs take a mere
/// end for success. Begins with a blank line, in case the stream broke within a line.
#[must_use]
pub fn error_event(dialect: Dialect, message: &str) -> Bytes {
    const KIND: &str = "stream_truncated";
    let (name, data) = match dialect {
        Dialect::AnthropicMessages => ("error", anthropic_error("api_error", KIND, message)),
        Dialect::OpenAiResponses => {
            // OpenAI's SDK raises only when it finds a member `error`; the flat members are the API's.
            let event = value!({
                "type": "error", "sequence_number": 0, "code": KIND, "message": message,
                "param": null, "error": openai_error("server_error", KIND, message),
            });
            ("error", event)
        }
        Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => {
            let event = value!({ "error": openai_error("server_error", KIND, message) });
            ("", event)
        }
    };
    let name = if name.is_empty() {
        Cow::Borrowed("")
    } else {
        Cow::Owned(format!("event: {name}\n"))
    };
    Bytes::from(format!("\n\n{name}data: {data}\n\n"))
}

fn openai_error(class: &str, kind: &str, message: &str) -> Value {
    value!({ "message": message, "type": class, "param": null, "code": kind })
}

fn anthropic_error(class: &str, kind: &str, message: &str) -> Value {
    value!({ "type": "error", "error": { "type": class, "message": message, "code": kind } })
}

const fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests;
