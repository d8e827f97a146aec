//! Spans in the words of OTLP: JSON as protobuf maps it, ids in hexadecimal, 64-bit numbers as texts.
//!
//! Pure. Attributes have the names of OpenTelemetry's conventions where there are any, else `cutover.*`.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

use super::{Attempt, Span};
use crate::outcome::Outcome;
use crate::sample::{Sample, Usage};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Who calls a model, in the conventions for GenAI.
const KIND_CLIENT: u32 = 3;
const STATUS_ERROR: u32 = 2;

/// The body of one message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Resource<'a> {
    attributes: Attributes<'a>,
}

#[derive(Debug, Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<OneSpan<'a>>,
}

#[derive(Debug, Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OneSpan<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    flags: u32,
    name: String,
    kind: u32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Attributes<'a>,
    events: Vec<Event<'a>>,
    status: Status,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    time_unix_nano: String,
    name: &'static str,
    attributes: Attributes<'a>,
}

#[derive(Debug, Default, Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

type Attributes<'a> = Vec<Attribute<'a>>;

#[derive(Debug, Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Any<'a>,
}

#[derive(Debug, Serialize)]
enum Any<'a> {
    #[serde(rename = "stringValue")]
    Text(&'a str),
    #[serde(rename = "intValue")]
    Int(String),
    #[serde(rename = "doubleValue")]
    Double(f64),
    #[serde(rename = "boolValue")]
    Bool(bool),
}

/// All of these spans in one message.
pub(super) fn message(spans: &[Span]) -> Message<'_> {
    let about = [
        ("service.name", Some(Any::Text("cutover"))),
        ("service.version", Some(Any::Text(VERSION))),
    ];
    Message {
        resource_spans: [ResourceSpans {
            resource: Resource {
                attributes: known(about),
            },
            scope_spans: [ScopeSpans {
                scope: Scope {
                    name: "cutover",
                    version: VERSION,
                },
                spans: spans.iter().filter_map(one_span).collect(),
            }],
        }],
    }
}

fn one_span(span: &Span) -> Option<OneSpan<'_>> {
    let answer = span.answer()?;
    let outcome = answer.sample.outcome;
    let ended_us = span.attempts.iter().map(|attempt| attempt.ended_us).max();
    // A client that left is nobody's error.
    let failed = !matches!(outcome, Outcome::Ok | Outcome::ClientGone);
    Some(OneSpan {
        trace_id: format!("{:032x}", span.context.trace_id),
        span_id: format!("{:016x}", span.context.span_id),
        trace_state: span.trace_state.as_deref(),
        parent_span_id: span.context.parent_id.map(|id| format!("{id:016x}")),
        flags: span.context.flags.into(),
        name: name(span, &answer.sample),
        kind: KIND_CLIENT,
        start_time_unix_nano: nanos(span, 0),
        end_time_unix_nano: nanos(span, ended_us?),
        attributes: attributes(span, answer),
        events: span
            .attempts
            .iter()
            .map(|attempt| event(span, attempt))
            .collect(),
        status: Status {
            code: failed.then_some(STATUS_ERROR),
            message: failed.then_some(outcome.as_str()),
        },
    })
}

/// `chat gpt-4o`; the method alone for what calls no model, for paths hold ids.
fn name(span: &Span, sample: &Sample) -> String {
    match (span.dialect, sample.model.as_deref()) {
        (Some(dialect), Some(model)) => format!("{} {model}", dialect.operation()),
        (Some(dialect), None) => dialect.operation().to_owned(),
        (None, _) => span.method.to_string(),
    }
}

