//! What a rollout's numbers mean for the person who looks: what comes next, what is missing, what it saves.
//!
//! Pure. Shared by `status` and by its live view, so that both say the same.
#![deny(clippy::disallowed_methods)]

use serde_json::Value;

use super::fields::{
    about, array, count, dollars, float_at, grouped, in_time, moment, percent, text, word,
};
use super::paint::Tone;
use crate::clock::{UnixMillis, for_people};

/// What to keep when all traffic has moved.
pub(super) const REMINDER: &str = "legacy's credentials and this daemon for 30 days: until then \
    `cutover rollback` brings everything back within a second";

/// Below this share of a rate limit somebody should know.
const LITTLE_ROOM: f64 = 0.1;

/// The tone of a state's word.
pub(super) fn tone_of_state(state: &str) -> Tone {
    match state {
        "running" | "complete" => Tone::Good,
        "held" | "retreated" => Tone::Care,
        "tripped" | "rolled-back" => Tone::Bad,
        _ => Tone::Strong,
    }
}

/// The tone of a verdict.
pub(super) fn tone_of_verdict(verdict: &str) -> Tone {
    match verdict {
        "healthy" => Tone::Good,
        "harm" => Tone::Bad,
        "undecided" => Tone::Plain,
        _ => Tone::Faint,
    }
}

