//! When to open a connection ahead of the first request that needs it.
//!
//! Pure: `now` comes in, in milliseconds of any clock that never goes back. One idle connection per worker
//! and arm is enough to spare the first request the set-up. A provider that closes or refuses what nobody
//! uses is asked again after 1 s, doubling to 30 s, until a request has used the pool.
#![deny(clippy::disallowed_methods)]

/// The first wait before another connection is opened ahead, and the longest.
const WAIT_MS: (u64, u64) = (1_000, 30_000);

/// What is remembered of one pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct Warm {
    not_before_ms: u64,
    wait_ms: u64,
    /// Of the pool, when it was last looked at.
    uses: u64,
}

impl Warm {
    /// True if one connection should be opened now. `is_ready`: an idle one is there; `uses` counts the
    /// requests that the pool has served.
    pub fn wants_one(&mut self, is_ready: bool, uses: u64, now_ms: u64) -> bool {
        if uses != self.uses {
            *self = Self {
                uses,
                ..Self::default()
            };
        }
        if is_ready || now_ms < self.not_before_ms {
            return false;
        }
        self.wait_ms = (self.wait_ms * 2).clamp(WAIT_MS.0, WAIT_MS.1);
        self.not_before_ms = now_ms.saturating_add(self.wait_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_hangs_up_on_idle_connections_is_asked_less_and_less_often() {
        let mut warm = Warm::default();
        let opened = |warm: &mut Warm, from_s: u64, to_s: u64| -> Vec<u64> {
            let seconds = from_s..to_s;
            seconds
                .filter(|s| warm.wants_one(false, 0, s * 1_000))
                .collect()
        };
        assert_eq!(opened(&mut warm, 0, 100), [0, 1, 3, 7, 15, 31, 61, 91]);
        assert!(!warm.wants_one(true, 0, 1_000_000), "one is there");
        assert!(warm.wants_one(false, 1, 100_000), "a request used it");
        assert!(!warm.wants_one(false, 1, 100_999));
        assert!(warm.wants_one(false, 1, 101_000));
    }
}
