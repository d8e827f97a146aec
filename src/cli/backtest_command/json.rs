//! The answer of `cutover backtest` for machines. Times are RFC 3339 in UTC, weights fractions.
//!
//! Pure.

use serde_json::{Value, json};

use super::{Answer, text};
use crate::arm::Weight;
use crate::backtest::compare::{Course, Line};
use crate::backtest::recorded::Taken;
use crate::backtest::replay::Exposure;
use crate::clock::UnixMillis;
use crate::controller::Decision;

/// The whole answer.
pub(super) fn answer(answer: &Answer<'_>) -> Value {
    let [was, would] = &answer.courses;
    let replayed = answer.replayed;
    json!({
        "rollout": answer.rollout.name,
        "rollout_id": answer.rollout.rollout_id,
        "config": answer.config,
        "from": time(replayed.from),
        "to": time(replayed.to),
        "cells": replayed.cells,
        "decisions": answer.lines.iter().map(line).collect::<Vec<_>>(),
        "recorded": course(was, &replayed.recorded, replayed.from, answer.recorded.weight_at(replayed.to)),
        "replayed": course(would, &replayed.replayed, replayed.from, replayed.state.weight()),
        "weights_differ": {
            "from": answer.differs.from.map(time),
            "for_s": seconds(answer.differs.for_ms),
        },
        "refused": replayed.refused.iter().map(|it| json!({"at": time(it.at), "why": it.why}))
            .collect::<Vec<_>>(),
        "notes": text::notes(answer),
    })
}

fn time(at: UnixMillis) -> String {
    at.to_string()
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

fn line(line: &Line<'_>) -> Value {
    let (recorded, replayed) = match line {
        Line::Both(taken, would) => (Some(*taken), Some(*would)),
        Line::Recorded(taken) => (Some(*taken), None),
        Line::Replayed(would) => (None, Some(*would)),
    };
    let shift_ms = match line {
        Line::Both(taken, would) => Some(would.at.millis_since(taken.at)),
        Line::Recorded(_) | Line::Replayed(_) => None,
    };
    let difference = match (line, shift_ms) {
        (_, Some(ms)) if ms.abs() < text::SAME_MS => "same",
        (_, Some(1..)) => "later",
        (_, Some(_)) => "earlier",
        (Line::Recorded(_), None) => "not-taken",
        (_, None) => "only-replayed",
    };
    json!({
        "difference": difference,
        "shift_s": shift_ms.map(seconds),
        "recorded": recorded.map(taken),
        "replayed": replayed.map(decision),
    })
}

fn taken(taken: &Taken) -> Value {
    json!({
        "id": taken.id,
        "at": time(taken.at),
        "kind": taken.kind,
        "weight_from": taken.weight_from.fraction(),
        "weight_to": taken.weight_to.fraction(),
        "by": taken.by,
        "reason": taken.reason,
    })
}

fn decision(decision: &Decision) -> Value {
    json!({
        "at": time(decision.at),
        "kind": decision.kind,
        "weight_from": decision.weight_from.fraction(),
        "weight_to": decision.weight_to.fraction(),
        "stage": decision.stage + 1,
        "by": decision.by,
        "reason": decision.reason,
        "evidence": decision.evidence,
    })
}

fn course(course: &Course, exposure: &Exposure, began: UnixMillis, weight: Weight) -> Value {
    let after = |at: UnixMillis| seconds(at.millis_since(began));
    let reached = course.reached.iter();
    json!({
        "reached": reached
            .map(|(weight, at)| json!({"weight": weight.fraction(), "after_s": after(*at)}))
            .collect::<Vec<_>>(),
        "time_to_complete_s": course.completed_at.map(after),
        "trips": course.trips,
        "rollbacks": course.rollbacks,
        "retreats": course.retreats,
        "canary_requests": exposure.requests,
        "failed_canary_requests": exposure.failed,
        "unknown_canary_requests": exposure.unknown,
        "weight_at_end": weight.fraction(),
    })
}
