//! Decisions and requests, one line each, oldest first, so that the latest is where the eye ends.
//!
//! Pure text from JSON. Widths are fixed, because lines that come later must stand below the first ones.
#![deny(clippy::disallowed_methods)]

use serde_json::Value;

use super::fields::{money, number, share, text, time, word};
use super::outlook::tone_of_kind;
use super::paint::{Paint, Tone};

/// One decision. The row must be harmless already.
pub(super) fn decision(decision: &Value, paint: Paint) -> String {
    let kind = word(decision, "/kind");
    format!(
        "{}  #{:<5} {:<12} {} {:<14} {}",
        word(decision, "/at"),
        number(decision, "/id"),
        word(decision, "/rollout"),
        padded(paint, tone_of_kind(kind), kind, 12),
        weights(decision),
        word(decision, "/reason"),
    )
}

/// `5% -> 25%`, or `25%` where it stays.
pub(super) fn weights(decision: &Value) -> String {
    let (from, to) = (
        share(decision, "/weight_from"),
        share(decision, "/weight_to"),
    );
    if from == to {
        to
    } else {
        format!("{from} -> {to}")
    }
}

/// The line above requests.
pub(super) fn request_header(paint: Paint) -> String {
    let header = format!(
        "{:<24}  {:<8} {:<7} {:<9} {:<18} {:<24} {:>6} {:>8} {:>8} {:>7} {:>7} {:>10}  {}",
        "at",
        "id",
        "arm",
        "role",
        "outcome",
        "model",
        "status",
        "time",
        "ttft",
        "in",
        "out",
        "cost",
        "upstream id",
    );
    paint.tint(Tone::Faint, &header)
}

/// One request, which is one attempt at an arm. The row must be harmless already.
pub(super) fn request(request: &Value, paint: Paint) -> String {
    let outcome = word(request, "/outcome");
    let tone = match (outcome, word(request, "/blame")) {
        ("ok", _) => Tone::Good,
        (_, "client" | "cutover" | "none" | "-") => Tone::Care,
        _ => Tone::Bad,
    };
    let tag = text(request, "/tag").filter(|tag| !tag.is_empty());
    let row = format!(
        "{:<24}  {:<8} {:<7} {:<9} {} {:<24} {:>6} {:>8} {:>8} {:>7} {:>7} {:>10}  {}{}",
        word(request, "/at"),
        number(request, "/id"),
        word(request, "/arm"),
        word(request, "/role"),
        padded(paint, tone, outcome, 18),
        word(request, "/model"),
        number(request, "/status"),
        time(request.pointer("/latency_ms")),
        time(request.pointer("/ttft_ms")),
        number(request, "/input_tokens"),
        number(request, "/output_tokens"),
        money(request.pointer("/cost_usd")),
        word(request, "/upstream_request_id"),
        tag.map(|tag| format!("  tag {tag}")).unwrap_or_default(),
    );
    row.trim_end().to_owned()
}

/// Colours must not count as width.
fn padded(paint: Paint, tone: Tone, text: &str, width: usize) -> String {
    let padding = " ".repeat(width.saturating_sub(text.chars().count()));
    format!("{}{padding}", paint.tint(tone, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_stand_below_each_other_with_and_without_colours() {
        let at = "2026-11-21T14:32:10.123Z";
        let failed = json!({
            "id": 71, "at": at, "rollout": "default", "arm": "canary", "assigned_arm": "canary",
            "role": "live", "attempt": 1, "model": "gpt-4.1", "streamed": true,
            "outcome": "server-error", "blame": "arm", "status": 503, "latency_ms": 1210.0,
            "ttft_ms": null, "input_tokens": null, "output_tokens": null, "cost_usd": null,
            "upstream_request_id": "req_1", "tag": "",
        });
        let fine = json!({
            "id": 72, "at": at, "arm": "legacy", "role": "rescue", "model": "gpt-4.1",
            "outcome": "ok", "blame": "none", "status": 200, "latency_ms": 810.0, "ttft_ms": 91.0,
            "input_tokens": 12, "output_tokens": 340, "cost_usd": 0.0123,
            "upstream_request_id": "req_2", "tag": "search",
        });
        let promoted = json!({
            "id": 4, "at": at, "rollout": "default", "kind": "promote", "weight_from": 0.05,
            "weight_to": 0.25, "reason": "after 31m",
        });
        let lines = [
            request_header(Paint::PLAIN),
            request(&failed, Paint::PLAIN),
            request(&fine, Paint::PLAIN),
            decision(&promoted, Paint::PLAIN),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        at                        id       arm     role      outcome            model                    status     time     ttft      in     out       cost  upstream id
        2026-11-21T14:32:10.123Z  71       canary  live      server-error       gpt-4.1                     503    1.21s        -       -       -          -  req_1
        2026-11-21T14:32:10.123Z  72       legacy  rescue    ok                 gpt-4.1                     200    810ms     91ms      12     340    $0.0123  req_2  tag search
        2026-11-21T14:32:10.123Z  #4     default      promote      5% -> 25%      after 31m
        ");
        let painted = request(&failed, Paint::FULL);
        assert!(
            painted.contains("\x1b[1;31mserver-error\x1b[0m       gpt-4.1"),
            "{painted}"
        );
    }
}
