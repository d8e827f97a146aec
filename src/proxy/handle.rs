//! One request from its head to the answer that is passed on: read, route, try, rescue.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;

use super::answer::Answer;
use super::attempt::{Call, Tried, Upload, attempt};
use super::failover::{Failed, may_rescue};
use super::plane::{Worker, WorkerPlane};
use super::read::{ReadBody, read_body};
use super::refuse;
use super::rewrite::{X_CUTOVER_ARM, X_CUTOVER_ROLLOUT};
use super::route::{Routed, route};
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::llm::{self, Dialect, RequestFacts};
use crate::meter::clipped;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};
use crate::upstream::body::{Upload as StreamedUpload, UploadBody, UploadState};

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
    let (parts, body) = request.into_parts();
    let call = Call {
        worker: &worker,
        plane: &plane,
        parts: &parts,
        dialect,
        streamed: false,
    };
    let Some(dialect) = dialect else {
        let upload = streamed_upload(Vec::new(), body, 0, &plane);
        return pinned(&call, &Routed::pinned(), upload, None).await;
    };
    match read_body(body, &plane).await {
        ReadBody::Whole(bytes) => eligible(&call, dialect, &bytes).await,
        ReadBody::TooLargeToKeep {
            read_ahead,
            bytes,
            rest,
        } => {
            let upload = streamed_upload(read_ahead, rest, bytes, &plane);
            pinned(&call, &Routed::pinned(), upload, None).await
        }
        ReadBody::TooLarge => refuse::answer(
            Some(dialect),
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            refuse::BODY_TOO_LARGE,
        ),
        ReadBody::Stalled => refuse::answer(
            Some(dialect),
            StatusCode::REQUEST_TIMEOUT,
            "body-stalled",
            "the request body stopped arriving",
        ),
        ReadBody::Broken => refuse::answer(
            Some(dialect),
            StatusCode::BAD_REQUEST,
            "body-broken",
            "the request body broke off",
        ),
    }
}

/// A request whose whole body is at hand: routed, tried, and rescued if need be.
async fn eligible(call: &Call<'_>, dialect: Dialect, body: &Bytes) -> Response<Answer> {
    let Some(facts) = llm::read_request(dialect, body) else {
        let upload = kept_upload(body.clone());
        return pinned(call, &Routed::pinned(), upload, None).await;
    };
    let call = &Call {
        streamed: facts.stream,
        ..*call
    };
    let routed = route(call, dialect, &facts, body);
    let rollout = routed
        .rollout
        .and_then(|at| call.plane.config.rollouts.get(usize::from(at)));
    let may_hold = rollout.is_some_and(|rollout| rollout.failover) && routed.arm == Arm::Canary;
    if !may_hold {
        let sent = call.plane.arms.get(routed.arm).rewrite.body(body, &facts);
        return pinned(call, &routed, kept_upload(sent), Some(&facts)).await;
    }
    let first = try_on(call, &routed, routed.arm, body, &facts, true).await;
    let (outcome, answer) = match first {
        Tried::Answer(answer) => return labelled(call, &routed, routed.arm, answer),
        Tried::Failed { outcome, answer } => (outcome, answer),
    };
    let failed = Failed {
        arm: routed.arm,
        outcome,
        enabled: true,
        replayable: true,
    };
    if may_rescue(failed) {
        let rescue = Routed {
            role: Role::Rescue,
            at: UnixMillis::now(),
            ..routed
        };
        match try_on(call, &rescue, routed.arm.other(), body, &facts, false).await {
            Tried::Answer(rescued) => {
                return labelled(call, &routed, routed.arm.other(), rescued);
            }
            Tried::Failed { .. } => {}
        }
    }
    let answer = answer.unwrap_or_else(|| refuse::unanswered(call.dialect, outcome));
    labelled(call, &routed, routed.arm, answer)
}

