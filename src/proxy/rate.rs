//! How often one client may ask: a token bucket in one atomic word, shared by all workers.
//!
//! The word is the moment until which what was admitted is spread out evenly (the generic cell rate algorithm of
//! ATM), so nothing has to be refilled. Pure: `now` comes in. Takes no lock and makes nobody wait.
#![deny(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::clients::Rate;

/// What may come at once: as much as the rate gives in this time, and one request at least.
const BURST_NS: u64 = 1_000_000_000;

/// One client's bucket. Full when it is made.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// What was admitted is paid for until then.
    paid_until_ns: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            paid_until_ns: AtomicU64::new(0),
        }
    }

    /// What it was made from.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Admits one request at `now_ns`, on a clock that never goes back.
    ///
    /// # Errors
    /// With the nanoseconds until the next one may come, if this is one too many. It costs nothing then.
    pub fn admit(&self, now_ns: u64) -> Result<(), u64> {
        let interval_ns = self.rate.interval_ns();
        let at_once = (BURST_NS / interval_ns).max(1);
        let ahead_max_ns = (at_once - 1) * interval_ns;
        let mut wait_ns = 0;
        let admitted =
            self.paid_until_ns
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |paid_until_ns| {
                    let ahead_ns = paid_until_ns.saturating_sub(now_ns);
                    wait_ns = ahead_ns.saturating_sub(ahead_max_ns);
                    (wait_ns == 0).then(|| paid_until_ns.max(now_ns).saturating_add(interval_ns))
                });
        admitted.map(drop).map_err(|_| wait_ns)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::monotonic_ns;

    fn bucket(rate: &str) -> Bucket {
        Bucket::new(rate.parse().unwrap())
    }

    /// As much as comes at once into a full bucket.
    fn burst(bucket: &Bucket, at_ns: u64) -> u64 {
        let mut count = 0;
        while bucket.admit(at_ns).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_the_rate() {
        for (rate, at_once) in [
            ("100/s", 100),
            ("1/s", 1),
            ("600/min", 10),
            ("100/min", 1),
            ("1/min", 1),
        ] {
            let bucket = bucket(rate);
            let start = 5_000_000_000;
            assert_eq!(burst(&bucket, start), at_once, "{rate}");
            let wait = bucket.admit(start).unwrap_err();
            assert_eq!(wait, bucket.rate().interval_ns(), "{rate}");
            assert!(bucket.admit(start + wait - 1).is_err(), "{rate}");
            assert_eq!(bucket.admit(start + wait), Ok(()), "{rate}");
            // A long rest fills it, and never more than that.
            assert_eq!(burst(&bucket, start + (1 << 50)), at_once, "{rate}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_burst(
            requests in 1_u32..5_000,
            per_minute in any::<bool>(),
            steps in prop::collection::vec(0_u64..50_000_000, 1..2_000),
        ) {
            let rate = format!("{requests}/{}", if per_minute { "min" } else { "s" });
            let bucket = bucket(&rate);
            let interval_ns = bucket.rate().interval_ns();
            let at_once = (BURST_NS / interval_ns).max(1);
            let (mut now_ns, mut admitted) = (7, Vec::new());
            for step in steps {
                now_ns += step;
                if let Err(wait_ns) = bucket.admit(now_ns) {
                    prop_assert!(wait_ns >= 1 && wait_ns <= interval_ns, "{}: {}", rate, wait_ns);
                } else {
                    admitted.push(now_ns);
                }
            }
            // In every window, not only from the start.
            for (first, began) in admitted.iter().enumerate().step_by(17) {
                for (last, ended) in admitted.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(count <= (ended - began) / interval_ns + at_once, "{}", rate);
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(requests in 1_u32..100_000, count in 1_u64..500) {
            let bucket = bucket(&format!("{requests}/s"));
            let interval_ns = bucket.rate().interval_ns();
            for number in 0..count {
                prop_assert_eq!(bucket.admit(number * interval_ns), Ok(()));
            }
        }
    }

    #[test]
    fn two_threads_share_it_exactly() {
        let bucket = Arc::new(bucket("5000/s"));
        let began = monotonic_ns();
        let ask = || {
            let bucket = Arc::clone(&bucket);
            // Until it was empty often enough, and some of it came back.
            thread::spawn(move || {
                let (mut admitted, mut refused) = (0_u64, 0);
                while refused < 1_000 || monotonic_ns() - began < 200_000_000 {
                    match bucket.admit(monotonic_ns()) {
                        Ok(()) => admitted += 1,
                        Err(_) => refused += 1,
                    }
                }
                admitted
            })
        };
        let threads = [ask(), ask()];
        let admitted: u64 = threads.map(|thread| thread.join().unwrap()).iter().sum();
        let elapsed_ns = monotonic_ns() - began;
        let most = 5_000 + elapsed_ns / bucket.rate().interval_ns();
        assert!((5_000..=most).contains(&admitted), "{admitted} of {most}");
    }
}
