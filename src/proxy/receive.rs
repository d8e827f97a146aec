//! What becomes of an answer, judging by its head: how it is read, decoded and edited on its way.
//!
//! An answer that is metered was asked for without compression. Where an arm compresses it all the same,
//! the client gets it decoded; what cannot be decoded passes unread. It must never wait: the body has
//! not arrived yet.

use std::rc::Rc;

use http::{Response, Version, header, response};
use hyper::body::Incoming;

use super::answer::LiveBody;
use super::attempt::{Call, Reads};
use super::edit::Edit;
use super::inflate::{Coding, Inflate};
use super::limits::Limits;
use super::rewrite::strip_answer;
use crate::arm::Arm;
use crate::clock::{UnixMillis, monotonic_ms};
use crate::llm::{self, Dialect, ModelEcho, UsageStrip};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::upstream::connection::Connection;

/// What of the request matters for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    /// As in an upload.
    pub(super) alias: Option<Box<str>>,
    /// As in an upload.
    pub(super) asks_usage: bool,
}

pub(super) fn is_error(head: &response::Parts) -> bool {
    head.status.is_client_error() || head.status.is_server_error()
}

/// The answer as the client is to get it, once its head is there; and whether its body can be read.
pub(super) fn receive(
    call: &Call<'_>,
    arm: Arm,
    mut meter: Meter,
    (response, connection): (Response<Incoming>, Connection),
    mut limits: Limits,
    asked: &Asked,
) -> (response::Parts, Box<LiveBody>, bool) {
    let plane = call.plane.arms.get(arm);
    let (mut head, incoming) = response.into_parts();
    meter.head(head.status.as_u16(), &head.headers);
    if call.dialect.is_none() {
        // A download, or a stream that nobody asked a model for: as long as it comes, it comes.
        limits.drop_total();
    } else {
        let said = llm::read_headroom(&head.headers);
        plane.headroom.note(said, monotonic_ms);
    }
    let coded = coded(call, &head);
    let is_readable = coded != Coded::Unreadable;
    if !is_readable && plane.habits.learn_unreadable_coding() {
        tell_unreadable(arm, &head);
    }
    choose_watch(&mut meter, call, &head, coded);
    strip_answer(&mut head.headers);
    if is_error(&head) {
        llm::clamp_retry_after(&mut head.headers, UnixMillis::now());
    }
    head.version = Version::HTTP_11;
    let is_edited = is_readable && head.status.is_success();
    let alias = asked.alias.as_deref().filter(|_| is_edited);
    let edit = choose_edit(call, &meter, coded, alias, asked.asks_usage && is_edited);
    if edit.is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if let Coded::As(_) = coded {
        head.headers.remove(header::CONTENT_ENCODING);
    }
    let pool = Rc::clone(&plane.pool);
    let body = LiveBody::new(incoming, connection, pool, meter, limits, edit);
    (head, Box::new(body), is_readable)
}

fn choose_watch(meter: &mut Meter, call: &Call<'_>, head: &response::Parts, coded: Coded) {
    if coded == Coded::Unreadable {
        // That it cannot be read is no fault of the answer.
        let status = head.status.as_u16();
        return meter.watch_nothing(llm::classify_status(call.dialect, status, true, None));
    }
    if is_error(head) {
        meter.watch_error(call.dialect);
        return;
    }
    let content_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let is_events = content_type.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let Some(dialect) = call.dialect else {
        let is_json = content_type.is_some_and(|kind| kind.starts_with("application/json"));
        return match call.reads {
            Some(Reads::Response) if is_events => meter.watch_ids(Dialect::OpenAiResponses),
            Some(_) if is_json && head.status.is_success() => meter.watch_object(),
            _ => {}
        };
    };
    if !head.status.is_success() {
        // No LLM call is answered with 1xx or 3xx: passed on, and booked as what it is, unheard of.
        return meter.watch_nothing(Outcome::Other);
    }
    if is_events {
        meter.watch_stream(dialect);
    } else {
        meter.watch_plain(dialect, content_type);
    }
}

/// What may have to be done to the body, judging by its head.
fn choose_edit(
    call: &Call<'_>,
    meter: &Meter,
    coded: Coded,
    alias: Option<&str>,
    asks_usage: bool,
) -> Option<Edit> {
    let dialect = call.dialect?;
    let is_stream = meter.is_stream();
    let is_told = is_stream && call.plane.config.proxy.truncation_event;
    let is_stripped = is_stream && asks_usage;
    let inflate = match coded {
        Coded::As(coding) => Some(Box::new(Inflate::new(coding))),
        Coded::Not | Coded::Unreadable => None,
    };
    let is_edited = is_told || is_stripped || alias.is_some() || inflate.is_some();
    is_edited.then(|| Edit {
        inflate,
        truncation: is_told.then_some(dialect),
        echo: alias.map(|alias| ModelEcho::new(dialect, is_stream, alias)),
        strip: is_stripped.then(UsageStrip::default),
    })
}

/// How the arm compressed an answer although it was asked not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coded {
    Not,
    /// The client gets it decoded: it may not have asked for this coding, and plain is always right.
    As(Coding),
    /// It passes as it is.
    Unreadable,
}

/// What is not metered was not asked to be plain.
fn coded(call: &Call<'_>, head: &response::Parts) -> Coded {
    let values = head.headers.get_all(header::CONTENT_ENCODING);
    let mut codings = values
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    let Some(first) = codings.next().filter(|_| call.dialect.is_some()) else {
        return Coded::Not;
    };
    let is = |name: &[u8]| first.eq_ignore_ascii_case(name);
    if codings.next().is_some() {
        Coded::Unreadable
    } else if is(b"gzip") || is(b"x-gzip") {
        Coded::As(Coding::Gzip)
    } else if is(b"deflate") {
        Coded::As(Coding::Deflate)
    } else {
        Coded::Unreadable
    }
}

fn tell_unreadable(arm: Arm, head: &response::Parts) {
    let coding = head.headers.get(header::CONTENT_ENCODING);
    tracing::warn!(
        %arm,
        coding = ?coding,
        "this arm compresses its answers although asked not to, in a way that cannot be read; they pass \
         unmeasured, without tokens and time to first token; turn compression off there"
    );
}
