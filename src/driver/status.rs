//! The shape of `GET /api/v1/status`: what the dashboard, the command line and scripts read.
//!
//! Plain data. Weights and rates are fractions (0.25 is 25%), times are RFC 3339 in UTC, `null` is
//! "not known" and never 0.

use std::path::Path;

use serde::Serialize;

use super::live::{Live, Percentiles, Speeds, WINDOW_S};
use super::money::BudgetStatus;
use super::rollout::{Rollout, Surroundings};
use super::traffic::keys::name_of;
use crate::alert::WebhookStatus;
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::controller::verdict::GuardView;
use crate::learned::LearnedIds;
use crate::proxy::clients::Clients;
use crate::store::Health;
use crate::upstream::headroom::{Room, Rooms};

mod clients;

pub use clients::ClientsStatus;

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Percentiles cover the last so many seconds.
    pub window_s: u64,
    /// The store.
    pub store: StoreStatus,
    /// The configuration.
    pub config: ConfigStatus,
    /// What the canary is known to keep for clients.
    pub learned_ids: LearnedStatus,
    /// Every rollout, in order of matching.
    pub rollouts: Vec<RolloutStatus>,
    /// What is spent of each budget today.
    pub budgets: Vec<BudgetStatus>,
    /// How each receiver of alerts fares.
    pub alerts: Vec<WebhookStatus>,
    /// Alerts since the start that came too fast and reached no receiver at all.
    pub alerts_overflowed: u64,
    /// Who may use the proxy.
    pub clients: ClientsStatus,
}

/// The store's health.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    /// `sqlite`.
    pub kind: &'static str,
    /// False while writing fails; weights do not rise then.
    pub healthy: bool,
    /// Samples, and records of learned ids, that were dropped because a queue was full.
    pub dropped_samples: u64,
    /// Why it is not healthy.
    pub error: Option<String>,
}

/// Ids of state that the canary keeps: requests that name one go there.
#[derive(Debug, Clone, Serialize)]
pub struct LearnedStatus {
    /// How many are remembered.
    pub known: u64,
    /// How many were learned from answers since start, or since the canary is another one.
    pub learned_total: u64,
}

/// The configuration in force.
#[derive(Debug, Clone, Serialize)]
pub struct ConfigStatus {
    /// The file; `null` when built in.
    pub path: Option<String>,
    /// When what is in force was loaded.
    pub loaded_at: String,
    /// The faults of a newer file that was rejected.
    pub error: Option<String>,
}

/// One rollout.
#[derive(Debug, Clone, Serialize)]
pub struct RolloutStatus {
    /// Its name.
    pub name: String,
    /// Its id: changes when the migration starts anew.
    pub id: String,
    /// `warming-up`, `running`, `held`, `tripped`, `retreated`, `rolled-back`, `complete`, `stopped`.
    pub state: &'static str,
    /// Where on the ladder it is.
    pub stage: StageStatus,
    /// The effective share of the canary; 0 while tripped.
    pub weight: f64,
    /// Counts tries, from 1.
    pub attempt: u32,
    /// When something happens by itself next.
    pub next_action_at: Option<String>,
    /// Why it is where it is, for people.
    pub reason: String,
    /// Hashes of sticky keys with over 2% of the last hour's requests: they stay routed and leave the
    /// evidence.
    pub dominant_keys: Vec<String>,
    /// Why keys over 2% are not left out; `null` if there are none.
    pub dominant_note: Option<String>,
    /// Hashes of sticky keys that most requests shared: they are none, the next candidate is used.
    pub constant_keys: Vec<String>,
    /// Requests left out of the evidence since start, because they repeated one that nobody could answer.
    pub repeats: u64,
    /// One entry per guard.
    pub guards: Vec<GuardStatus>,
    /// The traffic of both arms.
    pub arms: PerArm<ArmStatus>,
    /// The share of each stage, first to last.
    pub stages: Vec<f64>,
}

/// A rung of the ladder.
#[derive(Debug, Clone, Serialize)]
pub struct StageStatus {
    /// From 1.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// The intended share.
    pub weight: f64,
    /// Since when.
    pub since: String,
}

