//! The configuration as the program uses it: typed, complete, nothing in it can be wrong.
//!
//! `raw` reads the file with its places, `parse` turns it into a [`Config`] or into *all* of its faults,
//! `values` holds the leaf types, `change` compares two configurations, `reload` watches the file.
//! Nothing outside this folder reads TOML.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::alert::kind::AlertKind;
use crate::arm::{Arm, PerArm, Weight};
use crate::controller::policy::Policy;

pub mod change;
pub mod listener_tls;
pub mod parse;
mod raw;
pub mod reload;
pub mod scenario;
mod timeouts;
pub mod values;

use listener_tls::ListenerTls;
pub use timeouts::{ModelTimeouts, Timeouts};

use values::{BaseUrl, Glob, Price, Secret};

/// Everything that one file says, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The data plane.
    pub proxy: ProxyConfig,
    /// The admin API.
    pub admin: AdminConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// The two providers.
    pub arms: PerArm<ArmConfig>,
    /// The rollouts in order of matching; never empty, names unique.
    pub rollouts: Vec<RolloutConfig>,
    /// Where to tell people.
    pub alerts: AlertsConfig,
    /// What a day may cost before people are told; names unique, at most 64.
    pub budgets: Vec<BudgetConfig>,
    /// Who is told of single requests.
    pub traces: TracesConfig,
}

/// The data plane's listener and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyConfig {
    /// Address of the data port. Changes need a restart.
    pub listen: SocketAddr,
    /// The certificate that clients see; `None`: they connect without TLS.
    pub tls: Option<ListenerTls>,
    /// Largest request body in bytes; a larger one gets 413.
    pub max_body_bytes: u64,
    /// Largest request body in bytes that is kept for failover and sticky keys.
    pub replay_body_bytes: u64,
    /// Honour `x-cutover-arm` on requests.
    pub allow_override: bool,
    /// Name arm and rollout in response headers.
    pub response_headers: bool,
    /// End a stream that was cut short after content with an error event of cutover's own.
    pub truncation_event: bool,
    /// Serve an injected key to everybody who can reach the listener.
    pub danger_open_relay: bool,
    /// Data-plane threads, `0` in the file already resolved. Changes need a restart.
    pub workers: NonZeroUsize,
    /// Open client connections at most; further ones wait in the kernel's queue. Changes need a restart.
    pub max_connections: NonZeroUsize,
    /// From accept to a complete head, and between two requests of a connection. Changes need a restart.
    pub keep_alive: Duration,
    /// How long a client may neither send what it owes nor take what it asked for.
    pub client_stall: Duration,
    /// How long in-flight requests may finish on shutdown.
    pub drain: Duration,
    /// How long ids of state that the canary keeps are remembered, in whole hours.
    pub learned_ids_ttl: Duration,
    /// The request header whose value names a feature or a team in the account of costs.
    pub tag_header: Option<http::HeaderName>,
    /// How long the rest of an answer is read whose client went away, for its usage; zero: not at all.
    pub drain_after_disconnect: Duration,
}

/// The admin API's listener.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// Address of the admin port. Changes need a restart.
    pub listen: SocketAddr,
    /// Asked for on mutations; always set when `listen` is not loopback.
    pub token: Option<Secret>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The SQLite file (`sqlite:` stripped, relative to the working directory). Changes need a restart.
    pub path: PathBuf,
    /// How long per-request rows and aggregates are kept.
    pub retention: Duration,
    /// Which attempts get a row of their own.
    pub requests: RequestRows,
}

/// Which attempts get a row of their own in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestRows {
    /// Every attempt.
    All,
    /// Only those whose outcome is not `ok`.
    Failures,
    /// None: aggregates only.
    None,
}

