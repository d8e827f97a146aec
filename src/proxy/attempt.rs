//! One try of a request against one arm, up to the first content.
//!
//! With [`Hold::UntilContent`], everything before the first content is held back within [`HOLD_MAX_BYTES`]
//! and [`HOLD_STREAM_FOR`], so that a failure can still be rescued by the other arm. Every try leaves exactly one sample, through its meter.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request, response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{Answer, LiveBody};
use super::limits::Limits;
use super::places::Share;
use super::plane::{ArmPlane, Worker, WorkerPlane};
use super::receive::{Asked, is_error, receive};
use super::span::OpenSpan;
use crate::arm::Arm;
use crate::llm::Dialect;
use crate::meter::{self, Meter, Ticket};
use crate::outcome::Outcome;
use crate::sample::Sample;
use crate::upstream::body::{Progress, UploadBody};
use crate::upstream::connection::{Connection, SendError};

/// A stream's start-up events are held back at most up to this size.
pub const HOLD_MAX_BYTES: usize = 64 * 1024;
/// A stream's start-up events are held back at most for this long.
pub const HOLD_STREAM_FOR: Duration = Duration::from_secs(10);

/// How often a request goes out again whose first connection took it and did nothing with it.
const RESENT_MAX: u8 = 2;
/// What a forward proxy answers to credentials that it does not know.
const RELAY_REFUSES: StatusCode = StatusCode::PROXY_AUTHENTICATION_REQUIRED;

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
    /// The client's name for the model, if its body could be read.
    pub model: Option<&'a str>,
    /// The most tokens that the client takes, if it says so.
    pub max_tokens: Option<u64>,
    /// What its answers are read as without being measured, because its path names state of the canary's.
    pub reads: Option<Reads>,
    /// Its span, if it is traced.
    pub span: Option<Rc<OpenSpan>>,
}

/// How the answer to a request that names state by its path is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// As one object of the provider's.
    Object,
    /// The same, and streams as those of the Responses API.
    Response,
}

/// What an attempt sends.
#[derive(Debug)]
pub struct Upload {
    /// The body.
    pub body: UploadBody,
    /// How a body that is streamed through went.
    pub progress: Rc<Progress>,
    /// The client's name for the model, if the body now has another one: answers carry it.
    pub alias: Option<Box<str>>,
    /// The body asks for usage where the client did not: a stream loses the event that brings it.
    pub asks_usage: bool,
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
        /// How. [`Outcome::Internal`]: the arm refused what only cutover asked for.
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
    let (alias, asks_usage) = (upload.alias.take(), upload.asks_usage);
    let (mut now, arm) = (Instant::now(), sample.arm);
    let plane = call.plane.arms.get(arm);
    let mut limits = Limits::of(call, arm, now);
    let ticket = Ticket {
        pool: Rc::clone(&plane.pool),
        is_probe,
    };
    let injects_key = plane.rewrite.injects_key();
    let mut meter = Meter::start(call.worker, sample, injects_key, Some(ticket), now)
        .traced_by(call.span.as_ref());
    if arm == Arm::Canary {
        meter.learn_into(&call.plane.learner);
    }
    if asks_usage {
        meter.asks_usage();
    }
    if !enter(call, plane, &mut meter).await {
        return over_limit(meter);
    }
    if plane.limit.is_some() {
        now = Instant::now();
    }
    let sent = match send(call, plane, &mut limits, &mut meter, upload, now).await {
        Ok(sent) => sent,
        Err(outcome) => {
            meter.fail(outcome);
            return Tried::Failed {
                outcome,
                answer: None,
            };
        }
    };
    let asked = Asked { alias, asks_usage };
    let (head, mut body, is_readable) = receive(call, arm, meter, sent, limits, &asked);
    if asks_usage && !is_readable && matches!(head.status.as_u16(), 400 | 422) {
        // Why it is refused cannot be read; without what only cutover asked for it may not be.
        let outcome = body.meter().usage_refused(Outcome::Other);
        let answer = None;
        return Tried::Failed { outcome, answer };
    }
    let is_error = is_error(&head);
    let is_held = match hold {
        Hold::Nothing => false,
        Hold::Errors => is_error,
        Hold::UntilContent => is_error || is_readable,
    };
    if is_held {
        hold_back(head, body).await
    } else {
        Tried::Answer(Response::from_parts(head, Answer::Live(body)))
    }
}

