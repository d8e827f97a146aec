//! What a person can order from the screen, and what will come of it, said before it is sent.
//!
//! Pure. What an order leads to is worked out here only to be shown; the daemon alone decides.
#![deny(clippy::disallowed_methods)]

use http::Method;
use serde_json::{Value, json};

use crate::arm::Weight;
use crate::cli::fields::{array, count, encoded, float_at, percent, word};

/// What can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The weight does not rise.
    Hold,
    /// The end of a hold or a trip.
    Resume,
    /// The next stage now.
    Promote,
    /// Everything back to legacy.
    RollBack,
    /// A new attempt.
    Retry,
    /// A share chosen by hand.
    SetWeight,
}

impl Action {
    /// All of them, with their keys, in the order in which they are shown.
    pub(super) const KEYS: [(char, Self); 6] = [
        ('h', Self::Hold),
        ('r', Self::Resume),
        ('p', Self::Promote),
        ('b', Self::RollBack),
        ('t', Self::Retry),
        ('w', Self::SetWeight),
    ];

    /// Its name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::RollBack => "roll back",
            Self::Retry => "retry",
            Self::SetWeight => "set weight",
        }
    }

    /// The last part of its path.
    const fn path(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::RollBack => "rollback",
            Self::Retry => "retry",
            Self::SetWeight => "weight",
        }
    }

    /// Whether it can send more to the canary, so that it has to fit what is true when it is confirmed.
    pub(super) const fn may_raise(self) -> bool {
        !matches!(self, Self::Hold | Self::RollBack)
    }
}

/// An order that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// What to do.
    pub(super) action: Action,
    /// With which rollout.
    pub(super) rollout: String,
    /// The share, for [`Action::SetWeight`].
    pub(super) weight: Option<Weight>,
    /// Why; may be empty.
    pub(super) reason: String,
}

impl Order {
    /// The request to the admin API.
    pub(super) fn request(&self) -> (Method, String, Value) {
        let path = format!(
            "/api/v1/rollouts/{}/{}",
            encoded(&self.rollout),
            self.action.path()
        );
        match self.weight {
            Some(weight) => {
                let body = json!({ "reason": self.reason, "weight": weight.to_string() });
                (Method::PUT, path, body)
            }
            None => (Method::POST, path, json!({ "reason": self.reason })),
        }
    }
}

/// What an order would do now, in one sentence.
pub(super) fn outcome(action: Action, rollout: &Value, weight: Option<Weight>) -> String {
    let state = word(rollout, "/state");
    let from = float_at(rollout, "/weight").unwrap_or(0.0);
    let stood = float_at(rollout, "/stage/weight").unwrap_or(from);
    let stages = array(rollout, "/stages").iter().filter_map(Value::as_f64);
    let first = stages.clone().next();
    let above = stages.clone().find(|stage| *stage > stood);
    let is_idle = matches!(state, "warming-up" | "rolled-back" | "stopped");
    let moves = |to: Option<f64>, how: &str| {
        let to = to.map_or("the stage".to_owned(), percent);
        format!("{} -> {to}: {how}", percent(from))
    };
    match action {
        Action::Hold => format!(
            "the weight stays at {} and does not rise until `resume`; a trip or a rollback acts all the same",
            percent(from)
        ),
        Action::RollBack => moves(
            Some(0.0),
            "everything back to legacy within a second, until `retry`; requests under way finish",
        ),
        Action::Resume if state == "tripped" => moves(
            Some(stood),
            "back to where it stood, without waiting for probes",
        ),
        Action::Resume if lifts_a_hold(rollout) => format!(
            "lifts the hold: the weight stays at {} and may rise again by proof",
            percent(from)
        ),
        Action::Resume if state == "retreated" => moves(
            Some(stood),
            "back to where it stood, without waiting for proof",
        ),
        Action::Resume | Action::Promote if is_idle => {
            moves(first, "begins with the first stage now")
        }
        Action::Resume => "there is nothing to resume: it is neither held nor tripped".to_owned(),
        Action::Promote if state == "retreated" => moves(
            Some(stood),
            "back to where it stood, without waiting for proof",
        ),
        Action::Promote => match above {
            Some(_) => moves(above, "the next stage now, without waiting for proof"),
            None if state == "complete" => "it is complete: there is no stage above".to_owned(),
            None if state == "tripped" => moves(Some(stood), "back to where it stood"),
            None => "completes now, without waiting for the end of the dwell".to_owned(),
        },
        Action::Retry if matches!(state, "rolled-back" | "stopped") => {
            let attempt = count(rollout, "/attempt") + 1;
            moves(
                first,
                &format!("attempt {attempt} begins with the first stage"),
            )
        }
        Action::Retry => "there is nothing to retry: it is not rolled back".to_owned(),
        Action::SetWeight => match weight {
            Some(weight) => moves(
                Some(weight.fraction()),
                "at once; the rollout goes on from there (hold it to stay there)",
            ),
            None => format!(
                "it is {} now; type the share that you want, like 25%",
                percent(from)
            ),
        },
    }
}

