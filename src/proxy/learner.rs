//! The workers' way to the ids that were learned: asking whose a request's state is, and learning more.
//!
//! Every worker has its own, so that ordinary requests touch no word that another thread counts with.

use std::sync::Arc;

use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::learned::LearnedIds;
use crate::recorder::SampleSink;

/// What the canary's answers are learned into.
#[derive(Debug)]
pub struct Learner {
    ids: Arc<LearnedIds>,
    ttl_ms: i64,
}

impl Learner {
    /// Learns into `ids`, for this long.
    #[must_use]
    pub const fn new(ids: Arc<LearnedIds>, ttl_ms: i64) -> Self {
        Self { ids, ttl_ms }
    }

    /// Learns what an answer gave out, before the client has it; what is new goes on to the store.
    pub fn learn(&self, state: &[u64], sink: &SampleSink) {
        if state.is_empty() {
            return;
        }
        let now = UnixMillis::now();
        let learned = state
            .iter()
            .filter_map(|&hash| self.ids.learn(hash, now, self.ttl_ms));
        sink.learned(learned);
    }

    /// The arm that state lives on: the canary if any of it is the canary's, else legacy. A request that
    /// names state of both can be served nowhere; the canary's error is then as good as legacy's.
    #[must_use]
    pub fn arm_of(&self, state: &[u64]) -> Arm {
        if state.is_empty() {
            return Arm::Legacy;
        }
        let now = UnixMillis::now();
        let is_known = state.iter().any(|&hash| self.ids.knows(hash, now));
        if is_known { Arm::Canary } else { Arm::Legacy }
    }
}
