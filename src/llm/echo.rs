//! Sets the model in an answer back to the name that the client asked for, where a map renamed it.
//!
//! Pure. A stream is edited line by line: what cannot name the model passes at once, and all but the
//! name passes byte for byte. What is longer than [`EVENT_BYTES_MAX`] passes unchanged, and so does an
//! event whose JSON is spread over several lines, which no known provider sends.
#![deny(clippy::disallowed_methods)]

use std::ops::Range;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memchr2_iter;
use memchr::memmem::Finder;

use super::request::span_in;
use super::sse::EVENT_BYTES_MAX;
use super::{Dialect, json, replace_model};

static MODEL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"model\""));
const FIELD: &[u8] = b"data:";
/// Between two lines no buffer larger than this is kept.
const KEPT_BYTES: usize = 16 * 1024;

/// Edits one answer.
#[derive(Debug)]
pub struct ModelEcho {
    dialect: Dialect,
    streamed: bool,
    /// The client's name for the model.
    name: Box<str>,
    /// The line, or the whole body, as far as it has arrived.
    held: Vec<u8>,
    /// The rest of the line, or of the body, passes.
    passing: bool,
}

impl ModelEcho {
    /// For one answer; `streamed` if it is a stream of events.
    #[must_use]
    pub fn new(dialect: Dialect, streamed: bool, name: &str) -> Self {
        Self {
            dialect,
            streamed,
            name: name.into(),
            held: Vec::new(),
            passing: false,
        }
    }

    /// Bytes that wait for more.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Takes the next bytes, split anywhere, and gives what may pass now; often nothing of a plain
    /// answer, which is edited at its end.
    pub fn feed(&mut self, chunk: &Bytes) -> Bytes {
        if self.streamed {
            self.feed_lines(chunk)
        } else {
            self.feed_whole(chunk)
        }
    }

    /// The body has ended: gives what still waits.
    pub fn end(&mut self) -> Bytes {
        let held = Bytes::from(std::mem::take(&mut self.held));
        self.edit(&held).unwrap_or(held)
    }

    fn feed_whole(&mut self, chunk: &Bytes) -> Bytes {
        if self.passing {
            return chunk.clone();
        }
        self.held.extend_from_slice(chunk);
        if self.held.len() <= EVENT_BYTES_MAX {
            return Bytes::new();
        }
        self.passing = true;
        Bytes::from(std::mem::take(&mut self.held))
    }

    fn feed_lines(&mut self, chunk: &Bytes) -> Bytes {
        let part = |range: Range<usize>| chunk.get(range).unwrap_or_default();
        let mut out = BytesMut::new();
        // The chunk is dealt with up to `done`; `start` is where its current line begins.
        let (mut done, mut start) = (0, 0);
        for end in memchr2_iter(b'\r', b'\n', chunk) {
            if self.passing {
                self.passing = false;
            } else if self.held.is_empty() {
                let line = chunk.slice(start..end);
                if let Some(edited) = self.edit(&line) {
                    out.extend_from_slice(part(done..start));
                    out.extend_from_slice(&edited);
                    done = end;
                }
            } else {
                self.held.extend_from_slice(part(start..end));
                out.extend_from_slice(&self.release());
                done = end;
            }
            start = end + 1;
        }
        let tail = part(start..chunk.len());
        self.passing |= !tail.is_empty() && self.held.is_empty() && !may_be_data(tail);
        let mut until = chunk.len();
        if !self.passing {
            if self.held.len() + tail.len() <= EVENT_BYTES_MAX {
                self.held.extend_from_slice(tail);
                until = start;
            } else {
                self.passing = true;
                out.extend_from_slice(part(done..start));
                out.extend_from_slice(&std::mem::take(&mut self.held));
                done = start;
            }
        }
        if out.is_empty() {
            return chunk.slice(done..until.max(done));
        }
        out.extend_from_slice(part(done..until));
        out.freeze()
    }

    /// The held line, which is complete, edited.
    fn release(&mut self) -> Bytes {
        let line = std::mem::take(&mut self.held);
        if line.len() > KEPT_BYTES {
            let line = Bytes::from(line);
            return self.edit(&line).unwrap_or(line);
        }
        let copy = Bytes::copy_from_slice(&line);
        self.held = line;
        self.held.clear();
        self.edit(&copy).unwrap_or(copy)
    }

    /// A line or a whole body with the client's name, or `None` if it passes as it is.
    fn edit(&self, text: &Bytes) -> Option<Bytes> {
        if text.len() > EVENT_BYTES_MAX {
            return None;
        }
        MODEL.find(text)?;
        let data_at = if self.streamed { data_at(text)? } else { 0 };
        let span = self.model_span(text.get(data_at..)?)?;
        let span = span.start + data_at..span.end + data_at;
        Some(replace_model(text, span, &self.name))
    }

    /// Where the name of the model stands, quotes included.
    fn model_span(&self, text: &[u8]) -> Option<Range<usize>> {
        let outer = match self.dialect {
            _ if !self.streamed => text,
            Dialect::OpenAiResponses => json::member(text, "response")?.as_bytes(),
            Dialect::AnthropicMessages => json::member(text, "message")?.as_bytes(),
            Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => text,
        };
        let model = json::member(outer, "model")?;
        json::is_text(model).then(|| span_in(text, model))
    }
}

/// Where the data of a line begins, if it is a line of data.
fn data_at(line: &[u8]) -> Option<usize> {
    let bare = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let data = bare.strip_prefix(FIELD)?;
    Some(line.len() - data.len())
}

/// True if a line that begins like this may turn out to be one of data.
fn may_be_data(begin: &[u8]) -> bool {
    let bare = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin);
    bare.starts_with(FIELD) || FIELD.starts_with(bare) || b"\xef\xbb\xbf".starts_with(begin)
}

#[cfg(test)]
mod tests;
