//! The canary's latest failures told apart, for the line of a trip or a rollback.
//!
//! Bounded: one count per outcome and a few statuses, over two slots of [`SLOT_MS`].

use std::collections::BTreeMap;

use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};

const SLOT_MS: i64 = 30_000;
/// Distinct statuses told apart; further ones are counted as `server-error`.
const STATUSES: usize = 8;

/// Failures of the last 30 to 60 seconds.
#[derive(Debug, Default)]
pub(super) struct Incident {
    current: Slot,
    previous: Slot,
}

#[derive(Debug, Default)]
struct Slot {
    number: i64,
    by_outcome: BTreeMap<&'static str, u32>,
    by_status: BTreeMap<u16, u32>,
    rescued: u32,
    rescue_failed: u32,
}

impl Incident {
    /// Counts a sample if it belongs to a failure of the canary.
    pub(super) fn record(&mut self, sample: &Sample, now: UnixMillis) {
        let number = now.0.div_euclid(SLOT_MS);
        if number != self.current.number {
            let fresh = Slot {
                number,
                ..Slot::default()
            };
            let old = std::mem::replace(&mut self.current, fresh);
            self.previous = if old.number + 1 == number {
                old
            } else {
                Slot::default()
            };
        }
        let slot = &mut self.current;
        match (sample.role, sample.arm) {
            (Role::Live, Arm::Canary) if sample.outcome.is_error() => {
                let known =
                    slot.by_status.contains_key(&sample.status) || slot.by_status.len() < STATUSES;
                if sample.outcome == Outcome::ServerError && known {
                    *slot.by_status.entry(sample.status).or_insert(0) += 1;
                } else {
                    *slot.by_outcome.entry(sample.outcome.as_str()).or_insert(0) += 1;
                }
            }
            (Role::Rescue, Arm::Legacy) if sample.outcome == Outcome::Ok => slot.rescued += 1,
            (Role::Rescue, Arm::Legacy) => slot.rescue_failed += 1,
            _ => {}
        }
    }

    /// `3x connect 1x 529 · 4 rescued by failover, 0 clients failed`; `None` without failures.
    pub(super) fn words(&self) -> Option<String> {
        let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
        let (mut rescued, mut failed) = (0, 0);
        for slot in [&self.previous, &self.current] {
            for (outcome, count) in &slot.by_outcome {
                *outcomes.entry((*outcome).to_owned()).or_insert(0) += count;
            }
            for (status, count) in &slot.by_status {
                *outcomes.entry(status.to_string()).or_insert(0) += count;
            }
            rescued += slot.rescued;
            failed += slot.rescue_failed;
        }
        if outcomes.is_empty() {
            return None;
        }
        let mut counted: Vec<_> = outcomes.into_iter().collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let parts: Vec<_> = counted
            .iter()
            .map(|(what, count)| format!("{count}x {what}"))
            .collect();
        Some(format!(
            "{} · {rescued} rescued by failover, {failed} clients failed",
            parts.join(" ")
        ))
    }
}
