//! Where a request goes: its rollout, its arm, and in which role it is counted. Live ones are counted here.

use rand::RngExt;

use super::assign::{arm_of, bucket};
use super::attempt::Call;
use super::rewrite::X_CUTOVER_ARM;
use crate::arm::{Arm, Weight};
use crate::clock::UnixMillis;
use crate::config::{RolloutConfig, Sticky};
use crate::llm::{self, Dialect, RequestFacts};
use crate::sample::{Role, Routing, second_of};
use crate::weights::Reader;

/// Where a request goes, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed {
    /// When.
    pub(super) at: UnixMillis,
    /// Place of its rollout; `None` outside all of them.
    pub(super) rollout: Option<u16>,
    pub(super) arm: Arm,
    pub(super) assigned: Arm,
    pub(super) role: Role,
    pub(super) weight: Weight,
    pub(super) stage: u16,
    pub(super) key_hash: u64,
    pub(super) body_hash: u64,
}

impl Routed {
    /// Outside every rollout: no evidence, and nobody else may answer.
    pub(super) fn pinned(arm: Arm) -> Self {
        Self {
            at: UnixMillis::now(),
            rollout: None,
            arm,
            assigned: arm,
            role: Role::Pinned,
            weight: Weight::ZERO,
            stage: 0,
            key_hash: 0,
            body_hash: 0,
        }
    }
}

/// Routes a request whose body could be read, and counts it if it is live: its attempt begins now.
pub(super) fn route(
    call: &Call<'_>,
    dialect: Dialect,
    facts: &RequestFacts<'_>,
    body: &[u8],
) -> Routed {
    if facts.pinned.is_some() {
        // Whatever the weight is, and whether a rollout covers it or not: it is served where it lives.
        return Routed::pinned(call.plane.learner.arm_of(&facts.state));
    }
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
    let Some(((config, rollout), at)) = found else {
        return Routed::pinned(Arm::Legacy);
    };
    let snapshot = rollout.weights.snapshot();
    let sticky = sticky_key(call, &config.sticky, &rollout.weights, dialect, facts, body);
    let draw = sticky.unwrap_or_else(|| call.worker.rng.borrow_mut().random());
    let assigned = arm_of(bucket(rollout.salt, draw), snapshot.weight);
    let (arm, role) = if let Some(forced) = forced_arm(call) {
        (forced, Role::Override)
    } else if snapshot.probing && rollout.weights.take_probe() {
        (Arm::Canary, Role::Probe)
    } else {
        (assigned, Role::Live)
    };
    let now = UnixMillis::now();
    if role == Role::Live {
        call.worker.samples.routed(Routing {
            rollout: at,
            config_epoch: call.plane.config_epoch,
            weight: snapshot.weight,
            assigned,
            arm,
            second: second_of(now),
        });
    }
    Routed {
        at: now,
        rollout: Some(at),
        arm,
        assigned,
        role,
        weight: snapshot.weight,
        stage: snapshot.stage,
        key_hash: sticky.unwrap_or(0),
        body_hash: llm::hash_body(body),
    }
}

/// The hash of what keeps the request's conversation on one arm; `None` if nothing does. A key that most
/// requests share would send them all to one arm: the next thing that tells them apart takes its place.
fn sticky_key(
    call: &Call<'_>,
    sticky: &Sticky,
    weights: &Reader,
    dialect: Dialect,
    facts: &RequestFacts<'_>,
    body: &[u8],
) -> Option<u64> {
    let is_constant = |key: u64| weights.is_constant(key);
    let auto = || llm::sticky_auto(dialect, facts, body, is_constant);
    let named = match sticky {
        Sticky::None => return None,
        Sticky::Auto => return auto(),
        Sticky::Header(name) => {
            let value = call.parts.headers.get(name);
            let value = value.filter(|value| !value.is_empty());
            value.map(|value| llm::hash_key(value.as_bytes()))
        }
        Sticky::Body(field) => llm::sticky_field(body, field),
    };
    // What does not name it is told apart by what it says.
    named.filter(|&key| !is_constant(key)).or_else(auto)
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
