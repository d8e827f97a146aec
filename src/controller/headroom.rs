//! Does the canary's rate limit carry the next stage? A promotion that it does not carry waits.
//!
//! Pure. The share of a limit that is used grows with the weight: what the rollout itself uses at `w` is taken
//! times `w'/w` at `w'`; what others use of the same account stays. It holds promotions only; it never lowers a weight, and operators go past it. Not to know the
//! limits holds nothing.
#![deny(clippy::disallowed_methods)]

use std::fmt;

use crate::alert::kind::AlertKind;
use crate::arm::Weight;
use crate::controller::effect::DecisionKind;
use crate::controller::phase::Wait;
use crate::controller::policy::Policy;
use crate::controller::state::State;
use crate::controller::step::{Input, Turn, Why};
use crate::controller::words;

/// A promotion may take this much of a limit. The rest is for the swings of the traffic.
const MOST: f64 = 0.9;
/// Minutes without news that end a wait: a canary that speaks of no limits any more has none to wait for.
const SILENT_MIN: u32 = 5;

/// From this part on what is used is the rollout's alone, for people.
const OWN_ALL: f64 = 0.995;

/// How much of its rate limits the canary has used lately; `None` where that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Headroom {
    /// Of the limit of requests.
    pub requests: Option<Used>,
    /// Of the limit of tokens.
    pub tokens: Option<Used>,
    /// The part of what is used that grows with the rollout's weight, a fraction; `None` is taken for all.
    pub own: Option<f64>,
    /// The requests at the present weight were counted for long enough. Before that a wait does not end.
    pub is_counted: bool,
}

/// How much of one limit is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    /// The limit, in the provider's period.
    pub limit: u32,
    /// The highest share of it that was used in the last minutes; a fraction.
    pub share: f64,
}

impl Headroom {
    const fn is_known(&self) -> bool {
        self.requests.is_some() || self.tokens.is_some()
    }

    /// The limit that a raise would exceed, if one: the one that it would exceed most.
    fn lacks(&self, from: Weight, to: Weight) -> Option<Tight> {
        if from == Weight::ZERO {
            return None;
        }
        let own = self.own.unwrap_or(1.0);
        let growth = 1.0 + own * (to.fraction() / from.fraction() - 1.0);
        let tight = |(what, used): (&'static str, Option<Used>)| {
            let used = used?;
            let projected = used.share * growth;
            (projected > MOST).then_some(Tight {
                what,
                used,
                own,
                from,
                to,
                projected,
            })
        };
        let limits = [("request", self.requests), ("token", self.tokens)];
        let tight = limits.into_iter().filter_map(tight);
        tight.max_by(|a, b| a.projected.total_cmp(&b.projected))
    }
}

/// A limit that does not carry a raise.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tight {
    what: &'static str,
    used: Used,
    own: f64,
    from: Weight,
    to: Weight,
    projected: f64,
}

impl fmt::Display for Tight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the canary's {} limit of {} is {} used",
            self.what,
            self.used.limit,
            words::percent(self.used.share),
        )?;
        if self.own < OWN_ALL {
            write!(f, " ({} of that by this rollout)", words::percent(self.own))?;
        }
        write!(
            f,
            " at {}; {} would use {} (at most {})",
            self.from,
            self.to,
            words::percent(self.projected),
            words::percent(MOST)
        )
    }
}

/// What the next stage lacks; `None` if nothing, or if there is no next stage.
fn lacks(policy: &Policy, state: &State, headroom: Headroom) -> Option<Tight> {
    let mut weights = policy.stages.iter().map(|stage| stage.weight);
    let next = weights.find(|weight| *weight > state.weight)?;
    headroom.lacks(state.weight(), next)
}

/// Why a rollout with [`Wait::Headroom`] still waits.
pub(super) fn reason(policy: &Policy, state: &State, headroom: Headroom) -> String {
    let why = match lacks(policy, state, headroom) {
        Some(tight) => tight.to_string(),
        None if headroom.is_known() && !headroom.is_counted => {
            "the requests to the canary at this weight are being counted".to_owned()
        }
        None if headroom.is_known() => "the canary's rate limits carry the next stage".to_owned(),
        None => "no word of the canary's rate limits yet".to_owned(),
    };
    format!("{why}; goes on when there is room, or with `cutover promote`")
}

