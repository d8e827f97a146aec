//! A body as it came, piece by piece. Most bodies come in one, and then no list is kept of them.
//!
//! Pure. The pieces share memory with whoever else holds them.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;

/// Pieces of a body, none of them empty.
#[derive(Debug, Default)]
pub struct Pieces {
    /// Empty only if there is none at all.
    first: Bytes,
    more: VecDeque<Bytes>,
}

impl Pieces {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Bytes::new(),
            more: VecDeque::new(),
        }
    }

    /// Adds one at the end; an empty one adds nothing.
    pub fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.more.push_back(piece);
        }
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<Bytes> {
        let next = self.more.pop_front().unwrap_or_default();
        let first = std::mem::replace(&mut self.first, next);
        (!first.is_empty()).then_some(first)
    }

    /// The first.
    #[must_use]
    pub fn first(&self) -> Option<&Bytes> {
        Some(&self.first).filter(|first| !first.is_empty())
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.first.len() + self.more.iter().map(Bytes::len).sum::<usize>()
    }

    /// All of them as one; copied only if there are several.
    #[must_use]
    pub fn whole(&self) -> Cow<'_, [u8]> {
        if self.more.is_empty() {
            return Cow::Borrowed(&self.first);
        }
        let mut whole = Vec::with_capacity(self.bytes());
        whole.extend_from_slice(&self.first);
        for piece in &self.more {
            whole.extend_from_slice(piece);
        }
        Cow::Owned(whole)
    }

    /// The same for somebody who keeps it.
    #[must_use]
    pub fn into_whole(self) -> Bytes {
        match self.whole() {
            Cow::Borrowed(_) => self.first,
            Cow::Owned(whole) => whole.into(),
        }
    }

    /// One by one.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_come_out_as_they_went_in(texts in prop::collection::vec("[a-c]{0,3}", 0..6)) {
            let filled = || {
                let mut pieces = Pieces::new();
                texts.iter().for_each(|text| pieces.push(Bytes::from(text.clone())));
                pieces
            };
            let expected: Vec<Bytes> = texts.iter().filter(|text| !text.is_empty()).cloned().map(Bytes::from).collect();
            let whole = texts.concat();
            let mut pieces = filled();
            prop_assert_eq!(pieces.whole(), whole.as_bytes());
            prop_assert_eq!(pieces.bytes(), whole.len());
            prop_assert_eq!(pieces.first(), expected.first());
            for piece in &expected {
                prop_assert!(!pieces.is_empty());
                prop_assert_eq!(pieces.pop(), Some(piece.clone()));
            }
            prop_assert!(pieces.is_empty() && pieces.pop().is_none());
            prop_assert_eq!(filled().into_whole(), whole.as_bytes());
            prop_assert_eq!(filled().into_list(), expected);
        }
    }
}
