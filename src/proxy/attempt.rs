//! One try of a request against one arm, up to the first content.
//!
//! With [`Hold::UntilContent`], everything before the first content is held back within [`HOLD_MAX_BYTES`]
//! and [`HOLD_STREAM_FOR`], so that a failure can still be rescued by the other arm. Every try leaves exactly one sample, through its meter.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response, Version, header, request, response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{Answer, BodyLimits, Edit, LiveBody};
use super::plane::{ArmPlane, Worker, WorkerPlane};
use super::rewrite::strip_answer;
use crate::clock::UnixMillis;
use crate::config::Timeouts;
use crate::llm::{self, Dialect, ModelEcho};
use crate::meter::{self, Meter, Ticket};
use crate::outcome::Outcome;
use crate::sample::Sample;
use crate::upstream::body::{UploadBody, UploadState};
use crate::upstream::connection::{Connection, SendError};

/// A stream's start-up events are held back at most up to this size.
pub const HOLD_MAX_BYTES: usize = 64 * 1024;
/// A stream's start-up events are held back at most for this long.
pub const HOLD_STREAM_FOR: Duration = Duration::from_secs(10);

/// A request as all of its attempts see it.
#[derive(Debug)]
pub struct Call<'a> {
    /// Who serves it.
    pub worker: &'a Rc<Worker>,
    /// The configuration it is served under.
    pub plane: &'a WorkerPlane,
    /// The client's head.
    pub parts: &'a request::Parts,
    /// What its path speaks; `None` if it is not metered.
    pub dialect: Option<Dialect>,
    /// It asked for a stream.
    pub streamed: bool,
}

/// What an attempt sends.
#[derive(Debug)]
pub struct Upload {
    /// The body.
    pub body: UploadBody,
    /// How a body that is streamed through went.
    pub state: Rc<Cell<UploadState>>,
    /// The client's name for the model, if the body now has another one: answers carry it.
    pub alias: Option<Box<str>>,
}

/// What of an answer is held back, so that somebody else may still give a better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: it passes as it comes.
    Nothing,
    /// Answers whose status is an error: all others pass as they come.
    Errors,
    /// Everything before the first content.
    UntilContent,
}

/// How an attempt came out, seen before any content reached the client.
#[derive(Debug)]
pub enum Tried {
    /// The answer to pass on.
    Answer(Response<Answer>),
    /// It failed in a way that another try may make good.
    Failed {
        /// How.
        outcome: Outcome,
        /// What the client gets if nobody rescues it; `None` if the arm gave no answer.
        answer: Option<Response<Answer>>,
    },
}

/// Makes the attempt that `sample` tells of beforehand. `is_probe`: the arm's breaker said so.
pub async fn attempt(
    call: &Call<'_>,
    sample: Sample,
    mut upload: Upload,
    hold: Hold,
    is_probe: bool,
) -> Tried {
    let alias = upload.alias.take();
    let (started_at, arm) = (Instant::now(), sample.arm);
    let plane = call.plane.arms.get(arm);
    let timeouts = &call.plane.config.arms.get(arm).timeouts;
    let ticket = Ticket {
        pool: Rc::clone(&plane.pool),
        is_probe,
    };
    let injects_key = plane.rewrite.injects_key();
    let mut meter = Meter::start(call.worker, sample, injects_key, Some(ticket));
    if let Some(limit) = &plane.limit {
        match limit.enter().await {
            Some(slot) => meter.hold(slot),
            None => return over_limit(meter),
        }
    }
    let sent = send(call, plane, timeouts, &mut meter, upload).await;
    let (response, connection) = match sent {
        Ok(sent) => sent,
        Err(outcome) => {
            meter.fail(outcome);
            return Tried::Failed {
                outcome,
                answer: None,
            };
        }
    };
    let (mut head, incoming) = response.into_parts();
    meter.head(head.status.as_u16(), &head.headers);
    let is_readable = !is_encoded(&head);
    if is_readable {
        choose_watch(&mut meter, call, &head);
    }
    strip_answer(&mut head.headers);
    let is_error = head.status.is_client_error() || head.status.is_server_error();
    if is_error {
        llm::clamp_retry_after(&mut head.headers, UnixMillis::now());
    }
    head.version = Version::HTTP_11;
    let limits = BodyLimits {
        idle: timeouts.idle,
        total_at: total_limit(timeouts, call.streamed).map(|total| started_at + total),
    };
    let alias = alias.filter(|_| is_readable && head.status.is_success());
    let edit = choose_edit(call, &meter, alias.as_deref());
    if edit.is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let pool = Rc::clone(&plane.pool);
    let body = LiveBody::new(incoming, connection, pool, meter, limits, edit);
    let is_held = match hold {
        Hold::Nothing => false,
        Hold::Errors => is_error,
        Hold::UntilContent => true,
    };
    if is_held && is_readable {
        hold_back(head, body).await
    } else {
        Tried::Answer(Response::from_parts(head, Answer::Live(Box::new(body))))
    }
}

