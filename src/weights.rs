//! The weights as the data plane reads them: one atomic word per rollout, written by the driver alone. Beside
//! it stand the few sticky keys that turned out to be none.
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

/// Constant keys that are told to the data plane at most: one for each place that a key may stand in.
pub const CONSTANT_KEYS: usize = 4;

#[derive(Debug, Default)]
struct Slot {
    /// Bits 0..16 weight in basis points, 16..32 stage, 32 probing.
    word: AtomicU64,
    /// A permit for one probe, taken by the first worker that has a request for it.
    probe: AtomicBool,
    /// The rollout is under way: its canary may be asked soon.
    active: AtomicBool,
    /// Hashes of constant keys; 0 is none.
    constant: [AtomicU64; CONSTANT_KEYS],
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

    /// True while the rollout may send a request to its canary soon, whatever the weight is now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Relaxed)
    }

    /// True if most requests show this key, so that it tells no two of them apart and is no key.
    #[must_use]
    pub fn is_constant(&self, key_hash: u64) -> bool {
        let mut keys = self.0.constant.iter();
        key_hash != 0 && keys.any(|key| key.load(Ordering::Relaxed) == key_hash)
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

    /// Says whether the rollout is under way.
    pub fn publish_active(&self, active: bool) {
        self.0.active.store(active, Ordering::Relaxed);
    }

    /// Names the keys that are none; of more than [`CONSTANT_KEYS`] the first ones. A request under way keeps
    /// its arm, and no other key changes its own.
    pub fn publish_constant_keys(&self, keys: &[u64]) {
        let keys = keys.iter().copied().chain(std::iter::repeat(0));
        for (slot, key) in self.0.constant.iter().zip(keys) {
            slot.store(key, Ordering::Relaxed);
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
    fn constant_keys_are_known_until_others_are_named() {
        let (publisher, reader) = channel();
        assert!(!reader.is_constant(0) && !reader.is_constant(7));
        publisher.publish_constant_keys(&[7, 8, 9, 10, 11]);
        let known: Vec<u64> = (0..20).filter(|&key| reader.is_constant(key)).collect();
        assert_eq!(known, [7, 8, 9, 10]);
        publisher.publish_constant_keys(&[9]);
        assert!(reader.is_constant(9) && !reader.is_constant(7) && !reader.is_constant(0));
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
