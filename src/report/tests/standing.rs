//! Where a rollout stands, by its stored state or by its decisions.

use super::*;

const START: &str = "start 0% 5%";
const COMPLETE: [&str; 3] = ["start 0% 5%", "promote 5% 100%", "complete 100% 100%"];

/// Decisions as `kind from to [by] [reason]`.
fn input_of(told: &[&str]) -> Input {
    let decisions = (0i64..).zip(told).map(|(at, told)| {
        let mut words = told.splitn(5, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (kind, from, to) = (next(), next(), next());
        let by = next();
        let mut decision = decision(at, at, kind, from, to, next());
        if !by.is_empty() {
            decision.by = by.to_owned();
        }
        decision
    });
    let stages = ["5%", "50%", "100%"].map(|it| Weight::parse(it).unwrap());
    Input {
        stages: Some(stages.to_vec()),
        ..input(decisions.collect(), Vec::new())
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
fn decisions_tell_where_it_stood() {
    let check = |told: &[&str], state: &str, completed_minute: Option<i64>| {
        let report = Report::new(input_of(told));
        let completed = completed_minute.map(|minute| super::START.plus_millis(minute * MINUTE_MS));
        assert_eq!(
            (report.state, report.completed_at),
            (state, completed),
            "{told:?}"
        );
        assert!(!report.headline.is_empty());
    };
    let after = |first: &[&'static str], then: &[&'static str]| [first, then].concat();
    let complete = |then: &[&'static str]| after(&COMPLETE, then);
    let (hold, resume) = ("hold 5% 5% operator", "resume 5% 5% operator");
    check(&[], "warming-up", None);
    check(&["hold 0% 0% operator"], "held", None);
    check(
        &["hold 0% 0% operator", "resume 0% 0% operator"],
        "warming-up",
        None,
    );
    check(&[START], "running", None);
    check(&[START, hold], "held", None);
    check(&[START, hold, resume], "running", None);
    check(&[START, "hold 5% 5%"], "held", None);
    check(&[START, "hold 5% 5%", "resume 5% 5%"], "running", None);
    check(&[START, "roll-back 5% 1%"], "running", None);
    check(&[START, "roll-back 5% 0%"], "rolled-back", None);
    check(&[START, "stop 5% 0%"], "stopped", None);
    check(&[START, "a-later-kind 5% 5%"], "running", None);
    check(&complete(&[]), "complete", Some(2));
    check(&complete(&["trip 100% 0%"]), "tripped", None);
    check(
        &complete(&["trip 100% 0%", "resume 0% 100%"]),
        "complete",
        Some(2),
    );
    check(&complete(&["retreat 100% 50%"]), "retreated", None);
    check(
        &complete(&["retreat 100% 50%", "resume 50% 100%"]),
        "complete",
        Some(2),
    );
    check(
        &complete(&["config 100% 100% config dwell"]),
        "complete",
        Some(2),
    );
    let above = "config 50% 50% config stages 5% 50% -> 5% 50% 100%";
    let half = [START, "promote 5% 50%", "complete 50% 50%", above];
    check(&half, "running", None);
    check(
        &after(&half, &["promote 50% 100%", "complete 100% 100%"]),
        "complete",
        Some(5),
    );
    check(
        &[START, "retreat 5% 1%", "trip 1% 0%", "resume 0% 1%"],
        "retreated",
        None,
    );
    for still in [
        "config 5% 5% config dwell",
        "promote 5% 50% operator",
        "set-weight 5% 1% operator",
    ] {
        check(&[START, hold, still], "held", None);
    }
    check(&[START, hold, "resume 5% 5%"], "held", None);
    check(
        &[START, "trip 5% 0%", "hold 0% 0% operator"],
        "tripped",
        None,
    );
    check(
        &[
            START,
            "trip 5% 0%",
            "hold 0% 0% operator",
            "resume 0% 5% operator",
        ],
        "running",
        None,
    );
}

#[test]
fn the_stage_is_the_one_that_was_entered() {
    let check = |told: &[&str], stages: &[i64], expected: usize| {
        let mut input = input_of(told);
        for (decision, stage) in input.decisions.iter_mut().zip(stages) {
            decision.stage = *stage;
        }
        assert_eq!(Report::new(input).stage, Some(expected), "{told:?}");
    };
    check(&[START], &[0], 1);
    check(&[START, "promote 5% 50%"], &[0, 0], 2);
    check(
        &[START, "promote 5% 50%", "promote 50% 100%"],
        &[0, 0, 1],
        3,
    );
    check(&[START, "promote 5% 50%", "trip 50% 0%"], &[0, 0, 1], 2);
    check(
        &[START, "promote 5% 50%", "set-weight 50% 20%"],
        &[0, 0, 1],
        1,
    );
    check(&COMPLETE, &[0, 0, 2], 3);
}

#[test]
fn the_stored_state_has_the_last_word_unless_the_report_ends_before() {
    let stands = Stands {
        state: "held",
        stage: 1,
        weight: Weight::parse("50%").unwrap(),
    };
    let stored = Input {
        stands: Some(stands),
        ..input_of(&[START])
    };
    let report = Report::new(stored.clone());
    assert_eq!(
        (report.state, report.stage, report.weight),
        ("held", Some(2), 0.5)
    );
    let cut = Input {
        is_cut: true,
        ..stored
    };
    let report = Report::new(cut);
    assert_eq!(
        (report.state, report.stage, report.weight),
        ("running", Some(1), 0.05)
    );
}