/// A guard's verdict with its numbers.
#[derive(Debug, Clone, Serialize)]
pub struct GuardStatus {
    /// As in `[rollout.guards]`.
    pub name: &'static str,
    /// `harm`, `healthy`, `undecided`, `no-data`, `not-applicable`.
    pub verdict: &'static str,
    /// The canary's value: a fraction or milliseconds.
    pub value: Option<f64>,
    /// The limit it is held to now, in the same unit.
    pub limit: Option<f64>,
    /// Evidence of health in this stage; of harm, if that is the verdict.
    pub evidence: f64,
    /// What that evidence has to reach.
    pub needed: f64,
    /// About how many more canary requests that takes; `null` if none, or if it does not converge.
    pub requests_needed: Option<u64>,
    /// About how long that takes at the present rate, in seconds.
    pub eta_s: Option<u64>,
    /// All of it in one sentence.
    pub explanation: String,
}

/// One arm's traffic in this rollout.
#[derive(Debug, Clone, Serialize)]
pub struct ArmStatus {
    /// Live first attempts since the rollout id began.
    pub requests: u64,
    /// Live first attempts that have not ended yet.
    pub under_way: u64,
    /// Of `requests`, failed by the arm's fault.
    pub errors: u64,
    /// `errors / requests`; `null` without requests.
    pub error_rate: Option<f64>,
    /// Of `requests`, answered with 429.
    pub rate_limited: u64,
    /// Failures that the other arm or a retry made good: no client saw them.
    pub masked: u64,
    /// Total times in the window.
    pub latency_ms: Percentiles,
    /// Times to the first token in the window.
    pub ttft_ms: Percentiles,
    /// Tokens since the rollout id began.
    pub tokens: Tokens,
    /// Cost since the rollout id began, of the requests whose cost is known; `null` without any.
    pub cost_usd: Option<f64>,
    /// `closed`: it is dialled; `open`: its connections fail and it is not; `half-open`: one request is its
    /// probe, or will be.
    pub breaker: &'static str,
    /// Times per output token after the first in the window, of streams.
    pub tpot_ms: Percentiles,
    /// Output tokens per second of whole answers in the window, the wait for the first one included.
    pub tokens_per_s: Speeds,
    /// Of the input tokens, those read from a prompt cache; `null` without tokens.
    pub cache_hit_share: Option<f64>,
    /// Of `requests`, those that stated tokens but whose cost is unknown: the model has no price, or the
    /// stream broke off.
    pub unpriced: u64,
    /// Of `requests`, those that were answered, at least in part, and stated no tokens at all.
    pub no_usage: u64,
    /// Cost since the rollout id began, as the provider itself says; `null` if it says nothing.
    pub reported_cost_usd: Option<f64>,
    /// What the arm's answers said of its rate limits; `null` if they said nothing in the last five minutes.
    pub headroom: Option<HeadroomStatus>,
    /// Of `requests`, refused with another 4xx that the client is blamed for.
    pub rejected: u64,
}

/// What is left of a provider's rate limits.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct HeadroomStatus {
    /// Of the limit of requests; `null` if there is none.
    pub requests: Option<RoomStatus>,
    /// Of the limit of tokens that is nearest to its end; `null` if there is none.
    pub tokens: Option<RoomStatus>,
}

/// What is left of one rate limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RoomStatus {
    /// The limit, in the provider's period.
    pub limit: u32,
    /// What was left of it by the latest answer.
    pub remaining: u32,
    /// The lowest share of it that was left in this and the last minute.
    pub share: f64,
}

/// Tokens in and out.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Tokens {
    /// All input tokens.
    pub input: u64,
    /// All output tokens.
    pub output: u64,
    /// Of `input`, those read from a prompt cache.
    pub cached_input: u64,
}

/// What a status is made of.
pub(super) struct Parts<'a> {
    pub(super) rollouts: &'a [Rollout],
    pub(super) around: Surroundings,
    pub(super) uptime_s: u64,
    pub(super) health: &'a Health,
    pub(super) dropped_in_queue: u64,
    pub(super) config_path: Option<&'a Path>,
    pub(super) config_loaded_at: UnixMillis,
    pub(super) config_error: Option<&'a str>,
    pub(super) learned: &'a LearnedIds,
    pub(super) clients: &'a Clients,
    pub(super) budgets: Vec<BudgetStatus>,
    pub(super) alerts: Vec<WebhookStatus>,
    pub(super) alerts_overflowed: u64,
}

