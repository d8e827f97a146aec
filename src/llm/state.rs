//! What state of one provider looks like: in a request that names it, in an answer that gives it out.
//!
//! Pure. Only the hash of an id or of an encrypted text leaves this module's callers. Neither side looks
//! into what a model or an application put into tool arguments: a `file_id` there is data.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::ops::ControlFlow;

use xxhash_rust::xxh3::xxh3_64;

use super::json;

/// Nesting of messages, blocks, tool results and sources that is searched for state.
const DEPTH_MAX: u8 = 8;

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

/// The hash by which state is remembered, of its id or of its encrypted text. Stored: it must be the same
/// in every release.
#[must_use]
pub fn hash_state(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// Words of which one at least stands, behind a quote, in every body that holds state within its messages.
const HINTS: [&str; 12] = [
    "file_id\"",
    "file_ids\"",
    "vector_store_ids\"",
    "encrypted_content\"",
    "signature\"",
    "thought_signature\"",
    "redacted_thinking\"",
    "reasoning.encrypted\"",
    "item_reference\"",
    "container\"",
    "audio_",
    "rs_",
];

/// True if some word in the body may belong to provider-side state. Most bodies hold none of them. One search
/// for quotes costs less than one for each word.
pub(super) fn has_hint(body: &[u8]) -> bool {
    memchr::memchr_iter(b'"', body).any(|quote| {
        let word = body.get(quote + 1..).unwrap_or_default();
        // Two letters tell most other words apart.
        let [first, second, ..] = word else {
            return false;
        };
        let is_near = matches!(
            (first, second),
            (b'f' | b's', b'i')
                | (b'v' | b'r', b'e')
                | (b'e', b'n')
                | (b't', b'h')
                | (b'i', b't')
                | (b'c', b'o')
                | (b'a', b'u')
                | (b'r', b's')
        );
        // OpenAI counts `audio_tokens` in every usage, and gives no id that name.
        is_near
            && HINTS.iter().any(|hint| word.starts_with(hint.as_bytes()))
            && !word.starts_with(b"audio_tokens\"")
    })
}

/// The text of a string, or of an object's `id`; `None` if it is empty or neither.
pub(super) fn id_of(raw: &str) -> Option<Cow<'_, str>> {
    let id = json::text(raw).or_else(|| json::text(json::member(raw.as_bytes(), "id")?));
    id.filter(|id| !id.is_empty())
}

/// True for the id of a container that exists; `{"type":"auto"}` asks for a new one.
pub(super) fn names_container(raw: &str) -> bool {
    json::is_text(raw) || json::member(raw.as_bytes(), "id").is_some_and(json::is_text)
}

/// Collections whose members live with the provider that made them.
const COLLECTIONS: [&str; 6] = [
    "responses",
    "conversations",
    "files",
    "batches",
    "containers",
    "vector_stores",
];
/// A path names a member, and a member of that one at most; between them stands a word.
const PATH_WORDS_MAX: usize = 4;

/// State that a path names, as in `/v1/containers/{id}/files/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathState {
    /// Hashes of its words, those that are no ids included: nobody ever learns them.
    pub state: Vec<u64>,
    /// Streams under this path are those of the Responses API.
    pub is_response: bool,
}

/// The state that a path names; `None` if it names none. The query does not belong to `path`.
#[must_use]
pub fn state_in_path(path: &str) -> Option<PathState> {
    let mut words = path.split('/').filter(|word| !word.is_empty());
    let collection = words.find(|word| COLLECTIONS.contains(word))?;
    let state: Vec<u64> = words.take(PATH_WORDS_MAX).map(hash_state).collect();
    (!state.is_empty()).then_some(PathState {
        state,
        is_response: collection == "responses",
    })
}

/// Who wrote what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A client: a container that it only mentions ties it to nothing.
    Request,
    /// The provider.
    Answer,
}

/// Calls `each` with every piece of state in messages, content blocks, items and tools.
pub(super) struct Reader<'f, F> {
    side: Side,
    each: &'f mut F,
}

impl<'f, F: FnMut(PinReason, &str)> Reader<'f, F> {
    pub(super) const fn new(side: Side, each: &'f mut F) -> Self {
        Self { side, each }
    }

    /// Searches a raw value in the order of its text.
    pub(super) fn read(&mut self, raw: &str) {
        self.value(raw, 0);
    }