/// Whether `resume` ends a hold and does nothing else. Only some states give way to the word `held`; under
/// the others the reason tells it.
pub(super) fn lifts_a_hold(rollout: &Value) -> bool {
    let reason = word(rollout, "/reason");
    match word(rollout, "/state") {
        "held" => true,
        "retreated" => !reason.starts_with("retreated to"),
        _ => reason.starts_with("held by an operator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(state: &str, weight: f64, stood: f64) -> Value {
        json!({
            "state": state, "weight": weight, "attempt": 1, "stages": [0.01, 0.25, 0.5, 1.0],
            "stage": {"weight": stood}, "reason": format!("{state} to find out"),
        })
    }

    #[test]
    fn what_will_happen_is_said_with_both_weights() {
        use Action::{Hold, Promote, Resume, Retry, RollBack, SetWeight};
        let cases = [
            (
                Hold,
                rollout("running", 0.25, 0.25),
                "the weight stays at 25%",
            ),
            (RollBack, rollout("running", 0.25, 0.25), "25% -> 0%:"),
            (
                Promote,
                rollout("running", 0.25, 0.25),
                "25% -> 50%: the next stage",
            ),
            (
                Promote,
                rollout("held", 0.3, 0.3),
                "30% -> 50%: the next stage",
            ),
            (Promote, rollout("running", 1.0, 1.0), "completes now"),
            (Promote, rollout("complete", 1.0, 1.0), "it is complete"),
            (Promote, rollout("warming-up", 0.0, 0.0), "0% -> 1%: begins"),
            (
                Promote,
                rollout("rolled-back", 0.0, 0.5),
                "0% -> 1%: begins",
            ),
            (
                Promote,
                rollout("tripped", 0.0, 0.5),
                "0% -> 100%: the next stage",
            ),
            (Promote, rollout("retreated", 0.5, 1.0), "50% -> 100%: back"),
            (Resume, rollout("tripped", 0.0, 0.5), "0% -> 50%: back"),
            (Resume, rollout("retreated", 0.5, 1.0), "50% -> 100%: back"),
            (Resume, rollout("held", 0.25, 0.25), "lifts the hold"),
            (
                Resume,
                rollout("running", 0.25, 0.25),
                "there is nothing to resume",
            ),
            (
                Retry,
                rollout("rolled-back", 0.0, 0.5),
                "0% -> 1%: attempt 2",
            ),
            (
                Retry,
                rollout("running", 0.25, 0.25),
                "there is nothing to retry",
            ),
            (SetWeight, rollout("running", 0.25, 0.25), "it is 25% now"),
        ];
        for (action, rollout, expected) in cases {
            let found = outcome(action, &rollout, None);
            assert!(found.starts_with(expected), "{action:?} {rollout}: {found}");
        }
        let found = outcome(
            SetWeight,
            &rollout("running", 0.25, 0.25),
            Weight::from_bps(400),
        );
        assert!(found.starts_with("25% -> 4%: at once"), "{found}");
    }

    #[test]
    fn what_is_held_is_not_said_to_rise() {
        for (state, weight, stood, expected) in [
            // A raise takes a second `resume`.
            (
                "retreated",
                0.5,
                1.0,
                "lifts the hold: the weight stays at 50%",
            ),
            ("rolled-back", 0.0, 0.5, "lifts the hold"),
            // Whatever holds it besides.
            ("tripped", 0.0, 0.5, "0% -> 50%: back"),
        ] {
            let mut held = rollout(state, weight, stood);
            held["reason"] = json!("held by an operator: lunch");
            let found = outcome(Action::Resume, &held, None);
            assert!(found.starts_with(expected), "{state}: {found}");
        }
    }

    #[test]
    fn orders_are_requests_of_the_admin_api() {
        let order = |action, weight| Order {
            action,
            rollout: "search".to_owned(),
            weight,
            reason: "why".to_owned(),
        };
        assert_eq!(
            order(Action::RollBack, None).request(),
            (
                Method::POST,
                "/api/v1/rollouts/search/rollback".to_owned(),
                json!({"reason": "why"})
            )
        );
        assert_eq!(
            order(Action::SetWeight, Weight::from_bps(2_500)).request(),
            (
                Method::PUT,
                "/api/v1/rollouts/search/weight".to_owned(),
                json!({"reason": "why", "weight": "25%"})
            )
        );
    }
}
