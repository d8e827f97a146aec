//! A rollout driven as the daemon drives it, its cells and decisions taken down, and then replayed.

use std::collections::{BTreeSet, BinaryHeap};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::compare::{Line, courses, differs, lines};
use super::replay::Replayed;
use super::*;
use crate::arm::{Arm, PerArm, Weight};
use crate::clock::UnixMillis;
use crate::config::parse::default_policy;
use crate::controller::evidence::{Cell, Collector};
use crate::controller::headroom::Headroom;
use crate::controller::policy::{GuardKind, OnHarm, Policy, TripPolicy};
use crate::controller::split::Assigned;
use crate::controller::step::{Action, Command};
use crate::controller::{By, Decision, DecisionKind, Effect, Event, Input, State, step};
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};
use crate::store::{ProbeRow, StoredDecision};

mod world;

use world::{Errors, MINUTE_MS, Record, START, live, policy, weight};

/// The same rules decide the same, at the same time but for the length of a look.
fn check_same(record: &Record, policy: &Policy, minutes: i64, within_ms: i64) -> Replayed {
    let (recorded, replayed) = record.replay(policy, START.plus_millis(minutes * MINUTE_MS));
    for line in lines(&recorded, &replayed) {
        let Line::Both(taken, would) = line else {
            for it in &recorded.decisions {
                println!("recorded {} {} {}", it.at, it.kind, it.reason);
            }
            for it in &replayed.decisions {
                println!("replayed {} {} {}", it.at, it.kind, it.reason);
            }
            panic!("{line:#?}");
        };
        let shift_ms = would.at.millis_since(taken.at);
        assert!(
            shift_ms.abs() <= within_ms,
            "{shift_ms}: {taken:?} {would:?}"
        );
    }
    assert_eq!(replayed.refused, []);
    replayed
}

#[test]
fn the_same_rules_decide_the_same_over_a_whole_migration() {
    let policy = policy();
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let record = live(&policy, seed, 180, |_| 0.005, &[]);
        let expected = ["start", "promote", "promote", "promote", "complete"];
        assert_eq!(record.kinds(), expected);
        let replayed = check_same(&record, &policy, 180, 1_000);
        assert_eq!(replayed.recorded, replayed.replayed);
        assert_eq!(replayed.state.weight(), Weight::FULL);
    }
}

#[test]
fn trips_probes_rollbacks_and_retries_are_decided_again() {
    let mut policy = policy();
    policy.max_attempts = 2;
    // With a holdback of legacy, cells are a second long; at 100% a minute hides what came when.
    policy.stages[3].weight = weight("90%");
    policy.retreat = None;
    let errors: Errors = |minute| match minute {
        14..16 => 1.0,
        30..60 => 0.08,
        _ => 0.005,
    };
    let mut seen = BTreeSet::new();
    for seed in [4, 5, 6] {
        println!("seed {seed}");
        let record = live(&policy, seed, 90, errors, &[]);
        let kinds = record.kinds();
        println!("{kinds:?}");
        seen.extend(kinds.into_iter().map(str::to_owned));
        check_same(&record, &policy, 90, 2_500);
    }
    for kind in ["trip", "probe-failed", "resume", "roll-back", "retry"] {
        assert!(seen.contains(kind), "no {kind} in {seen:?}");
    }
}

#[test]
fn what_operators_did_is_done_again() {
    let policy = policy();
    let commands = [
        (3, Action::SetWeight(weight("10%"))),
        (6, Action::Hold),
        (20, Action::Resume),
        (22, Action::Promote),
        (24, Action::Rollback),
        (26, Action::Retry),
        (29, Action::SetWeight(weight("1%"))),
    ];
    let record = live(&policy, 7, 40, |_| 0.005, &commands);
    let by_operator = record.decisions.iter().filter(|it| it.by == "operator");
    assert_eq!(by_operator.count(), commands.len());
    check_same(&record, &policy, 40, 1_000);
}

/// Begun in the middle, a replay is held, rolled back or at 0% as the record was.
#[test]
fn what_operators_had_asked_for_is_in_force_from_the_beginning() {
    let policy = policy();
    let asked = [
        Action::Hold,
        Action::Rollback,
        Action::SetWeight(Weight::ZERO),
    ];
    for action in asked {
        let commands = [(3, Action::SetWeight(weight("10%"))), (6, action)];
        let record = live(&policy, 7, 40, |_| 0.005, &commands);
        let at = |minute: i64| START.plus_millis(minute * MINUTE_MS);
        let (recorded, replayed) = record.replay_from(&policy, at(10), at(40));
        assert_eq!(replayed.decisions, [], "{action:?}");
        assert_eq!(replayed.refused, []);
        assert_eq!(
            replayed.state.weight(),
            recorded.weight_at(at(40)),
            "{action:?}"
        );
    }
}

