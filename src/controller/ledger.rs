//! The ledgers of one rule: evidence of harm that never forgets its proof, and evidence of health.
//!
//! Pure. Three copies of the same bets (STATISTICS section 4):
//! *trip* takes every cell as it is; *rollback* takes the sum of a minute's cells, capped once, so that a
//! burst cannot be final; *promote* starts afresh in each stage. Harm ledgers are sums over starting
//! times: restart mass is injected at the start of each minute, before its data, so that a past of good
//! days cannot bury a change. Inside a minute the rollback ledger is read as `roll + min(sum, cap)`.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::controller::bets::{Bets, Increment};
use crate::controller::exact;
use crate::controller::guard::Rule;
use crate::controller::legacy::{Fano, Rate};
use crate::controller::slices::Taken;
use crate::controller::stats::{Counts, logaddexp, logsumexp};

/// Most nats that one minute may add to the rollback ledger of an expert.
pub const CAP_NATS: f64 = 3.0;

/// All that is remembered about one rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Track {
    /// The limit.
    pub rule: Rule,
    /// Rollback ledger up to the start of this minute.
    #[serde(with = "exact")]
    roll: [f64; 8],
    /// What this minute's cells brought so far, uncapped.
    #[serde(with = "exact")]
    minute_sum: [f64; 8],
    /// The lowest that `minute_sum` has been in this minute: from there the cap is measured, or a minute
    /// that began well would hide how fast evidence comes now.
    #[serde(with = "exact")]
    minute_low: [f64; 8],
    #[serde(with = "exact")]
    trip: [f64; 8],
    #[serde(with = "exact")]
    promote: [f64; 5],
    /// Up to when the seconds have had their starting mass.
    pub(super) seconds_to: UnixMillis,
    /// What of the open cell is booked; ceilings only.
    pub(super) taken: Taken,
    rate: Rate,
    fano: Fano,
    /// Legacy requests and events of this minute, then of the minutes before with a half-life of ten.
    #[serde(with = "exact")]
    legacy: [f64; 4],
    /// Counts of this stage: canary, its events, legacy, its events.
    #[serde(with = "exact")]
    stage: [f64; 4],
    /// Canary requests and events of the latest cells in a row with more events than allowed, and the
    /// time in milliseconds when the first of them opened.
    #[serde(with = "exact")]
    burst: [f64; 3],
    #[serde(skip)]
    bets: Option<Bets>,
}

