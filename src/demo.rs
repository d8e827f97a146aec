//! The main job on one machine: two stand-in providers, traffic from made-up callers, and a rollout.
//!
//! Runs the real daemon from the same start as `cutover run`, and acts only as outsiders do: as
//! providers, as clients, and as somebody who pulls a plug. It must never hold a real key or leave the
//! loopback interface.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::app::{self, App, Source};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::config::parse;
use crate::driver::status::{RolloutStatus, Status};

pub mod load;
mod screen;
pub mod standin;

use load::Load;
use screen::Screen;
use standin::{Fault, Profile, Spread, StandIn};

/// How the demo is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Requests per second.
    pub rate_per_s: f64,
    /// Seed of all chance in it.
    pub seed: u64,
    /// Where the database is kept; `None` makes a folder among the temporary files.
    pub folder: Option<PathBuf>,
}

/// How long each act may take before the demo says that it failed.
const PROMOTION_WITHIN: Duration = Duration::from_secs(240);
const TRIP_WITHIN: Duration = Duration::from_secs(15);
const CALM_FOR: Duration = Duration::from_secs(2);
const OUTAGE_FOR: Duration = Duration::from_secs(8);
const RECOVERY_WITHIN: Duration = Duration::from_secs(150);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows the whole story, start to summary.
///
/// # Errors
/// If something cannot be started, or an act does not come to its end.
pub async fn run(settings: &Settings) -> Result<(), String> {
    let folder = folder_of(settings)?;
    let database = folder.join("cutover.db");
    let stage = Stage::set(settings, &database).await?;
    stage.play(&database).await
}

/// Everything that takes part.
struct Stage {
    legacy: StandIn,
    canary: StandIn,
    app: App,
    load: Load,
    screen: Screen,
    started_at: Instant,
}

impl Stage {
    async fn set(settings: &Settings, database: &Path) -> Result<Self, String> {
        let standin = |profile| StandIn::start(profile).map_err(|e| format!("no stand-in: {e}"));
        let legacy = standin(profile("legacy", settings.seed, 90.0))?;
        let canary = standin(profile("canary", settings.seed + 1, 70.0))?;
        let config = config_of(&legacy, &canary, database)?;
        let screen = Screen::new();
        screen.opening(&legacy, &canary, database, settings.rate_per_s);
        let app = app::start(config, Source::BuiltIn)
            .await
            .map_err(|e| e.to_string())?;
        screen.addresses(&app);
        let traffic = load::Settings {
            key: "sk-client".to_owned(),
            ..load::Settings::new("gpt-demo", settings.rate_per_s, settings.seed)
        };
        let load = Load::start(app.proxy_addr, traffic);
        Ok(Self {
            legacy,
            canary,
            app,
            load,
            screen,
            started_at: Instant::now(),
        })
    }

    async fn play(mut self, database: &Path) -> Result<(), String> {
        self.screen
            .act("The canary gets a growing share, each step by proof");
        self.until(PROMOTION_WITHIN, "the promotion to 100%", |r| {
            r.state == "complete"
        })
        .await?;
        let promoted_in = self.started_at.elapsed();
        self.watch_for(CALM_FOR).await?;

        self.screen
            .act("Outage: every request to the canary's provider fails, then it is gone");
        let pulled_at = Instant::now();
        self.canary
            .set_fault(Fault::Status(503))
            .await
            .map_err(|e| e.to_string())?;
        self.until(TRIP_WITHIN, "the trip", |r| r.weight <= 0.0)
            .await?;
        let tripped_in = pulled_at.elapsed();
        self.screen.note(&format!(
            "all traffic was back on legacy after {tripped_in:.1?}"
        ));
        self.watch_for(OUTAGE_FOR / 2).await?;
        // Streams that had begun have ended by now: nothing could rescue one that is cut half-way.
        self.canary
            .set_fault(Fault::Refuse)
            .await
            .map_err(|e| e.to_string())?;
        self.watch_for(OUTAGE_FOR / 2).await?;

        self.screen
            .act("The canary's provider is back; probes will notice");
        self.canary
            .set_fault(Fault::Healthy)
            .await
            .map_err(|e| e.to_string())?;
        self.until(RECOVERY_WITHIN, "the recovery", |r| r.weight > 0.0)
            .await?;
        self.finish(promoted_in, tripped_in, database).await
    }