#[test]
fn a_replay_that_would_begin_in_a_trip_begins_behind_it() {
    let policy = policy();
    let errors: Errors = |minute| if minute == 14 { 1.0 } else { 0.005 };
    let record = live(&policy, 8, 45, errors, &[]);
    let recorded = Recorded::new(&record.decisions, &[]);
    let of = |kind| {
        recorded
            .decisions
            .iter()
            .find(|it| it.kind == kind)
            .unwrap()
    };
    let (trip, resume) = (of(DecisionKind::Trip), of(DecisionKind::Resume));
    assert!(recorded.postponed(trip.at).is_none(), "not yet");
    let found = recorded.postponed(trip.at.plus_millis(1_000)).unwrap();
    assert_eq!(
        (found.stop.id, found.until),
        (trip.id, Some(resume.at.plus_millis(1)))
    );
    assert!(
        recorded.postponed(resume.at.plus_millis(1)).is_none(),
        "over"
    );
}

#[test]
fn only_changed_rules_are_counted_as_such() {
    let mut record = Record::default();
    let policy = policy();
    let reasons = [
        "another canary: a new rollout begins",
        "the canary's access changed: evidence starts afresh",
        "stages 5% -> 5% 50%",
        "the stages changed; the next one is 50%",
        "trip off -> 1m 3/day · the canary's access changed: evidence starts afresh",
    ];
    let mut daemon = live(&policy, 1, 10, |_| 0.005, &[]);
    let start = daemon.decisions.remove(0);
    record
        .decisions
        .extend(reasons.map(|reason| StoredDecision {
            kind: "config".to_owned(),
            by: "config".to_owned(),
            reason: reason.to_owned(),
            ..start.clone()
        }));
    assert_eq!(Recorded::new(&record.decisions, &[]).config_changes(), 2);
}

#[test]
fn probes_whose_rows_were_not_kept_are_told_by_the_decisions() {
    let policy = policy();
    let errors: Errors = |minute| if minute == 14 { 1.0 } else { 0.005 };
    let mut record = live(&policy, 8, 45, errors, &[]);
    assert!(record.kinds().contains(&"trip"));
    record.probes.clear();
    check_same(&record, &policy, 45, 5_000);
}

#[test]
fn stricter_rules_stop_what_was_let_pass_and_longer_dwells_come_later() {
    let recorded_policy = policy();
    // A canary with three times legacy's failures, which a wide margin lets pass.
    let record = live(&recorded_policy, 9, 180, |_| 0.015, &[]);
    assert_eq!(record.kinds().last(), Some(&"complete"));
    let mut strict = recorded_policy.clone();
    for guard in &mut strict.guards {
        if let Some(margin) = guard.relative.as_mut() {
            margin.increase = 0.0;
        }
    }
    strict.on_harm = OnHarm::RollBack;
    strict.max_attempts = 1;
    let to = START.plus_millis(180 * MINUTE_MS);
    let (recorded, replayed) = record.replay(&strict, to);
    let [was, would] = courses(&recorded, &replayed);
    assert_eq!(was.rollbacks, 0);
    assert!(would.rollbacks >= 1, "{:#?}", replayed.decisions);
    assert_eq!(replayed.state.weight(), Weight::ZERO);
    assert_eq!(would.completed_at, None);
    assert!(replayed.replayed.failed < replayed.recorded.failed / 2.0);
    let differ = differs(&recorded, &replayed);
    assert!(differ.from.unwrap() > START && differ.for_ms > 10 * MINUTE_MS);

    let mut slow = recorded_policy;
    slow.stages[0].dwell_ms = 20 * MINUTE_MS;
    let (recorded, replayed) = record.replay(&slow, to);
    let later = lines(&recorded, &replayed)
        .into_iter()
        .find_map(|line| match line {
            Line::Both(taken, would) if taken.kind == DecisionKind::Promote => {
                Some(would.at.millis_since(taken.at))
            }
            _ => None,
        });
    assert!(later.unwrap() > 10 * MINUTE_MS, "{later:?}");
}

#[test]
fn a_replay_that_is_tripped_longer_is_probed_by_the_traffic_of_that_time() {
    let policy = policy();
    let errors: Errors = |minute| if minute == 14 { 1.0 } else { 0.005 };
    let record = live(&policy, 10, 45, errors, &[]);
    let mut patient = policy.clone();
    patient.trip = Some(TripPolicy {
        cooldown_ms: 8 * MINUTE_MS,
        max_per_day: 3,
    });
    let (recorded, replayed) = record.replay(&patient, START.plus_millis(45 * MINUTE_MS));
    let resume = DecisionKind::Resume;
    let was = recorded.decisions.iter().find(|it| it.kind == resume);
    let would = replayed.decisions.iter().find(|it| it.kind == resume);
    let (was, would) = (was.unwrap().at, would.unwrap().at);
    let later_ms = would.millis_since(was);
    assert!(
        (6 * MINUTE_MS..9 * MINUTE_MS).contains(&later_ms),
        "{later_ms}"
    );
    assert!(replayed.replayed.requests < replayed.recorded.requests);
}

