//! `cutover report`: the migration's story as one page, as Markdown or as JSON.
//!
//! Needs no daemon and disturbs none: the store is opened read-only.

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;
use super::look_back::{self, LookBackArgs, choose, store_failure};
use crate::arm::{PerArm, Weight};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::config::parse::LoadError;
use crate::controller::policy::Policy;
use crate::controller::{State, view};
use crate::report::{Input, Report, Stands, html, markdown};
use crate::stdout;
use crate::store::{History, Moment, RolloutRow, finest_step_ms};

const HOUR_MS: i64 = 3_600_000;

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
    let id = choose(history, wanted).await?.rollout_id;
    let moment = history.moment(&id).await.map_err(store_failure)?;
    let Some(Moment {
        rollout,
        decisions,
        totals,
    }) = moment
    else {
        let gone = format!("the rollout {id} is not in the store any more");
        return Err(Failure::Refused(gone));
    };
    let last = decisions.last().map_or(rollout.updated_at, |it| it.at);
    // The last thing that is known, not the time of the question: a store that rests gives one report.
    let decided_until = rollout.updated_at.max(last).plus_millis(1);
    let cut_at = args.look_back.to.filter(|to| *to < decided_until);
    let from = args.look_back.from.map(|from| whole(from, decided_until));
    // Read after the counts, so that these are not ahead, and to the very end, so that nothing seems lost.
    let points = history
        .measured(
            &id,
            from.unwrap_or(UnixMillis(0)),
            cut_at.unwrap_or(UnixMillis(i64::MAX)),
        )
        .await
        .map_err(store_failure)?;
    let measured_until = points.last().map(|point| point.at.plus_millis(1));
    let known_until = decided_until.max(measured_until.unwrap_or(decided_until));
    let facts = Facts::of(&rollout);
    Ok(Input {
        base_urls: PerArm {
            legacy: config.map(|config| config.arms.legacy.base_url.to_string()),
            canary: facts.canary,
        },
        stages: facts.stages,
        stands: facts.stands,
        rollout: rollout.name,
        rollout_id: rollout.rollout_id,
        from,
        to: cut_at.unwrap_or(known_until),
        is_cut: cut_at.is_some(),
        known_until,
        decisions,
        points,
        totals,
    })
}

/// The beginning of the hour, where traffic is known by the hour only.
fn whole(from: UnixMillis, known_until: UnixMillis) -> UnixMillis {
    match finest_step_ms(from, known_until) {
        HOUR_MS => UnixMillis(from.0.div_euclid(HOUR_MS) * HOUR_MS),
        _ => from,
    }
}

/// What the stored state says of the rollout.
struct Facts {
    canary: Option<String>,
    stages: Option<Vec<Weight>>,
    stands: Option<Stands>,
}

impl Facts {
    fn of(rollout: &RolloutRow) -> Self {
        let stored: Value = serde_json::from_str(&rollout.state).unwrap_or_default();
        let canary = stored.get("canary").and_then(Value::as_str);
        let policy: Option<Policy> = part(&stored, "policy");
        let state: Option<State> = part(&stored, "state");
        Self {
            canary: canary.map(str::to_owned),
            stages: policy.map(|it| it.stages.iter().map(|stage| stage.weight).collect()),
            stands: state
                .filter(|state| state.format == State::FORMAT)
                .map(|state| Stands {
                    state: view::word(&state),
                    stage: state.stage(),
                    weight: state.weight(),
                }),
        }
    }
}

/// A part of the stored state; `None` if another version wrote it.
fn part<T: DeserializeOwned>(stored: &Value, name: &str) -> Option<T> {
    T::deserialize(stored.get(name)?).ok()
}
