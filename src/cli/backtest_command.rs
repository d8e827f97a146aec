//! `cutover backtest`: recorded evidence against other thresholds, decision by decision.
//!
//! Needs no daemon and disturbs none. The module [`crate::backtest`] says what such a replay can know.

use clap::Args;

use super::Failure;
use super::look_back::{self, LookBackArgs, choose, store_failure};
use crate::backtest::compare::{self, Course, Differs, Line};
use crate::backtest::replay::Replayed;
use crate::backtest::{Postponed, Recorded, Replay};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::controller::policy::Policy;
use crate::stdout;
use crate::store::{History, ProbeRow, RolloutRow};

mod json;
mod text;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover backtest --config stricter.toml\n  \
    cutover backtest --config stricter.toml --store /var/lib/cutover/cutover.db --from 7d\n  \
    cutover backtest --config stricter.toml --json | jq '.decisions[] | select(.difference != \"same\")'\n\n\
    Stages, guards, dwells, confidence, trip, retreat, waits and warm-up come from the configuration; the \
    evidence, what operators did and how probes ended come from the store. With the configuration that was \
    in force, the replay decides what was decided. Where its weight differs from the recorded one, the \
    evidence is still that of the recorded weight. At 100%, and where cells are older than two days, a cell \
    is a minute long, and decisions of the fuse are that coarse. Times are in UTC.";

/// A page of cells: some hundred thousand would be too many to hold at once.
const PAGE_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// Cells older than this are merged to minutes.
const FINE_FOR_MS: i64 = 2 * 86_400_000;
/// Decisions so long before the first kept cell still belong to it.
const FIRST_CELL_MS: i64 = 300_000;

#[derive(Debug, Args)]
pub(super) struct BacktestArgs {
    #[command(flatten)]
    look_back: LookBackArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// All that the answer is made of.
struct Answer<'a> {
    config: String,
    rollout: RolloutRow,
    recorded: &'a Recorded,
    replayed: &'a Replayed,
    lines: Vec<Line<'a>>,
    courses: [Course; 2],
    differs: Differs,
    notes: Vec<String>,
}

/// `cutover backtest`
pub(super) fn backtest(args: &BacktestArgs) -> Result<(), Failure> {
    let config = args.look_back.read_config()?;
    look_back::run(async {
        let path = args.look_back.store_path(Some(&config));
        let history = History::open(&path).await.map_err(store_failure)?;
        answer(args, &config, &history).await
    })
}

async fn answer(args: &BacktestArgs, config: &Config, history: &History) -> Result<(), Failure> {
    let rollout = chosen(args, config, history).await?;
    let mut policy = policy_of(config, &rollout.name)?;
    let decisions = history
        .decisions_of(&rollout.rollout_id)
        .await
        .map_err(store_failure)?;
    let Some(span) = span(args, history, &rollout, decisions.first().map(|it| it.at)).await? else {
        return Err(Failure::Refused(format!(
            "the store holds no evidence of rollout {} in this time",
            rollout.name
        )));
    };
    let (span, begins_later) = postponed(&Recorded::new(&decisions, &[]), span)?;
    let probes = probes(history, &rollout, span).await?;
    let recorded = Recorded::new(&decisions, &probes);
    let mut notes = notes(&recorded, span, UnixMillis::now());
    notes.extend(begins_later);
    if recorded.is_heir() {
        policy.warm_up_requests = 0;
        notes.push(
            "this rollout took over what was known of legacy from the one before, which the replay does not know: \
             it has no warm-up, and may decide otherwise at first, under the rules that were in force too"
                .to_owned(),
        );
    }
    let replayed = replay(history, &policy, &recorded, &rollout, span).await?;
    let answer = Answer {
        config: args.look_back.config.config.display().to_string(),
        lines: compare::lines(&recorded, &replayed),
        courses: compare::courses(&recorded, &replayed),
        differs: compare::differs(&recorded, &replayed),
        rollout,
        recorded: &recorded,
        replayed: &replayed,
        notes,
    };
    if args.json {
        stdout::line(&format!("{:#}", json::answer(&answer)));
    } else {
        stdout::raw(&text::answer(&answer));
    }
    Ok(())
}

/// The rollout of the store: as named, else the only one of the configuration.
async fn chosen(
    args: &BacktestArgs,
    config: &Config,
    history: &History,
) -> Result<RolloutRow, Failure> {
    let only = match config.rollouts.as_slice() {
        [only] => Some(only.name.as_str()),
        _ => None,
    };
    choose(history, args.look_back.rollout.as_deref().or(only)).await
}

fn policy_of(config: &Config, name: &str) -> Result<Policy, Failure> {
    let found = config.rollouts.iter().find(|rollout| rollout.name == name);
    found.map(|rollout| rollout.policy.clone()).ok_or_else(|| {
        let names: Vec<&str> = config.rollouts.iter().map(|it| it.name.as_str()).collect();
        Failure::Refused(format!(
            "the configuration has no rollout {name}; it has: {}",
            names.join(", ")
        ))
    })
}

