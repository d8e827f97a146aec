//! Which behaviour of the arms holds when, worked out once for all runs of a scenario.
//!
//! Pure. Chance is not in it: incidents, which every run draws for itself, are in `traffic`.
#![deny(clippy::disallowed_methods)]

use super::times::TimesTable;
use crate::arm::{Arm, PerArm};
use crate::config::scenario::{Change, Scenario};
use crate::controller::guard;
use crate::controller::policy::{GuardKind, GuardSpec, Policy};
use crate::sketch;

/// How long a harm of the past still explains a stop.
const EXPLAINS_MS: i64 = 3_600_000;

/// The course of a scenario.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    phases: Vec<Phase>,
    /// The first change that touches the canary, if there is one.
    canary_change_ms: Option<i64>,
}

/// A time in which nothing changes.
#[derive(Debug, Clone)]
pub(super) struct Phase {
    /// From here on, in milliseconds from the start.
    from_ms: i64,
    /// How the arms behave.
    pub(super) arms: PerArm<Current>,
    /// The canary breaks a limit of the policy.
    is_harmful: bool,
}

/// How an arm behaves for a while.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) error_rate: f64,
    pub(super) clusters: f64,
    pub(super) streamed: f64,
    pub(super) latency: TimesTable,
    pub(super) ttft: TimesTable,
}

impl Timeline {
    /// The course of `scenario`, with the limits of `policy` to tell harm by.
    pub(super) fn new(scenario: &Scenario, policy: &Policy) -> Self {
        let mut starts: Vec<i64> = scenario
            .changes
            .iter()
            .flat_map(|change| [change.at_ms, change.until_ms])
            .filter(|&at_ms| at_ms < scenario.duration_ms)
            .collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let phases = starts
            .into_iter()
            .map(|from_ms| {
                let arms = PerArm::from_fn(|arm| current(scenario, arm, from_ms));
                let is_harmful = policy.guards.iter().any(|guard| breaks(guard, &arms));
                Phase {
                    from_ms,
                    arms,
                    is_harmful,
                }
            })
            .collect();
        let touches = scenario.changes.iter().filter(|change| change.arms.canary);
        Self {
            phases,
            canary_change_ms: touches.map(|change| change.at_ms).min(),
        }
    }

    /// From when on stops are counted: the first change that touches the canary, else the start.
    pub(super) fn counted_from_ms(&self) -> i64 {
        self.canary_change_ms.unwrap_or(0)
    }

    /// The phase at a time, as its place; `from` is a place that is not later.
    pub(super) fn place_at(&self, at_ms: i64, from: usize) -> usize {
        let later = self.phases.iter().skip(from + 1);
        from + later.take_while(|phase| phase.from_ms <= at_ms).count()
    }

    /// The phase at a place.
    pub(super) fn phase(&self, place: usize) -> Option<&Phase> {
        self.phases.get(place)
    }

    /// When the phase at a place ends.
    pub(super) fn end_ms(&self, place: usize) -> i64 {
        self.phases
            .get(place + 1)
            .map_or(i64::MAX, |next| next.from_ms)
    }

    /// True if the canary broke a limit within the hour before `at_ms`.
    pub(super) fn explains_a_stop(&self, at_ms: i64) -> bool {
        self.phases.iter().enumerate().any(|(place, phase)| {
            let (from_ms, end_ms) = (phase.from_ms, self.end_ms(place));
            phase.is_harmful && from_ms <= at_ms && end_ms.saturating_add(EXPLAINS_MS) > at_ms
        })
    }
}

fn current(scenario: &Scenario, arm: Arm, at_ms: i64) -> Current {
    let behaviour = scenario.arms.get(arm);
    let holds = |change: &&Change| {
        *change.arms.get(arm) && change.at_ms <= at_ms && at_ms < change.until_ms
    };
    let (mut error_rate, mut latency, mut ttft) = (behaviour.error_rate, 1.0, 1.0);
    for change in scenario.changes.iter().filter(holds) {
        error_rate = change.error_rate.unwrap_or(error_rate);
        latency *= change.latency_factor;
        ttft *= change.ttft_factor;
    }
    Current {
        error_rate,
        clusters: behaviour.clusters,
        streamed: behaviour.streamed,
        latency: TimesTable::new(behaviour.latency, behaviour.slow_tail, latency),
        ttft: TimesTable::new(behaviour.ttft, None, ttft),
    }
}

