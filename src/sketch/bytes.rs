//! A sketch as a few bytes, for the store: about two per bucket in use.
//!
//! Pure. One byte says the version, 1. Then two numbers for each bucket in use, in rising order: how many
//! buckets lie between it and the one before (for the first: it and the lowest bucket there is), and its
//! count. Numbers are LEB128: seven bits per byte, the lowest first, the top bit set on all but the last.
//! Counts are whole; what a decay left of a fraction is rounded. Bytes that say anything else are refused.
#![deny(clippy::disallowed_methods)]

use super::{HIGHEST, LOWEST, Sketch};

const VERSION: u8 = 1;
/// Above it, floating-point counts are not exact any more.
const MOST: u64 = 1 << 53;

impl Sketch {
    /// The bytes of all buckets in use.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut next = LOWEST;
        for (bucket, count) in self.iter() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts in use are above 0, and a cast of f64 goes to the nearest end"
            )]
            let count = (count.round() as u64).min(MOST);
            if count > 0 {
                put(&mut bytes, u64::from(bucket.abs_diff(next)));
                put(&mut bytes, count);
                next = bucket.saturating_add(1);
            }
        }
        bytes
    }

    /// The sketch of which these are the bytes; `None` if they are none of this version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut sketch = Self::default();
        let mut next = LOWEST;
        while !rest.is_empty() {
            let between = i16::try_from(take(&mut rest)?).ok()?;
            let bucket = next.checked_add(between).filter(|it| *it <= HIGHEST)?;
            let count = take(&mut rest)?;
            if count == 0 || count > MOST {
                return None;
            }
            #[expect(clippy::cast_precision_loss, reason = "exact up to MOST")]
            sketch.add(bucket, count as f64);
            next = bucket.saturating_add(1);
        }
        Some(sketch)
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The lowest seven bits and the sign that more follow.
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    // Eight bytes hold more than any count.
    for place in 0..8 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(counts: &[(i16, f64)]) -> Sketch {
        counts.iter().copied().collect()
    }

    #[test]
    fn the_format_is_the_one_that_files_hold() {
        let check = |counts: &[(i16, f64)], bytes: &[u8]| {
            assert_eq!(of(counts).to_bytes(), bytes, "{counts:?}");
            assert_eq!(Sketch::from_bytes(bytes), Some(of(counts)), "{bytes:?}");
        };
        check(&[], &[1]);
        check(&[(LOWEST, 1.0)], &[1, 0, 1]);
        check(
            &[(LOWEST, 1.0), (LOWEST + 1, 300.0)],
            &[1, 0, 1, 0, 0xac, 2],
        );
        check(&[(0, 2.0), (3, 127.0)], &[1, 0xe8, 1, 2, 2, 127]);
        check(&[(HIGHEST, 1.0)], &[1, 0x83, 9, 1]);
    }

    #[test]
    fn bytes_that_are_no_sketch_are_refused() {
        for bytes in [
            &[][..],
            &[0],
            &[2, 0, 1],
            &[1, 0],
            &[1, 0, 0],
            &[1, 0x80],
            &[1, 0, 0x80],
            &[1, 0x84, 9, 1],
            &[1, 0xff, 0xff, 0xff, 0xff, 1, 1],
            &[1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
            &[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(Sketch::from_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn fractions_are_rounded_and_crumbs_left_out() {
        let left = of(&[(1, 0.4), (2, 1.6), (3, 1e300)]);
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let whole = of(&[(2, 2.0), (3, MOST as f64)]);
        assert_eq!(Sketch::from_bytes(&left.to_bytes()), Some(whole));
    }

    proptest! {
        #[test]
        fn every_sketch_reads_back(counts in prop::collection::vec((LOWEST..=HIGHEST, 1u32..), 0..300)) {
            let sketch: Sketch = counts.into_iter().map(|(bucket, count)| (bucket, f64::from(count))).collect();
            let bytes = sketch.to_bytes();
            prop_assert!(bytes.len() <= 1 + sketch.iter().count() * 9);
            prop_assert_eq!(Sketch::from_bytes(&bytes), Some(sketch));
        }

        #[test]
        fn garbage_is_refused_or_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
            let mut bytes = bytes;
            if version {
                bytes.insert(0, VERSION);
            }
            if let Some(sketch) = Sketch::from_bytes(&bytes) {
                prop_assert!(sketch.iter().all(|(bucket, count)| (LOWEST..=HIGHEST).contains(&bucket) && count >= 1.0));
                prop_assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), Some(sketch));
            }
        }
    }
}
