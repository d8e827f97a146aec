//! What cutover has learned of an arm from its answers, so that it need not learn it at every request.
//!
//! One per arm, shared by all workers, for as long as the arm's base URL stays. Pure; a flag is set once
//! and never taken back, and a request that is not concerned reads nothing.
#![deny(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of one arm.
#[derive(Debug, Default)]
pub struct Habits {
    refuses_usage: AtomicBool,
    codes_unreadably: AtomicBool,
}

impl Habits {
    /// True if the arm refuses requests that ask a stream for its usage.
    #[must_use]
    pub fn refuses_usage(&self) -> bool {
        self.refuses_usage.load(Ordering::Relaxed)
    }

    /// The arm refused a request because it asked for usage. True the first time: tell it then.
    pub fn learn_usage_refused(&self) -> bool {
        !self.refuses_usage.swap(true, Ordering::Relaxed)
    }

    /// True if the arm compresses its answers in a way that cannot be read.
    #[must_use]
    pub fn codes_unreadably(&self) -> bool {
        self.codes_unreadably.load(Ordering::Relaxed)
    }

    /// The arm compressed an answer in a way that cannot be read. True the first time: tell it then.
    pub fn learn_unreadable_coding(&self) -> bool {
        !self.codes_unreadably.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_is_told_once_and_stays() {
        let habits = Habits::default();
        assert!(!habits.refuses_usage());
        assert!(habits.learn_usage_refused() && !habits.learn_usage_refused());
        assert!(habits.refuses_usage());
        assert!(!habits.codes_unreadably());
        assert!(habits.learn_unreadable_coding() && !habits.learn_unreadable_coding());
        assert!(habits.codes_unreadably());
    }
}