/// Takes the places that it needs to be under way; false if there is none.
async fn enter(call: &Call<'_>, plane: &ArmPlane, meter: &mut Meter) -> bool {
    let slot = match &plane.limit {
        None => None,
        Some(limit) => match limit.enter().await {
            None => return false,
            slot => slot,
        },
    };
    let place = Share::take(&call.worker.places);
    let is_in = place.is_some();
    if let Some(place) = place {
        meter.hold(place, slot);
    }
    is_in
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
    limits: &mut Limits,
    meter: &mut Meter,
    upload: Upload,
    mut now: Instant,
) -> Result<(Response<Incoming>, Connection), Outcome> {
    let Upload { body, progress, .. } = upload;
    // A kept body is a counted reference: keeping a second one costs no copy.
    let again = match &body {
        UploadBody::Kept(bytes) => Some(bytes.clone()),
        UploadBody::Streamed(_) => None,
    };
    let kept_body = again.is_some();
    let mut request = build(call, plane, body, kept_body);
    let mut connection = match plane.pool.reuse(now) {
        Some(connection) => connection,
        None => {
            let opened = open(plane, limits.connect, meter).await?;
            now = Instant::now();
            opened
        }
    };
    let mut resent = 0;
    loop {
        meter.sent(connection.is_reused(), now);
        let sent = send_over(&mut connection, request, limits, &progress, now).await;
        let error = match sent? {
            // The proxy in between wants other credentials: the arm was not asked.
            Ok(response) if connection.is_relayed() && response.status() == RELAY_REFUSES => {
                return Err(Outcome::Connect);
            }
            // Nobody asked for another protocol, and what follows would be no HTTP.
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Outcome::Reset);
            }
            Ok(response) => return Ok((response, connection)),
            Err(error) => error,
        };
        // The provider closed a connection that had been idle, or said goodbye to one; that says nothing
        // about its health. What was never written or looked at may be sent again, and so may a call that
        // was answered with nothing.
        let is_reused = connection.is_reused();
        resent += 1;
        request = match (error, again.clone()) {
            (SendError::Unsent(unsent), _) if is_reused || resent <= RESENT_MAX => *unsent,
            (SendError::Unprocessed, Some(bytes)) if is_reused || resent <= RESENT_MAX => {
                build(call, plane, UploadBody::Kept(bytes), true)
            }
            (SendError::Stale, Some(bytes)) if is_reused && is_replay_safe(call) => {
                build(call, plane, UploadBody::Kept(bytes), true)
            }
            _ => return Err(Outcome::Reset),
        };
        connection = open(plane, limits.connect, meter).await?;
        now = Instant::now();
    }
}

/// Sends it over one connection, and waits for the head for as long as the arm owes it: it cannot answer what
/// the client has not sent.
async fn send_over(
    connection: &mut Connection,
    request: Request<UploadBody>,
    limits: &mut Limits,
    progress: &Progress,
    sent_at: Instant,
) -> Result<Result<Response<Incoming>, SendError>, Outcome> {
    let owed_later = || {
        let since = progress.arm_owes_since(Instant::now)?;
        Some((since, since.saturating_duration_since(sent_at)))
    };
    let (at, timed_out) = limits.head_by(sent_at);
    let later = || {
        let (since, upload_took) = owed_later()?;
        let (at, _) = limits.after_upload(upload_took).head_by(since);
        (at > Instant::now()).then_some(at)
    };
    let sent = connection.send_by(at, request, later).await;
    let sent = sent.ok_or(timed_out)?;
    let is_given_up = match &sent {
        Ok(response) => response.status() == StatusCode::REQUEST_TIMEOUT,
        Err(_) => true,
    };
    if is_given_up && (progress.is_broken() || progress.tries_patience(sent_at, Instant::now())) {
        // Not on the request: on its client.
        return Err(Outcome::ClientGone);
    }
    if let Some((_, upload_took)) = owed_later() {
        *limits = limits.after_upload(upload_took);
    }
    Ok(sent)
}

async fn open(plane: &ArmPlane, limit: Duration, meter: &mut Meter) -> Result<Connection, Outcome> {
    plane.pool.open(limit).await.map_err(|error| {
        if error.is_shared {
            meter.spare_breaker();
        }
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
    if let Some(span) = &call.span {
        span.put_into(request.headers_mut());
    }
    if call.reads.is_some() {
        // As with any answer that is read.
        let coding = HeaderValue::from_static("identity");
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, coding);
    }
    request
}

/// Calls that may be sent twice when the first sending was answered with nothing at all: reads, and the
/// LLM calls themselves, which change nothing but the bill.
fn is_replay_safe(call: &Call<'_>) -> bool {
    call.dialect.is_some() || matches!(call.parts.method, Method::GET | Method::HEAD)
}

/// Holds the answer back until it shows content, ends, or is too large or too slow to be held.
async fn hold_back(head: response::Parts, mut body: Box<LiveBody>) -> Tried {
    let is_stream = body.meter().is_stream();
    let until = is_stream.then(|| Instant::now() + HOLD_STREAM_FOR);
    let max_bytes = if is_stream {
        HOLD_MAX_BYTES
    } else {
        meter::PLAIN_MAX_BYTES
    };
    while body.ended().is_none() {
        let next = if let Some(until) = until {
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
    let answer = Response::from_parts(head, Answer::Live(body));
    match ended {
        Some(outcome) if !shown && (outcome.may_fail_over() || outcome == Outcome::Internal) => {
            let answer = Some(answer);
            Tried::Failed { outcome, answer }
        }
        _ => Tried::Answer(answer),
    }
}