/// One provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmConfig {
    /// Where requests go.
    pub base_url: BaseUrl,
    /// Whose credential is sent.
    pub credential: Credential,
    /// Client's model name -> this arm's model name.
    pub models: BTreeMap<String, String>,
    /// Limits in time.
    pub timeouts: Timeouts,
    /// Other limits for some models; the most special pattern first.
    pub model_timeouts: Vec<ModelTimeouts>,
    /// Model name of this arm -> price.
    pub prices: BTreeMap<String, Price>,
    /// Extra certificate authorities for `https://`, PEM.
    pub ca_file: Option<PathBuf>,
    /// Which HTTP is spoken to it.
    pub http: HttpVersion,
    /// How many requests may be under way at once; `None`: any number.
    pub concurrency: Option<Concurrency>,
    /// Ask streams for their token counts where the client did not.
    pub include_usage: bool,
}

impl ArmConfig {
    /// No attempt of this arm is silent for longer than this, whatever its model, see [`Timeouts::longest`].
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let models = self.model_timeouts.iter().map(|entry| &entry.timeouts);
        let all = models.chain([&self.timeouts]);
        all.map(Timeouts::longest).max().unwrap_or_default()
    }
}

/// Which HTTP is spoken to an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1: each request has a connection of its own while it runs.
    One,
    /// HTTP/2, without asking: on `http://` from the first byte, on `https://` nothing else is offered.
    Two,
    /// HTTP/2 where the provider's TLS offers it, else HTTP/1.1.
    Auto,
}

impl HttpVersion {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Auto => "auto",
        }
    }
}

/// A limit of requests under way at one arm, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// So many at once.
    pub max: NonZeroUsize,
    /// So many wait for their turn, for a second at most.
    pub queue: usize,
}

/// Whose credential an arm sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The client's own, passed on as it came.
    Client,
    /// This one, injected in the client's dialect; the client's own never leaves cutover.
    Key(Secret),
}

/// One rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutConfig {
    /// Its name: 1 to 64 of `a-z 0-9 - _`.
    pub name: String,
    /// Models it covers; empty: all.
    pub match_models: Vec<Glob>,
    /// Paths it covers, as clients write them; empty: all eligible ones.
    pub match_paths: Vec<Glob>,
    /// What keeps a conversation on one arm.
    pub sticky: Sticky,
    /// Send a failed canary request to legacy.
    pub failover: bool,
    /// The rules for the controller.
    pub policy: Policy,
}

/// What the assignment is hashed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// `prompt_cache_key`, `user` or `metadata.user_id`, else system and first user message.
    Auto,
    /// The value of a request header (name in lower case).
    Header(http::HeaderName),
    /// A top-level text field of the JSON body.
    Body(String),
    /// A fresh draw for each request.
    None,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsConfig {
    /// Receivers; empty: the log only.
    pub webhooks: Vec<Webhook>,
    /// A rollout that is held for so long is told of; `None`: never.
    pub held_after: Option<Duration>,
}

/// One receiver of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its address, which is a secret.
    pub url: Secret,
    /// The shape it wants.
    pub format: WebhookFormat,
    /// PagerDuty's integration key.
    pub key: Option<Secret>,
    /// The only kinds that it is told of; empty: all that its format is meant for.
    pub events: Vec<AlertKind>,
}

/// The shape of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    /// Slack's incoming webhooks.
    Slack,
    /// PagerDuty Events v2.
    PagerDuty,
    /// Plain JSON.
    Json,
}

impl WebhookFormat {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::PagerDuty => "pagerduty",
            Self::Json => "json",
        }
    }
}

/// A sum of money that a day (UTC) may cost before people are told. It never changes traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetConfig {
    /// Its name: 1 to 64 of `a-z 0-9 - _`.
    pub name: String,
    /// US dollars per day, above 0.
    pub usd_per_day: f64,
    /// The arm it covers; `None`: both.
    pub arm: Option<Arm>,
    /// The models it covers, by the arm's own name; `None`: all.
    pub model: Option<Glob>,
    /// The tag it covers; `None`: all.
    pub tag: Option<String>,
}

/// Traces: one span per request, sent to a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// Where spans go, as OTLP over HTTP in JSON; `None`: there are none. May hold secrets.
    pub endpoint: Option<Secret>,
    /// Further headers of each message.
    pub headers: Vec<(http::HeaderName, Secret)>,
    /// Of the requests that begin a trace, so many get a span. Above 0.
    pub share: Weight,
}
