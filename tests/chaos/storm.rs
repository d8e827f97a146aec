//! Rounds one after the other, for as long as they are wanted.

use std::time::{Duration, Instant};

use crate::ledger::Counts;
use crate::plan::{Ground, Inner, Outer, Plan};
use crate::play::Arms;
use crate::round;
use crate::standin::Standin;

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn arms() -> Arms {
    Arms {
        legacy: Standin::start("legacy").await,
        canary: Standin::start("canary").await,
    }
}

/// Plays a round, tells of it, and fails if anything was not as it must be.
async fn play(plan: &Plan, arms: &mut Arms, again: &str) -> Counts {
    println!("round {} on {:?}", plan.number, plan.ground);
    let Some(outcome) = round::play(plan, arms).await else {
        println!("  skipped: mounting a small disk is not permitted here");
        return Counts::default();
    };
    if !outcome.objections.is_empty() {
        let short = |line: &String| line.chars().take(400).collect::<String>();
        let log: Vec<_> = outcome.log.iter().map(short).collect();
        let log = log.join("\n");
        let most = outcome.objections.len().min(20);
        let objections = outcome.objections[..most].join("\n  ");
        panic!(
            "--- the end of its log ---\n{log}\n--- {} objections in round {}; again with {again} ---\n  {objections}",
            outcome.objections.len(),
            plan.number
        );
    }
    outcome.counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of faults; `make chaos` plays them"]
async fn whatever_breaks_clients_are_answered_and_nothing_is_forgotten() {
    let seconds = number("CHAOS_S").unwrap_or(360);
    let seed = number("CHAOS_SEED").unwrap_or(20_261_122);
    println!("CHAOS_SEED={seed} CHAOS_S={seconds}");
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut arms = arms().await;
    let mut all = Counts::default();
    let (first, only) = match number("CHAOS_ROUND") {
        Some(round) => (round, true),
        None => (0, false),
    };
    for number in first.. {
        let again = format!("CHAOS_SEED={seed} CHAOS_ROUND={number} make chaos");
        all.add(play(&Plan::of(seed, number), &mut arms, &again).await);
        if only || Instant::now() > until {
            println!("{} rounds: {all:?}", number + 1 - first);
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_storm_is_weathered() {
    let plan = Plan {
        number: 0,
        seed: 20_261_122,
        ground: Ground::Lossy,
        steps: vec![
            (Inner::Locked, Outer::ArmFails("canary", "truncate-at-1500")),
            (Inner::Killed, Outer::MalformedClients),
            (Inner::ConfigGarbage, Outer::ArmKilled("canary")),
        ],
    };
    play(&plan, &mut arms().await, "the same test").await;
}
