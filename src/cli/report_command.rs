//! `cutover report`: the migration's story as one page, as Markdown or as JSON.
//!
//! Needs no daemon and disturbs none: the store is opened read-only.

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Failure;
use super::look_back::{self, LookBackArgs, choose, store_failure};
use crate::arm::PerArm;
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::config::parse::LoadError;
use crate::report::{Input, Report, html, markdown};
use crate::stdout;
use crate::store::{History, RolloutRow};

pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover report --out report.html\n  \
    cutover report --format md --from 7d\n  \
    cutover report --format json | jq '.differences[] | {metric, verdict}'\n  \
    cutover report --store /var/lib/cutover/cutover.db --rollout default --out report.html\n\n\
    The page is one file without scripts that loads nothing; it prints on A4. For the same store, rollout \
    and --to, JSON is the same to the byte. docs/report.md says how each number is found. Times are in UTC.";

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    look_back: LookBackArgs,
    /// What is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// One self-contained page
    #[default]
    Html,
    /// Tables in Markdown
    Md,
    /// All numbers, for programs
    Json,
}

/// `cutover report`
pub(super) fn report(args: &ReportArgs) -> Result<(), Failure> {
    let config = config(args)?;
    let input = look_back::run(async {
        let path = args.look_back.store_path(config.as_ref());
        let history = History::open(&path).await.map_err(store_failure)?;
        read(args, config.as_ref(), &history).await
    })?;
    let report = Report::new(input);
    let text = match args.format {
        Format::Html => html::page(&report),
        Format::Md => markdown::text(&report),
        Format::Json => format!("{}\n", report.json()),
    };
    let Some(path) = &args.out else {
        stdout::raw(&text);
        return Ok(());
    };
    fs::write(path, text).map_err(|error| {
        let path = path.display();
        Failure::Unreachable(format!(
            "cannot write {path}: {error}; does its folder exist?"
        ))
    })
}

/// With the store named, a report can do without a configuration: it only adds legacy's address.
fn config(args: &ReportArgs) -> Result<Option<Config>, Failure> {
    let path = &args.look_back.config.config;
    match crate::config::parse::load_without_secrets(path) {
        Ok(parsed) => Ok(Some(parsed.config)),
        Err(LoadError::Missing { .. }) if args.look_back.store.is_some() => Ok(None),
        Err(error) => Err(super::config_commands::load_failure(&error)),
    }
}

async fn read(
    args: &ReportArgs,
    config: Option<&Config>,
    history: &History,
) -> Result<Input, Failure> {
    let wanted = args.look_back.rollout.as_deref();
    let rollout = choose(history, wanted).await?;
    let id = &rollout.rollout_id;
    let decisions = history.decisions_of(id).await.map_err(store_failure)?;
    let last = decisions.last().map_or(rollout.updated_at, |it| it.at);
    // The last thing that is known, not the time of the question: a store that rests gives one report.
    let known_until = rollout.updated_at.max(last).plus_millis(1);
    let to = args.look_back.to.unwrap_or(known_until).min(known_until);
    let from = args.look_back.from;
    let points = history
        .measured(id, from.unwrap_or(UnixMillis(0)), to)
        .await
        .map_err(store_failure)?;
    let totals = history.totals_of(id).await.map_err(store_failure)?;
    let facts = Facts::of(&rollout);
    Ok(Input {
        base_urls: PerArm {
            legacy: config.map(|config| config.arms.legacy.base_url.to_string()),
            canary: facts.canary,
        },
        stages: facts.stages,
        rollout: rollout.name,
        rollout_id: rollout.rollout_id,
        from,
        to,
        is_cut: args.look_back.to.is_some_and(|to| to < known_until),
        decisions,
        points,
        totals,
    })
}

/// What the stored state says of the rollout besides its standing.
struct Facts {
    canary: Option<String>,
    stages: Option<usize>,
}

impl Facts {
    fn of(rollout: &RolloutRow) -> Self {
        let state: Value = serde_json::from_str(&rollout.state).unwrap_or_default();
        let stages = state.pointer("/policy/stages").and_then(Value::as_array);
        Self {
            canary: state
                .pointer("/canary")
                .and_then(Value::as_str)
                .map(str::to_owned),
            stages: stages.map(Vec::len),
        }
    }
}
