//! What stopped the canary: when, why, for how long, and whom it hurt.
//!
//! Pure. Failures are counted in the minutes of an incident and the one before it; where only hours are kept,
//! in its hours.
#![deny(clippy::disallowed_methods)]

use std::ops::Range;

use serde::Serialize;

use super::{Masked, as_text, masked};
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::controller::DecisionKind;
use crate::store::{SeriesPoint, StoredDecision, Totals, finest_step_ms};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// A trip, a rollback or a retreat.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// When it was stopped.
    #[serde(serialize_with = "as_text")]
    pub at: UnixMillis,
    /// `trip`, `roll-back` or `retreat`; what it ended as, if a trip became a rollback.
    pub kind: String,
    /// Who stopped it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The weight before, a fraction.
    pub weight_from: f64,
    /// The weight meanwhile.
    pub weight_to: f64,
    /// Until the canary was led back, or to the end of the report.
    pub duration_s: f64,
    /// It was not led back yet.
    pub is_open: bool,
    /// The canary's failures around it.
    pub canary: Masked,
}

pub(super) fn incidents(
    decisions: &[StoredDecision],
    points: &[SeriesPoint],
    to: UnixMillis,
    known_until: UnixMillis,
) -> Vec<Incident> {
    let mut found: Vec<Incident> = Vec::new();
    let mut open: Option<(UnixMillis, Incident)> = None;
    for decision in decisions {
        let Some(kind) = DecisionKind::from_word(&decision.kind) else {
            continue;
        };
        let stops = matches!(
            kind,
            DecisionKind::Trip | DecisionKind::RollBack | DecisionKind::Retreat
        );
        match &mut open {
            // A trip that is final after all is still the same incident.
            Some((_, incident)) if stops => {
                incident.kind.clone_from(&decision.kind);
                incident.reason = format!("{} · then: {}", incident.reason, decision.reason);
                incident.weight_to = decision.weight_to.fraction();
            }
            Some((at, incident)) if raises(decision) || kind == DecisionKind::Stop => {
                close(incident, *at..decision.at, false, points, known_until);
                found.extend(open.take().map(|(_, incident)| incident));
            }
            None if stops => open = Some((decision.at, begun(decision))),
            _ => {}
        }
    }
    if let Some((at, mut incident)) = open {
        close(&mut incident, at..to, true, points, known_until);
        found.push(incident);
    }
    found
}

fn raises(decision: &StoredDecision) -> bool {
    decision.weight_to > decision.weight_from && decision.weight_to > Weight::ZERO
}

fn begun(decision: &StoredDecision) -> Incident {
    Incident {
        at: decision.at,
        kind: decision.kind.clone(),
        by: decision.by.clone(),
        reason: decision.reason.clone(),
        weight_from: decision.weight_from.fraction(),
        weight_to: decision.weight_to.fraction(),
        duration_s: 0.0,
        is_open: false,
        canary: Masked::default(),
    }
}

fn close(
    incident: &mut Incident,
    Range {
        start: at,
        end: until,
    }: Range<UnixMillis>,
    is_open: bool,
    points: &[SeriesPoint],
    known_until: UnixMillis,
) {
    incident.duration_s = until.millis_since(at).max(0) as f64 / 1_000.0;
    incident.is_open = is_open;
    let from = UnixMillis((at.0 - MINUTE_MS).div_euclid(MINUTE_MS) * MINUTE_MS);
    let mut around = Totals::default();
    for point in points {
        let is_hour = point.at.0 % HOUR_MS == 0 && finest_step_ms(point.at, known_until) == HOUR_MS;
        let width_ms = if is_hour { HOUR_MS } else { MINUTE_MS };
        if point.at < until && point.at.plus_millis(width_ms) > from {
            around.merge(&point.arms.canary.totals);
        }
    }
    incident.canary = masked(&around);
}
