//! The story in plain words, made of facts only.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use super::words::{self, count, counted, length, minute, money, share};
use super::{Difference, Report};

/// Where it stands, in a line.
pub(super) fn headline(report: &Report) -> String {
    let weight = share(report.weight);
    if report.requests() == 0 && report.decisions.is_empty() {
        return "No traffic yet".to_owned();
    }
    let stage = match (report.stage, report.stages) {
        (Some(stage), Some(of)) => format!("stage {stage} of {of}"),
        (Some(stage), None) => format!("stage {stage}"),
        _ => "no stage yet".to_owned(),
    };
    let took = report.duration_s.map(length).unwrap_or_default();
    match report.state {
        "complete" if report.weight >= 1.0 => format!("Complete: all traffic moved in {took}"),
        "complete" => format!("Complete: {weight} of the traffic moved in {took}"),
        "running" => format!("Under way: {weight} on the canary, {stage}, after {took}"),
        "held" => format!("Held at {weight}, {stage}, after {took}"),
        "tripped" => format!("Tripped: nothing goes to the canary now, {stage} is kept"),
        "retreated" => format!("Stepped back to {weight} to compare the arms, {stage} is kept"),
        "rolled-back" => "Rolled back: all traffic is on legacy".to_owned(),
        "stopped" => "Stopped: the rollout is no longer configured".to_owned(),
        _ => "Warming up: legacy is being measured, nothing goes to the canary yet".to_owned(),
    }
}

/// The story, a paragraph per subject.
pub(super) fn story(report: &Report) -> Vec<String> {
    let told = [
        Some(course(report)),
        quality(report),
        trouble(report),
        saved(report),
    ];
    told.into_iter().flatten().collect()
}

fn host(url: Option<&String>) -> Option<&str> {
    let url = url?;
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    rest.split('/').next()
}

fn course(report: &Report) -> String {
    let from = host(report.base_urls.legacy.as_ref()).unwrap_or("legacy");
    let to = host(report.base_urls.canary.as_ref()).unwrap_or("the canary");
    let mut text = match report.started_at {
        None if report.requests() == 0 => {
            return format!("The rollout {} has seen no traffic.", report.rollout);
        }
        None => {
            return format!(
                "The rollout {} measures {from} before anything goes to {to}: {} so far.",
                report.rollout,
                counted(report.arms.legacy.requests, "request")
            );
        }
        Some(at) => format!(
            "The rollout {} moves traffic from {from} to {to} and began on {} UTC.",
            report.rollout,
            minute(at)
        ),
    };
    match (report.completed_at, report.duration_s) {
        (Some(at), Some(duration_s)) => text.push_str(&format!(
            " It was complete on {} UTC, {} later.",
            minute(at),
            length(duration_s)
        )),
        _ => text.push_str(&format!(
            " On {} UTC it stood at {}.",
            minute(report.to),
            share(report.weight)
        )),
    }
    let canary = report.arms.canary.requests;
    if report.requests() > 0 {
        text.push_str(&format!(
            " {} of {} went to the canary ({}).",
            count(canary),
            counted(report.requests(), "request"),
            share(canary as f64 / report.requests() as f64)
        ));
    }
    text
}

fn find<'a>(report: &'a Report, metric: &str) -> Option<&'a Difference> {
    report.differences.iter().find(|it| it.metric == metric)
}

/// What is better, what is worse, what is the same; the intervals stand in the tables.
fn quality(report: &Report) -> Option<String> {
    let mut same = Vec::new();
    let mut said = Vec::new();
    let mut unknown = Vec::new();
    for (metric, name) in [
        ("error_rate", "error rate"),
        ("latency_p50_ms", "median latency"),
        ("latency_p99_ms", "99th percentile of latency"),
        ("ttft_p50_ms", "median time to the first token"),
        (
            "ttft_p99_ms",
            "99th percentile of the time to the first token",
        ),
    ] {
        let Some(difference) = find(report, metric) else {
            continue;
        };
        match difference.verdict {
            "no-measurable-difference" => same.push(name),
            "unknown" => unknown.push(name),
            _ => said.push(format!("its {name} was {}", words::verdict(difference))),
        }
    }
    let mut parts = Vec::new();
    if !said.is_empty() {
        parts.push(format!(
            "Compared with legacy at the same times, {}.",
            listed(&said)
        ));
    }
    if !same.is_empty() {
        let verb = if same.len() == 1 { "shows" } else { "show" };
        parts.push(format!(
            "The {} {verb} no measurable difference between the arms.",
            listed(&same)
        ));
    }
    if !unknown.is_empty() {
        parts.push(format!(
            "There is too little to compare the {}.",
            listed(&unknown)
        ));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn listed<T: AsRef<str>>(parts: &[T]) -> String {
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    match parts.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn trouble(report: &Report) -> Option<String> {
    report.started_at?;
    let masked = report.masked.canary;
    let mut text = match report.incidents.as_slice() {
        [] => "The canary was never stopped.".to_owned(),
        [one] => format!(
            "The canary was {} once, on {} UTC, for {}.",
            words::kind(&one.kind),
            minute(one.at),
            length(one.duration_s)
        ),
        some => {
            let all_s: f64 = some.iter().map(|it| it.duration_s).sum();
            format!(
                "The canary was stopped or stepped back {} times, for {} in all.",
                some.len(),
                length(all_s)
            )
        }
    };
    if masked.failed == 0 {
        if report.arms.canary.requests > 0 {
            text.push_str(" None of its requests failed.");
        }
    } else {
        text.push_str(&format!(
            " {} failed on the canary; {} of them were answered by failover or a retry, so that {} reached \
             a client.",
            counted(masked.failed, "request"),
            count(masked.made_good),
            counted(masked.reached_clients, "failure")
        ));
    }
    Some(text)
}

fn saved(report: &Report) -> Option<String> {
    let savings = report.savings.as_ref()?;
    let is_sure = |low: Option<f64>, high: Option<f64>| {
        low.zip(high)
            .is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    };
    let so_far = &savings.so_far_usd;
    if so_far.ci95_low.is_some() && !is_sure(so_far.ci95_low, so_far.ci95_high) {
        return Some(
            "The cost of an answer shows no measurable difference between the arms.".to_owned(),
        );
    }
    let (verb, size) = if so_far.value < 0.0 {
        ("cost more by", -so_far.value)
    } else {
        ("saved", so_far.value)
    };
    let mut text = format!("So far the canary {verb} {}", money(size));
    if let Some(per_month) = &savings.per_month_usd {
        text.push_str(&format!(
            "; all of the present traffic would make that {} a month",
            money(per_month.value.abs())
        ));
    }
    text.push('.');
    if so_far.ci95_low.is_none() {
        text.push_str(" There is too little to say how sure that is.");
    }
    Some(text)
}
