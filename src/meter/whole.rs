//! A body that is judged at its end: a plain answer, an error, or an object of the provider's.
//!
//! The chunks share memory with those that pass. Pure, and bounded: what is larger than
//! [`PLAIN_MAX_BYTES`] is let go unread.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;

use bytes::Bytes;

use super::PLAIN_MAX_BYTES;
use crate::llm::{self, Dialect, PlainFacts};
use crate::outcome::Outcome;

/// What has arrived of it.
#[derive(Debug)]
pub(super) struct Whole {
    dialect: Option<Dialect>,
    /// `None` for an error answer, whose body only says whose fault it is.
    content_type: Option<Box<str>>,
    is_error: bool,
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Whole {
    /// An answer to a call of a model.
    pub(super) fn answer(dialect: Dialect, content_type: Option<&str>) -> Self {
        Self {
            dialect: Some(dialect),
            content_type: content_type.map(Box::from),
            ..Self::object()
        }
    }

    /// An answer whose status is an error.
    pub(super) fn error(dialect: Option<Dialect>) -> Self {
        Self {
            dialect,
            is_error: true,
            ..Self::object()
        }
    }

    /// An object that is only looked through for ids.
    pub(super) const fn object() -> Self {
        Self {
            dialect: None,
            content_type: None,
            is_error: false,
            chunks: Vec::new(),
            bytes: 0,
        }
    }

    /// True if it says what the answer costs.
    pub(super) const fn tells_usage(&self) -> bool {
        !self.is_error
    }

    /// Takes a chunk. False if the body is now too large to be read.
    pub(super) fn feed(&mut self, chunk: &Bytes) -> bool {
        self.bytes += chunk.len();
        let fits = self.bytes <= PLAIN_MAX_BYTES;
        if fits {
            self.chunks.push(chunk.clone());
        }
        fits
    }

    /// The outcome, as far as the status tells.
    pub(super) fn by_status(&self, status: u16, key_injected: bool) -> Outcome {
        if self.is_error {
            llm::classify_status(self.dialect, status, key_injected, None)
        } else {
            Outcome::Ok
        }
    }

    /// All of it.
    pub(super) fn body(&self) -> Cow<'_, [u8]> {
        match self.chunks.as_slice() {
            [one] => Cow::Borrowed(one),
            several => Cow::Owned(several.concat()),
        }
    }

    /// What the whole body says.
    pub(super) fn judge(&self, body: &[u8], status: u16, key_injected: bool) -> PlainFacts {
        match self.dialect {
            Some(dialect) if !self.is_error => {
                let content_type = self.content_type.as_deref();
                llm::read_plain(dialect, status, content_type, body)
            }
            dialect => PlainFacts {
                outcome: llm::classify_status(dialect, status, key_injected, Some(body)),
                usage: None,
                reported_cost_usd: None,
            },
        }
    }

    /// The ids of state that the body, or as much of it as is given, gives out.
    pub(super) fn ids(&self, body: &[u8]) -> Vec<u64> {
        if self.is_error {
            return Vec::new();
        }
        llm::ids_of_answer(self.dialect, body)
    }

    /// The ids at the beginning of a body that is too large; `latest` is its last chunk so far.
    pub(super) fn first_ids(&self, latest: &Bytes) -> Vec<u64> {
        // The id of a response stands at its beginning.
        self.ids(self.chunks.first().unwrap_or(latest))
    }
}
