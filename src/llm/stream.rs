//! Watches a streamed answer: first content, end marker, error, tokens; and judges it when it has ended.
//!
//! Pure. The bytes go to the client unchanged, whatever is found here. An event that lies within one
//! chunk is neither copied nor, after the first content, parsed unless a known word in it hints at news.
#![deny(clippy::disallowed_methods)]

use super::learn::Learn;
use super::sse::{Event, Scanner};
use super::{Dialect, anthropic, json, openai, usage};
use crate::outcome::Outcome;
use crate::sample::Usage;

/// An error that arrived inside a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamError {
    /// Its class, as if cutover's own key had been sent; see [`super::with_clients_own_key`].
    pub outcome: Outcome,
}

/// Watches a streamed (SSE) answer.
#[derive(Debug)]
pub struct StreamWatch {
    dialect: Dialect,
    scanner: Scanner,
    seen: Seen,
    /// Set if somebody wants to know what state the answer gives out.
    learn: Option<Box<Learn>>,
}

/// What an answer has shown so far.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Seen {
    /// Something a person or a tool can use.
    pub(super) content: bool,
    /// A final object that lists output.
    pub(super) output: bool,
    /// A reason to finish; a marker may still follow.
    pub(super) finished: bool,
    /// The marker after which nothing follows.
    pub(super) done: bool,
    /// Some event had a name.
    pub(super) named: bool,
    /// Events that were no JSON: most SDKs give up at the first.
    pub(super) malformed: u32,
    /// Events too long to be read.
    pub(super) skipped: u32,
    /// The first error.
    pub(super) error: Option<Outcome>,
    /// A chunk that brings usage and no choices, which is the last but for the marker.
    pub(super) usage_alone: bool,
    /// The last stated usage.
    pub(super) usage: Option<Usage>,
    /// The last cost that the provider stated, in US dollars.
    pub(super) reported_cost_usd: Option<f64>,
}

impl StreamWatch {
    /// A watch for the answer to a request of this dialect.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            scanner: Scanner::default(),
            seen: Seen::default(),
            learn: None,
        }
    }

    /// The same, which also tells what state the answer gives out, see [`StreamWatch::take_ids`].
    #[must_use]
    pub fn learning(dialect: Dialect) -> Self {
        Self {
            learn: Some(Box::default()),
            ..Self::new(dialect)
        }
    }

    /// Takes the next bytes of the body, split anywhere.
    pub fn feed(&mut self, chunk: &[u8]) {
        let (dialect, seen) = (self.dialect, &mut self.seen);
        let learn = &mut self.learn;
        self.scanner.feed(chunk, |event| {
            seen.read(dialect, &event);
            if let Some(learn) = learn {
                learn.read(dialect, &event);
            }
        });
    }

    /// Hashes of the state given out since the last call; see [`super::ids_of_answer`].
    pub fn take_ids(&mut self) -> Vec<u64> {
        self.learn
            .as_mut()
            .map(|learn| learn.take())
            .unwrap_or_default()
    }

    /// True once text, reasoning, tool arguments or a refusal has arrived: the moment of the TTFT. Role
    /// frames and empty texts do not count.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.seen.content
    }

    /// True once a terminal marker or a finish reason has arrived.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.seen.done || self.seen.finished
    }

    /// True once the counts of tokens are final: after the marker, and before it where nothing more is to come.
    /// A finish reason of a chat's choice is too early: other choices and the usage follow it.
    #[must_use]
    pub fn has_final_counts(&self) -> bool {
        let seen = &self.seen;
        seen.done
            || match self.dialect {
                Dialect::AnthropicMessages => seen.finished,
                Dialect::OpenAiResponses => false,
                _ => seen.finished && seen.usage_alone,
            }
    }

    /// The first error that the stream carried.
    #[must_use]
    pub fn error(&self) -> Option<StreamError> {
        self.seen.error.map(|outcome| StreamError { outcome })
    }

    /// Tokens as last stated.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.seen.usage
    }

    /// The cost in US dollars that the provider itself stated last.
    #[must_use]
    pub fn reported_cost_usd(&self) -> Option<f64> {
        self.seen.reported_cost_usd
    }

    /// Events that could not be read: too long, or no JSON.
    #[must_use]
    pub fn unread_events(&self) -> u32 {
        self.seen.skipped.saturating_add(self.seen.malformed)
    }

    /// Judges the stream after its body has ended: `clean_end` says that it ended as HTTP wants it.
    /// An unclean end before the final marker is a [`Outcome::Reset`]; the caller may know better why.
    pub fn finish(&mut self, clean_end: bool) -> Outcome {
        // An event cut off by the end of the body counts if it can be read; if not, it is a truncation.
        let (dialect, malformed) = (self.dialect, self.seen.malformed);
        let seen = &mut self.seen;
        let learn = &mut self.learn;
        self.scanner.end(|event| {
            seen.read(dialect, &event);
            if let Some(learn) = learn {
                learn.read(dialect, &event);
            }
        });
        if let Some(learn) = learn {
            learn.end();
        }
        self.seen.malformed = malformed;
        self.seen.judge(dialect, clean_end)
    }
}

