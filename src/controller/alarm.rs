//! Proof of harm, and what the reflexes do about it: trip, roll back, amber; probes and refused keys.
//!
//! Pure. Nothing here can raise the weight.
#![deny(clippy::disallowed_methods)]

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::clock::{UnixMillis, for_people};
use crate::controller::effect::DecisionKind;
use crate::controller::phase::{Landing, Phase, Trip, Wait};
use crate::controller::policy::{OnHarm, TripPolicy};
use crate::controller::step::{Input, Turn, Why};
use crate::controller::sums::Harm;
use crate::controller::words;

/// How long after it bit the cap explains that the trip ledger is ahead.
const CAP_BIT_MS: i64 = 600_000;
const DAY_MS: i64 = 86_400_000;
/// Doubling stops here: a canary that is back should not wait for days.
const TRIP_COOLDOWN_MAX_MS: i64 = 6 * 3_600_000;

impl Turn<'_> {
    /// A ledger without a number proves nothing: it starts afresh and nothing goes up before an operator
    /// has looked.
    pub(super) fn check_numbers(&mut self, harm: &Harm) {
        let broken = self.state.has_nan();
        if !harm.log_roll.is_nan() && !harm.log_trip.is_nan() && !broken {
            return;
        }
        if self.state.wait == Some(Wait::Evidence) {
            self.state.renew_ledgers();
            return;
        }
        self.alert(
            AlertKind::Evidence,
            "a ledger held no number; evidence starts afresh and nothing goes up until `cutover resume`"
                .to_owned(),
        );
        let reason = "a ledger held no number · evidence starts afresh".to_owned();
        self.decide(DecisionKind::Hold, Why::controller(reason), |state| {
            state.renew_ledgers();
            state.wait = Some(Wait::Evidence);
        });
    }

    pub(super) fn judge_harm(&mut self, harm: &Harm, input: &Input<'_>) {
        if !matches!(
            self.state.phase,
            Phase::Running | Phase::Complete | Phase::Retreated(_) | Phase::Tripped(_)
        ) {
            return;
        }
        let needed = -self.policy.alpha_rollback.ln();
        let mut why = Why {
            log_evidence: Some(harm.log_roll),
            log_needed: Some(needed),
            ..Why::controller(String::new())
        };
        // What an operator was asked about already needs no second proof; the fuse still acts.
        if harm.log_roll >= needed && self.state.wait != Some(Wait::Harm) {
            let mut parts = self.harm_words(harm, &mut why, input);
            parts.push(format!(
                "evidence {} (limit {})",
                words::evidence(harm.log_roll.exp()),
                words::evidence(needed.exp())
            ));
            self.react_to_harm(why, parts);
            return;
        }
        let tripped = matches!(self.state.phase, Phase::Tripped(_));
        let Some(fuse) = self.policy.trip.filter(|_| !tripped) else {
            return;
        };
        if harm.would_bite {
            self.state.cap_bit_at = Some(self.now);
        }
        let bit_lately = self
            .state
            .cap_bit_at
            .is_some_and(|at| self.now.millis_since(at) <= CAP_BIT_MS);
        if harm.log_trip >= needed && bit_lately {
            why.log_evidence = Some(harm.log_trip);
            let parts = self.harm_words(harm, &mut why, input);
            self.trip(fuse, why, parts);
        }
    }

    pub(super) fn harm_words(&self, harm: &Harm, why: &mut Why, input: &Input<'_>) -> Vec<String> {
        let Some(worst) = self.state.tracks.get(harm.worst) else {
            return Vec::new();
        };
        why.guard = Some(worst.rule.kind);
        let open = Some(input.open)
            .filter(|_| worst.rule.is_ceiling)
            .and_then(|open| {
                let counts = worst.rule.counts(open, &self.state.reference)?;
                Some(worst.taken.rest(open, counts).0)
            })
            .unwrap_or_default();
        let open = (open.canary, open.canary_events);
        words::harm(worst, open, input.open.opened_at, input.incident, self.now)
    }

    pub(super) fn trip(&mut self, fuse: TripPolicy, mut why: Why, mut parts: Vec<String>) {
        let now = self.now;
        self.state.trips.retain(|&at| now.millis_since(at) < DAY_MS);
        self.state.trips.push(now);
        let today = self.state.trips.len();
        if today >= usize::try_from(fuse.max_per_day).unwrap_or(usize::MAX) {
            parts.push(format!("trip {today} within 24h"));
            match self.policy.on_harm {
                OnHarm::RollBack | OnHarm::StepBack => self.roll_back(why, parts),
                OnHarm::Hold => {
                    parts.push("waits for `cutover resume`".to_owned());
                    why.reason = parts.join(" · ");
                    self.alert(AlertKind::Trip, why.reason.clone());
                    self.blow_fuse(None, why);
                }
            }
            return;
        }
        let until = now.plus_millis(fuse.cooldown_ms);
        parts.push(format!("retry {}", until.time_of_day()));
        why.reason = parts.join(" · ");
        self.alert(AlertKind::Trip, why.reason.clone());
        self.blow_fuse(Some(until), why);
    }

    /// Harm is proven: what follows is the operator's choice.
    fn react_to_harm(&mut self, why: Why, parts: Vec<String>) {
        match (self.policy.on_harm, self.stage_below()) {
            // It gets nothing now; once the trip is over, the hold comes where it was proven.
            (OnHarm::Hold, _) if matches!(self.state.phase, Phase::Tripped(_)) => {}
            // A tripped canary gets nothing now, so there is no stage to step back to.
            _ if matches!(self.state.phase, Phase::Tripped(_)) => self.roll_back(why, parts),
            (OnHarm::Hold, _) => self.hold_for_harm(why, parts),
            (OnHarm::StepBack, Some(stage)) if self.state.attempt < self.policy.max_attempts => {
                self.step_back(stage, why, parts);
            }
            (OnHarm::StepBack | OnHarm::RollBack, _) => self.roll_back(why, parts),
        }
    }

    /// The highest stage below the effective weight.
    fn stage_below(&self) -> Option<usize> {
        let weight = self.state.weight();
        self.policy
            .stages
            .iter()
            .rposition(|stage| stage.weight < weight)
    }

    fn hold_for_harm(&mut self, mut why: Why, mut parts: Vec<String>) {
        parts.push("on-harm = \"hold\": waits for an operator".to_owned());
        why.reason = parts.join(" · ");
        self.alert(AlertKind::Harm, why.reason.clone());
        self.decide(DecisionKind::Hold, why, |state| {
            state.wait = Some(Wait::Harm);
        });
    }

    /// One stage down, after whose cooldown the rollout tries again. It counts as an attempt, and its
    /// ledgers begin a new epoch: what was proven concerned the stage that was left.
    fn step_back(&mut self, stage: usize, mut why: Why, mut parts: Vec<String>) {
        let Some(to) = self.policy.stages.get(stage).copied() else {
            return;
        };
        let attempt = self.state.attempt;
        let until = self.now.plus_millis(self.cooldown_ms());
        parts.push(format!(
            "attempt {attempt}/{} · steps back, goes on after {}",
            self.policy.max_attempts,
            until.time_of_day()
        ));
        why.reason = parts.join(" · ");
        self.alert(AlertKind::RollBack, why.reason.clone());
        let (policy, now) = (self.policy, self.now);
        self.decide(DecisionKind::RollBack, why, |state| {
            state.attempt += 1;
            state.set_phase(Phase::Running, now);
            state.begin_epoch();
            state.enter(policy, stage, to.weight, true, now);
            state.propose_after = until;
        });
    }

    /// The wait after this attempt: doubled for each that came before.
    fn cooldown_ms(&self) -> i64 {
        let doublings = self.state.attempt.saturating_sub(1).min(16);
        self.policy.cooldown_ms.saturating_mul(1 << doublings)
    }

    pub(super) fn roll_back(&mut self, mut why: Why, mut parts: Vec<String>) {
        let attempt = self.state.attempt;
        let until =
            (attempt < self.policy.max_attempts).then(|| self.now.plus_millis(self.cooldown_ms()));
        parts.push(match until {
            Some(until) => format!(
                "attempt {attempt}/{} · retry {}",
                self.policy.max_attempts,
                until.time_of_day()
            ),
            None => format!(
                "attempt {attempt}/{} was the last",
                self.policy.max_attempts
            ),
        });
        why.reason = parts.join(" · ");
        self.alert(AlertKind::RollBack, why.reason.clone());
        let now = self.now;
        self.decide(DecisionKind::RollBack, why, |state| {
            state.set_phase(Phase::RolledBack { until }, now);
        });
    }

    /// At E >= 10 the evidence of health of this stage is void and has to be gathered again.
    pub(super) fn judge_amber(&mut self, harm: &Harm) {
        if !self.state.amber && harm.log_roll >= 10.0f64.ln() {
            self.state.amber = true;
            self.state.restart_proof();
        } else if self.state.amber && harm.log_roll < 0.0 {
            self.state.amber = false;
        }
    }

    pub(super) fn probe(&mut self, ok: bool) {
        let now = self.now;
        let Phase::Tripped(trip) = &mut self.state.phase else {
            return;
        };
        if ok {
            trip.probes_ok = trip.probes_ok.saturating_add(1);
            return;
        }
        // A late answer of a probe that was sent before the last failure doubles nothing.
        if trip.until.is_none_or(|until| now < until) {
            return;
        }
        let cooldown_ms = trip.cooldown_ms.saturating_mul(2).min(TRIP_COOLDOWN_MAX_MS);
        let until = now.plus_millis(cooldown_ms);
        let reason = format!(
            "a probe failed after {} good ones · next probe {} ({})",
            trip.probes_ok,
            until.time_of_day(),
            for_people(cooldown_ms)
        );
        self.decide(
            DecisionKind::ProbeFailed,
            Why::controller(reason),
            |state| {
                if let Phase::Tripped(trip) = &mut state.phase {
                    trip.until = Some(until);
                    trip.cooldown_ms = cooldown_ms;
                    trip.probes_ok = 0;
                    trip.next_probe_at = until;
                }
            },
        );
    }

    pub(super) fn account_failure(&mut self, why: &str) {
        if self.state.weight() == Weight::ZERO {
            return;
        }
        let reason = format!("account: {why} · waits for a new key or `cutover resume`");
        self.alert(
            AlertKind::Credentials,
            format!("the canary refuses its key: {why}"),
        );
        self.blow_fuse(None, Why::controller(reason));
    }

    pub(super) fn blow_fuse(&mut self, until: Option<UnixMillis>, why: Why) {
        let now = self.now;
        let base_ms = self.policy.trip.map_or(300_000, |trip| trip.cooldown_ms);
        self.decide(DecisionKind::Trip, why, |state| {
            let back_to = match state.phase {
                Phase::Complete => Landing::Complete,
                Phase::Retreated(retreat) => Landing::Retreated(retreat),
                _ => Landing::Running,
            };
            let trip = Trip {
                until,
                cooldown_ms: base_ms,
                probes_ok: 0,
                next_probe_at: until.unwrap_or(now),
                back_to,
            };
            state.set_phase(Phase::Tripped(trip), now);
        });
    }
}