/// The tone of a decision's kind.
pub(super) fn tone_of_kind(kind: &str) -> Tone {
    match kind {
        "start" | "promote" | "resume" | "complete" => Tone::Good,
        "hold" | "retreat" | "probe-failed" | "stop" => Tone::Care,
        "trip" | "roll-back" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// What happens next and when, or who has to act; `None` where the reason says it already.
pub(super) fn next_step(rollout: &Value, now: UnixMillis) -> Option<String> {
    let at = moment(rollout, "/next_action_at")
        .filter(|at| *at > now)
        .map(|at| in_time(at, now));
    let reason = word(rollout, "/reason");
    if reason.contains("being recorded") || reason.contains("store is failing") {
        return None;
    }
    match (word(rollout, "/state"), at) {
        ("warming-up", _) => {
            let first = array(rollout, "/stages").first().and_then(Value::as_f64);
            let to = first.map_or_else(String::new, |first| format!(" to {}", percent(first)));
            Some(format!(
                "goes{to} after the warm-up; `cutover promote` goes now"
            ))
        }
        ("running", Some(at)) => Some(format!("may go up {at}, if every guard has proof by then")),
        ("running", None) if reason.contains("not converge") => Some(
            "does not go up by itself: `cutover promote`, wider guards, or `cutover rollback`"
                .to_owned(),
        ),
        ("running", None) if float_at(rollout, "/weight") > Some(0.0) && !is_last(rollout) => {
            Some("goes up as soon as every guard has proof".to_owned())
        }
        ("tripped", Some(at)) => Some(format!(
            "probes the canary {at}, five good probes bring it back; `cutover resume` does not wait"
        )),
        ("rolled-back", Some(at)) => {
            Some(format!("tries again {at}; `cutover retry` does not wait"))
        }
        ("held", _) if reason.starts_with("held by an operator") => Some(
            "nothing until `cutover resume`; a trip or a rollback acts all the same".to_owned(),
        ),
        _ => None,
    }
}

fn is_last(rollout: &Value) -> bool {
    count(rollout, "/stage/index") >= count(rollout, "/stage/of")
}

/// How far a guard's proof is, 0.0 to 1.0, and what it is a proof of. Evidence multiplies, so its
/// logarithm is what fills up evenly.
pub(super) fn progress(guard: &Value) -> f64 {
    let (Some(evidence), Some(needed)) = (float_at(guard, "/evidence"), float_at(guard, "/needed"))
    else {
        return 0.0;
    };
    match word(guard, "/verdict") {
        "healthy" | "harm" => 1.0,
        "undecided" if needed > 1.0 && evidence > 1.0 => {
            (evidence.ln() / needed.ln()).clamp(0.0, 0.99)
        }
        _ => 0.0,
    }
}

/// What a guard still needs, in words.
pub(super) fn needs(guard: &Value) -> String {
    match word(guard, "/verdict") {
        "healthy" => "proven".to_owned(),
        "harm" => "proven harm".to_owned(),
        "no-data" => "no data in this stage yet".to_owned(),
        "not-applicable" => "nothing to compare in this traffic".to_owned(),
        _ => match guard.pointer("/requests_needed").and_then(Value::as_u64) {
            Some(requests) => {
                let eta = guard.pointer("/eta_s").and_then(Value::as_i64);
                // Seconds of an estimate over minutes say nothing.
                let eta = eta.map(|s| if s > 60 { s - s % 60 } else { s.max(1) });
                let eta = eta.map(|s| format!(", ~{}", for_people(s.saturating_mul(1_000))));
                format!(
                    "{} more requests{}",
                    about(requests),
                    eta.unwrap_or_default()
                )
            }
            None => "not converging at these rates".to_owned(),
        },
    }
}

/// Evidence beside what it has to reach. Beyond that its size says nothing any more.
pub(super) fn evidence(guard: &Value) -> String {
    if matches!(word(guard, "/verdict"), "no-data" | "not-applicable") {
        return "-".to_owned();
    }
    let short = |number: f64| {
        let text = format!("{number:.1}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let (found, needed) = (float_at(guard, "/evidence"), float_at(guard, "/needed"));
    let needed_text = needed.map_or("-".to_owned(), short);
    match (found, needed) {
        (Some(found), Some(needed)) if found >= 10.0 * needed => {
            format!(">{} of {needed_text}", short(10.0 * needed))
        }
        (Some(found), _) => format!("{} of {needed_text}", short(found)),
        (None, _) => "-".to_owned(),
    }
}

/// The stages with the present one in brackets: `1% > [5%] > 25%`; empty if they are not known.
pub(super) fn ladder(rollout: &Value) -> Vec<(String, bool)> {
    let present = count(rollout, "/stage/index");
    let stages = array(rollout, "/stages").iter().filter_map(Value::as_f64);
    let is_on = !matches!(
        word(rollout, "/state"),
        "warming-up" | "rolled-back" | "stopped"
    );
    stages
        .zip(1u64..)
        .map(|(weight, place)| (percent(weight), is_on && place == present))
        .collect()
}

/// What the canary costs beside legacy, from the requests whose cost is known.
#[derive(Debug, PartialEq)]
pub(super) struct Saving {
    /// US dollars per 1,000 answered requests on legacy.
    pub(super) legacy_per_1k: f64,
    /// The same on the canary.
    pub(super) canary_per_1k: f64,
    /// US dollars that the canary's requests cost less than they would have on legacy; negative if more.
    pub(super) so_far: f64,
}

/// Known once both arms have answers of known cost, counted as [`crate::store::Totals::known_answers`] does.
pub(super) fn saving(rollout: &Value) -> Option<Saving> {
    let of = |arm: &str| {
        let at = |field: &str| format!("/arms/{arm}/{field}");
        let others = ["errors", "rate_limited", "rejected", "unpriced", "no_usage"];
        let others = others.map(|field| count(rollout, &at(field)));
        let known = count(rollout, &at("requests"))
            .checked_sub(others.iter().sum())
            .filter(|known| *known > 0)?;
        let cost = float_at(rollout, &at("cost_usd"))?;
        #[expect(clippy::cast_precision_loss, reason = "a sum of money for people")]
        let known = known as f64;
        Some((cost / known, known))
    };
    let ((legacy, _), (canary, requests)) = (of("legacy")?, of("canary")?);
    Some(Saving {
        legacy_per_1k: legacy * 1_000.0,
        canary_per_1k: canary * 1_000.0,
        so_far: (legacy - canary) * requests,
    })
}

impl Saving {
    /// One sentence without the prices, which stand beside it.
    pub(super) fn short(&self) -> Option<String> {
        let change = self.change()?;
        let share = format!("{:.0}%", change.abs() * 100.0);
        Some(if self.so_far < 0.0 {
            let sum = dollars(-self.so_far);
            format!("the canary cost about {sum} more so far: {share} more per answer")
        } else {
            let sum = dollars(self.so_far);
            format!("the canary saved about {sum} so far: {share} less per answer")
        })
    }

    fn change(&self) -> Option<f64> {
        (self.legacy_per_1k > 0.0).then(|| self.canary_per_1k / self.legacy_per_1k - 1.0)
    }

    /// One sentence.
    pub(super) fn words(&self) -> String {
        let (legacy, canary) = (dollars(self.legacy_per_1k), dollars(self.canary_per_1k));
        let each = format!("per 1,000 answers the canary costs {canary}, legacy {legacy}");
        let Some(change) = self.change() else {
            return each;
        };
        let (word, sum) = if self.so_far < 0.0 {
            (
                "more",
                format!("spent about {} more", dollars(-self.so_far)),
            )
        } else {
            ("less", format!("saved about {}", dollars(self.so_far)))
        };
        format!("{each}: {:.0}% {word}, {sum} so far", change.abs() * 100.0)
    }
}

/// What of an arm hinders traffic: a breaker that is not closed, and rate limits as its answers state them. Rate limits with
/// enough room are [`Tone::Faint`].
pub(super) fn hindrances(rollout: &Value, arm: &str) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    let of = |field: &str| format!("/arms/{arm}/{field}");
    match text(rollout, &of("breaker")) {
        Some("open") => lines.push((
            Tone::Bad,
            format!("{arm}: its connections fail, so it is not dialled (breaker open)"),
        )),
        Some("half-open") => lines.push((
            Tone::Care,
            format!("{arm}: one request tries whether it can be reached again (breaker half-open)"),
        )),
        _ => {}
    }
    let mut least = f64::INFINITY;
    let mut room = |what: &str| {
        let at = |field: &str| of(&format!("headroom/{what}/{field}"));
        least = least.min(float_at(rollout, &at("share"))?);
        let remaining = grouped(count(rollout, &at("remaining")));
        let limit = grouped(count(rollout, &at("limit")));
        Some(format!("{remaining} of {limit} {what}"))
    };
    let rooms: Vec<String> = ["requests", "tokens"]
        .into_iter()
        .filter_map(&mut room)
        .collect();
    if !rooms.is_empty() {
        let tone = if least < LITTLE_ROOM {
            Tone::Care
        } else {
            Tone::Faint
        };
        let rooms = rooms.join(", ");
        lines.push((
            tone,
            format!("{arm}: its rate limits have room for {rooms}"),
        ));
    }
    lines
}

/// What of the daemon itself is not well: each line with a tone.
pub(super) fn trouble(status: &Value) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    if status.pointer("/store/healthy") == Some(&Value::Bool(false)) {
        let error = word(status, "/store/error");
        lines.push((
            Tone::Bad,
            format!("STORE FAILING, weights do not rise: {error}"),
        ));
    }
    let dropped = count(status, "/store/dropped_samples");
    if dropped > 0 {
        let text = format!("{dropped} samples were dropped because a queue was full");
        lines.push((Tone::Care, text));
    }
    lines.extend(array(status, "/alerts").iter().filter_map(undelivered));
    if let Some(error) = text(status, "/config/error") {
        lines.push((
            Tone::Bad,
            format!("CONFIGURATION REJECTED, the one before is in force:\n{error}"),
        ));
    }
    lines
}

/// A receiver of alerts that misses some: nobody can be told that by an alert.
fn undelivered(alert: &Value) -> Option<(Tone, String)> {
    let lost = |field, words: &dyn Fn(u64) -> String| match count(alert, field) {
        0 => None,
        number => Some(words(number)),
    };
    let parts = [
        lost("/failed", &|number| format!("refused {number}")),
        lost("/dropped", &|number| format!("{number} given up")),
        text(alert, "/last_error").map(str::to_owned),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let webhook = word(alert, "/webhook");
    let words = format!("ALERTS DO NOT ALL ARRIVE: {webhook} {}", parts.join(", "));
    (!parts.is_empty()).then_some((Tone::Care, words))
}

#[cfg(test)]
mod tests;
