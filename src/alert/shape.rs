//! An alert in the shape that each receiver wants: Slack, PagerDuty Events v2, plain JSON.
//!
//! Pure. Says which receiver is told of what, and what PagerDuty opens and closes.
#![deny(clippy::disallowed_methods)]

use serde_json::{Value, json};

use super::Alert;
use super::kind::{AlertKind, Severity};
use crate::config::{Webhook, WebhookFormat};

/// Slack refuses a section of more than 3,000 characters.
const SLACK_TEXT_MOST: usize = 2_800;
/// PagerDuty refuses a summary of more than 1,024 characters.
const SUMMARY_MOST: usize = 1_000;
/// The version of the plain shape: it changes when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// The messages that `alert` means for `webhook`, in order; none if it does not want it.
#[must_use]
pub fn messages(alert: &Alert, webhook: &Webhook, host: &str) -> Vec<Value> {
    let wants = |kind: AlertKind, severity: Severity| match webhook.events.as_slice() {
        _ if kind == AlertKind::Test => true,
        [] => webhook.format != WebhookFormat::PagerDuty || severity > Severity::Info,
        events => events.contains(&kind),
    };
    let is_wanted = !alert.quiet && wants(alert.kind, alert.severity);
    let ended = alert.resolves.iter().copied();
    // A budget's second alert is more severe than its kind; its end would be that of the same incident.
    let ended: Vec<AlertKind> = ended.filter(|&kind| wants(kind, kind.severity())).collect();
    match webhook.format {
        WebhookFormat::PagerDuty => {
            let key = webhook.key.as_ref().map_or("", |key| key.expose());
            let trigger = is_wanted.then(|| trigger(alert, key, host));
            let resolve = ended.into_iter().map(|kind| resolve(alert, kind, key));
            trigger.into_iter().chain(resolve).collect()
        }
        _ if alert.quiet || (!is_wanted && ended.is_empty()) => Vec::new(),
        WebhookFormat::Slack => vec![slack(alert, host)],
        WebhookFormat::Json => vec![plain(alert, host)],
    }
}

/// `default: tripped, 50% -> 0%`
fn title(alert: &Alert) -> String {
    let mut text = match &alert.subject {
        Some(subject) => format!("{subject}: {}", alert.title()),
        None => format!("cutover: {}", alert.title()),
    };
    if let Some((from, to)) = alert.weight {
        text.push_str(&if from == to {
            format!(", at {to}")
        } else {
            format!(", {from} -> {to}")
        });
    }
    text
}

fn words(kinds: &[AlertKind]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.as_str()).collect()
}

/// The plain shape. Weights are fractions, `null` is "does not apply".
fn plain(alert: &Alert, host: &str) -> Value {
    json!({
        "version": JSON_VERSION,
        "id": alert.id,
        "kind": alert.kind.as_str(),
        "severity": alert.severity.as_str(),
        "title": title(alert),
        "text": alert.text,
        "at": alert.at.to_string(),
        "rollout": alert.rollout,
        "subject": alert.subject,
        "weight_from": alert.weight.map(|(from, _)| from.fraction()),
        "weight_to": alert.weight.map(|(_, to)| to.fraction()),
        "decision": alert.decision,
        "dedup_key": alert.key_of(alert.kind),
        "resolves": words(&alert.resolves),
        "runbook": runbook(alert.kind),
        "source": host,
        "cutover": env!("CARGO_PKG_VERSION"),
    })
}

fn trigger(alert: &Alert, key: &str, host: &str) -> Value {
    let summary = format!("{} · {}", title(alert), alert.text);
    json!({
        "routing_key": key,
        "event_action": "trigger",
        "dedup_key": alert.key_of(alert.kind),
        "client": "cutover",
        "payload": {
            "summary": cut(&summary, SUMMARY_MOST),
            "source": host,
            "severity": alert.severity.as_str(),
            "timestamp": alert.at.to_string(),
            "component": alert.subject.as_deref().unwrap_or("cutover"),
            "class": alert.kind.as_str(),
            "custom_details": plain(alert, host),
        },
    })
}

fn resolve(alert: &Alert, kind: AlertKind, key: &str) -> Value {
    json!({
        "routing_key": key,
        "event_action": "resolve",
        "dedup_key": alert.key_of(kind),
    })
}

/// A title that shows in notifications, and an attachment whose colour tells how urgent it is.
fn slack(alert: &Alert, host: &str) -> Value {
    let colour = match alert.severity {
        Severity::Critical => "#c62828",
        Severity::Warning => "#ef8f00",
        Severity::Info => "#2e7d32",
    };
    let mut fields = vec![("Alert", alert.kind.to_string())];
    fields.extend(alert.rollout.clone().map(|name| ("Rollout", name)));
    fields.extend(alert.decision.map(|id| ("Decision", id.to_string())));
    if !alert.resolves.is_empty() {
        fields.push(("Ends", words(&alert.resolves).join(", ")));
    }
    let fields: Vec<Value> = fields
        .iter()
        .map(|(name, value)| mrkdwn(&format!("*{name}*\n{}", escaped(value, SUMMARY_MOST))))
        .collect();
    let mut blocks = Vec::new();
    if !alert.text.is_empty() {
        let text = mrkdwn(&escaped(&alert.text, SLACK_TEXT_MOST));
        blocks.push(json!({ "type": "section", "text": text }));
    }
    blocks.push(json!({ "type": "section", "fields": fields }));
    let from = format!("{} · {host} · {}", alert.at, runbook(alert.kind));
    let from = mrkdwn(&escaped(&from, SUMMARY_MOST));
    blocks.push(json!({ "type": "context", "elements": [from] }));
    json!({
        "text": escaped(&title(alert), SUMMARY_MOST),
        "attachments": [{ "color": colour, "blocks": blocks }],
    })
}

fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text })
}

fn runbook(kind: AlertKind) -> String {
    format!("docs/runbook.md#{kind}")
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// Without what Slack takes for a mention or a link; at most so many characters once it is escaped.
fn escaped(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let piece = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => "",
        };
        if out.len() + piece.len().max(c.len_utf8()) > most {
            out.push_str("...");
            break;
        }
        if piece.is_empty() {
            out.push(c);
        } else {
            out.push_str(piece);
        }
    }
    out
}

#[cfg(test)]
mod tests;
