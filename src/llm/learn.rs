//! Which state of its own an answer gives out: what a later request may name, as hashes.
//!
//! Pure. Of a stream only events that can hold such state are read: most are told apart by their name, the
//! rest by a search for a word. A signature that comes in pieces is hashed as it comes; nothing is kept.
#![deny(clippy::disallowed_methods)]

use std::fmt;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use xxhash_rust::xxh3::Xxh3;

use super::openai::{is_last_response_event, may_be_set};
use super::sse::Event;
use super::state::{Reader, Side, has_hint, hash_state, id_of};
use super::{Dialect, json};

/// Ids of one answer, or of one chunk of a stream, at most; further ones are not learned.
const IDS_MAX: usize = 1_024;
/// Signatures under way at most; there is one at a time.
const OPEN_MAX: usize = 8;
/// The type of an event stands at its beginning.
const TYPE_WITHIN: usize = 96;

/// Words of which one stands in every chat chunk that holds state.
static CHAT_WORDS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["signature\"", "reasoning.encrypted", "\"audio\""].map(Finder::new));
static SIGNATURE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("signature"));
/// The types of the many events that hold only text.
static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(".delta\""));
static BLOCK_DELTA: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new("content_block_delta\""));

/// Hashes of the state that a whole answer gives out, for [`super::RequestFacts::state`] to be compared
/// with. Without a dialect it is an object of the provider's: a response, a file, a list of items.
/// Of an answer that is cut off somewhere, what stands before the cut.
#[must_use]
pub fn ids_of_answer(dialect: Option<Dialect>, body: &[u8]) -> Vec<u64> {
    let mut ids = Ids::default();
    match dialect {
        None | Some(Dialect::OpenAiResponses) => ids.object(body),
        Some(Dialect::OpenAiEmbeddings) => {}
        Some(_) if !has_hint(body) => {}
        Some(Dialect::AnthropicMessages) => ids.members(body, &["content", "container"]),
        Some(Dialect::OpenAiChat | Dialect::OpenAiCompletions) => ids.members(body, &["choices"]),
    }
    ids.0
}

/// Hashes that were found.
#[derive(Debug, Default)]
struct Ids(Vec<u64>);

impl Ids {
    fn push(&mut self, text: &str) {
        if !text.is_empty() && self.0.len() < IDS_MAX {
            self.0.push(hash_state(text));
        }
    }

    /// State within messages, blocks and items.
    fn within(&mut self, raw: &str) {
        let mut each = |_, text: &str| self.push(text);
        Reader::new(Side::Answer, &mut each).read(raw);
    }

    /// State within some members, read as if they stood in an object of their own.
    fn members(&mut self, object: &[u8], names: &[&str]) {
        json::members(object, |key, raw| match key {
            "container" if names.contains(&key) => self.id(raw),
            _ if names.contains(&key) => self.within(raw),
            _ => {}
        });
    }

    /// An id, or an object that has one.
    fn id(&mut self, raw: &str) {
        if let Some(id) = id_of(raw) {
            self.push(&id);
        }
    }

    /// A response, or anything else that a provider keeps.
    fn object(&mut self, object: &[u8]) {
        json::members(object, |key, raw| match key {
            "id" | "conversation" | "output_file_id" | "error_file_id" | "encrypted_content" => {
                self.id(raw);
            }
            "output" | "data" => json::elements(raw, |item| {
                self.item(item);
                ControlFlow::Continue(())
            }),
            "content" => self.within(raw),
            _ => {}
        });
    }

    /// An item of an output: any of them can be referred to.
    fn item(&mut self, raw: &str) {
        self.id(raw);
        self.within(raw);
    }
}

/// What a stream gives out.
#[derive(Default)]
pub(super) struct Learn {
    ids: Ids,
    /// By the index of their block.
    open: Vec<(u64, Xxh3)>,
}

impl fmt::Debug for Learn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Learn").field(&self.ids).finish()
    }
}

impl Learn {
    /// Looks at the next event.
    pub(super) fn read(&mut self, dialect: Dialect, event: &Event<'_>) {
        let Some(data) = event.data else {
            return;
        };
        match dialect {
            Dialect::OpenAiChat => self.chat(data),
            Dialect::OpenAiResponses => self.response(event.name, data),
            Dialect::AnthropicMessages => self.message(event.name, data),
            Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => {}
        }
    }