async fn try_on(
    call: &Call<'_>,
    routed: &Routed,
    arm: Arm,
    body: &Bytes,
    facts: &RequestFacts<'_>,
    hold: bool,
) -> Tried {
    let upload = kept_upload(call.plane.arms.get(arm).rewrite.body(body, facts));
    // Boxed, because the states of two attempts would double the size of every request.
    Box::pin(attempt(
        call,
        arm,
        sample_of(call, routed, arm, Some(facts)),
        upload,
        hold,
    ))
    .await
}

/// A request that has only one arm to go to: its answer passes as it comes.
async fn pinned(
    call: &Call<'_>,
    routed: &Routed,
    upload: Upload,
    facts: Option<&RequestFacts<'_>>,
) -> Response<Answer> {
    let state = Rc::clone(&upload.state);
    let sample = sample_of(call, routed, routed.arm, facts);
    let answer = match attempt(call, routed.arm, sample, upload, false).await {
        Tried::Answer(answer) => answer,
        Tried::Failed { .. } if state.get() == UploadState::TooLarge => refuse::answer(
            call.dialect,
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            refuse::BODY_TOO_LARGE,
        ),
        Tried::Failed { outcome, answer } => {
            answer.unwrap_or_else(|| refuse::unanswered(call.dialect, outcome))
        }
    };
    labelled(call, routed, routed.arm, answer)
}

fn sample_of(
    call: &Call<'_>,
    routed: &Routed,
    arm: Arm,
    facts: Option<&RequestFacts<'_>>,
) -> Sample {
    let model = facts.and_then(|facts| facts.model.as_deref());
    Sample {
        started_at: routed.at,
        rollout: routed.rollout,
        config_epoch: call.plane.config_epoch,
        arm,
        assigned: routed.assigned,
        weight: routed.weight,
        stage: routed.stage,
        role: routed.role,
        attempt: if routed.role == Role::Rescue { 2 } else { 1 },
        outcome: Outcome::Other,
        status: 0,
        latency_us: 0,
        ttft_us: None,
        streamed: call.streamed,
        complete: false,
        conn_reused: false,
        client_retry: is_client_retry(call.parts),
        model: model.map(|model| clipped(model, Sample::MODEL_MAX_BYTES)),
        usage: None,
        upstream_request_id: None,
        key_hash: routed.key_hash,
        body_hash: routed.body_hash,
    }
}

/// The official SDKs count their own retries in this header, from 0.
fn is_client_retry(parts: &request::Parts) -> bool {
    let count = parts.headers.get("x-stainless-retry-count");
    count.is_some_and(|count| count.as_bytes() != b"0")
}

fn labelled(
    call: &Call<'_>,
    routed: &Routed,
    arm: Arm,
    mut answer: Response<Answer>,
) -> Response<Answer> {
    if call.plane.config.proxy.response_headers {
        let headers = answer.headers_mut();
        headers.insert(X_CUTOVER_ARM, HeaderValue::from_static(arm.as_str()));
        let rollout = routed
            .rollout
            .and_then(|at| call.plane.rollouts.get(usize::from(at)));
        if let Some(rollout) = rollout {
            headers.insert(X_CUTOVER_ROLLOUT, rollout.name.clone());
        }
    }
    answer
}

fn kept_upload(body: Bytes) -> Upload {
    Upload {
        body: UploadBody::Kept(body),
        state: Rc::new(Cell::new(UploadState::Sound)),
    }
}

fn streamed_upload(
    read_ahead: Vec<Bytes>,
    rest: Incoming,
    read_bytes: u64,
    plane: &WorkerPlane,
) -> Upload {
    let state = Rc::new(Cell::new(UploadState::Sound));
    let left = plane.config.proxy.max_body_bytes.saturating_sub(read_bytes);
    let streamed = StreamedUpload::new(read_ahead, rest, left, Rc::clone(&state));
    Upload {
        body: UploadBody::Streamed(streamed),
        state,
    }
}
