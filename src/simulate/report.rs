//! What many runs say together: one answer for machines, one for people.
//!
//! Pure text and numbers.
#![deny(clippy::disallowed_methods)]

use std::fmt::Write as _;

use serde::Serialize;

use super::figures::{Percentiles, interval};
use super::run::START;
use super::tally::Tally;
use super::{Judge, Settings};
use crate::clock::for_people;
use crate::controller::DecisionKind;

/// The answer of `cutover simulate --json`. Times in seconds of virtual time, shares as fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many runs there were.
    pub runs: u64,
    /// Runs in which the rollout was complete at some time.
    pub completed: u64,
    /// Runs with at least one rollback.
    pub rolled_back: u64,
    /// The same as a share of the runs.
    pub rolled_back_share: f64,
    /// Wilson's 95% interval of `rolled_back_share`: low, high.
    pub ci95: [f64; 2],
    /// Runs that ended on hold.
    pub held: u64,
    /// From the start to the first completion, over the runs that were complete.
    pub time_to_complete_s: Percentiles,
    /// Runs with a trip or rollback after the first change that touches the canary; after the start, if
    /// there is no such change.
    pub stopped: u64,
    /// From that change to the first such trip or rollback.
    pub first_stop_s: Percentiles,
    /// Canary requests in that time.
    pub canary_requests_to_stop: Percentiles,
    /// Canary requests that failed in that time.
    pub failures_to_stop: Percentiles,
    /// Trips, over all runs, of a canary that kept every limit and had for an hour.
    pub false_trips: u64,
    /// Rollbacks, over all runs, of such a canary.
    pub false_rollbacks: u64,
    /// Canary requests that failed in a whole run.
    pub failed_canary_requests: Percentiles,
    /// Canary requests in a whole run.
    pub canary_requests: Percentiles,
    /// Mean number of decisions.
    pub decisions_per_run: f64,
    /// Promotions, over all runs.
    pub promotions: u64,
    /// Retreats, over all runs.
    pub retreats: u64,
    /// Trips, over all runs.
    pub trips: u64,
    /// Rollbacks, over all runs.
    pub rollbacks: u64,
    /// Of all chance.
    pub seed: u64,
    /// Length of a run.
    pub duration_s: f64,
    /// What the simulation took, in seconds of real time.
    pub elapsed_s: f64,
}

impl Report {
    /// Sums up all runs of a simulation that took `elapsed_s`.
    #[must_use]
    pub fn of(settings: &Settings<'_>, tallies: &[Tally], elapsed_s: f64) -> Self {
        let runs = tallies.len() as u64;
        let count = |holds: &dyn Fn(&Tally) -> bool| {
            tallies.iter().filter(|tally| holds(tally)).count() as u64
        };
        let sum = |of: &dyn Fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
        let all = |kind: DecisionKind| sum(&|tally| tally.count_of(kind));
        let stops = || tallies.iter().filter_map(|tally| tally.stop);
        let rolled_back = count(&|tally| tally.count_of(DecisionKind::RollBack) > 0);
        let decisions = sum(&|tally| tally.decisions.len() as u64);
        Self {
            runs,
            completed: count(&|tally| tally.completed_ms.is_some()),
            rolled_back,
            rolled_back_share: share(rolled_back, runs),
            ci95: interval(rolled_back, runs),
            held: count(&|tally| tally.is_held),
            time_to_complete_s: Percentiles::of(
                tallies
                    .iter()
                    .filter_map(|tally| tally.completed_ms)
                    .map(seconds),
            ),
            stopped: stops().count() as u64,
            first_stop_s: Percentiles::of(stops().map(|stop| seconds(stop.after_ms))),
            canary_requests_to_stop: Percentiles::of(
                stops().map(|stop| stop.canary_requests as f64),
            ),
            failures_to_stop: Percentiles::of(stops().map(|stop| stop.canary_failed as f64)),
            false_trips: sum(&|tally| tally.false_trips),
            false_rollbacks: sum(&|tally| tally.false_rollbacks),
            failed_canary_requests: Percentiles::of(
                tallies.iter().map(|tally| tally.canary_failed as f64),
            ),
            canary_requests: Percentiles::of(tallies.iter().map(|tally| tally.canary as f64)),
            decisions_per_run: share(decisions, runs),
            promotions: all(DecisionKind::Promote),
            retreats: all(DecisionKind::Retreat),
            trips: all(DecisionKind::Trip),
            rollbacks: all(DecisionKind::RollBack),
            seed: settings.seed,
            duration_s: seconds(settings.scenario.duration_ms),
            elapsed_s,
        }
    }

    /// The report for people: sentences, a table, and the decisions of the first run.
    #[must_use]
    pub fn text(&self, name: &str, settings: &Settings<'_>, tallies: &[Tally]) -> String {
        let mut text = String::new();
        self.write_head(&mut text, name, settings);
        self.write_story(&mut text);
        self.write_table(&mut text);
        if let Some(first) = tallies.first() {
            write_log(&mut text, first);
        }
        text
    }

