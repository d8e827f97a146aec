//! Takes the usage event out of a stream whose client did not ask for it: cutover did.
//!
//! Pure. Exactly the events go whose `choices` is an empty list and that carry `usage`, with the blank line
//! that ends them: code that reads `choices[0]` would fail there. Usage beside a choice passes, and so does
//! the `"usage":null` that providers add to all other events once usage was asked for, which SDKs accept.
//! An event passes when it is whole, comments and blank lines between events pass at once; what is longer
//! than [`HELD_BYTES_MAX`] is no usage event and passes as it comes.
#![deny(clippy::disallowed_methods)]

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use memchr::memmem::Finder;

use super::json;
use super::openai::may_be_set;
use super::sse::Scanner;

/// A usage event has a few hundred bytes.
const HELD_BYTES_MAX: usize = 16 * 1024;
/// Error bodies are searched up to here.
const ERROR_BYTES_MAX: usize = 64 * 1024;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));

/// Edits one stream.
#[derive(Debug, Default)]
pub struct UsageStrip {
    /// The current event as far as earlier chunks brought it.
    held: Vec<u8>,
    /// The rest of the current event passes.
    passing: bool,
    /// What the current line is, once its first byte is known.
    line: Line,
    /// The current event has a line that is no comment.
    has_fields: bool,
    /// The last chunk ended in CR: an LF at the start of the next one belongs to it.
    after_cr: bool,
    /// The last event was taken out.
    stripped: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Comment,
    Field,
}

impl Line {
    /// The line after more of its bytes.
    fn with(self, part: &[u8]) -> Self {
        match (self, part.first()) {
            (Self::Empty, Some(b':')) => Self::Comment,
            (Self::Empty, Some(_)) => Self::Field,
            (known, _) => known,
        }
    }
}

impl UsageStrip {
    /// Bytes that wait for more.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Takes the next bytes, split anywhere, and gives what may pass now.
    pub fn feed(&mut self, chunk: &Bytes) -> Bytes {
        if chunk.is_empty() {
            return Bytes::new();
        }
        let part = |from: usize, to: usize| chunk.get(from..to).unwrap_or_default();
        let mut out = BytesMut::new();
        // The chunk is dealt with up to `done`; its current event begins at `event`, its line at `line`.
        let (mut done, mut event, mut line) = (0, 0, 0);
        if std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            line = 1;
            if !self.has_fields {
                event = 1;
                done = usize::from(self.stripped);
            }
        }
        while let Some(length) = memchr2(b'\r', b'\n', part(line, chunk.len())) {
            let end = line + length;
            let kind = self.line.with(part(line, end));
            self.line = Line::Empty;
            line = match part(end, chunk.len()) {
                [b'\r', b'\n', ..] => end + 2,
                [b'\r'] => {
                    self.after_cr = true;
                    end + 1
                }
                _ => end + 1,
            };
            if kind == Line::Field || (kind == Line::Comment && self.has_fields) {
                self.has_fields = true;
                continue;
            }
            if self.held.is_empty() {
                self.stripped = !self.passing && is_usage_event(part(event, line));
                if self.stripped {
                    out.extend_from_slice(part(done, event));
                    done = line;
                }
            } else {
                self.held.extend_from_slice(part(event, line));
                self.stripped = is_usage_event(&self.held);
                if !self.stripped {
                    out.extend_from_slice(&self.held);
                }
                self.held.clear();
                done = line;
            }
            event = line;
            self.passing = false;
            self.has_fields = false;
        }
        self.line = self.line.with(part(line, chunk.len()));
        let tail = part(event, chunk.len());
        let mut until = chunk.len();
        if self.passing {
            // Its beginning has passed, and so does this.
        } else if self.held.len() + tail.len() <= HELD_BYTES_MAX {
            self.held.extend_from_slice(tail);
            until = event;
        } else {
            self.passing = true;
            out.extend_from_slice(part(done, event));
            out.extend_from_slice(&std::mem::take(&mut self.held));
            done = event;
        }
        if out.is_empty() {
            return chunk.slice(done.min(until)..until);
        }
        out.extend_from_slice(part(done, until));
        out.freeze()
    }

    /// The body has ended: gives what still waits.
    pub fn end(&mut self) -> Bytes {
        let held = std::mem::take(&mut self.held);
        if is_usage_event(&held) {
            return Bytes::new();
        }
        held.into()
    }
}

/// True for an event that says nothing but the usage.
fn is_usage_event(event: &[u8]) -> bool {
    // Asked for usage, OpenAI writes `null` into all other chunks.
    if !may_be_set(&USAGE, event) {
        return false;
    }
    let mut is_it = false;
    let mut scanner = Scanner::default();
    scanner.feed(event, |event| {
        is_it = event.data.is_some_and(states_usage_alone);
    });
    scanner.end(|event| is_it = event.data.is_some_and(states_usage_alone));
    is_it
}

fn states_usage_alone(data: &[u8]) -> bool {
    let (mut no_choice, mut usage, mut error) = (false, false, false);
    let whole = json::members(data, |key, raw| match key {
        "choices" => no_choice = raw.starts_with('[') && !json::is_set(raw),
        "usage" => usage = raw.starts_with('{'),
        "error" => error = json::is_set(raw),
        _ => {}
    });
    whole && no_choice && usage && !error
}

/// True if an error body speaks of what was asked for: the arm does not know it.
#[must_use]
pub fn names_usage_option(body: &[u8]) -> bool {
    let body = body.get(..ERROR_BYTES_MAX).unwrap_or(body);
    ["stream_options", "include_usage"]
        .into_iter()
        .any(|word| memchr::memmem::find(body, word.as_bytes()).is_some())
}

#[cfg(test)]
mod tests;