impl Turn<'_> {
    /// Promotes to a stage whose proof is there, unless the canary's limits do not carry it.
    pub(super) fn promote(&mut self, stage: usize, why: Why, input: &Input<'_>) {
        let waits = self.state.wait == Some(Wait::Headroom);
        match lacks(self.policy, &self.state, input.headroom) {
            Some(_) if waits => {}
            Some(tight) => {
                let reason = tight.to_string();
                self.alert(AlertKind::Headroom, reason.clone());
                self.decide(DecisionKind::Hold, Why::controller(reason), |state| {
                    state.wait = Some(Wait::Headroom);
                    state.stuck_minutes = 0;
                });
            }
            // After a restart nothing is known until the first answers, and little until the requests of some
            // minutes were counted: the wait goes on.
            None if waits && !(input.headroom.is_known() && input.headroom.is_counted) => {}
            None => {
                if let Some(raise) = self.raise_to_stage(DecisionKind::Promote, stage) {
                    self.propose(raise, why);
                }
            }
        }
    }

    /// Ends a wait for room without a promotion, when there is room and the proof has gone meanwhile.
    pub(super) fn judge_headroom(&mut self, input: &Input<'_>, minute_ended: bool) {
        if self.state.wait != Some(Wait::Headroom) || self.state.outstanding.is_some() {
            return;
        }
        // An operator's hold lies on top: nothing would resume.
        if self.state.hold.is_some() {
            return;
        }
        let is_known = input.headroom.is_known();
        let silent = &mut self.state.stuck_minutes;
        *silent = match is_known {
            true => 0,
            false => (*silent + u32::from(minute_ended)).min(SILENT_MIN),
        };
        let reason = if is_known {
            "the canary's rate limits carry the next stage again"
        } else {
            "the canary says nothing of its rate limits any more"
        };
        let is_silent = *silent >= SILENT_MIN;
        let is_counted = input.headroom.is_counted;
        let has_room =
            is_known && is_counted && lacks(self.policy, &self.state, input.headroom).is_none();
        if has_room || is_silent {
            let why = Why::controller(reason.to_owned());
            self.decide(DecisionKind::Resume, why, |state| {
                state.wait = None;
                state.stuck_minutes = 0;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(percent: &str) -> Weight {
        Weight::parse(percent).unwrap()
    }

    fn check(requests: Option<f64>, tokens: Option<f64>, from: &str, to: &str, expected: &str) {
        let used = |limit| move |share| Used { limit, share };
        let headroom = Headroom {
            requests: requests.map(used(500)),
            tokens: tokens.map(used(30_000)),
            own: None,
            is_counted: true,
        };
        let lacks = headroom.lacks(weight(from), weight(to));
        let said = lacks.map(|tight| tight.to_string()).unwrap_or_default();
        assert_eq!(said, expected, "{headroom:?}");
    }

    #[test]
    fn a_raise_is_carried_up_to_nine_tenths_of_each_limit() {
        check(None, None, "25%", "50%", "");
        check(Some(0.41), None, "25%", "50%", "");
        check(Some(0.45), Some(0.2), "25%", "50%", "");
        check(
            Some(0.46),
            Some(0.2),
            "25%",
            "50%",
            "the canary's request limit of 500 is 46% used at 25%; 50% would use 92% (at most 90%)",
        );
        check(
            Some(0.6),
            Some(0.8),
            "50%",
            "75%",
            "the canary's token limit of 30000 is 80% used at 50%; 75% would use 120% (at most 90%)",
        );
        check(Some(0.0), Some(0.0), "1%", "100%", "");
        // At 0% what is used is somebody else's, and nothing can be told from it.
        check(Some(1.0), Some(1.0), "0%", "1%", "");
    }

    #[test]
    fn only_the_rollouts_own_part_grows_with_its_weight() {
        let check = |own, expected: &str| {
            let headroom = Headroom {
                requests: Some(Used {
                    limit: 500,
                    share: 0.4,
                }),
                own,
                ..Headroom::default()
            };
            let lacks = headroom.lacks(weight("1%"), weight("5%"));
            let said = lacks.map(|tight| tight.to_string()).unwrap_or_default();
            assert_eq!(said, expected, "{own:?}");
        };
        let all =
            "the canary's request limit of 500 is 40% used at 1%; 5% would use 200% (at most 90%)";
        check(None, all);
        check(Some(1.0), all);
        check(Some(0.0), "");
        check(Some(0.1), "");
        check(
            Some(0.5),
            "the canary's request limit of 500 is 40% used (50% of that by this rollout) at 1%; 5% would use \
             120% (at most 90%)",
        );
    }
}
