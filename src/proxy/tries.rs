//! The tries of one request that a rollout covers: the first, then the other arm, or the same one again.
//!
//! The rules are `failover`'s; this file asks the breakers, pays from the budget, and performs. Every try
//! leaves a sample of its own, also one that an open breaker turned away: it was assigned, and failed.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, request};
use rand::RngExt;
use tokio::time::Instant;

use super::answer::Answer;
use super::attempt::{Call, Hold, Tried, Upload};
use super::failover::{Other, is_rescued, wait_before_retry};
use super::include_usage;
use super::refuse;
use super::rewrite::{ArmRewrite, X_CUTOVER_ARM, X_CUTOVER_ROLLOUT};
use super::route::Routed;
use crate::arm::Arm;
use crate::clock::{UnixMillis, monotonic_ms};
use crate::llm::{self, RequestFacts};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample, clipped};
use crate::upstream::body::{Progress, UploadBody};
use crate::upstream::breaker::{Admission, Breaker, Phase};

/// One request with all that its tries need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) routed: &'a Routed,
    /// The rollout's `failover` setting.
    pub(super) failover: bool,
    pub(super) body: &'a Bytes,
    pub(super) facts: &'a RequestFacts<'a>,
}

/// The other arm takes over.
#[derive(Debug, Clone, Copy)]
struct Rescuer {
    /// It does so as the probe of its own breaker.
    is_probe: bool,
}

impl Tries<'_> {
    /// Tries until there is an answer, or nobody is left who may give one.
    pub(super) async fn answer(self) -> Response<Answer> {
        let (call, routed) = (self.call, self.routed);
        call.worker.budget.borrow_mut().earn(routed.at);
        let (first, rescuer) = self.first().await;
        let (outcome, answer) = match first {
            Tried::Answer(answer) => return labelled(call, routed, routed.arm, answer),
            Tried::Failed { outcome, answer } => (outcome, answer),
        };
        let rescuer = rescuer.or_else(|| {
            let may = is_rescued(routed.arm, outcome);
            may.then(|| self.rescuer(outcome)).flatten()
        });
        match rescuer {
            Some(rescuer) => self.rescue(rescuer, outcome, answer).await,
            None => self.retry(outcome, answer).await,
        }
    }

    /// The first try. An open breaker turns it away only to somebody who takes it at once.
    async fn first(self) -> (Tried, Option<Rescuer>) {
        let (call, routed) = (self.call, self.routed);
        let is_probe = match self.breaker(routed.arm).admit(monotonic_ms) {
            Admission::Dial => false,
            Admission::Probe => true,
            Admission::TurnedAway(outcome) if routed.role == Role::Live => {
                if let Some(rescuer) = self.rescuer(outcome) {
                    let sample = sample_of(call, routed, routed.arm, Some(self.facts));
                    Meter::start(call.worker, sample, false, None, Instant::now())
                        .traced_by(call.span.as_ref())
                        .fail(outcome);
                    let answer = None;
                    return (Tried::Failed { outcome, answer }, Some(rescuer));
                }
                false
            }
            Admission::TurnedAway(_) => false,
        };
        let hold = if self.other().may_answer() {
            Hold::UntilContent
        } else {
            Hold::Errors
        };
        let sample = sample_of(call, routed, routed.arm, Some(self.facts));
        (self.try_on(sample, hold, is_probe).await, None)
    }

    async fn rescue(
        self,
        rescuer: Rescuer,
        outcome: Outcome,
        answer: Option<Response<Answer>>,
    ) -> Response<Answer> {
        let (call, arm) = (self.call, self.routed.arm.other());
        let role = if outcome == Outcome::OverLimit {
            Role::Overflow
        } else {
            Role::Rescue
        };
        let sample = self.further(arm, role, 2);
        let (outcome, answer, by) = match self.try_on(sample, Hold::Errors, rescuer.is_probe).await
        {
            Tried::Answer(rescued) => return labelled(call, self.routed, arm, rescued),
            Tried::Failed { answer: second, .. } if answer.is_none() && second.is_some() => {
                (outcome, second, arm)
            }
            Tried::Failed { .. } => (outcome, answer, self.routed.arm),
        };
        let answer = answer.unwrap_or_else(|| refuse::unanswered(call.dialect, outcome));
        labelled(call, self.routed, by, answer)
    }

    /// Tries the same arm again, for as long as that is allowed, paid for, and likely to help.
    async fn retry(
        self,
        mut outcome: Outcome,
        mut answer: Option<Response<Answer>>,
    ) -> Response<Answer> {
        let (call, routed) = (self.call, self.routed);
        let mut tries = 1;
        while let Some(wait) = self.wait_before_retry(outcome, tries, answer.as_ref()) {
            tokio::time::sleep(wait).await;
            tries += 1;
            let sample = self.further(routed.arm, Role::Retry, tries);
            match self.try_on(sample, Hold::Errors, false).await {
                Tried::Answer(answer) => return labelled(call, routed, routed.arm, answer),
                Tried::Failed {
                    outcome: latest,
                    answer: given,
                } => {
                    outcome = latest;
                    answer = given;
                }
            }
        }
        let answer = answer.unwrap_or_else(|| refuse::unanswered(call.dialect, outcome));
        labelled(call, routed, routed.arm, answer)
    }

    /// How long to wait before the next try on the same arm, which is then paid for. Clients that repeat
    /// their requests themselves get no retries on top, and an arm that is down gets none at all.
    fn wait_before_retry(
        self,
        outcome: Outcome,
        tries: u8,
        answer: Option<&Response<Answer>>,
    ) -> Option<std::time::Duration> {
        let worker = self.call.worker;
        let is_unwanted = self.routed.role != Role::Live
            || is_client_retry(self.call.parts)
            || !self.breaker(self.routed.arm).is_closed()
            || worker.draining.get()
            || answer.is_some_and(|answer| refuse::says_no_retry(answer.headers()));
        if is_unwanted {
            return None;
        }
        let now = UnixMillis::now();
        let asked_ms = answer.and_then(|answer| llm::retry_after_ms(answer.headers(), now));
        let draw = worker.rng.borrow_mut().random();
        let wait = wait_before_retry(outcome, tries, asked_ms, draw)?;
        worker.budget.borrow_mut().spend(now).then_some(wait)
    }

    /// What is known of the arm that could answer instead.
    fn other(self) -> Other {
        let routed = self.routed;
        Other {
            // Who forces a request to legacy does not mean the canary.
            enabled: self.failover && (routed.arm == Arm::Canary || routed.role == Role::Live),
            asked: routed.arm,
            weight: routed.weight,
            breaker: self.phase_of(routed.arm.other()),
        }
    }

    /// Takes the other arm for this request, with all that this costs; `None` if it may not answer.
    fn rescuer(self, outcome: Outcome) -> Option<Rescuer> {
        if !self.other().may_answer() {
            return None;
        }
        let asked = self.routed.arm;
        let is_probe = match self.breaker(asked.other()).admit(monotonic_ms) {
            Admission::Dial => false,
            Admission::Probe => true,
            Admission::TurnedAway(_) => return None,
        };
        let mut budget = self.call.worker.budget.borrow_mut();
        // What legacy has no room for never reached it: no load is multiplied.
        let is_free = asked == Arm::Canary || outcome == Outcome::OverLimit;
        let is_paid = is_free || budget.spend(UnixMillis::now());
        is_paid.then_some(Rescuer { is_probe })
    }

    /// How an arm's breaker stands. The clock is read only while it is not closed.
    fn phase_of(self, arm: Arm) -> Phase {
        let breaker = self.breaker(arm);
        if breaker.is_closed() {
            return Phase::Closed;
        }
        breaker.phase(monotonic_ms())
    }

    fn breaker(&self, arm: Arm) -> &Breaker {
        self.call.plane.arms.get(arm).pool.breaker()
    }

    fn further(self, arm: Arm, role: Role, attempt: u8) -> Sample {
        let routed = Routed {
            role,
            at: UnixMillis::now(),
            ..*self.routed
        };
        Sample {
            attempt,
            first_role: self.routed.role,
            ..sample_of(self.call, &routed, arm, Some(self.facts))
        }
    }

    async fn try_on(self, sample: Sample, hold: Hold, is_probe: bool) -> Tried {
        include_usage::attempt(self.call, sample, self.body, self.facts, hold, is_probe).await
    }
}