    /// The stream has ended: signatures under way are as long as they get.
    pub(super) fn end(&mut self) {
        self.close(None);
    }

    /// What was found since the last call.
    pub(super) fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ids.0)
    }

    fn chat(&mut self, data: &[u8]) {
        if CHAT_WORDS.iter().any(|word| may_be_set(word, data)) {
            json::documents(data, |chunk| self.ids.members(chunk, &["choices"]));
        }
    }

    fn response(&mut self, name: &[u8], data: &[u8]) {
        let is_read = match name {
            b"" => !is_of_type(&DELTA, data),
            name => gives_out(name),
        };
        if !is_read {
            return;
        }
        let (mut kind, mut response, mut item) = (name, None, None);
        json::members(data, |key, raw| match key {
            "type" if json::is_text(raw) => kind = raw.trim_matches('"').as_bytes(),
            "response" => response = Some(raw),
            "item" => item = Some(raw),
            _ => {}
        });
        if gives_out(kind) {
            self.ids.object(response.unwrap_or_default().as_bytes());
            self.ids.item(item.unwrap_or_default());
        }
    }

    fn message(&mut self, name: &[u8], data: &[u8]) {
        let is_read = match name {
            b"content_block_delta" => SIGNATURE.find(data).is_some(),
            b"" => !is_of_type(&BLOCK_DELTA, data) || SIGNATURE.find(data).is_some(),
            b"content_block_start"
            | b"content_block_stop"
            | b"message_start"
            | b"message_delta" => true,
            _ => false,
        };
        if is_read {
            self.message_event(name, data);
        }
    }

    fn message_event(&mut self, name: &[u8], data: &[u8]) {
        let mut kind = name;
        let (mut index, mut block, mut delta, mut message) = (0, None, None, None);
        json::members(data, |key, raw| match key {
            "type" if json::is_text(raw) => kind = raw.trim_matches('"').as_bytes(),
            "index" => index = json::uint(raw).unwrap_or(0),
            "content_block" => block = Some(raw),
            "delta" => delta = Some(raw),
            "message" => message = Some(raw),
            _ => {}
        });
        match (kind, block, delta, message) {
            (b"content_block_start", Some(block), _, _) => {
                let is_thinking = json::member(block.as_bytes(), "type") == Some("\"thinking\"");
                if is_thinking {
                    self.sign(index, json::member(block.as_bytes(), "signature"));
                } else {
                    self.ids.within(block);
                }
            }
            (b"content_block_delta", _, Some(delta), _) => {
                self.sign(index, json::member(delta.as_bytes(), "signature"));
            }
            (b"content_block_stop", ..) => self.close(Some(index)),
            (b"message_delta", _, Some(delta), _) => {
                self.close(None);
                self.ids.members(delta.as_bytes(), &["container"]);
            }
            (b"message_start", _, _, Some(message)) => {
                self.ids
                    .members(message.as_bytes(), &["container", "content"]);
            }
            _ => {}
        }
    }

    /// A piece of the signature of a block.
    fn sign(&mut self, index: u64, piece: Option<&str>) {
        let Some(piece) = piece.and_then(json::text).filter(|text| !text.is_empty()) else {
            return;
        };
        if let Some((_, hash)) = self.open.iter_mut().find(|(block, _)| *block == index) {
            hash.update(piece.as_bytes());
        } else if self.open.len() < OPEN_MAX {
            let mut hash = Xxh3::new();
            hash.update(piece.as_bytes());
            self.open.push((index, hash));
        }
    }

    /// The signature of this block, or of all, is whole.
    fn close(&mut self, index: Option<u64>) {
        let ids = &mut self.ids;
        self.open.retain(|(block, hash)| {
            let is_open = index.is_some_and(|index| index != *block);
            if !is_open && ids.0.len() < IDS_MAX {
                ids.0.push(hash.digest());
            }
            is_open
        });
    }
}

/// True for the events of the Responses API that give state out. An item that is only announced may have
/// other encrypted content in the end.
fn gives_out(kind: &[u8]) -> bool {
    matches!(kind, b"response.created" | b"response.output_item.done")
        || (is_last_response_event(kind) && kind != b"error")
}

/// The type of an event without a name, by its first bytes.
fn is_of_type(kind: &Finder<'_>, data: &[u8]) -> bool {
    kind.find(data.get(..TYPE_WITHIN).unwrap_or(data)).is_some()
}

#[cfg(test)]
mod tests;
