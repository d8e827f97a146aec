//! A changed configuration meets a rollout under way.
//!
//! Pure. Dwell, gates, cooldowns and the fuse apply by themselves, since every look reads the policy. What
//! this file settles is the rest: other stages, other limits, another canary.
#![deny(clippy::disallowed_methods)]

use crate::arm::Weight;
use crate::clock::{UnixMillis, for_people};
use crate::controller::effect::{By, DecisionKind};
use crate::controller::guard::{self, Rule};
use crate::controller::ledger::Track;
use crate::controller::operator::stage_of;
use crate::controller::phase::{Landing, Phase, Raise};
use crate::controller::policy::{GuardKind, GuardSpec, OnHarm, Policy, Stage, TripPolicy};
use crate::controller::retreat::SoftAlarm;
use crate::controller::state::State;
use crate::controller::step::{Step, Turn, Why};
use crate::controller::words;

/// What else changed, outside the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// Nothing that evidence depends on.
    None,
    /// The canary's key, model names or timeouts: new ledgers, same stage and weight.
    Ledgers,
    /// Another canary: a new rollout under this id, from the first stage.
    Rollout {
        /// The new rollout's id.
        id: String,
    },
}

/// Takes over `new` rules; at most one decision of kind `config`, and a proposal if the weight rises.
#[must_use]
pub fn adopt(old: &Policy, new: &Policy, state: State, reset: &Reset, now: UnixMillis) -> Step {
    let mut changes = differences(old, new);
    let rules = guard::rules(new);
    let limits_changed = old.guards != new.guards
        || old.alpha_rollback.to_bits() != new.alpha_rollback.to_bits()
        || old.alpha_promote.to_bits() != new.alpha_promote.to_bits();
    let mut turn = Turn::new(new, state, now);
    match reset {
        Reset::None => {}
        Reset::Ledgers => {
            changes.push("the canary's access changed: evidence starts afresh".into());
        }
        Reset::Rollout { .. } => changes.push("another canary: a new rollout begins".into()),
    }
    if changes.is_empty() {
        return turn.end();
    }
    let mut raise = None;
    let why = Why::new(By::Config, changes.join(" · "));
    turn.decide(DecisionKind::Config, why, |state| {
        if let Reset::Rollout { id } = reset {
            begin_rollout(state, new, id.clone(), now);
            return;
        }
        if limits_changed {
            replace_tracks(state, &rules);
        }
        if limits_changed || *reset == Reset::Ledgers {
            state.renew_ledgers();
            state.wait = None;
        }
        if *reset == Reset::Ledgers
            && let Phase::Tripped(trip) = &mut state.phase
            && trip.until.is_none()
        {
            (trip.until, trip.next_probe_at) = (Some(now), now);
        }
        if old.stages != new.stages {
            raise = move_stage(state, old, new, now);
        }
    });
    if let Some(raise) = raise {
        let reason = format!("the stages changed; the next one is {}", raise.weight);
        turn.propose(raise, Why::new(By::Config, reason));
    }
    turn.end()
}

/// The rollout is no longer configured: its traffic goes to legacy.
#[must_use]
pub fn stop(policy: &Policy, state: State, reason: &str, now: UnixMillis) -> Step {
    let mut turn = Turn::new(policy, state, now);
    let why = Why::new(By::Config, reason.to_owned());
    turn.decide(DecisionKind::Stop, why, |state| {
        state.set_phase(Phase::Stopped, now);
    });
    turn.end()
}

/// What was learned about legacy stays; all that concerns the canary is gone.
fn begin_rollout(state: &mut State, new: &Policy, id: String, now: UnixMillis) {
    let mut fresh = State::new(new, id, now);
    fresh.reference = std::mem::take(&mut state.reference);
    fresh.soft = SoftAlarm::heir_of(&state.soft);
    fresh.warm_up_seen = state.warm_up_seen;
    fresh.hold = state.hold.take();
    fresh.next_proposal = state.next_proposal;
    for track in &mut fresh.tracks {
        inherit(track, &state.tracks);
    }
    *state = fresh;
}

fn replace_tracks(state: &mut State, rules: &[Rule]) {
    let old = std::mem::take(&mut state.tracks);
    state.tracks = rules
        .iter()
        .map(|&rule| {
            let mut track = Track::new(rule);
            inherit(&mut track, &old);
            track
        })
        .collect();
}

/// A rate, and a time beyond legacy's quantile, is the same event under any limit; a time beyond a
/// ceiling is not.
fn inherit(track: &mut Track, old: &[Track]) {
    let rule = track.rule;
    let same_event = |old: &&Track| {
        old.rule.kind == rule.kind
            && old.rule.is_ceiling == rule.is_ceiling
            && (!(rule.is_ceiling && rule.kind.is_time())
                || old.rule.limit().to_bits() == rule.limit().to_bits())
    };
    if let Some(old) = old.iter().find(same_event) {
        track.inherit(old);
    }
}

