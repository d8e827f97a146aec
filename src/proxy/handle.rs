//! One request from its head to the answer that is passed on: read, routed, and handed to its tries.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;

use super::answer::Answer;
use super::attempt::{Call, Hold, Reads, Tried, Upload, attempt};
use super::include_usage;
use super::plane::{Worker, WorkerPlane};
use super::read::{ReadBody, read_body};
use super::refuse;
use super::route::{Routed, route};
use super::span::OpenSpan;
use super::tries::{Tries, kept_upload, labelled, sample_of};
use crate::arm::Arm;
use crate::clock::monotonic_ms;
use crate::llm::{self, Dialect};
use crate::outcome::Outcome;
use crate::upstream::body::{Progress, Upload as StreamedUpload, UploadBody, UploadState};
use crate::upstream::breaker::Admission;

/// Answers one request. Never fails: what goes wrong is an answer, or a body that breaks off.
/// `broken` is set when a body breaks off that the client could not tell from a complete one.
///
/// # Errors
/// None; the type is what the server expects.
pub async fn handle(
    worker: Rc<Worker>,
    request: Request<Incoming>,
    broken: Rc<Cell<bool>>,
) -> Result<Response<Answer>, Infallible> {
    let is_old = request.version() < Version::HTTP_11;
    let mut response = respond(worker, request).await;
    if let (true, Answer::Live(body)) = (is_old, response.body_mut()) {
        // HTTP/1.0 ends a body by closing: only a reset can say that something is missing.
        body.tell_when_broken(broken);
    }
    Ok(response)
}

async fn respond(worker: Rc<Worker>, request: Request<Incoming>) -> Response<Answer> {
    let plane = worker.plane();
    let dialect = Dialect::of_path(request.method(), request.uri().path());
    if let Err(refused) = refuse::check_head(&request, dialect, &plane.config.proxy) {
        return *refused;
    }
    if let Err(refused) = plane.gate.check(request.headers(), dialect) {
        return *refused;
    }
    let span = OpenSpan::begin(&worker, &plane, &request, dialect);
    let (parts, body) = request.into_parts();
    let call = Call {
        worker: &worker,
        plane: &plane,
        parts: &parts,
        dialect,
        streamed: false,
        reads: None,
        model: None,
        max_tokens: None,
        span,
    };
    let Some(dialect) = dialect else {
        let (arm, reads) = owner_of(&call);
        let call = Call { reads, ..call };
        let upload = streamed_upload(Vec::new(), body, 0, &plane);
        return pinned(&call, &Routed::pinned(arm), upload).await;
    };
    match read_body(body, &worker, &plane).await {
        ReadBody::Whole(bytes, _kept) => eligible(&call, dialect, &bytes).await,
        ReadBody::TooLargeToKeep {
            read_ahead,
            bytes,
            rest,
        } => {
            let upload = streamed_upload(read_ahead, rest, bytes, &plane);
            pinned(&call, &Routed::pinned(Arm::Legacy), upload).await
        }
        ReadBody::TooLarge => refuse::too_large(Some(dialect)),
        ReadBody::Stalled => refuse::stalled_body(Some(dialect)),
        ReadBody::Broken => refuse::broken_body(Some(dialect)),
    }
}

/// The arm of a request that is not eligible: where the state lives that its path names, else legacy.
fn owner_of(call: &Call<'_>) -> (Arm, Option<Reads>) {
    let named = llm::state_in_path(call.parts.uri.path());
    let arm = named
        .as_ref()
        .map_or(Arm::Legacy, |named| call.plane.learner.arm_of(&named.state));
    let reads = named.filter(|_| arm == Arm::Canary).map(|named| {
        if named.is_response {
            Reads::Response
        } else {
            Reads::Object
        }
    });
    (arm, reads)
}

/// A request whose whole body is at hand: routed, tried, and rescued if need be.
async fn eligible(call: &Call<'_>, dialect: Dialect, body: &Bytes) -> Response<Answer> {
    let Some(facts) = llm::read_request(dialect, body) else {
        let upload = kept_upload(body.clone());
        return pinned(call, &Routed::pinned(Arm::Legacy), upload).await;
    };
    let call = &Call {
        streamed: facts.stream,
        model: facts.model.as_deref(),
        max_tokens: facts.max_tokens,
        span: call.span.clone(),
        ..*call
    };
    let routed = &route(call, dialect, &facts, body);
    let rollout = routed
        .rollout
        .and_then(|at| call.plane.config.rollouts.get(usize::from(at)));
    let Some(rollout) = rollout else {
        let sample = sample_of(call, routed, routed.arm, Some(&facts));
        let is_probe = is_probe(call, routed);
        let hold = Hold::Nothing;
        let tried = include_usage::attempt(call, sample, body, &facts, hold, is_probe).await;
        return given(call, routed, tried);
    };
    let tries = Tries {
        call,
        routed,
        failover: rollout.failover,
        body,
        facts: &facts,
    };
    tries.answer().await
}

/// A request that has only one arm to go to: its answer passes as it comes.
async fn pinned(call: &Call<'_>, routed: &Routed, upload: Upload) -> Response<Answer> {
    let progress = Rc::clone(&upload.progress);
    let sample = sample_of(call, routed, routed.arm, None);
    let is_probe = is_probe(call, routed);
    // Boxed, because every request would have its size.
    let tried = Box::pin(attempt(call, sample, upload, Hold::Nothing, is_probe)).await;
    let refused = match (&tried, progress.state()) {
        (Tried::Answer(_), _) | (_, UploadState::Sound) => None,
        (Tried::Failed { outcome, .. }, state) => match (outcome, state) {
            (_, UploadState::TooLarge) => Some(refuse::too_large(call.dialect)),
            (_, UploadState::ClientBroke) => Some(refuse::broken_body(call.dialect)),
            (Outcome::ClientGone, _) => Some(refuse::stalled_body(call.dialect)),
            _ => None,
        },
    };
    if let Some(refused) = refused {
        return labelled(call, routed, routed.arm, refused);
    }
    given(call, routed, tried)
}

/// Nobody else may answer it, so it is tried whatever the breaker says.
fn is_probe(call: &Call<'_>, routed: &Routed) -> bool {
    let breaker = call.plane.arms.get(routed.arm).pool.breaker();
    breaker.admit(monotonic_ms) == Admission::Probe
}

/// What the client gets of the only attempt.
fn given(call: &Call<'_>, routed: &Routed, tried: Tried) -> Response<Answer> {
    let answer = match tried {
        Tried::Answer(answer) => answer,
        Tried::Failed { outcome, answer } => {
            answer.unwrap_or_else(|| refuse::unanswered(call.dialect, outcome))
        }
    };
    labelled(call, routed, routed.arm, answer)
}

fn streamed_upload(
    read_ahead: Vec<Bytes>,
    rest: Incoming,
    read_bytes: u64,
    plane: &WorkerPlane,
) -> Upload {
    let progress = Rc::new(Progress::new());
    let pause = plane.config.proxy.client_stall;
    let left = plane.config.proxy.max_body_bytes.saturating_sub(read_bytes);
    let streamed = StreamedUpload::new(read_ahead, rest, left, Rc::clone(&progress), pause);
    Upload {
        body: UploadBody::Streamed(streamed),
        progress,
        alias: None,
        asks_usage: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function gives.
    const fn size_of_output<A, B, C, F>(_: &impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_is_small() {
        let bytes = size_of_output(&handle);
        // It is moved when it is made, and held for as long as an answer's head is waited for.
        assert!(bytes <= 4_400, "{bytes}");
    }
}
