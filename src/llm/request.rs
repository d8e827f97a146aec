//! What routing needs to know of a request body: model, stream flag, and ties to one provider's state.
//!
//! Pure; borrows from the body and copies only strings with escapes. A body is read in one pass. State
//! is looked for inside messages only when a cheap search has found a word that hints at it; `state` says
//! what it looks like.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use bytes::{Bytes, BytesMut};

use super::state::{PinReason, Reader, Side, has_hint, hash_state, id_of, names_container};
use super::{Dialect, json};

/// Of a request that names more pieces of state within its messages only so many of the last are kept.
const STATE_MAX: usize = 32;
/// Members of a request itself that name state; it has no more, unless it repeats them.
const TOP_MAX: usize = 4;

/// What routing needs to know of a request body. Borrowed from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    /// The model that the client named.
    pub model: Option<Cow<'a, str>>,
    /// Where the value of `model` stands in the body, quotes included, for [`replace_model`].
    pub model_span: Option<Range<usize>>,
    /// The client asked for a stream.
    pub stream: bool,
    /// The client set `stream_options` itself, to whatever value.
    pub stream_options_set: bool,
    /// `prompt_cache_key`.
    pub cache_key: Option<Cow<'a, str>>,
    /// `user`, or `metadata.user_id`.
    pub user: Option<Cow<'a, str>>,
    /// The request refers to state that one provider keeps: why, of the first such piece found.
    pub pinned: Option<PinReason>,
    /// Hashes of what it refers to, at most 36: what is named at the top, and the last pieces within the
    /// messages, for the latest turn says best where a conversation lives. See [`super::hash_state`].
    pub state: Vec<u64>,
    /// The most output tokens that the client accepts.
    pub max_tokens: Option<u64>,
    /// Where the system prompt stands, if it is a member of its own.
    pub(super) system_span: Option<Range<usize>>,
    /// Where the messages, the input or the prompt stand.
    pub(super) prompt_span: Option<Range<usize>>,
}

/// Reads a request body. `None`: not a JSON object, so nothing is known and nothing may be changed.
/// Of a member that is repeated the last one counts, as it does for providers.
#[must_use]
pub fn read_request(dialect: Dialect, body: &[u8]) -> Option<RequestFacts<'_>> {
    let mut facts = RequestFacts::default();
    let hints = has_hint(body);
    let mut named = Named::default();
    let mut metadata_user = None;
    let whole = json::members(body, |key, raw| match key {
        "model" => {
            facts.model = json::text(raw);
            facts.model_span = facts.model.is_some().then(|| span_in(body, raw));
        }
        "stream" => facts.stream = raw == "true",
        "stream_options" => facts.stream_options_set = true,
        "prompt_cache_key" => facts.cache_key = json::text(raw).filter(|key| !key.is_empty()),
        "user" => facts.user = json::text(raw).filter(|user| !user.is_empty()),
        "metadata" => {
            metadata_user = json::member(raw.as_bytes(), "user_id")
                .and_then(json::text)
                .filter(|user| !user.is_empty());
        }
        "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
            facts.max_tokens = json::uint(raw).or(facts.max_tokens);
        }
        "instructions" | "system" => facts.system_span = Some(span_in(body, raw)),
        "messages" | "input" | "prompt" => {
            let prompts = match dialect {
                Dialect::OpenAiChat | Dialect::AnthropicMessages => key == "messages",
                Dialect::OpenAiCompletions => key == "prompt",
                Dialect::OpenAiEmbeddings | Dialect::OpenAiResponses => key == "input",
            };
            if prompts {
                facts.prompt_span = Some(span_in(body, raw));
            }
            let template = dialect == Dialect::OpenAiResponses && key == "prompt";
            if template && raw.starts_with('{') {
                named.at_top(PinReason::StoredPrompt, raw);
            } else if hints {
                named.within(raw);
            }
        }
        "previous_response_id" if json::is_set(raw) => {
            named.at_top(PinReason::PreviousResponse, raw);
        }
        "conversation" if json::is_set(raw) => {
            named.at_top(PinReason::Conversation, raw);
        }
        "container" if names_container(raw) => {
            named.at_top(PinReason::Container, raw);
        }
        "tools" | "tool_resources" | "attachments" if hints => named.within(raw),
        _ => {}
    });
    facts.user = facts.user.take().or(metadata_user);
    facts.pinned = named.reason;
    facts.state = named.hashes();
    whole.then_some(facts)
}