/// From when to when there is something to replay.
async fn span(
    args: &BacktestArgs,
    history: &History,
    rollout: &RolloutRow,
    first_decision: Option<UnixMillis>,
) -> Result<Option<(UnixMillis, UnixMillis)>, Failure> {
    let kept = history
        .cells_span(&rollout.rollout_id)
        .await
        .map_err(store_failure)?;
    let Some((first, last)) = kept else {
        return Ok(None);
    };
    let near = first_decision.filter(|at| (0..FIRST_CELL_MS).contains(&first.millis_since(*at)));
    let begin = near.unwrap_or(first);
    let from = args.look_back.from.unwrap_or(begin).max(begin);
    let end = last.plus_millis(MINUTE_MS).max(rollout.updated_at);
    let to = args.look_back.to.unwrap_or(end).min(end);
    Ok((from < to).then_some((from, to)))
}

/// A trip, rollback or retreat of the controller rests on evidence before the beginning: rather begin behind it.
fn postponed(
    recorded: &Recorded,
    (from, to): (UnixMillis, UnixMillis),
) -> Result<((UnixMillis, UnixMillis), Option<String>), Failure> {
    let Some(Postponed { stop, until }) = recorded.postponed(from) else {
        return Ok(((from, to), None));
    };
    let (kind, at, began) = (stop.kind, text::moment(from), text::moment(stop.at));
    match until.filter(|until| *until < to) {
        Some(until) => Ok((
            (until, to),
            Some(format!(
                "at {at} the {kind} of {began} was in force, whose evidence lies before; the replay begins where \
                 it was over"
            )),
        )),
        None => Err(Failure::Refused(format!(
            "the {kind} of {began} was in force from {at} to the end, and its evidence lies before; begin \
             earlier than that with --from"
        ))),
    }
}

/// Read day by day: a statement over all rows would hold the daemon's log up.
async fn probes(
    history: &History,
    rollout: &RolloutRow,
    (from, to): (UnixMillis, UnixMillis),
) -> Result<Vec<ProbeRow>, Failure> {
    let mut probes = Vec::new();
    let mut at = from;
    while at < to {
        let until = at.plus_millis(24 * PAGE_MS).min(to);
        let some = history.probes(&rollout.rollout_id, at, until).await;
        probes.extend(some.map_err(store_failure)?);
        at = until;
    }
    Ok(probes)
}

async fn replay(
    history: &History,
    policy: &Policy,
    recorded: &Recorded,
    rollout: &RolloutRow,
    (from, to): (UnixMillis, UnixMillis),
) -> Result<Replayed, Failure> {
    let mut replay = Replay::new(policy, recorded, &rollout.rollout_id, from);
    // Pages end with a minute, which is what cells are merged by.
    let mut at = from;
    while at < to {
        let full = UnixMillis((at.0 + PAGE_MS).div_euclid(MINUTE_MS) * MINUTE_MS);
        let until = full.min(to);
        let cells = history.cells(&rollout.rollout_id, at, until).await;
        replay.feed(cells.map_err(store_failure)?);
        at = until;
    }
    let lost = || Failure::Failed("the replay lost its state".to_owned());
    replay.finish(to).ok_or_else(lost)
}

/// What a reader has to know of this record.
fn notes(
    recorded: &Recorded,
    (from, to): (UnixMillis, UnixMillis),
    now: UnixMillis,
) -> Vec<String> {
    let mut notes = Vec::new();
    if recorded.decisions.first().is_some_and(|it| it.at < from) {
        notes.push(format!(
            "the replay begins at {} at the recorded weight, with what operators had asked for, without the \
             evidence before it",
            text::moment(from)
        ));
    }
    let fine_from = now.plus_millis(-FINE_FOR_MS);
    if from < fine_from {
        notes.push(format!(
            "cells before {} are merged to minutes: there the fuse is timed to the minute",
            text::moment(fine_from.min(to))
        ));
    }
    let changes = recorded.config_changes();
    if changes > 0 {
        notes.push(format!(
            "the rules changed {} on record; the replay follows one configuration throughout",
            times(changes)
        ));
    }
    let unseen = [
        "the canary's request limit",
        "the canary's token limit",
        "the canary gets ",
    ];
    let rests_on_unseen = |reason: &str| {
        unseen.iter().any(|begin| reason.starts_with(begin)) || reason.contains("another arm than")
    };
    let holds = recorded
        .decisions
        .iter()
        .filter(|it| rests_on_unseen(&it.reason));
    let holds = holds.count();
    if holds > 0 {
        notes.push(format!(
            "{holds} recorded decisions rest on rate limits or routing, which cells do not hold; the replay \
             takes both to be well"
        ));
    }
    notes
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    }
}
