//! Where a request goes: its rollout, its arm, and in which role it is counted.

use rand::RngExt;

use super::assign::{arm_of, bucket};
use super::attempt::Call;
use super::rewrite::X_CUTOVER_ARM;
use crate::arm::{Arm, Weight};
use crate::config::{RolloutConfig, Sticky};
use crate::llm::{self, Dialect, RequestFacts};
use crate::sample::Role;

/// Where a request goes, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed {
    /// Place of its rollout; `None` outside all of them.
    pub(super) rollout: Option<u16>,
    pub(super) arm: Arm,
    pub(super) assigned: Arm,
    pub(super) role: Role,
    pub(super) weight: Weight,
    pub(super) stage: u16,
    pub(super) key_hash: u64,
}

impl Routed {
    /// Outside every rollout: legacy, and no evidence.
    pub(super) const fn pinned() -> Self {
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

/// Routes a request whose body could be read.
pub(super) fn route(
    call: &Call<'_>,
    dialect: Dialect,
    facts: &RequestFacts<'_>,
    body: &[u8],
) -> Routed {
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
