//! Every built-in default, once. `config/cutover.toml` repeats them for people; a test compares.
//!
//! Constants only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::arm::Weight;
use crate::config::HttpVersion;
use crate::controller::policy::{GuardKind, GuardSpec, Margin, Stage, TripPolicy};

const HOUR_MS: i64 = 3_600_000;

pub(super) const PROXY_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
pub(super) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
pub(super) const MAX_BODY_BYTES: u64 = 64 << 20;
pub(super) const REPLAY_BODY_BYTES: u64 = 8 << 20;
pub(super) const RESPONSE_HEADERS: bool = true;
pub(super) const TRUNCATION_EVENT: bool = true;
pub(super) const MAX_CONNECTIONS: usize = 10_000;
/// Above the idle timeouts of common load balancers, so that they close first.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(75);
pub(super) const CLIENT_STALL: Duration = Duration::from_secs(60);
/// `workers = 0` takes as many threads as there are cores, up to this.
pub(super) const MOST_WORKERS: usize = 4;
pub(super) const DRAIN: Duration = Duration::from_secs(30);
/// Providers keep responses for so long.
pub(super) const LEARNED_IDS_TTL: Duration = Duration::from_secs(30 * 86_400);
pub(super) const DRAIN_AFTER_DISCONNECT_MOST: Duration = Duration::from_secs(600);

pub(super) const STORE_PATH: &str = "cutover.db";
pub(super) const RETENTION: Duration = Duration::from_secs(30 * 86_400);

pub(super) const CONNECT: Duration = Duration::from_secs(2);
pub(super) const FIRST_BYTE_STREAM: Duration = Duration::from_secs(60);
pub(super) const IDLE: Duration = Duration::from_secs(300);
pub(super) const TOTAL_PLAIN: Duration = Duration::from_secs(600);

/// Streams are asked for their token counts where the client did not.
pub(super) const INCLUDE_USAGE: bool = true;
/// Nothing is served as fast as this: more is a slip of the finger.
pub(super) const TOKENS_PER_SECOND_MOST: u64 = 1_000_000;
/// One connection for each request: a lost packet then stalls one answer, not all of them.
pub(super) const HTTP: HttpVersion = HttpVersion::One;

/// Requests that wait for an arm with `max-concurrency`.
pub(super) const QUEUE: usize = 64;
/// Larger limits of concurrency are slips of the finger.
pub(super) const CONCURRENCY_MOST: u64 = 1_000_000;

/// A rollout that is held for so long is told of.
pub(super) const HELD_AFTER: Duration = Duration::from_secs(4 * 3_600);

/// Each one is looked at with every answer.
pub(super) const BUDGETS_MOST: usize = 64;

pub(super) const ROLLOUT_NAME: &str = "default";
pub(super) const WARM_UP_REQUESTS: u64 = 2_000;
pub(super) const CONFIDENCE_PERCENT: f64 = 99.0;
pub(super) const PROMOTE_CONFIDENCE_PERCENT: f64 = 95.0;
pub(super) const TRIP: TripPolicy = TripPolicy {
    cooldown_ms: 300_000,
    max_per_day: 3,
};
pub(super) const RETREAT_BPS: u16 = 5_000;
pub(super) const COOLDOWN: Duration = Duration::from_secs(900);
pub(super) const MAX_ATTEMPTS: u32 = 3;
pub(super) const FAILOVER: bool = true;
pub(super) const DWELL_MS: i64 = HOUR_MS;
/// Nothing comes after the last stage, so there is nothing to wait for.
pub(super) const LAST_DWELL_MS: i64 = 0;

/// Weight in basis points and dwell of each stage.
const LADDER: [(u16, i64); 7] = [
    (100, HOUR_MS),
    (500, HOUR_MS),
    (2_500, HOUR_MS),
    (5_000, HOUR_MS),
    (7_500, HOUR_MS),
    (9_500, 24 * HOUR_MS),
    (10_000, LAST_DWELL_MS),
];

/// The stages of a rollout that names none.
pub(super) fn stages() -> Vec<Stage> {
    let stage = |(bps, dwell_ms): (u16, i64)| Stage {
        weight: Weight::from_bps(bps).unwrap_or(Weight::FULL),
        dwell_ms,
        approve: false,
    };
    LADDER.into_iter().map(stage).collect()
}

/// The guard of a rollout that does not name it.
pub(super) const fn guard(kind: GuardKind) -> GuardSpec {
    let (ratio, increase, ceiling) = match kind {
        GuardKind::ErrorRate => (1.2, 0.004, Some(0.05)),
        GuardKind::LatencyP99 | GuardKind::LatencyP50 | GuardKind::TtftP99 | GuardKind::TtftP50 => {
            (1.5, 0.0, None)
        }
        GuardKind::RateLimited => (ABSENT_RATIO, 0.02, None),
        GuardKind::Rejected => (ABSENT_RATIO, 0.01, None),
    };
    GuardSpec {
        kind,
        relative: Some(Margin { ratio, increase }),
        ceiling,
    }
}

/// `max-ratio` of a guard that gives only `max-increase`.
pub(super) const ABSENT_RATIO: f64 = 1.0;
/// `max-increase` of a guard that gives only `max-ratio`.
pub(super) const ABSENT_INCREASE: f64 = 0.0;
