//! `[traces]`: the collector that is told of requests.
//!
//! Its address and its headers may hold secrets: neither is ever repeated.

use http::{HeaderName, HeaderValue};

use super::super::TracesConfig;
use super::super::raw::{Field, Reader, Section, Wrong};
use super::super::values::{BaseUrl, Secret};
use super::{leaf, secret};
use crate::arm::Weight;

/// So many further headers at most.
const HEADERS_MOST: usize = 16;

pub(super) fn traces(reader: &mut Reader<'_>, root: &Section<'_>) -> TracesConfig {
    let section = reader.section(root, "traces", "traces");
    let traces = TracesConfig {
        endpoint: endpoint(reader, &section),
        headers: headers(reader, &section),
        share: reader
            .read(&section, "share", share)
            .unwrap_or(Weight::FULL),
    };
    let lone = ["headers", "share"]
        .into_iter()
        .find_map(|key| section.get(key));
    if let (Some(lone), None) = (lone, section.get("endpoint")) {
        let problem = "without an endpoint there are no traces";
        reader.warn(&lone.place, problem, "add endpoint, or remove this");
    }
    traces
}

fn share(field: &Field<'_>) -> Result<Weight, Wrong> {
    let remedy = "write a share from 0.01% to 100%; without endpoint there are no traces";
    match Weight::parse(&leaf::text(field)?) {
        Ok(share) if share > Weight::ZERO => Ok(share),
        Ok(_) => Err(Wrong::new("a share of 0% traces nothing", remedy)),
        Err(_) => Err(Wrong::new("this is no share", remedy)),
    }
}

fn endpoint(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Secret> {
    let field = section.get("endpoint")?;
    let url = match secret::look_up(reader, &field) {
        Ok(Some(url)) => url,
        Ok(None) => Secret::new(field.value.as_str().unwrap_or_default().trim()),
        Err(wrong) => {
            reader.fault(&field.place, wrong);
            return None;
        }
    };
    if is_address(url.expose()) {
        return Some(url);
    }
    let wrong = Wrong::new(
        "this is no address with https:// or http://, and without user and password",
        "write the whole address, like \"http://127.0.0.1:4318/v1/traces\"",
    );
    reader.fault(&field.place, wrong);
    None
}

/// An address without user and password.
fn is_address(text: &str) -> bool {
    let after_scheme = text.find("://").map_or(0, |at| at + 3);
    let rest = text.get(after_scheme..).unwrap_or_default();
    let length = rest.find(['/', '?']).unwrap_or(rest.len());
    let origin = text.get(..after_scheme + length).unwrap_or_default();
    BaseUrl::parse(origin).is_ok() && text.parse::<http::Uri>().is_ok()
}

fn headers(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<(HeaderName, Secret)> {
    let Some(field) = section.get("headers") else {
        return Vec::new();
    };
    if !field.value.is_table() {
        reader.fault(&field.place, field.expected("a table of headers"));
    }
    let entries = Section::of_table(&field).entries();
    if entries.len() > HEADERS_MOST {
        let problem = format!("more than {HEADERS_MOST} headers");
        reader.fault(&field.place, Wrong::new(problem, "remove some"));
    }
    let mut headers = Vec::new();
    for (name, value) in entries {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            let remedy = "write one like \"authorization\"";
            let wrong = Wrong::new("this is no name of a header", remedy);
            reader.fault(&value.place, wrong);
            continue;
        };
        let found = secret::secret(reader, &value);
        let can_be_sent = |secret: &Secret| HeaderValue::from_str(secret.expose()).is_ok();
        headers.extend(found.filter(can_be_sent).map(|secret| (name, secret)));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_whole_address() {
        for (text, expected) in [
            ("http://127.0.0.1:4318/v1/traces", true),
            ("https://otlp.example.com/v1/traces?tenant=1", true),
            ("https://otlp.example.com", true),
            ("127.0.0.1:4318", false),
            ("grpc://127.0.0.1:4317", false),
            ("https://me:secret@otlp.example.com/v1/traces", false),
            ("", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
    }
}
