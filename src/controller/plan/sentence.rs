//! Advice in words: what is slow or impossible, by how much, and what to change.
//!
//! Pure text.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use super::advice::{Advice, Better};
use super::{rate_words, roughly};
use crate::arm::Weight;
use crate::controller::policy::GuardKind;

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowFirstStage {
                weight,
                ms,
                requests_per_s,
                better,
            } => f.write_str(&slow_first(*weight, *ms, *requests_per_s, *better)),
            Self::SlowStages(stages) => f.write_str(&slow_stages(stages)),
            Self::NeverProven(guard) => f.write_str(&never_proven(*guard)),
            Self::NoGuardProves(weight) => write!(
                f,
                "no guard that is on can prove health at {weight}, so nothing is promoted from \
                 there: switch error-rate on"
            ),
            Self::TightLimit { guard, times } => write!(
                f,
                "{} needs about {times:.0} times the traffic of the next guard: a looser limit saves \
                 most of the time",
                guard.as_str()
            ),
            Self::TailSlowerThanErrors { guard, weight } => write!(
                f,
                "at {weight} {} takes longer than error-rate: a larger max-ratio is proven sooner",
                guard.as_str()
            ),
            Self::DwellDominates => f.write_str(
                "the dwell sets the pace: at every stage the proof is there before it is over",
            ),
            Self::AllowsEverything(guard) => write!(
                f,
                "{} allows everything at this traffic and says nothing",
                guard.as_str()
            ),
            Self::StreamsUnknown => f.write_str(
                "the guards on the time to the first token are left out; count them in with \
                 --streamed 50%",
            ),
            Self::NoStreams => f.write_str(
                "hardly anything is streamed: the guards on the time to the first token do not \
                 apply",
            ),
            Self::Approvals(1) => {
                f.write_str("one stage waits for `cutover promote`; that time is not counted")
            }
            Self::Approvals(stages) => write!(
                f,
                "{stages} stages wait for `cutover promote`; that time is not counted"
            ),
        }
    }
}

fn slow_first(weight: Weight, ms: f64, requests_per_s: f64, better: Option<Better>) -> String {
    let slow = format!(
        "a first stage of {weight} takes about {} at {}",
        roughly(ms),
        rate_words(requests_per_s)
    );
    match better {
        Some(better) => format!(
            "{slow}; begin at {}, which takes about {}",
            better.weight,
            roughly(better.ms)
        ),
        None => format!("{slow}; no other first weight is much faster, so loosen the guards"),
    }
}

fn slow_stages(stages: &[(Weight, f64)]) -> String {
    let named: Vec<String> = stages
        .iter()
        .map(|(weight, ms)| format!("{weight} ({})", roughly(*ms)))
        .collect();
    match named.as_slice() {
        [one] => format!("{one} takes days too; leave that stage out if you can"),
        _ => format!(
            "these stages take days too: {}; leave out those that you do not need",
            named.join(", ")
        ),
    }
}

fn never_proven(guard: GuardKind) -> String {
    let key = if guard.is_time() {
        "its max-ratio"
    } else {
        "its max-increase or max-ratio"
    };
    format!(
        "{} leaves too little room above legacy, so an equal canary is never proven healthy: \
         raise {key}, or switch the guard off",
        guard.as_str()
    )
}
