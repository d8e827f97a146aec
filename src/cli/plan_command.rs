//! `cutover plan`: how long a migration takes at a given traffic, what it saves, and what to change first.
//!
//! Needs no daemon. Reads a configuration if one is named; the keys in it need not be set yet.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Failure, config_commands};
use crate::config::parse::{self, default_policy};
use crate::config::{Config, RolloutConfig};
use crate::controller::plan::{Advice, Plan, Traffic, advice, plan};
use crate::controller::policy::Policy;
use crate::stdout;

mod costs;
mod json;
mod read;
mod text;

use costs::Costs;
use read::Tokens;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover plan --rate 10/min\n  \
    cutover plan --rate 3/s --errors 0.2% --streamed 80% --config cutover.toml\n  \
    cutover plan --rate 600/min --config cutover.toml --tokens 1200/300 --model gpt-4\n  \
    cutover plan --rate 1000/h --json | jq '.stages[] | {weight, time_s}'\n\n\
    Times are for a canary that equals legacy; one in ten takes longer than the value in \
    brackets. All fields of --json are in snake_case; times are in seconds, shares are fractions, \
    and what is not known or never ends is null.";

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Requests of the rollout, both arms together: 10/min, 3/s, 1000/h
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    rate: f64,
    /// Legacy's error rate
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = read::share)]
    errors: f64,
    /// Tokens of an average request, in and out, for the cost
    #[arg(long, value_name = "IN/OUT", value_parser = read::tokens)]
    tokens: Option<Tokens>,
    /// The model, as clients name it, when prices of several are configured
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Share of the requests that are streams; guards on first tokens are left out without it
    #[arg(long, value_name = "SHARE", value_parser = read::share)]
    streamed: Option<f64>,
    /// The configuration with stages, guards and prices; the built-in rules without it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The rollout; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    rollout: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// All that the answer is made of.
struct Answer {
    rollout: String,
    config: Option<String>,
    traffic: Traffic,
    plan: Plan,
    warm_up_requests: u64,
    costs: Option<Costs>,
    advice: Vec<Advice>,
}

/// `cutover plan`
pub(super) fn plan_command(args: &PlanArgs) -> Result<(), Failure> {
    let config = match &args.config {
        Some(path) => Some(
            parse::load_without_secrets(path)
                .map_err(|error| config_commands::load_failure(&error))?
                .config,
        ),
        None => None,
    };
    let (rollout, policy) = chosen(config.as_ref(), args.rollout.as_deref())?;
    let traffic = Traffic {
        requests_per_s: args.rate,
        legacy_error_rate: args.errors,
        streamed: args.streamed,
        phi: 1.0,
    };
    let costs = match (&args.tokens, &config) {
        (None, _) if args.model.is_some() => {
            let problem = "--model is for the cost, which needs --tokens IN/OUT, like 1200/300";
            return Err(Failure::Refused(problem.to_owned()));
        }
        (None, _) => None,
        (Some(tokens), Some(config)) => Some(
            Costs::of(config, args.model.as_deref(), tokens, args.rate)
                .map_err(Failure::Refused)?,
        ),
        (Some(_), None) => Some(Costs::default()),
    };
    let answer = Answer {
        rollout,
        config: args.config.as_ref().map(|path| path.display().to_string()),
        plan: plan(&policy, &traffic),
        warm_up_requests: policy.warm_up_requests,
        advice: advice(&policy, &traffic),
        traffic,
        costs,
    };
    if args.json {
        let value: Value = json::answer(&answer);
        stdout::line(&format!("{value:#}"));
    } else {
        stdout::raw(&text::answer(&answer));
    }
    Ok(())
}

/// The rollout to plan.
fn chosen(config: Option<&Config>, name: Option<&str>) -> Result<(String, Policy), Failure> {
    let Some(config) = config else {
        return match name {
            None => Ok(("default".to_owned(), default_policy())),
            Some(_) => Err(Failure::Refused(
                "--rollout names a rollout of a configuration: add --config cutover.toml"
                    .to_owned(),
            )),
        };
    };
    let taken = |rollout: &RolloutConfig| Ok((rollout.name.clone(), rollout.policy.clone()));
    let names: Vec<&str> = config
        .rollouts
        .iter()
        .map(|rollout| rollout.name.as_str())
        .collect();
    match (name, config.rollouts.as_slice()) {
        (None, [only]) => taken(only),
        (None, _) => Err(Failure::Refused(format!(
            "name one with --rollout: {}",
            names.join(", ")
        ))),
        (Some(name), rollouts) => match rollouts.iter().find(|rollout| rollout.name == name) {
            Some(rollout) => taken(rollout),
            None => Err(Failure::Refused(format!(
                "there is no rollout {name}; there is: {}",
                names.join(", ")
            ))),
        },
    }
}

#[cfg(test)]
mod tests;
