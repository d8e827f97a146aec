//! `cutover simulate`: rollouts in virtual time, before anything is moved.
#![expect(clippy::print_stderr, reason = "the command line speaks to a person")]

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::Failure;
use super::config_commands::load_failure;
use crate::clock::for_people;
use crate::config::parse;
use crate::config::scenario::{self, Scenario};
use crate::controller::policy::Policy;
use crate::simulate::report::Report;
use crate::simulate::{self, Judge, Naive, Settings, compare, shipped};
use crate::stdout;

/// Longer examples stand below the options.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover simulate outage                        a shipped scenario\n  \
    cutover simulate mine.toml --config cutover.toml --runs 200\n  \
    cutover simulate two-percent --json | jq .first_stop_s\n  \
    cutover simulate healthy --runs 1 --plot run.svg\n  \
    cutover simulate healthy --rule b              what a rule without statistics does\n  \
    cutover simulate --compare --runs 20           such rules beside the controller, as Markdown\n\n\
    Shipped scenarios: healthy, common-drift, outage, two-percent, slow-tail, clustered-errors, \
    independent-incidents, low-traffic (`--show` prints one, as a start for your own)";

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// A scenario file, or the name of a shipped scenario
    #[arg(required_unless_present = "compare")]
    scenario: Option<String>,
    /// Take stages, guards and waits from this configuration; else the built-in ones
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Which rollout of the configuration; the first by default
    #[arg(long, requires = "config")]
    rollout: Option<String>,
    /// How many runs
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,
    /// Seed of all chance; the same seed gives the same answer
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; one for each core by default. No result depends on it
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Write a picture of the first run
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Let a naive rule decide instead of the controller
    #[arg(long, value_enum, ignore_case = true)]
    rule: Option<RuleWord>,
    /// Compare naive rules with the controller over six cases, as a Markdown table
    #[arg(long, conflicts_with_all = ["scenario", "rule", "plot", "json"])]
    compare: bool,
    /// Print the scenario instead of running it
    #[arg(long, conflicts_with = "compare")]
    show: bool,
}

/// A naive rule's letter.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RuleWord {
    /// Hourly, up and down by ten points
    A,
    /// Half-hourly, over the last hundred requests
    B,
    /// A circuit breaker over the last hundred canary requests
    C,
}

impl RuleWord {
    const fn naive(self) -> Naive {
        match self {
            Self::A => Naive::A,
            Self::B => Naive::B,
            Self::C => Naive::C,
        }
    }
}

/// `cutover simulate`
pub(super) fn simulate(args: &SimulateArgs) -> Result<(), Failure> {
    let policy = policy(args)?;
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = args.threads.map_or_else(cores, NonZeroUsize::get);
    let progress = Progress::new();
    let Some(name) = &args.scenario else {
        let done = |over, all| progress.tell(over, all);
        let table = compare::table(&policy, args.runs, args.seed, threads, &done)
            .map_err(|faults| Failure::Failed(parse::render_all(&faults, "compare")))?;
        progress.clear();
        stdout::raw(&table);
        return Ok(());
    };
    if args.show {
        stdout::raw(&text(name)?);
        return Ok(());
    }
    let scenario = read(name)?;
    let settings = Settings {
        scenario: &scenario,
        policy: &policy,
        judge: args
            .rule
            .map_or(Judge::Controller, |rule| Judge::Naive(rule.naive())),
        runs: args.runs,
        seed: args.seed,
        threads,
    };
    let tallies = simulate::simulate(&settings, &|over| progress.tell(over, args.runs));
    let report = Report::of(&settings, &tallies, progress.began.elapsed().as_secs_f64());
    progress.clear();
    if let Some(path) = &args.plot {
        draw(&settings, name, path)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        stdout::line(&json);
    } else {
        stdout::raw(&report.text(name, &settings, &tallies));
    }
    Ok(())
}

fn draw(settings: &Settings<'_>, name: &str, path: &Path) -> Result<(), Failure> {
    let title = format!(
        "cutover simulate {name} (seed {}, first run)",
        settings.seed
    );
    let svg = simulate::picture(settings, &title).map_err(Failure::Failed)?;
    fs::write(path, svg).map_err(|error| {
        let path = path.display();
        Failure::Unreachable(format!(
            "cannot write {path}: {error}; does its folder exist?"
        ))
    })
}

/// The rules that the controller is to follow.
fn policy(args: &SimulateArgs) -> Result<Policy, Failure> {
    let Some(path) = &args.config else {
        return Ok(parse::default_policy());
    };
    let config = parse::load_without_secrets(path)
        .map_err(|error| load_failure(&error))?
        .config;
    let names: Vec<String> = config.rollouts.iter().map(|r| r.name.clone()).collect();
    let wanted = args.rollout.as_deref();
    config
        .rollouts
        .into_iter()
        .find(|rollout| wanted.is_none_or(|wanted| rollout.name == wanted))
        .map(|rollout| rollout.policy)
        .ok_or_else(|| {
            Failure::Refused(format!(
                "there is no rollout \"{}\" in {}; it has: {}",
                wanted.unwrap_or_default(),
                path.display(),
                names.join(", ")
            ))
        })
}

/// A file goes before a shipped scenario of the same name.
fn read(name: &str) -> Result<Scenario, Failure> {
    match shipped::find(name) {
        Some(text) if !Path::new(name).exists() => scenario::parse(text)
            .map_err(|faults| Failure::Failed(parse::render_all(&faults, name))),
        _ => scenario::load(Path::new(name)).map_err(|error| unreadable(name, &error)),
    }
}

fn text(name: &str) -> Result<String, Failure> {
    match shipped::find(name) {
        Some(text) if !Path::new(name).exists() => Ok(text.to_owned()),
        _ => fs::read_to_string(name).map_err(|error| {
            Failure::Unreachable(format!("cannot read {name}: {error}; {}", shipped_names()))
        }),
    }
}

fn unreadable(name: &str, error: &parse::LoadError) -> Failure {
    match error {
        parse::LoadError::Missing { .. } => {
            Failure::Unreachable(format!("there is no scenario {name}; {}", shipped_names()))
        }
        error => load_failure(error),
    }
}

fn shipped_names() -> String {
    let names: Vec<&str> = shipped::SCENARIOS.iter().map(|(name, _)| *name).collect();
    format!("write a file, or take one of {}", names.join(", "))
}

/// A line that says how far it is, on terminals only.
struct Progress {
    began: Instant,
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            is_shown: io::stderr().is_terminal(),
        }
    }

    fn tell(&self, over: u64, all: u64) {
        if !self.is_shown {
            return;
        }
        let left_s = self.began.elapsed().as_secs_f64() / over as f64 * (all - over) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "a time to wait")]
        let left = for_people((left_s * 1_000.0) as i64);
        eprint!("\r\x1b[K{over}/{all} runs, {left} left");
        io::stderr().flush().ok();
    }

    fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