fn over_limit(mut meter: Meter) -> Tried {
    let outcome = Outcome::OverLimit;
    meter.fail(outcome);
    let answer = None;
    Tried::Failed { outcome, answer }
}

/// Sends the request and waits for the answer's head.
async fn send(
    call: &Call<'_>,
    plane: &ArmPlane,
    timeouts: &Timeouts,
    meter: &mut Meter,
    upload: Upload,
) -> Result<(Response<Incoming>, Connection), Outcome> {
    let Upload { body, state, .. } = upload;
    // A kept body is a counted reference: keeping a second one costs no copy.
    let again = match &body {
        UploadBody::Kept(bytes) => Some(bytes.clone()),
        UploadBody::Streamed(_) => None,
    };
    let kept_body = again.is_some();
    let mut request = build(call, plane, body, kept_body);
    let mut connection = match plane.pool.reuse(Instant::now()) {
        Some(connection) => connection,
        None => open(plane, timeouts).await?,
    };
    loop {
        meter.sent(connection.is_reused());
        let (limit, timed_out) = head_limit(timeouts, call.streamed);
        let answer = tokio::time::timeout(limit, connection.send(request)).await;
        let error = match answer {
            Err(_) => return Err(timed_out),
            Ok(Ok(response)) => return Ok((response, connection)),
            Ok(Err(error)) => error,
        };
        if state.get() != UploadState::Sound {
            return Err(Outcome::ClientGone);
        }
        if !connection.is_reused() {
            return Err(Outcome::Reset);
        }
        // The provider closed a connection that had been idle, or said goodbye to one; that says nothing
        // about its health. What was never written or looked at may be sent again, and so may a call that
        // was answered with nothing.
        request = match (error, again.clone()) {
            (SendError::Unsent(unsent), _) => *unsent,
            (SendError::Unprocessed, Some(bytes)) => {
                build(call, plane, UploadBody::Kept(bytes), true)
            }
            (SendError::Stale, Some(bytes)) if is_replay_safe(call) => {
                build(call, plane, UploadBody::Kept(bytes), true)
            }
            _ => return Err(Outcome::Reset),
        };
        connection = open(plane, timeouts).await?;
    }
}

async fn open(plane: &ArmPlane, timeouts: &Timeouts) -> Result<Connection, Outcome> {
    plane.pool.open(timeouts.connect).await.map_err(|error| {
        tracing::debug!(outcome = %error.outcome, message = error.message, "no connection");
        error.outcome
    })
}

fn build(
    call: &Call<'_>,
    plane: &ArmPlane,
    body: UploadBody,
    kept_body: bool,
) -> Request<UploadBody> {
    let mut request = Request::new(body);
    *request.method_mut() = call.parts.method.clone();
    if let Some(asked) = call.parts.uri.path_and_query() {
        *request.uri_mut() = plane.rewrite.uri(asked);
    }
    *request.headers_mut() = plane
        .rewrite
        .headers(&call.parts.headers, call.dialect, kept_body);
    request
}

