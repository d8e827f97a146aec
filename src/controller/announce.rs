//! Low traffic is said when a stage begins, not found out after a week.
//!
//! Pure. Once per entry into a stage the expected time of its proof is worked out from the measured rate;
//! if that is days, one alert says so and the status page goes on saying it. It changes no decision. What
//! was judged is part of the state, so that a restart does not say it again.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::controller::phase::Phase;
use crate::controller::plan::{
    Better, Proof, StagePlan, Traffic, better_weight, plan_stage, rate_words, roughly,
};
use crate::controller::policy::{GuardKind, Policy};
use crate::controller::state::State;
use crate::controller::step::{Input, Turn};

const DAY_S: f64 = 86_400.0;

/// What was said about the stage that the rollout stands on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Announced {
    /// Attempt, stage and weight of the entry that was judged.
    entry: Option<(u32, usize, Weight)>,
    slow: Option<Slow>,
}

/// A stage whose proof takes days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Slow {
    /// The rate, both arms together. Whole numbers read back to the same bits.
    requests_per_day: u32,
    /// Expected seconds of the proof.
    seconds: u32,
    /// A weight that takes less, with its seconds.
    better: Option<(Weight, u32)>,
}

impl Slow {
    fn rate(&self) -> String {
        rate_words(f64::from(self.requests_per_day) / DAY_S)
    }

    fn time(&self) -> String {
        time(self.seconds)
    }
}

fn time(seconds: u32) -> String {
    roughly(f64::from(seconds) * 1_000.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` stops at the ends"
)]
fn whole(number: f64) -> u32 {
    number.round() as u32
}

impl State {
    fn stage_entry(&self) -> (u32, usize, Weight) {
        (self.attempt, self.stage, self.weight)
    }

    /// What was said about this stage, if it is slow: `low traffic: this stage takes about 18d at 10/min;
    /// 15% takes about 1d 5h`.
    pub(super) fn low_traffic(&self) -> Option<String> {
        let slow = self.announced.slow.as_ref()?;
        if self.announced.entry != Some(self.stage_entry()) {
            return None;
        }
        let mut text = format!(
            "low traffic: this stage takes about {} at {}",
            slow.time(),
            slow.rate()
        );
        if let Some((weight, seconds)) = slow.better {
            text.push_str(&format!("; {weight} takes about {}", time(seconds)));
        }
        Some(text)
    }

    /// The traffic as it was measured.
    fn traffic(&self, requests_per_s: f64) -> Traffic {
        let errors = self
            .tracks
            .iter()
            .find(|track| track.rule.kind == GuardKind::ErrorRate);
        Traffic {
            requests_per_s,
            legacy_error_rate: errors.map_or(0.005, |track| track.legacy_rate()),
            streamed: Some(self.reference.streamed_share()),
            phi: errors.map_or(1.0, |track| track.phi()),
        }
    }
}

impl Turn<'_> {
    /// Judges the stage once after it was entered, as soon as the rate is known.
    pub(super) fn announce(&mut self, input: &Input<'_>) {
        let entry = self.state.stage_entry();
        let judged = self.state.announced.entry == Some(entry);
        if judged || self.state.phase != Phase::Running || self.state.weight == Weight::ZERO {
            return;
        }
        if input.requests_per_s <= 0.0 {
            return;
        }
        let traffic = self.state.traffic(input.requests_per_s);
        let slow = judge(self.policy, &self.state, &traffic);
        if let Some(slow) = &slow {
            self.alert(AlertKind::LowTraffic, self.sentence(slow));
        }
        self.state.announced = Announced {
            entry: Some(entry),
            slow,
        };
    }

    /// `stage 1/7 at 1% takes about 18d at 10/min: ...`
    fn sentence(&self, slow: &Slow) -> String {
        let mut text = format!(
            "stage {}/{} at {} takes about {} for its proof at {}",
            self.state.stage + 1,
            self.policy.stages.len(),
            self.state.weight,
            slow.time(),
            slow.rate()
        );
        text.push_str(&match slow.better {
            Some((weight, seconds)) if self.state.stage == 0 => format!(
                "; a better first weight is {weight}, which takes about {}: \
                 change `stages`, or `cutover set-weight {weight}`",
                time(seconds)
            ),
            Some((weight, seconds)) => format!(
                "; {weight} takes about {}: change `stages`, or `cutover set-weight {weight}`",
                time(seconds)
            ),
            None => "; no higher weight is much faster; `cutover promote` goes on without proof"
                .to_owned(),
        });
        text
    }
}

/// How slow the stage is, if it is. Its weight may be an operator's, so the stage is taken at that weight.
fn judge(policy: &Policy, state: &State, traffic: &Traffic) -> Option<Slow> {
    let mut at_weight = policy.clone();
    at_weight.stages.get_mut(state.stage)?.weight = state.weight;
    let stage = plan_stage(&at_weight, state.stage, traffic).filter(StagePlan::is_slow)?;
    let Proof::Takes { ms, .. } = stage.proof else {
        return None;
    };
    let better = better_weight(policy, traffic, state.weight, ms.usual);
    Some(Slow {
        requests_per_day: whole(traffic.requests_per_s * DAY_S),
        seconds: whole(ms.usual / 1_000.0),
        better: better.map(|Better { weight, ms }| (weight, whole(ms / 1_000.0))),
    })
}