/// The state that a request names.
#[derive(Default)]
struct Named {
    reason: Option<PinReason>,
    top: Vec<u64>,
    pieces: Vec<u64>,
}

impl Named {
    /// A member of the request itself: a string, or an object with an `id`.
    fn at_top(&mut self, reason: PinReason, raw: &str) {
        // It says more of the request than what stands within its messages.
        self.reason = Some(reason);
        if let Some(id) = id_of(raw).filter(|_| self.top.len() < TOP_MAX) {
            self.top.push(hash_state(&id));
        }
    }

    /// The latest turns come first, and most turns hold nothing: a long conversation is seldom read whole.
    fn within(&mut self, raw: &str) {
        if raw.starts_with('{') {
            return self.turn(raw);
        }
        let mut turns = Vec::new();
        json::elements(raw, |turn| {
            turns.push(turn);
            ControlFlow::Continue(())
        });
        for turn in turns.into_iter().rev() {
            if self.pieces.len() >= STATE_MAX {
                return;
            }
            if has_hint(turn.as_bytes()) {
                self.turn(turn);
            }
        }
    }

    fn turn(&mut self, raw: &str) {
        let mut each = |reason, text: &str| {
            self.reason = self.reason.or(Some(reason));
            if self.pieces.len() < STATE_MAX {
                self.pieces.push(hash_state(text));
            }
        };
        Reader::new(Side::Request, &mut each).read(raw);
    }

    fn hashes(mut self) -> Vec<u64> {
        self.top.append(&mut self.pieces);
        self.top
    }
}

/// The body with the text of `model_span` replaced by another model name. The span must be one that
/// [`read_request`] gave for this body; with any other the body comes back as it is.
#[must_use]
pub fn replace_model(body: &Bytes, span: Range<usize>, new_model: &str) -> Bytes {
    rewrite_request(body, None, Some((span, new_model)))
}

/// The body asking for usage where [`usage_slot`] said so, and with another model name in place of a span
/// that [`read_request`] gave; with any other places it comes back as it is. All other bytes stay.
#[must_use]
pub fn rewrite_request(
    body: &Bytes,
    usage_slot: Option<usize>,
    model: Option<(Range<usize>, &str)>,
) -> Bytes {
    if usage_slot.is_none() && model.is_none() {
        return body.clone();
    }
    let asked = usage_slot.map(|at| (at..at, USAGE_OPTION.to_owned()));
    let named = model.and_then(|(span, name)| Some((span, serde_json::to_string(name).ok()?)));
    // The slot is the first place of all.
    let edits = [asked, named];
    let mut spliced = BytesMut::with_capacity(body.len() + 128);
    let mut done = 0;
    for (span, text) in edits.into_iter().flatten() {
        let Some(before) = body.get(done..span.start) else {
            return body.clone();
        };
        spliced.extend_from_slice(before);
        spliced.extend_from_slice(text.as_bytes());
        done = span.end;
    }
    match body.get(done..) {
        Some(rest) if done > 0 => {
            spliced.extend_from_slice(rest);
            spliced.freeze()
        }
        _ => body.clone(),
    }
}

/// What makes a stream of the OpenAI dialects end with its usage; the comma parts it from what follows.
const USAGE_OPTION: &str = "\"stream_options\":{\"include_usage\":true},";

/// Where the body can be made to ask for usage: if it wants a stream in a dialect that states usage only on
/// request, and says nothing of the kind itself. `facts` are those of this body.
#[must_use]
pub fn usage_slot(dialect: Dialect, body: &[u8], facts: &RequestFacts<'_>) -> Option<usize> {
    let states_on_request = matches!(dialect, Dialect::OpenAiChat | Dialect::OpenAiCompletions);
    if !states_on_request || !facts.stream || facts.stream_options_set {
        return None;
    }
    // Other members follow: `stream` does, at least.
    memchr::memchr(b'{', body).map(|at| at + 1)
}

/// Where a piece of the body stands in it.
pub(super) fn span_in(body: &[u8], piece: &str) -> Range<usize> {
    let start = piece.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start + piece.len()
}

#[cfg(test)]
mod tests;