    fn write_head(&self, text: &mut String, name: &str, settings: &Settings<'_>) {
        let scenario = settings.scenario;
        let judge = match settings.judge {
            Judge::Controller => "the controller".to_owned(),
            Judge::Naive(rule) => format!("rule {rule:?}"),
        };
        line(
            text,
            &format!(
                "{name}: {} runs of {} at {} requests/s under {judge}, seed {} ({:.1}s)\n",
                self.runs,
                for_people(scenario.duration_ms),
                number(scenario.rate_per_s),
                self.seed,
                self.elapsed_s,
            ),
        );
    }

    fn write_story(&self, text: &mut String) {
        let mut complete = format!("Complete in {}", self.of_runs(self.completed));
        if let (Some(p50), Some(p90)) = (self.time_to_complete_s.p50, self.time_to_complete_s.p90) {
            write!(
                complete,
                ", half of them within {} and nine of ten within {}",
                people(p50),
                people(p90)
            )
            .ok();
        }
        line(text, &(complete + "."));
        line(
            text,
            &format!("Rolled back in {}.", self.of_runs(self.rolled_back)),
        );
        if self.held > 0 {
            line(
                text,
                &format!("Still held at the end in {}.", self.of_runs(self.held)),
            );
        }
        if let (Some(after), Some(requests), Some(failures)) = (
            self.first_stop_s.p50,
            self.canary_requests_to_stop.p50,
            self.failures_to_stop.mean,
        ) {
            line(
                text,
                &format!(
                    "Stopped in {}, half of them within {} and {requests:.0} canary requests; \
                     {} failed until then on average.",
                    self.of_runs(self.stopped),
                    people(after),
                    number(failures),
                ),
            );
        }
        let wrongly = match (self.false_trips, self.false_rollbacks) {
            (0, 0) => "No trip or rollback met a canary that kept its limits.".to_owned(),
            (trips, rollbacks) => format!(
                "A canary that kept its limits met {trips} trips and {rollbacks} rollbacks in {} runs.",
                self.runs
            ),
        };
        line(text, &wrongly);
    }

    fn write_table(&self, text: &mut String) {
        line(text, "");
        line(
            text,
            &format!(
                "  {:<28}{:>12}{:>12}{:>12}{:>12}",
                "", "p10", "p50", "p90", "mean"
            ),
        );
        let times = |seconds: f64| people(seconds);
        row(text, "time to complete", self.time_to_complete_s, &times);
        row(text, "time to stop", self.first_stop_s, &times);
        let whole = |count: f64| format!("{count:.0}");
        row(
            text,
            "canary requests to stop",
            self.canary_requests_to_stop,
            &whole,
        );
        row(text, "canary requests", self.canary_requests, &whole);
        row(text, "of these failed", self.failed_canary_requests, &whole);
    }

    /// `3 of 100 runs (95% interval 1.0% to 8.5%)`
    fn of_runs(&self, count: u64) -> String {
        let [low, high] = interval(count, self.runs);
        format!(
            "{count} of {} runs (95% interval {} to {})",
            self.runs,
            percent(low),
            percent(high)
        )
    }
}

fn write_log(text: &mut String, first: &Tally) {
    line(text, "\nThe first run:");
    if first.decisions.is_empty() {
        line(text, "  no decision");
    }
    // A rule that flips every hour for a month fills no screen.
    let shown = 40;
    for decision in first.decisions.iter().take(shown) {
        let ms = decision.at.millis_since(START);
        let (days, rest) = (ms / 86_400_000, ms % 86_400_000 / 1_000);
        let (hours, minutes, seconds) = (rest / 3_600, rest / 60 % 60, rest % 60);
        line(
            text,
            &format!(
                "  {days:>3}d {hours:02}:{minutes:02}:{seconds:02}  {}",
                decision.log_line("simulated", None)
            ),
        );
    }
    if first.decisions.len() > shown {
        line(
            text,
            &format!("  ... {} more", first.decisions.len() - shown),
        );
    }
}

fn row(text: &mut String, name: &str, of: Percentiles, show: &dyn Fn(f64) -> String) {
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), show);
    line(
        text,
        &format!(
            "  {name:<28}{:>12}{:>12}{:>12}{:>12}",
            cell(of.p10),
            cell(of.p50),
            cell(of.p90),
            cell(of.mean)
        ),
    );
}

fn share(count: u64, all: u64) -> f64 {
    count as f64 / all.max(1) as f64
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// A number of seconds for people.
pub(super) fn people(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a time within a run")]
    let ms = (seconds * 1_000.0) as i64;
    for_people(ms)
}

/// A share for people.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = usize::from(percent > 0.0 && percent < 99.95);
    format!("{percent:.digits$}%")
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