/// Stays if the current stage still stands, else goes to the first stage that is not below the current
/// weight. A raise of the effective weight is returned to be proposed.
fn move_stage(state: &mut State, old: &Policy, new: &Policy, now: UnixMillis) -> Option<Raise> {
    let current = old.stages.get(state.stage).map(|stage| stage.weight);
    let stands = |stage: &Stage| Some(stage.weight) == current;
    if let Some(stage) = new.stages.iter().position(stands) {
        state.stage = stage;
        reopen(state, new, now);
        return None;
    }
    let weight = state.weight;
    let not_below = |stage: &Stage| stage.weight >= weight;
    let last = new.stages.len().saturating_sub(1);
    let stage = new.stages.iter().position(not_below).unwrap_or(last);
    let target = new.stages.get(stage)?.weight;
    if state.weight() > Weight::ZERO && target > state.weight() {
        state.stage = stage_of(new, state.weight());
        return Some(Raise {
            kind: DecisionKind::Config,
            stage,
            weight: target,
            new_attempt: false,
            lands: Landing::Running,
        });
    }
    let fresh = matches!(state.phase, Phase::WarmingUp);
    state.enter(new, stage, target, fresh, now);
    reopen(state, new, now);
    None
}

/// A complete rollout runs on when there is a stage above it now.
fn reopen(state: &mut State, new: &Policy, now: UnixMillis) {
    let above = new.stages.iter().any(|stage| stage.weight > state.weight);
    if above && state.phase == Phase::Complete {
        state.set_phase(Phase::Running, now);
    }
}

fn differences(old: &Policy, new: &Policy) -> Vec<String> {
    let mut parts = stage_differences(&old.stages, &new.stages);
    let mut note = |name: &str, old: String, new: String| {
        if old != new {
            parts.push(format!("{name} {old} -> {new}"));
        }
    };
    note(
        "warm-up",
        old.warm_up_requests.to_string(),
        new.warm_up_requests.to_string(),
    );
    note("on-harm", on_harm(old.on_harm), on_harm(new.on_harm));
    for (name, old, new) in [
        ("confidence", old.alpha_rollback, new.alpha_rollback),
        ("promote-confidence", old.alpha_promote, new.alpha_promote),
    ] {
        note(name, words::percent(1.0 - old), words::percent(1.0 - new));
    }
    note("trip", fuse(old.trip), fuse(new.trip));
    let retreat = |to: Option<Weight>| to.map_or("off".to_owned(), |to| to.to_string());
    note("retreat", retreat(old.retreat), retreat(new.retreat));
    note(
        "cooldown",
        for_people(old.cooldown_ms),
        for_people(new.cooldown_ms),
    );
    note(
        "max-attempts",
        old.max_attempts.to_string(),
        new.max_attempts.to_string(),
    );
    let drawn = |independent: bool| if independent { "drawn" } else { "by key" }.to_owned();
    note(
        "split",
        drawn(old.independent_split),
        drawn(new.independent_split),
    );
    for kind in GuardKind::ALL {
        let of = |policy: &Policy| policy.guards.iter().find(|spec| spec.kind == kind).copied();
        note(kind.as_str(), limits(of(old)), limits(of(new)));
    }
    if parts.is_empty() && old != new {
        // Finer than the words above can tell.
        parts.push("limits changed".to_owned());
    }
    parts
}

fn stage_differences(old: &[Stage], new: &[Stage]) -> Vec<String> {
    let weights = |stages: &[Stage]| -> Vec<Weight> { stages.iter().map(|s| s.weight).collect() };
    if weights(old) != weights(new) {
        return vec![format!("stages {} -> {}", ladder(old), ladder(new))];
    }
    let mut parts = Vec::new();
    for (old, new) in old.iter().zip(new) {
        if old.dwell_ms != new.dwell_ms {
            let (from, to) = (for_people(old.dwell_ms), for_people(new.dwell_ms));
            parts.push(format!("dwell at {} {from} -> {to}", new.weight));
        }
        if old.approve != new.approve {
            let word = |approve| if approve { "yes" } else { "no" };
            let (from, to) = (word(old.approve), word(new.approve));
            parts.push(format!("approve at {} {from} -> {to}", new.weight));
        }
    }
    parts
}

fn on_harm(on_harm: OnHarm) -> String {
    match on_harm {
        OnHarm::RollBack => "roll-back",
        OnHarm::StepBack => "step-back",
        OnHarm::Hold => "hold",
    }
    .to_owned()
}

fn fuse(trip: Option<TripPolicy>) -> String {
    trip.map_or("off".to_owned(), |trip| {
        format!("{} {}/day", for_people(trip.cooldown_ms), trip.max_per_day)
    })
}

fn ladder(stages: &[Stage]) -> String {
    let steps: Vec<String> = stages
        .iter()
        .map(|stage| stage.weight.to_string())
        .collect();
    steps.join(" ")
}

fn limits(spec: Option<GuardSpec>) -> String {
    let Some(spec) = spec else {
        return "off".to_owned();
    };
    let mut parts = Vec::new();
    if let Some(margin) = spec.relative {
        parts.push(format!("x{}", words::factor(margin.ratio)));
        if margin.increase > 0.0 {
            parts.push(format!("+{}", words::percent(margin.increase)));
        }
    }
    if let Some(ceiling) = spec.ceiling {
        parts.push(if spec.kind.is_time() {
            format!("max {}", words::time(ceiling))
        } else {
            format!("max {}", words::percent(ceiling))
        });
    }
    parts.join(" ")
}
