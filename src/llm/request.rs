//! What routing needs to know of a request body: model, stream flag, and ties to one provider's state.
//!
//! Pure; borrows from the body and copies only strings with escapes. A body is read in one pass. State
//! is looked for inside messages only when a cheap search has found a word that hints at it.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::{Dialect, json};

/// Nesting of messages, blocks, tool results and sources that is searched for state.
const STATE_DEPTH_MAX: u8 = 6;

/// Why a request can only be served by the provider that made what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinReason {
    /// `previous_response_id` of the Responses API.
    PreviousResponse,
    /// `conversation` of the Responses API.
    Conversation,
    /// A prompt template stored with the provider.
    StoredPrompt,
    /// An uploaded file, a vector store, or an audio answer named by its id.
    File,
    /// A container that the provider keeps between requests.
    Container,
    /// An item of an earlier answer named by its id.
    Item,
    /// Reasoning that only its maker can decrypt.
    EncryptedReasoning,
    /// A signature over thinking that only its maker accepts.
    ThinkingSignature,
}

impl PinReason {
    /// The word used in logs and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreviousResponse => "previous-response",
            Self::Conversation => "conversation",
            Self::StoredPrompt => "stored-prompt",
            Self::File => "file",
            Self::Container => "container",
            Self::Item => "item",
            Self::EncryptedReasoning => "encrypted-reasoning",
            Self::ThinkingSignature => "thinking-signature",
        }
    }
}

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
    /// The request refers to state that one provider keeps.
    pub pinned: Option<PinReason>,
    /// The id of that state, where it has one.
    pub pinned_id: Option<Cow<'a, str>>,
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
    let hints = has_state_hint(body);
    let mut pin: Option<Pin<'_>> = None;
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
                pin = Some(Pin::by_id(PinReason::StoredPrompt, raw));
            } else if hints && pin.is_none() {
                pin = state_in(raw, 0);
            }
        }
        "previous_response_id" if json::is_set(raw) => {
            pin = Some(Pin::by_id(PinReason::PreviousResponse, raw));
        }
        "conversation" if json::is_set(raw) => {
            pin = Some(Pin::by_id(PinReason::Conversation, raw));
        }
        "container" if names_container(raw) => {
            pin = Some(Pin::by_id(PinReason::Container, raw));
        }
        "tools" | "tool_resources" | "attachments" if hints && pin.is_none() => {
            pin = state_in(raw, 0);
        }
        _ => {}
    });
    facts.user = facts.user.take().or(metadata_user);
    if let Some(pin) = pin {
        facts.pinned = Some(pin.reason);
        facts.pinned_id = pin.id;
    }
    whole.then_some(facts)
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

struct Pin<'a> {
    reason: PinReason,
    id: Option<Cow<'a, str>>,
}

impl<'a> Pin<'a> {
    /// State named by a string, or by an object with an `id`.
    fn by_id(reason: PinReason, raw: &'a str) -> Self {
        let id = json::text(raw).or_else(|| json::text(json::member(raw.as_bytes(), "id")?));
        Self { reason, id }
    }
}

/// Where a piece of the body stands in it.
pub(super) fn span_in(body: &[u8], piece: &str) -> Range<usize> {
    let start = piece.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start + piece.len()
}

/// Words of which one at least stands in every body that names provider-side state.
const HINTS: [&str; 12] = [
    "\"file_id\"",
    "\"file_ids\"",
    "\"vector_store_ids\"",
    "\"encrypted_content\"",
    "\"signature\"",
    "\"thought_signature\"",
    "\"redacted_thinking\"",
    "\"reasoning.encrypted\"",
    "\"item_reference\"",
    "\"container\"",
    "\"audio_",
    "\"rs_",
];

/// Building a searcher costs more than searching a short body with it, so they are built once.
static HINT_FINDERS: LazyLock<[memmem::Finder<'static>; 12]> =
    LazyLock::new(|| HINTS.map(memmem::Finder::new));

/// True if some word in the body may belong to provider-side state. Most bodies hold none of them.
fn has_state_hint(body: &[u8]) -> bool {
    HINT_FINDERS
        .iter()
        .any(|finder| finder.find(body).is_some())
}

/// True for the id of a container that exists; `{"type":"auto"}` asks for a new one.
fn names_container(raw: &str) -> bool {
    json::is_text(raw) || json::member(raw.as_bytes(), "id").is_some_and(json::is_text)
}

/// Searches messages, content blocks and tools, but not what a model or an application put into tool
/// arguments: a `file_id` there is data.
fn state_in(raw: &str, depth: u8) -> Option<Pin<'_>> {
    if depth > STATE_DEPTH_MAX {
        return None;
    }
    if raw.starts_with('[') {
        let mut found = None;
        json::elements(raw, |element| {
            found = state_in(element, depth + 1);
            if found.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        return found;
    }
    if !raw.starts_with('{') {
        return None;
    }
    let (mut kind, mut id, mut signature, mut data) = ("", None, None, None);
    let mut found: Option<Pin<'_>> = None;
    json::members(raw.as_bytes(), |key, value| {
        let pin = match key {
            "type" => {
                kind = value.trim_matches('"');
                None
            }
            "id" => {
                id = json::text(value);
                None
            }
            "signature" => {
                signature = Some(value).filter(|value| json::is_text(value));
                None
            }
            "data" => {
                data = Some(value).filter(|value| json::is_text(value));
                None
            }
            "file_id" if json::is_text(value) => Some(Pin::by_id(PinReason::File, value)),
            "file_ids" | "vector_store_ids" => first_id(value),
            "encrypted_content" if json::is_text(value) => Some(Pin {
                reason: PinReason::EncryptedReasoning,
                id: None,
            }),
            "thought_signature" if json::is_text(value) => Some(Pin {
                reason: PinReason::ThinkingSignature,
                id: None,
            }),
            "container" if names_container(value) => Some(Pin::by_id(PinReason::Container, value)),
            "audio" if member_is_text(value, "id") => Some(Pin::by_id(PinReason::File, value)),
            "input" | "arguments" | "parameters" | "input_schema" | "schema" => None,
            _ => state_in(value, depth + 1),
        };
        found = found.take().or(pin);
    });
    found.or_else(|| {
        let reason = match kind {
            "item_reference" => PinReason::Item,
            "redacted_thinking" | "reasoning.encrypted" if data.is_some() => {
                PinReason::EncryptedReasoning
            }
            "thinking" | "reasoning.text" | "reasoning" if signature.is_some() => {
                PinReason::ThinkingSignature
            }
            // A reasoning item of the Responses API without its content lives with its maker.
            "reasoning" if id.is_some() => PinReason::Item,
            _ => return None,
        };
        Some(Pin { reason, id })
    })
}

fn first_id(raw: &str) -> Option<Pin<'_>> {
    let mut first = None;
    json::elements(raw, |element| {
        first = json::text(element);
        ControlFlow::Break(())
    });
    first.map(|id| Pin {
        reason: PinReason::File,
        id: Some(id),
    })
}

fn member_is_text(raw: &str, name: &str) -> bool {
    raw.starts_with('{') && json::member(raw.as_bytes(), name).is_some_and(json::is_text)
}

#[cfg(test)]
mod tests;
