//! How many connections a pool has, for people. Counts per connection, never per request.

use std::cell::Cell;

use super::Pool;

/// A pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections that wait for a request.
    pub idle: u64,
    /// Connections that several requests may share (HTTP/2), idle ones included.
    pub shared: u64,
    /// Connections that were made since the pool began.
    pub opened: u64,
    /// Connections that could not be made since then.
    pub failed: u64,
}

/// Connections that were made, and those that could not be.
#[derive(Debug, Default)]
pub(super) struct Dials {
    opened: Cell<u64>,
    failed: Cell<u64>,
}

impl Dials {
    pub(super) fn count(&self, made: bool) {
        let count = if made { &self.opened } else { &self.failed };
        count.set(count.get() + 1);
    }
}

impl Pool {
    /// How many connections there are.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            idle: self.idle.borrow().len() as u64,
            shared: self.shared.borrow().len() as u64,
            opened: self.dials.opened.get(),
            failed: self.dials.failed.get(),
        }
    }
}
