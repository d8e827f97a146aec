//! Leave to dial an arm, and the duty to tell its breaker how that went.

use std::rc::Rc;

use crate::clock::monotonic_ms;
use crate::outcome::Outcome;
use crate::upstream::pool::Pool;

/// Leave to dial an arm: what its breaker wants to know in return.
#[derive(Debug)]
pub struct Ticket {
    /// The arm's pool, with its breaker.
    pub pool: Rc<Pool>,
    /// The attempt is the one probe of an open breaker.
    pub is_probe: bool,
}

impl Ticket {
    /// The arm gives content; what comes of the rest says nothing about dialling it.
    pub(super) fn alive(self) {
        self.pool.breaker().alive();
    }

    /// The attempt has come to this end.
    pub(super) fn ended(self, outcome: Outcome) {
        self.pool
            .breaker()
            .ended(self.is_probe, outcome, monotonic_ms);
    }
}
