//! The command line: definitions, help and exit codes. Each command is a few lines over the library.
//!
//! The only place, with `demo`, that prints to standard output.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::arm::Weight;
use crate::telemetry::LogFormat;

mod backtest_command;
mod client;
mod config_commands;
mod look_back;
mod plan_command;
mod report_command;
mod rollout_commands;
mod simulate_command;
mod table;

/// Moves production LLM traffic from one provider to another, and proves each step.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done · 1 a fault in the configuration, or the daemon \
    refused · 2 wrong usage · 3 the daemon or a file cannot be reached · 4 the daemon failed";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    #[command(after_help = "Example: cutover run --config cutover.toml\n\n\
        SIGHUP reads the configuration again, SIGTERM and Ctrl-C drain and end.")]
    Run(RunArgs),
    /// Check a configuration: every fault at once, with place and remedy
    #[command(after_help = "Example: cutover check --config cutover.toml")]
    Check(ConfigArg),
    /// Print a configuration with every key, its default and its meaning
    #[command(after_help = "Example: cutover example-config > cutover.toml")]
    ExampleConfig,
    /// Say how long a migration takes at your traffic, what it saves, and which first weight makes sense
    #[command(after_help = plan_command::EXAMPLES)]
    Plan(plan_command::PlanArgs),
    /// Show where each rollout stands
    #[command(after_help = "Example: cutover status --json | jq '.rollouts[].weight'")]
    Status(AdminArgs),
    /// Show the decision log, newest last
    #[command(after_help = "Example: cutover decisions --rollout default --limit 20")]
    Decisions(DecisionsArgs),
    /// Hold a rollout: its weight does not rise until it is resumed
    Hold(RolloutArgs),
    /// Let a held, tripped or rolled-back rollout go on
    Resume(RolloutArgs),
    /// Go to the next stage now
    Promote(RolloutArgs),
    /// Send everything back to legacy now, until `retry`
    #[command(after_help = "Example: cutover rollback --reason 'complaints about answers'")]
    Rollback(RolloutArgs),
    /// Start again from the first stage after a rollback
    Retry(RolloutArgs),
    /// Set the canary's share
    #[command(after_help = "Example: cutover set-weight 25% --reason 'load test tonight'")]
    SetWeight(SetWeightArgs),
    /// Show a whole migration on this machine: two stand-in providers, live load, an outage
    #[command(after_help = "Example: cutover demo\n\nNeeds no network and no configuration.")]
    Demo(DemoArgs),
    /// Try a rollout in virtual time: how long it takes, how often it errs, what a bad canary costs
    #[command(after_help = simulate_command::EXAMPLES)]
    Simulate(simulate_command::SimulateArgs),
    /// Tell a migration's story: a page to mail, Markdown or JSON
    #[command(after_help = report_command::EXAMPLES)]
    Report(report_command::ReportArgs),
    /// Replay recorded evidence under other rules: what would have been decided when
    #[command(after_help = backtest_command::EXAMPLES)]
    Backtest(backtest_command::BacktestArgs),
    #[command(flatten)]
    NotBuilt(NotBuilt),
}

/// Commands that the design names and that this version does not have.
#[derive(Debug, Subcommand)]
enum NotBuilt {
    #[command(hide = true)]
    Preflight(Rest),
}

#[derive(Debug, Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// The configuration file
    #[arg(long, short, default_value = "cutover.toml", env = "CUTOVER_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// How the log is written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Least severity that is logged: error, warn, info, debug, trace
    #[arg(long, default_value = "info")]
    log_level: String,
}

#[derive(Debug, Args)]
struct AdminArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Address of the admin API, instead of the one in the configuration
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Print the API's answer
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DecisionsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this rollout
    #[arg(long)]
    rollout: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

#[derive(Debug, Args)]
struct RolloutArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The rollout; may be left out when there is only one
    #[arg(long)]
    rollout: Option<String>,
    /// Why; recorded with the decision
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
struct SetWeightArgs {
    /// The share, like 25%
    #[arg(value_parser = Weight::parse)]
    weight: Weight,
    #[command(flatten)]
    rollout: RolloutArgs,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Requests per second
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Seed of all chance in the demo
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the database is kept; a new temporary folder by default
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// How a command ended, beyond success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Faults that were printed already, or a refusal by the daemon.
    Refused(String),
    /// The daemon or a file cannot be reached.
    Unreachable(String),
    /// The daemon itself failed.
    Failed(String),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => config_commands::run(&args),
        Command::Check(args) => config_commands::check(&args),
        Command::ExampleConfig => config_commands::example_config(),
        Command::Plan(args) => plan_command::plan_command(&args),
        Command::Status(args) => rollout_commands::status(&args),
        Command::Decisions(args) => rollout_commands::decisions(&args),
        Command::Hold(args) => rollout_commands::act("hold", &args),
        Command::Resume(args) => rollout_commands::act("resume", &args),
        Command::Promote(args) => rollout_commands::act("promote", &args),
        Command::Rollback(args) => rollout_commands::act("rollback", &args),
        Command::Retry(args) => rollout_commands::act("retry", &args),
        Command::SetWeight(args) => rollout_commands::set_weight(&args),
        Command::Demo(args) => config_commands::demo(&args),
        Command::Simulate(args) => simulate_command::simulate(&args),
        Command::Report(args) => report_command::report(&args),
        Command::Backtest(args) => backtest_command::backtest(&args),
        Command::NotBuilt(command) => Err(not_built(&command)),
    };
    let (message, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(message)) => (message, 1),
        Err(Failure::Unreachable(message)) => (message, 3),
        Err(Failure::Failed(message)) => (message, 4),
    };
    if !message.is_empty() {
        print_error(&message);
    }
    ExitCode::from(code)
}

fn not_built(command: &NotBuilt) -> Failure {
    let name = match command {
        NotBuilt::Preflight(_) => "preflight",
    };
    Failure::Refused(format!("`cutover {name}` is not part of this version yet"))
}

#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn print_error(message: &str) {
    eprintln!("cutover: {message}");
}
