//! Rules as an operator writes them, scenarios as the simulator reads them, and figures of many runs.

use std::thread;

use cutover::config::parse::{fault::Fault, parse, render_all};
use cutover::config::scenario;
use cutover::controller::policy::Policy;
use cutover::controller::{Decision, DecisionKind};
use cutover::simulate::tally::Tally;
use cutover::simulate::{Judge, Settings, simulate};

/// Of every simulation here; a run is named by its number.
pub(crate) const SEED: u64 = 20_261;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

fn told(faults: &[Fault]) -> String {
    render_all(faults, "the rules")
}

/// The rules of a configuration whose rollout says `rollout`.
pub(crate) fn rules(rollout: &str) -> Policy {
    let text = format!(
        "[arms.legacy]\nbase-url = \"https://legacy.example.com/v1\"\n\
         [arms.canary]\nbase-url = \"https://canary.example.com/v1\"\napi-key = \"env:KEY\"\n\
         [rollout]\n{rollout}"
    );
    let env = |_: &str| Some("sk-canary".to_owned());
    let parsed = parse(&text, &env).unwrap_or_else(|faults| panic!("{}", told(&faults)));
    let mut rollouts = parsed.config.rollouts;
    assert_eq!(rollouts.len(), 1);
    rollouts.remove(0).policy
}

/// One stage for good.
pub(crate) fn stay_at(weight: &str) -> String {
    format!("stages = [{{ weight = \"{weight}\", dwell = \"300d\" }}, \"100%\"]\n")
}

/// `runs` runs of `scenario` under `judge`.
pub(crate) fn judged(judge: Judge, scenario: &str, policy: &Policy, runs: u64) -> Vec<Tally> {
    let scenario = scenario::parse(scenario).unwrap_or_else(|faults| panic!("{}", told(&faults)));
    let settings = Settings {
        scenario: &scenario,
        policy,
        judge,
        runs,
        seed: SEED,
        threads: thread::available_parallelism().map_or(1, usize::from),
    };
    simulate(&settings, &|_| ())
}

/// `runs` runs of `scenario` under the controller.
pub(crate) fn runs(scenario: &str, policy: &Policy, runs: u64) -> Vec<Tally> {
    judged(Judge::Controller, scenario, policy, runs)
}

/// The first decision of a kind.
pub(crate) fn first(tally: &Tally, kind: DecisionKind) -> Option<&Decision> {
    tally
        .decisions
        .iter()
        .find(|decision| decision.kind == kind)
}

/// How many runs had a decision of a kind.
pub(crate) fn with(tallies: &[Tally], kind: DecisionKind) -> usize {
    tallies
        .iter()
        .filter(|tally| first(tally, kind).is_some())
        .count()
}

/// The numbers of the runs that had a decision of a kind, for the one who looks into them.
pub(crate) fn which(tallies: &[Tally], kind: DecisionKind) -> Vec<usize> {
    let had = |(run, tally): (usize, &Tally)| first(tally, kind).map(|_| run);
    tallies.iter().enumerate().filter_map(had).collect()
}

/// Least, mean and most of some numbers.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "the median is printed")]
pub(crate) struct Range {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) mean: f64,
    pub(crate) most: f64,
}

pub(crate) fn range(numbers: impl Iterator<Item = f64>) -> Range {
    let mut sorted: Vec<f64> = numbers.collect();
    assert!(!sorted.is_empty());
    sorted.sort_by(f64::total_cmp);
    Range {
        least: sorted[0],
        median: sorted[sorted.len() / 2],
        mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        most: sorted[sorted.len() - 1],
    }
}

/// What the canary got until the first trip or rollback.
pub(crate) fn until_stop(tallies: &[Tally]) -> Range {
    let requests = |(run, tally): (usize, &Tally)| {
        let stop = tally
            .stop
            .unwrap_or_else(|| panic!("seed {SEED} run {run}: no stop"));
        stop.canary_requests as f64
    };
    range(tallies.iter().enumerate().map(requests))
}
