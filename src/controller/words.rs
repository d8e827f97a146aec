//! Numbers as people read them in decisions: `0.49%`, `1.21s`, `1,900`, and the sentences around them.
//!
//! Pure. The decision log is what operators quote; its shape is fixed by DESIGN section 6.
#![deny(clippy::disallowed_methods)]

use crate::arm::Arm;
use crate::clock::{UnixMillis, for_people};
use crate::controller::guard;
use crate::controller::ledger::Track;
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::state::State;

/// A share as a percentage with three significant digits at most.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent >= 10.0 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.2}")
    };
    format!("{}%", trimmed(&text))
}

/// A number without the zeros that say nothing.
fn trimmed(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

/// A time in milliseconds: `340ms`, `1.21s`.
pub(super) fn time(ms: f64) -> String {
    if ms < 1_000.0 {
        format!("{ms:.0}ms")
    } else {
        format!("{:.2}s", ms / 1_000.0)
    }
}

/// A length of time down to tenths of a second: `0.8s`, `31m`.
pub(super) fn span(ms: i64) -> String {
    if (0..60_000).contains(&ms) {
        let text = format!("{:.1}", ms as f64 / 1_000.0);
        format!("{}s", trimmed(&text))
    } else {
        for_people(ms)
    }
}

/// A factor: `1.5`, `2`.
pub(super) fn factor(value: f64) -> String {
    trimmed(&format!("{value:.2}")).to_owned()
}

/// An e-value: `24.1`; huge ones as a power of ten.
pub(super) fn evidence(value: f64) -> String {
    if value < 1e6 {
        trimmed(&format!("{value:.1}")).to_owned()
    } else {
        format!("{value:.0e}")
    }
}

/// A count to two significant digits, with thousands separated: `1,900`.
pub(super) fn about(count: f64) -> String {
    let count = count.max(1.0).ceil();
    let unit = 10f64.powf((count.log10().floor() - 1.0).max(0.0));
    let rounded = format!("{:.0}", (count / unit).ceil() * unit);
    let mut text = String::new();
    for (place, digit) in rounded.chars().enumerate() {
        if place > 0 && (rounded.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rule of a kind against legacy, or its ceiling.
fn track(state: &State, kind: GuardKind) -> Option<&Track> {
    state.tracks.iter().find(|track| track.rule.kind == kind)
}

/// `errors 2/2614 vs 38/49120 (allowed 0.49%)`
fn errors(state: &State) -> Option<String> {
    let track = track(state, GuardKind::ErrorRate)?;
    let seen = track.stage();
    let legacy = if seen.legacy > 0.0 {
        seen.legacy_events / seen.legacy
    } else {
        track.legacy_rate()
    };
    Some(format!(
        "errors {:.0}/{:.0} vs {:.0}/{:.0} (allowed {})",
        seen.canary_events,
        seen.canary,
        seen.legacy_events,
        seen.legacy,
        percent(track.rule.line().allowed(legacy))
    ))
}

/// `p99 1.21s vs 1.34s (allowed x1.5)`
fn times(state: &State, kind: GuardKind, name: &str) -> Option<String> {
    let track = track(state, kind).filter(|track| !track.rule.is_ceiling)?;
    let quantile = guard::quantile(kind)?;
    let [canary, legacy] = [Arm::Canary, Arm::Legacy].map(|arm| {
        let times = if guard::is_ttft(kind) {
            &state.stage_ttft
        } else {
            &state.stage_latency
        };
        times.get(arm).quantile_ms(quantile)
    });
    Some(format!(
        "{name} {} vs {} (allowed x{})",
        time(canary?),
        time(legacy?),
        factor(track.rule.limit())
    ))
}

/// Why a promotion was due.
pub(super) fn promotion(
    policy: &Policy,
    state: &State,
    log_evidence: f64,
    now: UnixMillis,
) -> String {
    let mut parts = vec![format!(
        "after {}",
        for_people(now.millis_since(state.stage_since))
    )];
    parts.extend(errors(state));
    parts.extend(times(state, GuardKind::LatencyP99, "p99"));
    parts.push(format!(
        "evidence {} (needs {})",
        evidence(log_evidence.exp()),
        evidence(state.promote_nats(policy).exp())
    ));
    parts.join(" · ")
}

/// What the worst guard saw when it proved harm. `incident` may tell the failures apart and add what
/// clients felt: `3x connect 1x 529 · 4 rescued by failover, 0 clients failed`.
pub(super) fn harm(
    worst: &Track,
    open: (f64, f64),
    open_since: UnixMillis,
    incident: Option<&str>,
    now: UnixMillis,
) -> Vec<String> {
    let (requests, events, since) = worst.burst();
    let (requests, events) = (requests + open.0, events + open.1);
    let kind = worst.rule.kind;
    let what = match kind {
        GuardKind::ErrorRate => "errors".to_owned(),
        GuardKind::RateLimited | GuardKind::Rejected => kind.as_str().to_owned(),
        _ => format!("{kind} exceeded by", kind = kind.as_str()),
    };
    let (breakdown, felt) = match incident.map(|text| text.split_once(" · ").unwrap_or((text, "")))
    {
        Some((breakdown, felt)) => (format!(": {breakdown}"), felt),
        None => (String::new(), ""),
    };
    let since = since.unwrap_or(open_since);
    let mut parts = vec![
        format!(
            "{what} {events:.0}/{requests:.0} in {}{breakdown}",
            span(now.millis_since(since).max(0))
        ),
        if worst.rule.is_ceiling {
            format!("never above {}", ceiling(worst))
        } else {
            format!("legacy {}", percent(worst.legacy_rate()))
        },
    ];
    if !felt.is_empty() {
        parts.push(felt.to_owned());
    }
    parts
}

/// A ceiling as configured.
pub(super) fn ceiling(track: &Track) -> String {
    if track.rule.kind.is_time() {
        time(track.rule.limit())
    } else {
        percent(track.rule.limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_the_design() {
        assert_eq!(percent(0.004_928), "0.49%");
        assert_eq!(percent(0.001), "0.1%");
        assert_eq!(percent(0.05), "5%");
        assert_eq!(percent(0.123_4), "12.3%");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(time(1_211.0), "1.21s");
        assert_eq!(time(340.4), "340ms");
        assert_eq!(span(800), "0.8s");
        assert_eq!(span(1_860_000), "31m");
        assert_eq!(factor(1.5), "1.5");
        assert_eq!(evidence(24.12), "24.1");
        assert_eq!(evidence(20.0), "20");
        assert_eq!(about(1_893.0), "1,900");
        assert_eq!(about(7.0), "7");
        assert_eq!(about(1_234_567.0), "1,300,000");
    }
}