/// Calls that may be sent twice when the first sending was answered with nothing at all: reads, and the
/// LLM calls themselves, which change nothing but the bill.
fn is_replay_safe(call: &Call<'_>) -> bool {
    call.dialect.is_some() || matches!(call.parts.method, Method::GET | Method::HEAD)
}

fn head_limit(timeouts: &Timeouts, streamed: bool) -> (Duration, Outcome) {
    if streamed {
        return (timeouts.first_byte_stream, Outcome::TimeoutFirstByte);
    }
    match timeouts.first_byte_plain {
        Some(limit) => (limit, Outcome::TimeoutFirstByte),
        None => (timeouts.total_plain, Outcome::TimeoutTotal),
    }
}

fn total_limit(timeouts: &Timeouts, streamed: bool) -> Option<Duration> {
    if streamed {
        timeouts.total_stream
    } else {
        Some(timeouts.total_plain)
    }
}

fn choose_watch(meter: &mut Meter, call: &Call<'_>, head: &response::Parts) {
    if head.status.is_client_error() || head.status.is_server_error() {
        meter.watch_error(call.dialect);
        return;
    }
    let Some(dialect) = call.dialect else {
        return;
    };
    if !head.status.is_success() {
        // No LLM call is answered with 1xx or 3xx: passed on, and booked as what it is, unheard of.
        return meter.watch_nothing(Outcome::Other);
    }
    let content_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let is_events = content_type.is_some_and(|kind| kind.starts_with("text/event-stream"));
    if is_events {
        meter.watch_stream(dialect);
    } else {
        meter.watch_plain(dialect, content_type);
    }
}

/// What may have to be done to the body, judging by its head.
fn choose_edit(call: &Call<'_>, meter: &Meter, alias: Option<&str>) -> Option<Edit> {
    let dialect = call.dialect?;
    let is_stream = meter.is_stream();
    let is_told = is_stream && call.plane.config.proxy.truncation_event;
    (is_told || alias.is_some()).then(|| Edit {
        truncation: is_told.then_some(dialect),
        echo: alias.map(|alias| ModelEcho::new(dialect, is_stream, alias)),
    })
}

/// True if the arm compressed the answer although it was asked not to. It then passes unread: that it
/// cannot be read is no fault of the answer.
fn is_encoded(head: &response::Parts) -> bool {
    let coding = head.headers.get(header::CONTENT_ENCODING);
    head.status.is_success() && coding.is_some_and(|coding| coding.as_bytes() != b"identity")
}

/// Holds the answer back until it shows content, ends, or is too large or too slow to be held.
async fn hold_back(head: response::Parts, mut body: LiveBody) -> Tried {
    let is_stream = body.meter().is_stream();
    let until = Instant::now() + HOLD_STREAM_FOR;
    let max_bytes = if is_stream {
        HOLD_MAX_BYTES
    } else {
        meter::PLAIN_MAX_BYTES
    };
    while body.ended().is_none() {
        let next = if is_stream {
            match tokio::time::timeout_at(until, body.hold_next()).await {
                Ok(next) => next,
                Err(_) => break,
            }
        } else {
            body.hold_next().await
        };
        if let Err(outcome) = next {
            return Tried::Failed {
                outcome,
                answer: None,
            };
        }
        if body.meter().has_content() || body.held_bytes() > max_bytes {
            break;
        }
        if body.meter().has_stream_error() {
            let outcome = body.give_up();
            return Tried::Failed {
                outcome,
                answer: None,
            };
        }
    }
    let ended = body.ended();
    let shown = body.meter().has_content();
    let answer = Response::from_parts(head, Answer::Live(Box::new(body)));
    match ended {
        Some(outcome) if outcome.may_fail_over() && !shown => Tried::Failed {
            outcome,
            answer: Some(answer),
        },
        _ => Tried::Answer(answer),
    }
}
