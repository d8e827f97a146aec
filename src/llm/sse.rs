//! Splits a byte stream into server-sent events, at any chunk boundary and without copying whole ones.
//!
//! Knows the framing only: CR, LF and CRLF, a byte-order mark, comments, fields with or without a space
//! after the colon, data over several lines. A line or event longer than [`EVENT_BYTES_MAX`] is not
//! kept; it is reported without its data. Pure; memory is bounded by two such events.
#![deny(clippy::disallowed_methods)]

use memchr::{memchr, memchr2};

/// Longest line, and longest data of one event, that is looked into. Longer ones pass unread.
pub(super) const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Event names are compared with known ones only; the rest of a longer name does not matter.
const NAME_BYTES_MAX: usize = 47;
/// Enough of an overlong line to know its field.
const FIELD_BYTES: usize = 16;
/// An idle stream keeps no buffer larger than this.
const KEPT_BYTES: usize = 16 * 1024;

/// One event with data.
pub(super) struct Event<'a> {
    /// The `event:` field; empty if there was none.
    pub(super) name: &'a [u8],
    /// The `data:` lines, joined by LF. `None`: longer than [`EVENT_BYTES_MAX`].
    pub(super) data: Option<&'a [u8]>,
}

/// The state between two chunks.
#[derive(Default, Debug)]
pub(super) struct Scanner {
    /// The part of the current line that earlier chunks brought.
    line: Vec<u8>,
    /// Data of the current event, when it could not stay borrowed from one chunk.
    data: Vec<u8>,
    name: Name,
    started: bool,
    /// The last chunk ended in CR: an LF at the start of the next one belongs to it.
    after_cr: bool,
    line_too_long: bool,
    data_too_long: bool,
}

#[derive(Debug)]
struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
}

impl Default for Name {
    fn default() -> Self {
        Self {
            bytes: [0; NAME_BYTES_MAX],
            len: 0,
        }
    }
}

enum Line<'a> {
    Blank,
    Data(&'a [u8]),
    Name(&'a [u8]),
    Other,
}

impl Scanner {
    /// Takes the next chunk and calls `each` with every event that it completes.
    pub(super) fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(Event<'_>)) {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        // Data of the current event that lies in this chunk; most events never leave it.
        let mut pending = None;
        while let Some((line, after)) = self.split_line(rest) {
            rest = after;
            if self.line.is_empty() && line.len() <= EVENT_BYTES_MAX {
                match self.parse(line) {
                    Line::Data(data) if pending.is_none() && self.data.is_empty() => {
                        pending = Some(data);
                    }
                    Line::Data(data) => {
                        self.keep(pending.take());
                        self.keep(Some(data));
                    }
                    Line::Blank => self.dispatch(pending.take(), &mut each),
                    Line::Name(name) => self.name.set(name),
                    Line::Other => {}
                }
            } else {
                self.keep(pending.take());
                self.extend_line(line);
                self.end_kept_line();
            }
        }
        self.keep(pending);
        self.extend_line(rest);
    }

    /// The body has ended: an event that lacks its last line end still counts.
    pub(super) fn end(&mut self, each: impl FnMut(Event<'_>)) {
        self.after_cr = false;
        self.feed(b"\n\n", each);
    }

    fn split_line<'a>(&mut self, rest: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let end = memchr2(b'\r', b'\n', rest)?;
        let (line, after) = rest.split_at_checked(end)?;
        let after = match after {
            [b'\r', b'\n', after @ ..] => after,
            [b'\r'] => {
                self.after_cr = true;
                &[]
            }
            [_, after @ ..] => after,
            [] => &[],
        };
        Some((line, after))
    }

    fn parse<'a>(&mut self, mut line: &'a [u8]) -> Line<'a> {
        if !self.started {
            self.started = true;
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return Line::Blank;
        }
        let Some((field, value)) = memchr(b':', line).and_then(|at| line.split_at_checked(at))
        else {
            return Line::Other;
        };
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => Line::Data(value),
            b"event" => Line::Name(value),
            _ => Line::Other,
        }
    }

    /// Adds to the line that spans chunks.
    fn extend_line(&mut self, part: &[u8]) {
        if self.line_too_long {
            return;
        }
        if self.line.len() + part.len() > EVENT_BYTES_MAX {
            self.line_too_long = true;
            let missing = FIELD_BYTES.saturating_sub(self.line.len()).min(part.len());
            self.line
                .extend_from_slice(part.get(..missing).unwrap_or_default());
            self.line.truncate(FIELD_BYTES);
            self.line.shrink_to_fit();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    /// The line that spans chunks is complete.
    fn end_kept_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let too_long = std::mem::take(&mut self.line_too_long);
        match self.parse(&line) {
            Line::Data(_) if too_long => self.drop_data(),
            Line::Data(data) => self.keep(Some(data)),
            Line::Name(name) => self.name.set(name),
            Line::Blank | Line::Other => {}
        }
        if line.capacity() <= KEPT_BYTES {
            line.clear();
            self.line = line;
        }
    }

    /// Copies data out of the chunk because its event goes on after it.
    fn keep(&mut self, data: Option<&[u8]>) {
        let Some(data) = data.filter(|_| !self.data_too_long) else {
            return;
        };
        if self.data.len() + data.len() >= EVENT_BYTES_MAX {
            self.drop_data();
            return;
        }
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
    }

    fn drop_data(&mut self) {
        self.data_too_long = true;
        self.data = Vec::new();
    }

    fn dispatch(&mut self, pending: Option<&[u8]>, each: &mut impl FnMut(Event<'_>)) {
        let name = self.name.get();
        if std::mem::take(&mut self.data_too_long) {
            each(Event { name, data: None });
        } else {
            let data = pending.unwrap_or(&self.data);
            if !data.is_empty() {
                each(Event {
                    name,
                    data: Some(data),
                });
            }
        }
        self.name.len = 0;
        self.data.clear();
        if self.data.capacity() > KEPT_BYTES {
            self.data = Vec::new();
        }
    }

    /// Bytes held between chunks, for the test of the bound.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.line.capacity() + self.data.capacity()
    }
}

impl Name {
    fn set(&mut self, name: &[u8]) {
        let len = name.len().min(NAME_BYTES_MAX);
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..len), name.get(..len)) {
            to.copy_from_slice(from);
            self.len = u8::try_from(len).unwrap_or(0);
        }
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}