/// What retention makes of cells: one for each minute, weight and configuration.
fn merged(cells: &[Cell]) -> Vec<Cell> {
    let mut merged: Vec<Cell> = Vec::new();
    for cell in cells {
        let minute = |cell: &Cell| cell.opened_at.0.div_euclid(MINUTE_MS);
        let same = merged
            .iter_mut()
            .find(|it| minute(it) == minute(cell) && it.weight == cell.weight);
        match same {
            Some(into) => {
                into.closed_at = into.closed_at.max(cell.closed_at);
                into.opened_at = into.opened_at.min(cell.opened_at);
                into.arms.legacy.merge(&cell.arms.legacy);
                into.arms.canary.merge(&cell.arms.canary);
            }
            None => merged.push(cell.clone()),
        }
    }
    merged.sort_by_key(|cell| cell.closed_at);
    merged
}

#[test]
fn cells_that_were_merged_to_minutes_tell_the_same_story_more_coarsely() {
    let policy = policy();
    let errors: Errors = |minute| if minute == 14 { 1.0 } else { 0.005 };
    let mut record = live(&policy, 11, 60, errors, &[]);
    let fine = record.cells.len();
    record.cells = merged(&record.cells);
    assert!(
        record.cells.len() * 10 < fine,
        "{} of {fine}",
        record.cells.len()
    );
    check_same(&record, &policy, 60, 2 * MINUTE_MS);
}

#[test]
fn parts_of_a_cell_add_up_to_it() {
    let policy = policy();
    let record = live(&policy, 12, 8, |_| 0.3, &[]);
    for cell in &record.cells {
        let length_ms = cell.closed_at.millis_since(cell.opened_at);
        for at_ms in [0, length_ms / 3, length_ms] {
            let at = cell.opened_at.plus_millis(at_ms);
            let parts = vec![cut::until(cell, at), cut::from(cell, at)];
            let told = cut::Burst::of_words("errors 3/4 in 0.8s: 3x connect");
            assert_eq!(told.unwrap().span_ms, 800);
            let burst = [None, told].map(|told| cut::at_burst(cell.clone(), told));
            for parts in burst.into_iter().chain([parts]) {
                let mut sum = Cell::open(cell.opened_at, cell.weight, 0);
                for part in parts {
                    assert!(part.arms.canary.errors <= part.arms.canary.requests);
                    sum.arms.legacy.merge(&part.arms.legacy);
                    sum.arms.canary.merge(&part.arms.canary);
                }
                for (sum, whole) in [
                    (&sum.arms.legacy, &cell.arms.legacy),
                    (&sum.arms.canary, &cell.arms.canary),
                ] {
                    assert_eq!((sum.requests, sum.errors), (whole.requests, whole.errors));
                    assert!((sum.latency.count() - whole.latency.count()).abs() < 1e-9);
                }
            }
        }
    }
}

#[test]
fn decisions_are_paired_in_order_with_the_least_shift() {
    let decision = |at: i64, kind: DecisionKind, to: &str| Decision {
        kind,
        at: UnixMillis(at),
        weight_from: weight(to),
        weight_to: weight(to),
        stage: 0,
        stages_total: 1,
        by: By::Controller,
        reason: String::new(),
        evidence: crate::controller::DecisionEvidence::default(),
    };
    let mut record = Record::default();
    let (hold, resume, trip) = (DecisionKind::Hold, DecisionKind::Resume, DecisionKind::Trip);
    for (at, kind, to) in [
        (10, hold, "5%"),
        (20, resume, "5%"),
        (30, hold, "5%"),
        (40, trip, "0%"),
    ] {
        record.note(&decision(at, kind, to));
    }
    let recorded = Recorded::new(&record.decisions, &[]);
    let held_at_25 = Decision {
        weight_from: weight("25%"),
        ..decision(29, hold, "25%")
    };
    let would = vec![held_at_25, decision(35, resume, "5%")];
    let replayed = Replayed {
        from: UnixMillis(0),
        to: UnixMillis(100),
        decisions: would,
        refused: Vec::new(),
        recorded: replay::Exposure::default(),
        replayed: replay::Exposure::default(),
        cells: 0,
        state: State::new(&policy(), String::new(), START),
    };
    let told: Vec<String> = lines(&recorded, &replayed)
        .iter()
        .map(|line| match line {
            Line::Both(taken, would) => format!("{}={}", taken.at.0, would.at.0),
            Line::Recorded(taken) => format!("{}-", taken.at.0),
            Line::Replayed(would) => format!("{}+", would.at.0),
        })
        .collect();
    // Hold and resume are two pairs; the hold at 30 alone would be only one.
    // A hold at another weight is a hold all the same.
    assert_eq!(told, ["10=29", "20=35", "30-", "40-"]);
}
