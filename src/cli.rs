//! The command line: definitions, help and exit codes. Each command is a few lines over the library.
//!
//! The only place, with `demo`, that prints to standard output.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::paint::{Paint, Tone};
use crate::arm::Weight;
use crate::telemetry::LogFormat;

mod alert_command;
mod backtest_command;
mod client;
mod client_command;
mod config_commands;
mod fields;
mod follow;
mod harmless;
mod log_commands;
mod log_table;
mod look_back;
mod outlook;
mod paint;
mod plan_command;
mod report_command;
mod rollout_commands;
mod shell_command;
mod simulate_command;
mod table;
mod watch;

/// Moves production LLM traffic from one provider to another, and proves each step.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Examples:\n  \
    cutover example-config > cutover.toml     begin here\n  \
    cutover demo                              or look first: a whole migration in two minutes\n  \
    cutover status --watch                    where it stands, why, and the keys to act\n\n\
    Exit codes: 0 done · 1 a fault in the configuration, or the daemon \
    refused · 2 wrong usage · 3 the daemon or a file cannot be reached · 4 the daemon failed\n\n\
    Colours are for terminals; NO_COLOR turns them off, CLICOLOR_FORCE=1 on. \
    `cutover COMMAND --help` tells more.";

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
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Show the decision log, newest last
    #[command(after_help = "Examples:\n  \
        cutover decisions --rollout default --limit 20\n  \
        cutover decisions --follow                      new ones as they come\n  \
        cutover decisions --follow --json | jq -c '{at, kind, weight_to}'")]
    Decisions(log_commands::DecisionsArgs),
    /// Show requests, newest last: outcome, times, cost, the provider's id; never a body or a key
    #[command(after_help = "Examples:\n  \
        cutover requests --failed --arm canary          what went wrong on the canary\n  \
        cutover requests --outcome timeout-first-byte --limit 10\n  \
        cutover requests --failed --follow --json | jq -r .upstream_request_id")]
    Requests(log_commands::RequestsArgs),
    /// Hold a rollout: its weight does not rise until it is resumed; trips and rollbacks still act
    #[command(after_help = "Example: cutover hold --reason 'release freeze until Monday'")]
    Hold(RolloutArgs),
    /// Let a held, tripped, retreated or rolled-back rollout go on
    #[command(after_help = "Example: cutover resume --reason 'the provider says it is mended'")]
    Resume(RolloutArgs),
    /// Go to the next stage now, proof or not
    #[command(after_help = "Example: cutover promote --rollout default --reason 'approved by ops'")]
    Promote(RolloutArgs),
    /// Send everything back to legacy now, until `retry`
    #[command(after_help = "Example: cutover rollback --reason 'complaints about answers'")]
    Rollback(RolloutArgs),
    /// Start again from the first stage after a rollback
    #[command(after_help = "Example: cutover retry --reason 'new model version'")]
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
    /// Print what a shell needs to complete commands, options and their values
    #[command(after_help = shell_command::EXAMPLES)]
    Completions(shell_command::CompletionsArgs),
    /// Print the man page, or write the pages of all commands
    #[command(after_help = "Examples:\n  \
        cutover man | man -l -\n  \
        cutover man --out /usr/local/share/man/man1")]
    Man(shell_command::ManArgs),
    /// Tell a migration's story: a page to mail, Markdown or JSON
    #[command(after_help = report_command::EXAMPLES)]
    Report(report_command::ReportArgs),
    /// Replay recorded evidence under other rules: what would have been decided when
    #[command(after_help = backtest_command::EXAMPLES)]
    Backtest(backtest_command::BacktestArgs),
    /// Send a test alert to each configured receiver
    #[command(after_help = alert_command::EXAMPLES)]
    AlertTest(AlertTestArgs),
    /// Give clients keys of their own, so that only they may use the proxy
    #[command(subcommand, after_help = client_command::EXAMPLES)]
    Client(client_command::ClientCommand),
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
    /// Print the API's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Keep looking, each second, with keys to hold, promote or roll back; with --json one object per line
    #[arg(long, short)]
    watch: bool,
}

const STATUS_EXAMPLES: &str = "Examples:\n  \
    cutover status --watch                          live, with keys to act; ? explains them\n  \
    cutover status --json | jq '.rollouts[].weight'\n  \
    cutover status --json --watch | jq -c '.rollouts[] | {state, weight, reason}'";

#[derive(Debug, Args)]
struct RolloutArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The rollout; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    rollout: Option<String>,
    /// Why; recorded with the decision
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
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

#[derive(Debug, Args)]
struct AlertTestArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    print: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
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

impl Failure {
    /// What is told to people.
    fn message(&self) -> &str {
        let (Self::Refused(message) | Self::Unreachable(message) | Self::Failed(message)) = self;
        message
    }
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
        Command::Decisions(args) => log_commands::decisions(&args),
        Command::Requests(args) => log_commands::requests(&args),
        Command::Hold(args) => rollout_commands::act("hold", &args),
        Command::Resume(args) => rollout_commands::act("resume", &args),
        Command::Promote(args) => rollout_commands::act("promote", &args),
        Command::Rollback(args) => rollout_commands::act("rollback", &args),
        Command::Retry(args) => rollout_commands::act("retry", &args),
        Command::SetWeight(args) => rollout_commands::set_weight(&args),
        Command::Demo(args) => config_commands::demo(&args),
        Command::Simulate(args) => simulate_command::simulate(&args),
        Command::Completions(args) => {
            shell_command::completions(&args, Cli::command());
            Ok(())
        }
        Command::Man(args) => shell_command::man(&args, Cli::command()),
        Command::Report(args) => report_command::report(&args),
        Command::Backtest(args) => backtest_command::backtest(&args),
        Command::AlertTest(args) => alert_command::alert_test(&args),
        Command::Client(command) => client_command::client(&command),
        Command::NotBuilt(command) => Err(not_built(&command)),
    };
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    if !failure.message().is_empty() {
        print_error(failure.message());
    }
    ExitCode::from(match failure {
        Failure::Refused(_) => 1,
        Failure::Unreachable(_) => 3,
        Failure::Failed(_) => 4,
    })
}

fn not_built(command: &NotBuilt) -> Failure {
    let name = match command {
        NotBuilt::Preflight(_) => "preflight",
    };
    Failure::Refused(format!("`cutover {name}` is not part of this version yet"))
}

fn print_error(message: &str) {
    let name = Paint::stderr().tint(Tone::Bad, "cutover:");
    // Nobody may be there to read it: the terminal may be gone.
    writeln!(std::io::stderr(), "{name} {}", harmless::lines(message)).ok();
}

#[cfg(test)]
mod tests;
