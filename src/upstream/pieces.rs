//! A body as it came, piece by piece. Most bodies come in one, and then no list is kept of them.
//!
//! Pure. The pieces share memory with whoever else holds them: each may keep a whole buffer alive that it was
//! read into. Small ones are therefore gathered, so that a body of many chunks takes about as much memory as
//! it has bytes.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;

/// A piece of less is copied, unless it is the first: a buffer that bytes are read into has 8 KiB or more.
const SMALL_BYTES: usize = 4 * 1024;
/// So much of what was copied makes a piece.
const GATHERED_BYTES: usize = 64 * 1024;

/// Pieces of a body, none of them empty.
#[derive(Debug, Default)]
pub struct Pieces {
    /// Empty only if there is none at all.
    first: Bytes,
    more: VecDeque<Bytes>,
    /// Small ones behind all others.
    gathered: Vec<u8>,
}

impl Pieces {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Bytes::new(),
            more: VecDeque::new(),
            gathered: Vec::new(),
        }
    }

    /// Adds one at the end; an empty one adds nothing.
    pub fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else if piece.len() < SMALL_BYTES {
            self.gathered.extend_from_slice(&piece);
            if self.gathered.len() >= GATHERED_BYTES {
                self.close_gathered();
            }
        } else {
            self.close_gathered();
            self.more.push_back(piece);
        }
    }

    /// Makes a piece of what was gathered.
    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.more.push_back(gathered.into());
        }
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.more.is_empty() {
            self.close_gathered();
        }
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
        let more: usize = self.more.iter().map(Bytes::len).sum();
        self.first.len() + more + self.gathered.len()
    }

    /// All of them as one; copied only if there are several.
    #[must_use]
    pub fn whole(&self) -> Cow<'_, [u8]> {
        if self.more.is_empty() && self.gathered.is_empty() {
            return Cow::Borrowed(&self.first);
        }
        let mut whole = Vec::with_capacity(self.bytes());
        whole.extend_from_slice(&self.first);
        for piece in &self.more {
            whole.extend_from_slice(piece);
        }
        whole.extend_from_slice(&self.gathered);
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

    /// Filled with `texts`, some of them made long.
    fn filled(texts: &[(String, bool)]) -> (Pieces, Vec<u8>) {
        let (mut pieces, mut whole) = (Pieces::new(), Vec::new());
        for (text, is_long) in texts {
            let piece = text.repeat(if *is_long { SMALL_BYTES } else { 1 });
            whole.extend_from_slice(piece.as_bytes());
            pieces.push(piece.into());
        }
        (pieces, whole)
    }

    proptest! {
        #[test]
        fn they_come_out_as_they_went_in(
            texts in prop::collection::vec(("[a-c]{0,3}", prop::bool::ANY), 0..12),
        ) {
            let (mut pieces, whole) = filled(&texts);
            prop_assert_eq!(pieces.whole(), &whole[..]);
            prop_assert_eq!(pieces.bytes(), whole.len());
            let mut popped = Vec::new();
            while let Some(first) = pieces.first().cloned() {
                prop_assert!(!pieces.is_empty() && !first.is_empty());
                prop_assert_eq!(pieces.pop(), Some(first.clone()));
                popped.extend_from_slice(&first);
                prop_assert_eq!(pieces.bytes(), whole.len() - popped.len());
            }
            prop_assert!(pieces.is_empty() && pieces.pop().is_none());
            prop_assert_eq!(&popped, &whole);
            prop_assert_eq!(filled(&texts).0.into_whole(), whole.clone());
            prop_assert_eq!(filled(&texts).0.into_list().concat(), whole);
        }
    }

    #[test]
    fn a_body_of_tiny_chunks_takes_little_more_than_its_bytes() {
        // As they are read: each a slice of a buffer of its own.
        let read = || Bytes::from(vec![b'x'; 8 * 1024]).slice(..1);
        let mut pieces = Pieces::new();
        for _ in 0..=4 * GATHERED_BYTES {
            pieces.push(read());
        }
        assert_eq!(pieces.bytes(), 4 * GATHERED_BYTES + 1);
        let list = pieces.into_list();
        assert_eq!(list.len(), 5);
        assert!(list[1..].iter().all(|piece| piece.len() == GATHERED_BYTES));
    }

    #[test]
    fn what_comes_in_one_piece_or_in_large_ones_is_not_copied() {
        let (small, large) = (
            Bytes::from(vec![b'x'; 9]),
            Bytes::from(vec![b'y'; SMALL_BYTES]),
        );
        let mut pieces = Pieces::new();
        pieces.push(small.clone());
        assert_eq!(pieces.into_whole().as_ptr(), small.as_ptr());
        let mut pieces = Pieces::new();
        pieces.push(small.clone());
        pieces.push(small);
        pieces.push(large.clone());
        let list = pieces.into_list();
        assert_eq!((list.len(), list[2].as_ptr()), (3, large.as_ptr()));
    }
}
