//! The weights as the data plane reads them: one atomic word per rollout, written by the driver alone.
//!
//! Reading takes no lock and waits for nobody. [`Publisher`] is the only way to write and is handed to
//! the driver alone (invariant 4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arm::Weight;

/// What the data plane needs to know to assign one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// The effective share of the canary.
    pub weight: Weight,
    /// The stage that the rollout is in, from 0.
    pub stage: u16,
    /// True while the rollout is tripped: single live requests may probe the canary.
    pub probing: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Bits 0..16 weight in basis points, 16..32 stage, 32 probing.
    word: AtomicU64,
    /// A permit for one probe, taken by the first worker that has a request for it.
    probe: AtomicBool,
}

/// The data plane's view of one rollout's weight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Slot>);

/// The driver's end of one rollout's weight. Not `Clone`: there is one writer.
#[derive(Debug)]
pub struct Publisher(Arc<Slot>);

/// A weight of 0% at stage 0, with both of its ends.
#[must_use]
pub fn channel() -> (Publisher, Reader) {
    let slot = Arc::new(Slot::default());
    (Publisher(Arc::clone(&slot)), Reader(slot))
}

impl Reader {
    /// The latest published values.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let word = self.0.word.load(Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the fields of the word are 16 bits wide"
        )]
        let (bps, stage) = (word as u16, (word >> 16) as u16);
        Snapshot {
            weight: Weight::from_bps(bps).unwrap_or(Weight::ZERO),
            stage,
            probing: word & (1 << 32) != 0,
        }
    }

    /// Takes the permit for one probe, if there is one. At most one caller gets it.
    #[must_use]
    pub fn take_probe(&self) -> bool {
        self.0.probe.load(Ordering::Relaxed) && self.0.probe.swap(false, Ordering::AcqRel)
    }
}

impl Publisher {
    /// Makes the values visible to every worker. Takes effect for the next request of each.
    pub fn publish(&self, snapshot: Snapshot) {
        let word = u64::from(snapshot.weight.bps())
            | u64::from(snapshot.stage) << 16
            | u64::from(snapshot.probing) << 32;
        self.0.word.store(word, Ordering::Release);
        if !snapshot.probing {
            self.0.probe.store(false, Ordering::Release);
        }
    }

    /// Permits one probe. A permit that nobody took yet is not doubled.
    pub fn permit_probe(&self) {
        self.0.probe.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_what_is_read() {
        let (publisher, reader) = channel();
        assert_eq!(reader.snapshot().weight, Weight::ZERO);
        for (bps, stage, probing) in [(0, 0, false), (10_000, 65_535, true), (2_500, 3, false)] {
            let snapshot = Snapshot {
                weight: Weight::from_bps(bps).unwrap(),
                stage,
                probing,
            };
            publisher.publish(snapshot);
            assert_eq!(reader.snapshot(), snapshot);
        }
    }

    #[test]
    fn a_probe_permit_is_taken_once_and_ends_with_the_trip() {
        let (publisher, reader) = channel();
        assert!(!reader.take_probe());
        publisher.permit_probe();
        publisher.permit_probe();
        assert!(reader.take_probe());
        assert!(!reader.take_probe());
        publisher.permit_probe();
        publisher.publish(Snapshot {
            weight: Weight::FULL,
            stage: 0,
            probing: false,
        });
        assert!(!reader.take_probe());
    }
}
