//! Asks a stream's arm for its token counts where the client did not, and does without if the arm refuses.
//!
//! Most clients of OpenAI's dialects do not ask, and without it their streams say nothing of tokens. What
//! is added to a request, and what that brings into the answer, is never seen by the client; nor is the
//! refusal of an arm that does not know the option: such a request is sent once more without it, at once,
//! and the arm is not asked again. The refused attempt leaves a sample that no arm is blamed for and that
//! is not live; the one that follows is the attempt that was routed.

use bytes::Bytes;

use super::attempt::{self, Call, Hold, Tried};
use super::tries::mapped_upload;
use crate::arm::Arm;
use crate::llm::{self, RequestFacts};
use crate::outcome::Outcome;
use crate::sample::Sample;

/// Makes the attempt that `sample` tells of beforehand, with the body as the arm is to see it.
pub(super) async fn attempt(
    call: &Call<'_>,
    sample: Sample,
    body: &Bytes,
    facts: &RequestFacts<'_>,
    hold: Hold,
    is_probe: bool,
) -> Tried {
    let arm = call.plane.arms.get(sample.arm);
    // From an answer that cannot be read, the event that this brings could not be taken out again.
    let is_asked = arm.rewrite.includes_usage()
        && !arm.habits.refuses_usage()
        && !arm.habits.codes_unreadably();
    let dialect = call.dialect.filter(|_| is_asked);
    let slot = dialect.and_then(|dialect| llm::usage_slot(dialect, body, facts));
    let upload = mapped_upload(&arm.rewrite, body, facts, slot);
    // Boxed, because the states of several attempts would multiply the size of every request.
    if slot.is_none() {
        return Box::pin(attempt::attempt(call, sample, upload, hold, is_probe)).await;
    }
    let again = sample.clone();
    // A refusal must be read before it passes.
    let held = match hold {
        Hold::Nothing => Hold::Errors,
        more => more,
    };
    let tried = Box::pin(attempt::attempt(call, sample, upload, held, is_probe)).await;
    let Tried::Failed {
        outcome: Outcome::Internal,
        ..
    } = tried
    else {
        return tried;
    };
    drop(tried);
    let name = again.arm;
    let upload = mapped_upload(&arm.rewrite, body, facts, None);
    let tried = Box::pin(attempt::attempt(call, again, upload, hold, false)).await;
    // Some arms quote the request in every refusal: only an answer shows that the option was the reason.
    let is_answered = matches!(&tried, Tried::Answer(answer) if answer.status().is_success());
    if is_answered && arm.habits.learn_usage_refused() {
        tell(name);
    }
    tried
}

fn tell(arm: Arm) {
    tracing::warn!(
        %arm,
        "this arm refuses `stream_options`, so its streams are no longer asked for their token counts; \
         write include-usage = false for this arm to spare it the question after a restart"
    );
}