/// True if the canary is in truth worse than a guard allows.
fn breaks(spec: &GuardSpec, arms: &PerArm<Current>) -> bool {
    let (legacy, canary) = (&arms.legacy, &arms.canary);
    let Some(q) = guard::quantile(spec.kind) else {
        if spec.kind != GuardKind::ErrorRate {
            return false;
        }
        let allowed = spec
            .relative
            .map(|margin| margin.ratio * legacy.error_rate + margin.increase);
        let beyond =
            |limit: Option<f64>| limit.is_some_and(|limit| canary.error_rate > limit + 1e-9);
        return beyond(allowed) || beyond(spec.ceiling);
    };
    if guard::is_ttft(spec.kind) && canary.streamed <= 0.0 {
        return false;
    }
    let table = |current: &'_ Current| -> TimesTable {
        if guard::is_ttft(spec.kind) {
            current.ttft.clone()
        } else {
            current.latency.clone()
        }
    };
    let (legacy, canary) = (table(legacy), table(canary));
    let edge = legacy.quantile_bucket(q);
    let slower = spec.relative.is_some_and(|margin| {
        let shifted = edge.saturating_add(sketch::buckets_spanned(margin.ratio));
        canary.above(shifted) > legacy.above(edge) + 1e-9
    });
    let over = spec
        .ceiling
        .is_some_and(|limit| canary.above(sketch::bucket_of(limit)) > 1.0 - q + 1e-9);
    slower || over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::default_policy;
    use crate::config::scenario::parse;

    fn timeline(text: &str) -> Timeline {
        Timeline::new(&parse(text).unwrap(), &default_policy())
    }

    #[test]
    fn changes_hold_for_their_time_and_on_their_arms() {
        let timeline = timeline(
            "[[change]]\nat = \"1h\"\nfor = \"1h\"\narm = \"both\"\nerror-rate = \"3%\"\n\
             [[change]]\nat = \"90m\"\nerror-rate = \"50%\"\n",
        );
        let rates = |hours: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "a few hours")]
            let place = timeline.place_at((hours * 3_600_000.0) as i64, 0);
            let arms = &timeline.phase(place).unwrap().arms;
            (arms.legacy.error_rate, arms.canary.error_rate)
        };
        assert_eq!(rates(0.5), (0.005, 0.005));
        assert_eq!(rates(1.0), (0.03, 0.03));
        assert_eq!(rates(1.5), (0.03, 0.5));
        assert_eq!(rates(2.0), (0.005, 0.5));
        assert_eq!(timeline.counted_from_ms(), 3_600_000);
    }

    #[test]
    fn only_a_canary_beyond_a_limit_explains_a_stop() {
        let cases = [
            ("", false),
            ("[canary]\nerror-rate = \"0.9%\"", false),
            ("[canary]\nerror-rate = \"1.1%\"", true),
            ("[[change]]\narm = \"both\"\nerror-rate = \"3%\"", false),
            ("[[change]]\nlatency-factor = 1.4", false),
            ("[[change]]\nlatency-factor = 1.6", true),
            ("[[change]]\narm = \"both\"\nlatency-factor = 3", false),
            ("[canary]\nslow-tail = { share = \"5%\", factor = 8 }", true),
            ("[[change]]\nttft-factor = 3", false),
            (
                "[canary]\nstreamed = \"50%\"\n[[change]]\nttft-factor = 3",
                true,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(timeline(text).explains_a_stop(5_000), expected, "{text}");
        }
        let past = timeline("[[change]]\nfor = \"1h\"\nerror-rate = \"50%\"");
        assert!(past.explains_a_stop(7_100_000) && !past.explains_a_stop(7_300_000));
    }
}
