//! `[alerts]`: who is told of what.
//!
//! Reads values and notes faults. An address and a key are secrets: no fault repeats them.

use std::time::Duration;

use super::super::raw::keys::nearest;
use super::super::raw::{Field, Reader, Section, Wrong};
use super::super::values::{BaseUrl, Secret};
use super::super::{AlertsConfig, Webhook, WebhookFormat};
use super::{defaults, leaf, secret};
use crate::alert::kind::AlertKind;

pub(super) fn alerts(reader: &mut Reader<'_>, root: &Section<'_>) -> AlertsConfig {
    let section = reader.section(root, "alerts", "alerts");
    AlertsConfig {
        held_after: reader
            .read(&section, "held-after", held_after)
            .unwrap_or(Some(defaults::HELD_AFTER)),
        webhooks: webhooks(reader, &section),
    }
}

fn held_after(field: &Field<'_>) -> Result<Option<Duration>, Wrong> {
    if leaf::is_off(field) {
        return Ok(None);
    }
    leaf::positive_duration(field).map(Some)
}

fn webhooks(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<Webhook> {
    let Some(field) = section.get("webhooks") else {
        return Vec::new();
    };
    let webhooks = reader.take(&field, |field| {
        field
            .value
            .as_array()
            .map(|_| ())
            .ok_or_else(|| field.expected("a list of tables with url and format"))
    });
    let elements = webhooks.and_then(|()| field.elements()).unwrap_or_default();
    elements
        .iter()
        .filter_map(|element| webhook(reader, element))
        .collect()
}

fn webhook(reader: &mut Reader<'_>, element: &Field<'_>) -> Option<Webhook> {
    let section = reader.open(element, "alerts.webhooks");
    let words = [
        WebhookFormat::Slack,
        WebhookFormat::PagerDuty,
        WebhookFormat::Json,
    ]
    .map(|format| (format.as_str(), format));
    let format = reader
        .read(&section, "format", |field| leaf::word(field, &words))
        .unwrap_or(WebhookFormat::Json);
    let events = reader.read(&section, "events", events).unwrap_or_default();
    let key = key(reader, &section, format);
    let Some(field) = section.get("url") else {
        let wrong = Wrong::new("a webhook needs its url", "add url = \"env:NAME\"");
        // Said only of a table: anything else has its fault already.
        if element.value.is_table() {
            reader.fault(&section.place, wrong);
        }
        return None;
    };
    let url = match secret::look_up(reader, &field) {
        Ok(Some(url)) => url,
        Ok(None) => Secret::new(field.value.as_str().unwrap_or_default().trim()),
        Err(wrong) => {
            reader.fault(&field.place, wrong);
            return None;
        }
    };
    if !is_address(url.expose()) {
        let wrong = Wrong::new(
            "this is no address that starts with https:// or http://",
            "write \"env:NAME\" with the whole address in that variable",
        );
        reader.fault(&field.place, wrong);
        return None;
    }
    Some(Webhook {
        url,
        format,
        key,
        events,
    })
}

/// PagerDuty's key says which service is paged; the others have all in their address.
fn key(reader: &mut Reader<'_>, section: &Section<'_>, format: WebhookFormat) -> Option<Secret> {
    let is_pagerduty = format == WebhookFormat::PagerDuty;
    match section.get("key") {
        Some(field) if is_pagerduty => secret::secret(reader, &field),
        Some(field) => {
            let wrong = Wrong::new("only the format \"pagerduty\" has a key", "remove it");
            reader.fault(&field.place, wrong);
            None
        }
        None => {
            if is_pagerduty {
                let wrong = Wrong::new(
                    "PagerDuty needs the integration key of an Events API v2 integration",
                    "add key = \"env:PD_KEY\"",
                );
                reader.fault(&section.place, wrong);
            }
            None
        }
    }
}

/// True for what can be posted to.
fn is_address(url: &str) -> bool {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(after_scheme..).unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len()) + after_scheme;
    let origin = url.get(..end).unwrap_or_default();
    BaseUrl::parse(origin).is_ok() && url.parse::<http::Uri>().is_ok()
}

fn events(field: &Field<'_>) -> Result<Vec<AlertKind>, Wrong> {
    let known = AlertKind::ALL.map(AlertKind::as_str);
    let kind = |word: &String| {
        AlertKind::from_word(word).ok_or_else(|| {
            let remedy = nearest(word, &known).map_or_else(
                || format!("known are {}", known.join(", ")),
                |near| format!("did you mean \"{near}\"?"),
            );
            Wrong::new("an alert of this kind does not exist", remedy)
        })
    };
    leaf::texts(field)?.iter().map(kind).collect()
}
