//! Commands around a configuration: run it, check it, print the example, show the demo.
#![expect(clippy::print_stderr, reason = "the command line speaks to a person")]

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::paint::{Paint, Tone};
use super::{ConfigArg, DemoArgs, Failure, RunArgs, harmless};
use crate::app::{self, App, Source};
use crate::config::parse::{self, LoadError};
use crate::demo;
use crate::service::{self, Sockets};
use crate::stdout;
use crate::telemetry;

/// `cutover run`
pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    telemetry::start(args.log_format, &args.log_level);
    let given = Sockets::from_environment().map_err(|error| Failure::Failed(error.to_string()))?;
    let path = &args.config.config;
    let parsed = parse::load(path).map_err(|error| load_failure(&error))?;
    for warning in &parsed.warnings {
        tracing::warn!(warning = %warning, "configuration");
    }
    let source = Source::File {
        path: path.clone(),
        fingerprint: parsed.fingerprint,
    };
    let runtime = control_runtime()?;
    runtime.block_on(async {
        let app = app::start_on(parsed.config, source, given)
            .await
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let mut signals = Signals::new()?;
        let mut ready = app.ready();
        let name = tokio::select! {
            name = signals.next() => name,
            () = tell_ready(&app, &mut ready) => signals.next().await,
        };
        tracing::info!(signal = name, "shutting down; a second signal ends at once");
        // A drain time may be longer than the service manager's own patience.
        let longest_us = app.longest_end().as_micros();
        service::tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={longest_us}"));
        tokio::select! {
            () = app.shut_down() => tracing::info!("ended"),
            _ = signals.next() => tracing::warn!("ended at once"),
        }
        Ok(())
    })
}

async fn tell_ready(app: &App, ready: &mut watch::Receiver<bool>) {
    // The sender is the app's own: it cannot be gone.
    drop(ready.wait_for(|is_ready| *is_ready).await);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        proxy = %app.proxy_addr,
        admin = %app.admin_addr,
        "ready"
    );
    service::tell("READY=1");
    if !app.stood_by() {
        service::tell("STATUS=serving");
    }
}

/// `cutover check`
pub(super) fn check(args: &ConfigArg) -> Result<(), Failure> {
    let parsed = parse::load(&args.config).map_err(|error| load_failure(&error))?;
    let name = args.config.display().to_string();
    for warning in &parsed.warnings {
        let warning = harmless::lines(&warning.render(&name));
        let (head, source) = warning.split_once('\n').unwrap_or((&warning, ""));
        eprintln!("{}", Paint::stderr().tint(Tone::Care, head));
        if !source.is_empty() {
            eprintln!("{source}");
        }
    }
    let config = &parsed.config;
    let ok = Paint::stdout().tint(Tone::Good, "ok");
    stdout::line(&format!("{name}: {ok}"));
    stdout::line(&format!("  legacy  {}", config.arms.legacy.base_url));
    stdout::line(&format!("  canary  {}", config.arms.canary.base_url));
    for rollout in &config.rollouts {
        let stages: Vec<_> = rollout
            .policy
            .stages
            .iter()
            .map(|stage| stage.weight.to_string())
            .collect();
        stdout::line(&format!(
            "  rollout {}: {}",
            rollout.name,
            stages.join(" -> ")
        ));
    }
    Ok(())
}

/// `cutover example-config`
pub(super) fn example_config() -> Result<(), Failure> {
    stdout::raw(parse::EXAMPLE);
    Ok(())
}

/// `cutover demo`
pub(super) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let settings = demo::Settings {
        rate_per_s: args.rate,
        seed: args.seed,
        folder: args.folder.clone(),
    };
    let runtime = control_runtime()?;
    let shown = runtime.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            shown = demo::run(&settings) => shown.map_err(Failure::Failed),
            _ = signals.next() => {
                stdout::line("\nstopped");
                Ok(())
            }
        }
    });
    // Load that was cut off must not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    shown
}

pub(super) fn control_runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))
}

pub(super) fn load_failure(error: &LoadError) -> Failure {
    let message = error.to_string();
    match error {
        LoadError::Invalid { .. } => Failure::Refused(message),
        LoadError::Missing { .. } | LoadError::Unreadable { .. } => Failure::Unreachable(message),
    }
}

/// The signals that end a command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::Failed(error.to_string()));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
