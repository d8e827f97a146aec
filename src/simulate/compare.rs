//! Naive rules and the controller on the same traffic, as a table for the documentation.
//!
//! Pure but for the threads of [`simulate`].
#![deny(clippy::disallowed_methods)]

use std::fmt::Write as _;

use super::report::{Report, people, percent};
use super::{Judge, Naive, Settings, simulate};
use crate::config::parse::fault::Fault;
use crate::config::scenario;
use crate::controller::policy::Policy;

/// What is compared: a name and a scenario of 30 days at 1000 requests a minute.
const CASES: [(&str, &str); 6] = [
    ("perfect canary, 0.5% errors", ""),
    (
        "perfect canary, 0.1% errors",
        "[legacy]\nerror-rate = \"0.1%\"",
    ),
    (
        "both arms 3% errors for an hour",
        "[[change]]\nat = \"60h\"\nfor = \"1h\"\narm = \"both\"\nerror-rate = \"3%\"",
    ),
    ("canary 2% errors", "[canary]\nerror-rate = \"2%\""),
    ("canary 50% errors", "[canary]\nerror-rate = \"50%\""),
    ("canary 100% errors", "[canary]\nerror-rate = \"100%\""),
];
const COURSE: &str = "duration = \"30d\"\ntick = \"10s\"\n[traffic]\nrate = \"1000/min\"\n";
const JUDGES: [(&str, Judge); 4] = [
    ("A", Judge::Naive(Naive::A)),
    ("B", Judge::Naive(Naive::B)),
    ("C", Judge::Naive(Naive::C)),
    ("cutover", Judge::Controller),
];

/// The table in Markdown. `done` is told how many of how many runs are over.
///
/// # Errors
/// Never with the built-in cases; the faults of a case that cannot be read.
pub fn table(
    policy: &Policy,
    runs: u64,
    seed: u64,
    threads: usize,
    done: &(dyn Fn(u64, u64) + Sync),
) -> Result<String, Vec<Fault>> {
    let mut text = String::from(
        "| canary | rule | stopped by mistake | stops by mistake per run | complete | time to stop | failures until then | canary failures in 30d |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let all = (CASES.len() * JUDGES.len()) as u64 * runs;
    let mut before = 0;
    for (case, what) in CASES {
        let scenario = scenario::parse(&format!("{COURSE}{what}"))?;
        for (rule, judge) in JUDGES {
            let settings = Settings {
                scenario: &scenario,
                policy,
                judge,
                runs,
                seed,
                threads,
            };
            let tallies = simulate(&settings, &|over| done(before + over, all));
            before += runs;
            let wrongly = tallies
                .iter()
                .filter(|tally| tally.false_trips + tally.false_rollbacks > 0)
                .count();
            let report = Report::of(&settings, &tallies, 0.0);
            let share = |count: usize| percent(count as f64 / runs.max(1) as f64);
            let mistakes = report.false_trips + report.false_rollbacks;
            let complete = usize::try_from(report.completed).unwrap_or(usize::MAX);
            let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
            writeln!(
                text,
                "| {case} | {rule} | {} | {:.1} | {} | {} | {} | {:.0} |",
                share(wrongly),
                mistakes as f64 / runs.max(1) as f64,
                share(complete),
                or_none(report.first_stop_s.p50.map(people)),
                or_none(
                    report
                        .failures_to_stop
                        .mean
                        .map(|mean| format!("{mean:.0}"))
                ),
                report.failed_canary_requests.mean.unwrap_or_default(),
            )
            .ok();
        }
    }
    Ok(text)
}
