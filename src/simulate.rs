//! Virtual rollouts: the real controller against synthetic arms, thousands of days in minutes.
//!
//! Answers before anything is moved: how long will my rollout take at my traffic, how often would a healthy
//! canary be rolled back, how many requests does a bad one hurt? Each run is
//! [`crate::controller::step()`] driven as the daemon drives it, by traffic that a seed and the number of
//! the run determine; so the same seed gives the same answer on any number of threads.
//!
//! Pure but for its threads. Reading order: `timeline` (how the arms behave), `times` and `traffic` (chance),
//! `run` (the controller) and `naive` (rules that others use), `tally`, `figures` and `report` (what came
//! out), `series` (the course of one run), [`shipped`] (scenarios in the binary), [`compare`].
#![deny(clippy::disallowed_methods)]

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub mod compare;
pub mod figures;
mod naive;
pub mod plot;
pub mod report;
mod run;
mod series;
pub mod shipped;
pub mod tally;
mod timeline;
mod times;
mod traffic;

use series::Series;
use tally::Tally;
use timeline::Timeline;

use crate::config::scenario::Scenario;
use crate::controller::policy::Policy;

pub use naive::Naive;

/// What decides in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Judge {
    /// The controller.
    #[default]
    Controller,
    /// A rule that others use.
    Naive(Naive),
}

/// What is simulated, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// How the arms behave.
    pub scenario: &'a Scenario,
    /// What the controller is asked to do.
    pub policy: &'a Policy,
    /// Who decides.
    pub judge: Judge,
    /// How many runs.
    pub runs: u64,
    /// Of all chance.
    pub seed: u64,
    /// On how many threads, at least 1. No result depends on it.
    pub threads: usize,
}

/// What every run of one simulation shares.
struct World<'a> {
    scenario: &'a Scenario,
    policy: &'a Policy,
    timeline: Timeline,
    seed: u64,
}

impl<'a> World<'a> {
    fn new(settings: &Settings<'a>) -> Self {
        Self {
            scenario: settings.scenario,
            policy: settings.policy,
            timeline: Timeline::new(settings.scenario, settings.policy),
            seed: settings.seed,
        }
    }

    fn run(&self, judge: Judge, run: u64) -> Tally {
        match judge {
            Judge::Controller => run::controlled(self, run, None).0,
            Judge::Naive(rule) => naive::ruled(self, rule, run, None).0,
        }
    }
}

/// All runs, in the order of their numbers. `done` is told after each, from any thread, how many are over.
#[must_use]
pub fn simulate(settings: &Settings<'_>, done: &(dyn Fn(u64) + Sync)) -> Vec<Tally> {
    let world = World::new(settings);
    let (next, over) = (AtomicU64::new(0), AtomicU64::new(0));
    let tallies = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..settings.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= settings.runs {
                        break;
                    }
                    let tally = world.run(settings.judge, run);
                    let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
                    tallies.push((run, tally));
                    drop(tallies);
                    done(over.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut tallies = tallies.into_inner().unwrap_or_else(PoisonError::into_inner);
    tallies.sort_by_key(|(run, _)| *run);
    tallies.into_iter().map(|(_, tally)| tally).collect()
}

/// The picture of the first run, as an SVG file's text.
///
/// # Errors
/// Says what the drawing failed on.
pub fn picture(settings: &Settings<'_>, title: &str) -> Result<String, String> {
    let world = World::new(settings);
    let series = Series::new(settings.scenario.duration_ms, settings.scenario.tick_ms);
    let (tally, series) = match settings.judge {
        Judge::Controller => run::controlled(&world, 0, Some(series)),
        Judge::Naive(rule) => naive::ruled(&world, rule, 0, Some(series)),
    };
    let series = series.unwrap_or_else(|| Series::new(1, 1));
    plot::svg(title, settings.scenario.duration_ms, &series, &tally)
}

#[cfg(test)]
mod tests;
