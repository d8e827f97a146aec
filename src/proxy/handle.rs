//! One request from its head to the answer that is passed on: read, route, try, rescue.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use rand::RngExt;

use super::answer::Answer;
use super::assign::{arm_of, bucket};
use super::attempt::{Call, Tried, Upload, attempt};
use super::failover::{Failed, may_rescue};
use super::plane::{Worker, WorkerPlane};
use super::refuse;
use super::rewrite::{X_CUTOVER_ARM, X_CUTOVER_ROLLOUT};
use crate::arm::{Arm, Weight};
use crate::clock::UnixMillis;
use crate::config::{RolloutConfig, Sticky};
use crate::llm::{self, Dialect, RequestFacts};
use crate::meter::clipped;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};
use crate::upstream::body::{Upload as StreamedUpload, UploadBody, UploadState};

/// A client that sends nothing of its body for this long is given up.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// Answers one request. Never fails: what goes wrong is an answer, or a body that breaks off.
///
/// # Errors
/// None; the type is what the server expects.
pub async fn handle(
    worker: Rc<Worker>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let plane = worker.plane();
    let dialect = Dialect::of_path(request.method(), request.uri().path());
    if let Err(refused) = refuse::check_head(&request, dialect, &plane.config.proxy) {
        return Ok(*refused);
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
        return Ok(pinned(&call, &Routed::pinned(), upload, None).await);
    };
    Ok(match read_body(body, &plane).await {
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
    })
}

/// Where a request goes, and why.
#[derive(Debug, Clone, Copy)]
struct Routed {
    /// Place of its rollout; `None` outside all of them.
    rollout: Option<u16>,
    arm: Arm,
    assigned: Arm,
    role: Role,
    weight: Weight,
    stage: u16,
    key_hash: u64,
}

impl Routed {
    const fn pinned() -> Self {
        Self {
            rollout: None,
            arm: Arm::Legacy,
            assigned: Arm::Legacy,
            role: Role::Pinned,
            weight: Weight::ZERO,
            stage: 0,
            key_hash: 0,
        }
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

fn route(call: &Call<'_>, dialect: Dialect, facts: &RequestFacts<'_>, body: &[u8]) -> Routed {
    let model = facts.model.as_deref().unwrap_or("");
    let path = call.parts.uri.path();
    let mut rollouts = call
        .plane
        .config
        .rollouts
        .iter()
        .zip(&call.plane.rollouts)
        .zip(0u16..);
    let found = rollouts.find(|((config, _), _)| covers(config, model, path));
    let (Some(((config, rollout), at)), None) = (found, &facts.pinned) else {
        return Routed::pinned();
    };
    let snapshot = rollout.weights.snapshot();
    let sticky = match &config.sticky {
        Sticky::Auto => llm::sticky_auto(dialect, facts, body),
        Sticky::Header(name) => call
            .parts
            .headers
            .get(name)
            .map(|value| llm::hash_key(value.as_bytes())),
        Sticky::Body(field) => llm::sticky_field(body, field),
        Sticky::None => None,
    };
    let draw = sticky.unwrap_or_else(|| call.worker.rng.borrow_mut().random());
    let assigned = arm_of(bucket(rollout.salt, draw), snapshot.weight);
    let (arm, role) = if let Some(forced) = forced_arm(call) {
        (forced, Role::Override)
    } else if snapshot.probing && rollout.weights.take_probe() {
        (Arm::Canary, Role::Probe)
    } else {
        (assigned, Role::Live)
    };
    Routed {
        rollout: Some(at),
        arm,
        assigned,
        role,
        weight: snapshot.weight,
        stage: snapshot.stage,
        key_hash: sticky.unwrap_or(0),
    }
}

fn covers(rollout: &RolloutConfig, model: &str, path: &str) -> bool {
    let any = |globs: &[crate::config::values::Glob], text: &str| {
        globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
    };
    any(&rollout.match_models, model) && any(&rollout.match_paths, path)
}

fn forced_arm(call: &Call<'_>) -> Option<Arm> {
    if !call.plane.config.proxy.allow_override {
        return None;
    }
    let word = call.parts.headers.get(X_CUTOVER_ARM)?.to_str().ok()?;
    Arm::from_word(word.trim())
}

fn sample_of(
    call: &Call<'_>,
    routed: &Routed,
    arm: Arm,
    facts: Option<&RequestFacts<'_>>,
) -> Sample {
    let model = facts.and_then(|facts| facts.model.as_deref());
    Sample {
        started_at: UnixMillis::now(),
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

/// What became of reading an eligible request's body.
enum ReadBody {
    Whole(Bytes),
    /// Larger than `replay-body`: not eligible, streamed to legacy.
    TooLargeToKeep {
        read_ahead: Vec<Bytes>,
        bytes: u64,
        rest: Incoming,
    },
    /// Larger than `max-body`.
    TooLarge,
    Stalled,
    Broken,
}

async fn read_body(mut body: Incoming, plane: &WorkerPlane) -> ReadBody {
    let proxy = &plane.config.proxy;
    if body.size_hint().lower() > proxy.replay_body_bytes {
        return ReadBody::TooLargeToKeep {
            read_ahead: Vec::new(),
            bytes: 0,
            rest: body,
        };
    }
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut bytes = 0u64;
    while !body.is_end_stream() {
        let frame = match tokio::time::timeout(UPLOAD_IDLE, body.frame()).await {
            Err(_) => return ReadBody::Stalled,
            Ok(None) => break,
            Ok(Some(Err(_))) => return ReadBody::Broken,
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers of a request carry nothing that an LLM call needs.
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        bytes += chunk.len() as u64;
        chunks.push(chunk);
        if bytes > proxy.max_body_bytes {
            return ReadBody::TooLarge;
        }
        if bytes > proxy.replay_body_bytes {
            return ReadBody::TooLargeToKeep {
                read_ahead: chunks,
                bytes,
                rest: body,
            };
        }
    }
    // Almost every body is one chunk, and then no byte is copied.
    let single = if chunks.len() == 1 {
        chunks.pop()
    } else {
        None
    };
    ReadBody::Whole(single.unwrap_or_else(|| chunks.concat().into()))
}