fn attributes<'a>(span: &'a Span, answer: &'a Attempt) -> Attributes<'a> {
    let (sample, dialect) = (&answer.sample, span.dialect);
    let (host, port) = host_and_port(&answer.server);
    let failed = sample.outcome != Outcome::Ok;
    let masks = |attempt: &Attempt| attempt.sample.is_masking();
    let masked = span.attempts.iter().any(masks);
    let tokens = |of: fn(Usage) -> u32| sample.usage.map(|usage| int(of(usage)));
    known([
        (
            "gen_ai.operation.name",
            dialect.map(|it| Any::Text(it.operation())),
        ),
        (
            "gen_ai.provider.name",
            dialect.map(|it| Any::Text(it.provider())),
        ),
        (
            "gen_ai.request.model",
            sample.model.as_deref().map(Any::Text),
        ),
        (
            "gen_ai.request.stream",
            dialect.map(|_| Any::Bool(sample.streamed)),
        ),
        ("gen_ai.usage.input_tokens", tokens(|it| it.input_tokens)),
        ("gen_ai.usage.output_tokens", tokens(|it| it.output_tokens)),
        (
            "gen_ai.usage.cache_read.input_tokens",
            tokens(|it| it.cached_input_tokens),
        ),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            tokens(|it| it.cache_write_tokens),
        ),
        (
            "gen_ai.response.time_to_first_chunk",
            sample.ttft_us.map(seconds),
        ),
        ("http.request.method", Some(Any::Text(span.method.as_str()))),
        ("http.response.status_code", status(sample)),
        ("server.address", Some(Any::Text(host))),
        ("server.port", port.map(int)),
        (
            "error.type",
            failed.then(|| Any::Text(sample.outcome.as_str())),
        ),
        ("cutover.rollout", span.rollout.as_deref().map(Any::Text)),
        ("cutover.arm", Some(Any::Text(sample.arm.as_str()))),
        (
            "cutover.assigned_arm",
            Some(Any::Text(sample.assigned.as_str())),
        ),
        (
            "cutover.weight",
            Some(Any::Double(sample.weight.fraction())),
        ),
        ("cutover.role", Some(Any::Text(sample.role.as_str()))),
        ("cutover.outcome", Some(Any::Text(sample.outcome.as_str()))),
        ("cutover.masked", Some(Any::Bool(masked))),
        (
            "cutover.attempts",
            Some(Any::Int(span.attempts.len().to_string())),
        ),
        (
            "cutover.upstream_request_id",
            sample.upstream_request_id.as_deref().map(Any::Text),
        ),
        ("cutover.tag", sample.tag.as_deref().map(Any::Text)),
    ])
}

/// One attempt, at its end.
fn event<'a>(span: &Span, attempt: &'a Attempt) -> Event<'a> {
    let sample = &attempt.sample;
    Event {
        time_unix_nano: nanos(span, attempt.ended_us),
        name: "cutover.attempt",
        attributes: known([
            ("cutover.arm", Some(Any::Text(sample.arm.as_str()))),
            ("cutover.role", Some(Any::Text(sample.role.as_str()))),
            ("cutover.outcome", Some(Any::Text(sample.outcome.as_str()))),
            ("cutover.duration", Some(seconds(sample.latency_us))),
            ("http.response.status_code", status(sample)),
        ]),
    }
}

/// What is not known is left out.
fn known<'a, const N: usize>(pairs: [(&'static str, Option<Any<'a>>); N]) -> Attributes<'a> {
    let known = pairs.into_iter();
    known
        .filter_map(|(key, value)| Some(Attribute { key, value: value? }))
        .collect()
}

fn host_and_port(server: &str) -> (&str, Option<u32>) {
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (server, None),
    };
    (host.trim_matches(['[', ']']), port)
}

fn status(sample: &Sample) -> Option<Any<'_>> {
    (sample.status != 0).then(|| int(sample.status.into()))
}

fn int<'a>(number: u32) -> Any<'a> {
    Any::Int(number.to_string())
}

fn seconds<'a>(micros: u64) -> Any<'a> {
    Any::Double(micros as f64 / 1e6)
}

fn nanos(span: &Span, after_us: u64) -> String {
    let started_ns = u128::try_from(span.started_at.0).unwrap_or(0) * 1_000_000;
    (started_ns + u128::from(after_us) * 1_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_perhaps_a_port() {
        for (server, host, port) in [
            ("api.openai.com", "api.openai.com", None),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]:8080", "::1", Some(8080)),
            ("[::1]", "::1", None),
        ] {
            assert_eq!(host_and_port(server), (host, port), "{server}");
        }
    }
}
