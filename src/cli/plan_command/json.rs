//! The answer of `cutover plan --json`. Times in seconds, shares as fractions, unknown is `null`.

use serde_json::{Value, json};

use super::Answer;
use crate::arm::Weight;
use crate::controller::plan::{Advice, Need, Proof, Spread, StagePlan};

pub(super) fn answer(answer: &Answer) -> Value {
    let stages = answer.plan.stages.iter().enumerate();
    json!({
        "rollout": answer.rollout,
        "config": answer.config,
        "requests_per_s": answer.traffic.requests_per_s,
        "legacy_error_rate": answer.traffic.legacy_error_rate,
        "streamed_share": answer.traffic.streamed,
        "warm_up": {
            "legacy_requests": answer.warm_up_requests,
            "time_s": seconds(answer.plan.warm_up_ms),
        },
        "stages": stages.map(|(index, plan)| stage(index, plan)).collect::<Vec<_>>(),
        "total_s": answer.plan.total_ms.map(|total| json!({
            "median": whole(total.usual / 1_000.0),
            "p90": whole(total.p90 / 1_000.0),
        })),
        "cost_per_month_usd": answer.costs.as_ref().map(|costs| json!({
            "model": costs.model,
            "legacy": costs.usd.legacy,
            "canary": costs.usd.canary,
            "savings": costs.savings(),
        })),
        "advice": answer.advice.iter().map(advice).collect::<Vec<_>>(),
    })
}

fn stage(index: usize, stage: &StagePlan) -> Value {
    let (proof, requests, ms, slowest) = match stage.proof {
        Proof::Takes {
            requests,
            ms,
            slowest,
        } => ("takes", Some(requests), Some(ms), Some(slowest.as_str())),
        Proof::NotNeeded => ("not-needed", None, None, None),
        Proof::Never(guard) => ("never", None, None, Some(guard.as_str())),
        Proof::NoGuard => ("no-guard", None, None, None),
    };
    let guards = stage.guards.iter().map(|guard| {
        let (need, requests) = match guard.need {
            Need::Requests(requests) => ("requests", Some(whole(requests))),
            Need::Nothing => ("nothing", None),
            Need::NotApplicable => ("not-applicable", None),
            Need::Never => ("never", None),
        };
        json!({ "name": guard.kind.as_str(), "need": need, "canary_requests_mean": requests })
    });
    json!({
        "index": index + 1,
        "weight": stage.weight.fraction(),
        "approve": stage.approve,
        "dwell_s": seconds(stage.dwell_ms),
        "proof": proof,
        "slowest_guard": slowest,
        "canary_requests": requests.map(|requests| spread(requests, 1.0)),
        "proof_s": ms.map(|ms| spread(ms, 1_000.0)),
        "time_s": stage.time_ms.map(|ms| spread(ms, 1_000.0)),
        "dominates": stage.dominates().as_str(),
        "guards": guards.collect::<Vec<_>>(),
    })
}

fn spread(spread: Spread, unit: f64) -> Value {
    json!({ "mean": whole(spread.usual / unit), "p90": whole(spread.p90 / unit) })
}

fn advice(advice: &Advice) -> Value {
    json!({
        "kind": advice.kind(),
        "text": advice.to_string(),
        "better_weight": advice.better_weight().map(Weight::fraction),
    })
}

const fn seconds(ms: i64) -> i64 {
    ms / 1_000
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` stops at the ends, and estimates are far from them"
)]
fn whole(number: f64) -> i64 {
    number.round() as i64
}