impl Seen {
    /// Keeps the first error: later ones are its consequences.
    pub(super) fn fail(&mut self, outcome: Outcome) {
        self.error = self.error.or(Some(outcome));
    }

    /// Takes over a `usage` object: its tokens, read before, and its cost.
    pub(super) fn take_usage(&mut self, tokens: Option<Usage>, raw: &str) {
        self.usage = tokens.or(self.usage);
        self.reported_cost_usd = usage::read_cost(raw).or(self.reported_cost_usd);
    }

    fn read(&mut self, dialect: Dialect, event: &Event<'_>) {
        self.named |= !event.name.is_empty();
        let Some(data) = event.data else {
            self.skip(dialect, event.name);
            return;
        };
        let data = data.trim_ascii();
        if data.is_empty() {
            return;
        }
        if data.starts_with(b"[DONE]") {
            // The other dialects have their own end; a stray marker means nothing to their SDKs.
            self.done |= !matches!(
                dialect,
                Dialect::AnthropicMessages | Dialect::OpenAiResponses
            );
            return;
        }
        let looks_whole = data.starts_with(b"{") && data.ends_with(b"}");
        if looks_whole && self.content && !self.may_matter(dialect, event.name, data) {
            return;
        }
        let any = json::documents(data, |document| match dialect {
            Dialect::AnthropicMessages => anthropic::read_event(event.name, document, self),
            Dialect::OpenAiResponses => openai::read_response_event(event.name, document, self),
            Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => {
                openai::read_chunk(document, self);
            }
        });
        if event.name == b"error" {
            self.fail(Outcome::InBandError);
        } else if !any && !self.done {
            self.malformed = self.malformed.saturating_add(1);
        }
    }

    fn may_matter(&self, dialect: Dialect, name: &[u8], data: &[u8]) -> bool {
        match dialect {
            Dialect::AnthropicMessages => anthropic::may_matter(name, data),
            Dialect::OpenAiResponses => openai::response_may_matter(name),
            Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => {
                name == b"error" || openai::may_matter(data, self.finished)
            }
        }
    }

    /// An event too long to be read is content at any rate, and may be the end by its name.
    fn skip(&mut self, dialect: Dialect, name: &[u8]) {
        self.skipped = self.skipped.saturating_add(1);
        self.content = true;
        if dialect == Dialect::OpenAiResponses && openai::is_last_response_event(name) {
            self.done = true;
            if matches!(name, b"error" | b"response.failed") {
                self.fail(Outcome::InBandError);
            }
        }
    }

    fn judge(&self, dialect: Dialect, clean_end: bool) -> Outcome {
        if let Some(error) = self.error {
            return error;
        }
        if self.malformed > 0 {
            return Outcome::SoftError;
        }
        if !clean_end && !self.done {
            return Outcome::Reset;
        }
        if !self.done && !self.finished {
            return if self.content {
                Outcome::Truncated
            } else {
                Outcome::SoftError
            };
        }
        // A bare marker after nothing is no answer. A finish reason after nothing is one: an empty text.
        if !self.content && !self.finished && !self.output {
            return Outcome::SoftError;
        }
        // Anthropic's SDK goes by the names of events: without them its users see an empty answer.
        if dialect.is_anthropic() && !self.named {
            return Outcome::SoftError;
        }
        Outcome::Ok
    }
}

#[cfg(test)]
mod tests;