/// Builds the answer.
pub(super) fn of(parts: Parts<'_>) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: parts.uptime_s,
        window_s: WINDOW_S,
        store: StoreStatus {
            kind: "sqlite",
            healthy: parts.health.healthy,
            dropped_samples: parts.health.dropped_samples + parts.dropped_in_queue,
            error: parts.health.error.clone(),
        },
        config: ConfigStatus {
            path: parts.config_path.map(|path| path.display().to_string()),
            loaded_at: parts.config_loaded_at.to_string(),
            error: parts.config_error.map(str::to_owned),
        },
        learned_ids: LearnedStatus {
            known: parts.learned.known(),
            learned_total: parts.learned.learned(),
        },
        rollouts: parts
            .rollouts
            .iter()
            .map(|rollout| rollout_of(rollout, parts.around))
            .collect(),
        budgets: parts.budgets,
        alerts: parts.alerts,
        alerts_overflowed: parts.alerts_overflowed,
        clients: ClientsStatus::of(parts.clients),
    }
}

fn rollout_of(rollout: &Rollout, around: Surroundings) -> RolloutStatus {
    let view = rollout.view(around);
    let keys = &rollout.traffic.keys;
    let named = |keys: &[u64]| keys.iter().copied().map(name_of).collect();
    RolloutStatus {
        name: rollout.key.name.to_string(),
        id: rollout.key.id.to_string(),
        state: view.state,
        stage: StageStatus {
            index: view.stage.index,
            of: view.stage.of,
            weight: view.stage.weight.fraction(),
            since: view.stage.since.to_string(),
        },
        weight: view.weight.fraction(),
        attempt: view.attempt,
        next_action_at: view.next_action_at.map(|at| at.to_string()),
        reason: view.reason,
        dominant_keys: named(keys.dominant()),
        dominant_note: keys.crowd().map(|crowd| crowd.to_string()),
        constant_keys: named(keys.constant()),
        repeats: rollout.traffic.repeats.left_out(),
        guards: view.guards.iter().map(guard_of).collect(),
        arms: PerArm::from_fn(|arm| ArmStatus {
            under_way: rollout.traffic.under_way.count(arm),
            breaker: around.breakers.get(arm).as_str(),
            headroom: headroom_of(*around.rooms.get(arm)),
            ..arm_of(&rollout.live, arm, around.now)
        }),
        stages: rollout.shares(),
    }
}

fn guard_of(view: &GuardView) -> GuardStatus {
    GuardStatus {
        name: view.name,
        verdict: view.verdict.as_str(),
        value: view.value,
        limit: view.limit,
        evidence: view.evidence,
        needed: rounded(view.needed),
        requests_needed: view.requests_needed,
        eta_s: view.eta_s,
        explanation: view.explanation.clone(),
    }
}

fn arm_of(live: &Live, arm: Arm, now: UnixMillis) -> ArmStatus {
    let totals = live.totals.get(arm);
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
    ArmStatus {
        requests: totals.requests,
        under_way: 0,
        errors: totals.errors,
        error_rate: share(totals.errors, totals.requests),
        rate_limited: totals.rate_limited,
        masked: totals.masked,
        latency_ms: live.latency(arm, now),
        ttft_ms: live.ttft(arm, now),
        tokens: Tokens {
            input: totals.input_tokens,
            output: totals.output_tokens,
            cached_input: totals.cached_input_tokens,
        },
        cost_usd: totals.cost_usd.map(rounded),
        breaker: "closed",
        tpot_ms: live.tpot(arm, now),
        tokens_per_s: live.tokens_per_s(arm, now),
        cache_hit_share: share(totals.cached_input_tokens, totals.input_tokens).map(rounded),
        unpriced: totals.unpriced,
        no_usage: totals.no_usage,
        reported_cost_usd: totals.reported_cost_usd.map(rounded),
        headroom: None,
        rejected: totals.rejected,
    }
}

fn headroom_of(rooms: Rooms) -> Option<HeadroomStatus> {
    let room = |room: Room| RoomStatus {
        limit: room.limit,
        remaining: room.remaining,
        share: rounded(room.lowest_share),
    };
    let status = HeadroomStatus {
        requests: rooms.requests.map(room),
        tokens: rooms.tokens.map(room),
    };
    (status.requests.is_some() || status.tokens.is_some()).then_some(status)
}

/// To a millionth: binary fractions are no information.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
