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
use crate::sample::Usage;
use crate::upstream::pieces::Pieces;

/// What has arrived of it.
#[derive(Debug)]
pub(super) struct Whole {
    dialect: Option<Dialect>,
    /// Kept only where it counts: where it says that this is no JSON.
    page_type: Option<Box<str>>,
    /// An error answer, whose body only says whose fault it is.
    is_error: bool,
    chunks: Pieces,
    bytes: usize,
}

impl Whole {
    /// An answer to a call of a model.
    pub(super) fn answer(dialect: Dialect, content_type: Option<&str>) -> Self {
        Self {
            dialect: Some(dialect),
            page_type: content_type
                .filter(|kind| llm::is_page(kind))
                .map(Box::from),
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
            page_type: None,
            is_error: false,
            chunks: Pieces::new(),
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

    /// What is left to be watched of a body that has become too large with this chunk.
    pub(super) fn tail(&self, outcome: Outcome, latest: &Bytes) -> Tail {
        let mut tail = Tail {
            outcome,
            dialect: self.dialect.filter(|_| !self.is_error),
            bytes: Vec::new(),
        };
        tail.feed(latest);
        tail
    }

    /// All of it.
    pub(super) fn body(&self) -> Cow<'_, [u8]> {
        self.chunks.whole()
    }

    /// What the whole body says.
    pub(super) fn judge(&self, body: &[u8], status: u16, key_injected: bool) -> PlainFacts {
        match self.dialect {
            Some(dialect) if !self.is_error => {
                llm::read_plain(dialect, status, self.page_type.as_deref(), body)
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

/// Of a body that is too large, what came last: there the usage stands.
#[derive(Debug)]
pub(super) struct Tail {
    /// What the attempt comes to if the body ends well.
    pub(super) outcome: Outcome,
    dialect: Option<Dialect>,
    bytes: Vec<u8>,
}

/// So much of the end is kept, at least.
const TAIL_BYTES: usize = 8 * 1024;

impl Tail {
    /// Takes a chunk.
    pub(super) fn feed(&mut self, chunk: &Bytes) {
        if self.dialect.is_none() {
            return;
        }
        let news = chunk.get(chunk.len().saturating_sub(TAIL_BYTES)..);
        let news = news.unwrap_or_default();
        if self.bytes.len() + news.len() > 2 * TAIL_BYTES {
            let keep = TAIL_BYTES.saturating_sub(news.len());
            self.bytes.drain(..self.bytes.len().saturating_sub(keep));
        }
        self.bytes.extend_from_slice(news);
    }

    /// The usage and the cost that the end states.
    pub(super) fn usage(&self) -> (Option<Usage>, Option<f64>) {
        match self.dialect {
            Some(dialect) => llm::usage_at_the_end(dialect, &self.bytes),
            None => (None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(chunks: &[&[u8]]) -> (Option<Usage>, Option<f64>) {
        let whole = Whole::answer(Dialect::OpenAiEmbeddings, None);
        let [first, rest @ ..] = chunks else {
            panic!("no chunk")
        };
        let mut tail = whole.tail(Outcome::Ok, &Bytes::copy_from_slice(first));
        for chunk in rest {
            tail.feed(&Bytes::copy_from_slice(chunk));
            assert!(tail.bytes.len() <= 2 * TAIL_BYTES);
        }
        tail.usage()
    }

    #[test]
    fn a_body_too_large_to_be_read_still_says_at_its_end_what_it_used() {
        let vectors = b"0.015625,".repeat(200_000);
        let end =
            br#"0.5]}],"model":"m","usage":{"prompt_tokens":800,"total_tokens":800,"cost":0.25}}"#;
        let expected = Usage {
            input_tokens: 800,
            ..Usage::default()
        };
        let body = [vectors.as_slice(), end].concat();
        for size in [1, 100, 4_096, 16_384, 1 << 20, body.len()] {
            let last = &body[body.len() - 60_000..];
            let chunks: Vec<&[u8]> = last.chunks(size).collect();
            assert_eq!(tail_of(&chunks), (Some(expected), Some(0.25)), "{size}");
        }
        assert_eq!(tail_of(&[&vectors]), (None, None));
        assert_eq!(tail_of(&[br#"... "usage":"#]), (None, None));
        assert_eq!(
            tail_of(&[br#"the text \"usage\":{\"prompt_tokens\":9}"}"#]),
            (None, None)
        );
    }
}