/// What is known of an attempt before it is made.
pub(super) fn sample_of(
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
        attempt: 1,
        outcome: Outcome::Other,
        status: 0,
        latency_us: 0,
        ttft_us: None,
        streamed: call.streamed,
        complete: false,
        conn_reused: false,
        client_retry: is_client_retry(call.parts),
        dialect: call.dialect,
        model: model.map(|model| clipped(model, Sample::MODEL_MAX_BYTES)),
        usage: None,
        upstream_request_id: None,
        key_hash: routed.key_hash,
        body_hash: routed.body_hash,
        reported_cost_usd: None,
        tag: tag_of(call),
        first_role: routed.role,
    }
}

/// The feature or team that the request names, where the configuration asks for that.
fn tag_of(call: &Call<'_>) -> Option<Box<str>> {
    let name = call.plane.config.proxy.tag_header.as_ref()?;
    Sample::tag_of(call.parts.headers.get(name)?.as_bytes())
}

/// The official SDKs count their own retries in this header, from 0.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

fn is_client_retry(parts: &request::Parts) -> bool {
    let count = parts.headers.get(RETRY_COUNT);
    count.is_some_and(|count| count.as_bytes() != b"0")
}

/// The answer with the names of arm and rollout on it.
pub(super) fn labelled(
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

/// An upload of a body that can be sent again.
pub(super) fn kept_upload(body: Bytes) -> Upload {
    Upload {
        body: UploadBody::Kept(body),
        progress: Rc::new(Progress::new()),
        alias: None,
        asks_usage: false,
    }
}

/// An upload of a body with the arm's name for the model, and a request for usage if there is a slot for it.
pub(super) fn mapped_upload(
    rewrite: &ArmRewrite,
    body: &Bytes,
    facts: &RequestFacts<'_>,
    usage_slot: Option<usize>,
) -> Upload {
    let (body, alias) = rewrite.body(body, facts, usage_slot);
    Upload {
        alias,
        asks_usage: usage_slot.is_some(),
        ..kept_upload(body)
    }
}