    /// Watches until the rollout is as wished.
    async fn until(
        &mut self,
        within: Duration,
        what: &str,
        reached: impl Fn(&RolloutStatus) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.look().await?;
            let rollout = status.rollouts.first().ok_or("the demo has no rollout")?;
            if reached(rollout) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = &rollout.reason;
                return Err(format!("{what} took longer than {within:?}: {reason}"));
            }
        }
    }

    async fn watch_for(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look().await?;
        }
        Ok(())
    }

    /// Waits a moment, then shows what there is to see.
    async fn look(&mut self) -> Result<Status, String> {
        let status = look_at(&self.app, &mut self.screen).await?;
        self.screen.progress(&status, &self.load.counts());
        Ok(status)
    }

    async fn finish(
        mut self,
        promoted_in: Duration,
        tripped_in: Duration,
        database: &Path,
    ) -> Result<(), String> {
        let counts = self.load.stop().await;
        let status = look_at(&self.app, &mut self.screen).await?;
        self.app.shut_down().await;
        let asked = (self.legacy.seen().requests, self.canary.seen().requests);
        self.screen
            .summary(&status, &counts, asked, promoted_in, tripped_in, database);
        if counts.failed > 0 {
            return Err(format!(
                "{} client requests failed: {:?}",
                counts.failed, counts.failures
            ));
        }
        Ok(())
    }
}

/// Waits a moment, shows the decisions that were taken meanwhile, and gives the status.
async fn look_at(app: &App, screen: &mut Screen) -> Result<Status, String> {
    tokio::time::sleep(LOOK_EVERY).await;
    if let Some(store) = app.store() {
        let decisions = store.decisions(None, 50, None).await;
        screen.decisions(decisions.unwrap_or_default());
    }
    let status = app.status().await;
    status.ok_or_else(|| "the daemon does not answer".to_owned())
}

fn profile(name: &str, seed: u64, first_token_ms: f64) -> Profile {
    Profile {
        first_token: Spread {
            median_ms: first_token_ms,
            sigma: 0.4,
        },
        token_gap: Spread {
            median_ms: 2.0,
            sigma: 0.3,
        },
        tokens: 20.0,
        ..Profile::new(name, seed)
    }
}

fn folder_of(settings: &Settings) -> Result<PathBuf, String> {
    let folder = settings.folder.clone().unwrap_or_else(|| {
        let name = format!(
            "cutover-demo-{}-{}",
            std::process::id(),
            UnixMillis::now().0
        );
        std::env::temp_dir().join(name)
    });
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// An ordinary configuration, read by the ordinary parser; only the waits are short and the margins wide
/// enough to be proven in seconds.
fn config_of(legacy: &StandIn, canary: &StandIn, database: &Path) -> Result<Config, String> {
    let text = format!(
        r#"
        [proxy]
        listen = "127.0.0.1:0"
        drain = "5s"
        [admin]
        listen = "127.0.0.1:0"
        [store]
        url = {database}
        [arms.legacy]
        base-url = "{legacy}"
        api-key = "env:DEMO_LEGACY_KEY"
        prices = {{ "gpt-demo" = {{ input = 30.0, output = 60.0 }} }}
        [arms.canary]
        base-url = "{canary}"
        api-key = "env:DEMO_CANARY_KEY"
        prices = {{ "gpt-demo" = {{ input = 2.0, output = 8.0 }} }}
        [[rollout]]
        name = "default"
        warm-up = 2000
        stages = [
          {{ weight = "20%", dwell = "5s" }},
          {{ weight = "50%", dwell = "5s" }},
          {{ weight = "75%", dwell = "5s" }},
          {{ weight = "100%", dwell = "5s" }},
        ]
        trip = {{ cooldown = "5s", max-per-day = 5 }}
        [rollout.guards]
        error-rate = {{ max = "5%", max-ratio = 1.2, max-increase = "2%" }}
        latency-p99 = {{ max-ratio = 3.0 }}
        ttft-p99 = {{ max-ratio = 3.0 }}
        rate-limited = {{ max-increase = "3%" }}
        rejected = {{ max-increase = "3%" }}
        "#,
        legacy = legacy.base_url(),
        canary = canary.base_url(),
        database = toml_text(&format!("sqlite:{}", database.display())),
    );
    let env = |name: &str| match name {
        "DEMO_LEGACY_KEY" => Some("sk-legacy".to_owned()),
        "DEMO_CANARY_KEY" => Some("sk-canary".to_owned()),
        _ => None,
    };
    parse::parse(&text, &env)
        .map(|parsed| parsed.config)
        .map_err(|faults| parse::render_all(&faults, "the demo's configuration"))
}

/// A TOML string; JSON's escapes are a subset of TOML's.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