    fn value(&mut self, raw: &str, depth: u8) {
        if depth > DEPTH_MAX {
            return;
        }
        if raw.starts_with('[') {
            json::elements(raw, |element| {
                self.value(element, depth + 1);
                ControlFlow::Continue(())
            });
        } else if raw.starts_with('{') {
            self.object(raw, depth);
        }
    }

    fn object(&mut self, raw: &str, depth: u8) {
        let (mut kind, mut id, mut signature, mut data) = ("", None, None, None);
        json::fields(raw, |key, value| match key {
            "type" => kind = value.trim_matches('"'),
            "id" => id = Some(value),
            "signature" => signature = Some(value),
            "data" => data = Some(value),
            "file_id" => self.text(PinReason::File, Some(value)),
            "file_ids" | "vector_store_ids" => json::elements(value, |element| {
                self.text(PinReason::File, Some(element));
                ControlFlow::Continue(())
            }),
            "encrypted_content" => self.text(PinReason::EncryptedReasoning, Some(value)),
            "thought_signature" => self.text(PinReason::ThinkingSignature, Some(value)),
            "container" if names_container(value) => {
                let id = id_of(value);
                (self.each)(PinReason::Container, id.as_deref().unwrap_or_default());
            }
            "container_id" if self.side == Side::Answer => {
                self.text(PinReason::Container, Some(value));
            }
            "audio" if value.starts_with('{') => {
                self.text(PinReason::File, json::member(value.as_bytes(), "id"));
            }
            "input" | "arguments" | "parameters" | "input_schema" | "schema" => {}
            _ => self.value(value, depth + 1),
        });
        match kind {
            "item_reference" => self.text(PinReason::Item, id),
            "redacted_thinking" | "reasoning.encrypted" => {
                self.text(PinReason::EncryptedReasoning, data);
            }
            "thinking" | "reasoning.text" => self.text(PinReason::ThinkingSignature, signature),
            "reasoning" => {
                self.text(PinReason::ThinkingSignature, signature);
                // A reasoning item of the Responses API without its content lives with its maker.
                self.text(PinReason::Item, id);
            }
            _ => {}
        }
    }

    /// A string that is not empty.
    fn text(&mut self, reason: PinReason, raw: Option<&str>) {
        let text = raw.filter(|raw| json::is_text(raw)).and_then(json::text);
        if let Some(text) = text {
            (self.each)(reason, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_same_in_every_release() {
        // Computed with another implementation of XXH3.
        assert_eq!(hash_state(""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn every_word_that_hints_at_state_is_found_wherever_it_stands() {
        for hint in HINTS {
            for body in [format!("\"{hint}"), format!("{{\"x\":\"\",\"{hint}: 1}}")] {
                assert!(has_hint(body.as_bytes()), "{body}");
                let cut = &body[..body.find(hint).unwrap() + hint.len() - 1];
                assert!(!has_hint(cut.as_bytes()), "{cut}");
            }
            assert!(!has_hint(hint.as_bytes()), "{hint} without its quote");
        }
        assert!(!has_hint(br#"{"role":"user","content":"file_id"#));
        assert!(!has_hint(b""));
        assert!(!has_hint(br#"{"usage":{"audio_tokens":0}}"#));
        assert!(has_hint(br#"{"audio_tokens":0,"id":"audio_tokens_1"}"#));
    }

    #[test]
    fn a_path_names_what_follows_its_collection() {
        let check = |path: &str, expected: &[&str], is_response: bool| {
            let expected = (!expected.is_empty()).then(|| PathState {
                state: expected.iter().map(|word| hash_state(word)).collect(),
                is_response,
            });
            assert_eq!(state_in_path(path), expected, "{path}");
        };
        check("/v1/responses/resp_1", &["resp_1"], true);
        check("/responses/resp_1/", &["resp_1"], true);
        check(
            "/v1/responses/resp_1/input_items",
            &["resp_1", "input_items"],
            true,
        );
        check(
            "/proxy/v1/files/file-1/content",
            &["file-1", "content"],
            false,
        );
        check(
            "/v1/containers/c_1/files/f_1/content",
            &["c_1", "files", "f_1", "content"],
            false,
        );
        check(
            "/v1/conversations/conv_1/items/msg_1",
            &["conv_1", "items", "msg_1"],
            false,
        );
        check("/v1/batches/batch_1/cancel", &["batch_1", "cancel"], false);
        check(
            "/v1/vector_stores/vs_1/files/f/x/y",
            &["vs_1", "files", "f", "x"],
            false,
        );
        for path in ["/v1/files", "/v1/responses/", "/v1/models/m", "/", ""] {
            check(path, &[], false);
        }
    }
}