impl Track {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            roll: [f64::NEG_INFINITY; 8],
            minute_sum: [0.0; 8],
            minute_low: [0.0; 8],
            trip: [f64::NEG_INFINITY; 8],
            promote: [-(5.0f64.ln()); 5],
            seconds_to: UnixMillis(0),
            taken: Taken::default(),
            rate: Rate::new(rule.prior_rate()),
            fano: Fano::default(),
            legacy: [0.0; 4],
            stage: [0.0; 4],
            burst: [0.0; 3],
            bets: None,
        }
    }

    /// Legacy's estimated rate of the event.
    #[must_use]
    pub fn legacy_rate(&self) -> f64 {
        self.rate.estimate()
    }

    /// The divisor of evidence.
    #[must_use]
    pub fn phi(&self) -> f64 {
        self.fano.phi()
    }

    /// True if the limit allows everything, so that it says nothing and is always healthy.
    #[must_use]
    pub fn is_vacuous(&self) -> bool {
        self.rule.line().allowed(self.legacy_rate()) >= 1.0
    }

    /// The counts of this stage.
    #[must_use]
    pub const fn stage(&self) -> Counts {
        let [canary, canary_events, legacy, legacy_events] = self.stage;
        Counts {
            canary,
            canary_events,
            legacy,
            legacy_events,
        }
    }

    /// Canary requests and events of the latest cells in a row with more events than allowed, and when
    /// the first of them opened.
    pub(super) const fn burst(&self) -> (f64, f64, Option<UnixMillis>) {
        let [requests, events, since] = self.burst;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it was a whole number of milliseconds"
        )]
        let since = UnixMillis(since as i64);
        (
            requests,
            events,
            if requests > 0.0 { Some(since) } else { None },
        )
    }

    fn bets(&mut self) -> &Bets {
        let (line, legacy) = (self.rule.line(), self.rate.estimate());
        let kept = self.bets.take().filter(|bets| bets.hold_at(line, legacy));
        self.bets
            .insert(kept.unwrap_or_else(|| Bets::new(line, legacy)))
    }

    /// What these counts are worth; `None` when they say nothing. With `harmless`, evidence of harm is
    /// only taken away, never added: legacy is failing in the same cells.
    pub(super) fn increment(&mut self, counts: Counts, harmless: bool) -> Option<Increment> {
        let comparable = self.rule.is_ceiling || counts.legacy > 0.0;
        if counts.canary <= 0.0 || !comparable || self.is_vacuous() {
            return None;
        }
        let phi = self.phi();
        let most = if harmless { 0.0 } else { f64::INFINITY };
        Some(self.bets().increment(counts, phi, most))
    }

    /// Books a closed cell, as evidence of health only if it belongs to this stage. True if the cap of
    /// this minute bites.
    pub(super) fn book(
        &mut self,
        counts: Counts,
        increment: Option<Increment>,
        in_stage: bool,
        opened_at: UnixMillis,
    ) -> bool {
        let [minute_n, minute_k, ..] = &mut self.legacy;
        *minute_n += counts.legacy;
        *minute_k += counts.legacy_events;
        if in_stage {
            let mut stage = self.stage();
            stage.add(counts);
            self.stage = [
                stage.canary,
                stage.canary_events,
                stage.legacy,
                stage.legacy_events,
            ];
        }
        if counts.canary > 0.0 {
            let allowed = self.rule.line().allowed(self.legacy_rate());
            let [requests, events, since] = self.burst;
            self.burst = if counts.canary_events > allowed * counts.canary {
                let since = if requests > 0.0 {
                    since
                } else {
                    opened_at.0 as f64
                };
                [
                    requests + counts.canary,
                    events + counts.canary_events,
                    since,
                ]
            } else {
                [0.0; 3]
            };
        }
        let Some(increment) = increment else {
            return false;
        };
        for ((sum, trip), harm) in self
            .minute_sum
            .iter_mut()
            .zip(&mut self.trip)
            .zip(increment.harm)
        {
            *sum += harm;
            *trip += harm;
        }
        if in_stage {
            for (promote, health) in self.promote.iter_mut().zip(increment.health) {
                *promote += health;
            }
        }
        for (low, &sum) in self.minute_low.iter_mut().zip(&self.minute_sum) {
            *low = low.min(sum);
        }
        self.bites([0.0; 8])
    }

    /// Ends the minute: the capped sum enters the rollback ledger.
    pub(super) fn commit_minute(&mut self) {
        for (roll, sum) in self.roll.iter_mut().zip(&mut self.minute_sum) {
            *roll += sum.min(CAP_NATS);
            *sum = 0.0;
        }
        self.minute_low = [0.0; 8];
    }

    /// Ends `minutes` minutes: rates and over-dispersion learn what the first of them brought.
    pub(super) fn learn(&mut self, minutes: i64) {
        let minutes = minutes.max(0) as f64;
        let [minute_n, minute_k, recent_n, recent_k] = self.legacy;
        self.rate.add(minute_k, minute_n, minutes);
        self.fano.add(minute_k, minute_n);
        let keep = 0.5f64.powf(minutes / 10.0);
        self.legacy = [
            0.0,
            0.0,
            (recent_n + minute_n) * keep,
            (recent_k + minute_k) * keep,
        ];
    }

    /// Adds starting mass to both harm ledgers. Only between a commit and the next cell.
    pub(super) fn inject(&mut self, mass: f64) {
        if mass > 0.0 {
            Self::inject_into(&mut self.roll, mass);
            Self::inject_into(&mut self.trip, mass);
        }
    }

    /// Adds starting mass to the trip ledger alone.
    pub(super) fn inject_trip(&mut self, mass: f64) {
        if mass > 0.0 {
            Self::inject_into(&mut self.trip, mass);
        }
    }

    fn inject_into(ledger: &mut [f64; 8], mass: f64) {
        let each = (mass / 8.0).ln();
        for value in ledger {
            *value = logaddexp(*value, each);
        }
    }

    /// True if anything in it is no number.
    pub(super) fn has_nan(&self) -> bool {
        let harm = self.roll.iter().chain(&self.minute_sum).chain(&self.trip);
        harm.chain(&self.promote)
            .any(|value| value.is_nan() || *value == f64::INFINITY)
            || self.legacy_rate().is_nan()
            || self.phi().is_nan()
    }

    /// What is known about legacy goes over to a new limit on the same event.
    pub(super) fn inherit(&mut self, old: &Self) {
        (self.rate, self.fano, self.legacy) = (old.rate, old.fano, old.legacy);
    }

    /// Forgets all evidence of harm.
    pub(super) fn reset_harm(&mut self) {
        self.roll = [f64::NEG_INFINITY; 8];
        self.minute_sum = [0.0; 8];
        self.minute_low = [0.0; 8];
        self.trip = [f64::NEG_INFINITY; 8];
    }

    /// Restarts the trip ledger with `mass`; the rollback ledger keeps its proof.
    pub(super) fn reset_trip(&mut self, mass: f64) {
        self.trip = [f64::NEG_INFINITY; 8];
        Self::inject_into(&mut self.trip, mass);
        self.burst = [0.0; 3];
    }

    /// Restarts the evidence of health and the counts of the stage.
    pub(super) fn reset_stage(&mut self) {
        self.promote = [-(5.0f64.ln()); 5];
        self.stage = [0.0; 4];
        self.burst = [0.0; 3];
    }

    /// A ceiling may act only while legacy stays well under it: not when both arms fail. `open` holds
    /// the counts of the cell in question, if it is not booked yet.
    pub(super) fn legacy_is_well(&self, open: Counts, breaker_open: bool) -> bool {
        let [minute_n, minute_k, recent_n, recent_k] = self.legacy;
        let (n, k) = (minute_n + open.legacy, minute_k + open.legacy_events);
        let half = self.rule.line().increase / 2.0;
        let (all_n, all_k) = (n + recent_n, k + recent_k);
        if all_n < 0.5 {
            return !breaker_open;
        }
        // The minute alone must do as well, for a long good past hides what began a second ago; but one
        // single event is no incident.
        all_k < half * all_n && (n <= 0.0 || k - 1.0 < half * n)
    }

    /// Log of the rollback ledger, with what an unbooked cell would add.
    pub(super) fn log_roll(&self, open: Option<&Increment>) -> f64 {
        let open = open.map_or([0.0; 8], |open| open.harm);
        let sums = self.roll.iter().zip(&self.minute_sum).zip(open);
        logsumexp(sums.map(|((roll, sum), open)| roll + (sum + open).min(CAP_NATS)))
    }

    /// Log of the trip ledger, with what an unbooked cell would add.
    pub(super) fn log_trip(&self, open: Option<&Increment>) -> f64 {
        let open = open.map_or([0.0; 8], |open| open.harm);
        logsumexp(self.trip.iter().zip(open).map(|(trip, open)| trip + open))
    }

    /// True if an unbooked cell would make the cap bite.
    pub(super) fn would_bite(&self, open: &Increment) -> bool {
        self.bites(open.harm)
    }

    /// True if within this minute, whenever one begins to count, more than the cap has come.
    fn bites(&self, open: [f64; 8]) -> bool {
        let sums = self.minute_sum.iter().zip(&self.minute_low).zip(open);
        sums.into_iter()
            .any(|((sum, low), open)| sum + open - low > CAP_NATS)
    }

    /// Log of the evidence of health in this stage.
    #[must_use]
    pub fn log_promote(&self) -> f64 {
        logsumexp(self.promote.iter().copied())
    }
}

#[cfg(test)]
mod tests;
