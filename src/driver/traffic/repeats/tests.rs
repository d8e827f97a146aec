use super::*;
use crate::arm::{Arm, Weight};
use crate::sample::Role;

/// An attempt with `body` that began at `at_ms` and took 10 ms.
fn sample(at_ms: i64, body: u64, arm: Arm, outcome: Outcome) -> Sample {
    Sample {
        started_at: UnixMillis(at_ms),
        rollout: Some(0),
        config_epoch: 0,
        arm,
        assigned: arm,
        weight: Weight::FULL,
        stage: 0,
        role: Role::Live,
        attempt: 1,
        outcome,
        status: 0,
        latency_us: 10_000,
        ttft_us: None,
        streamed: false,
        complete: false,
        conn_reused: true,
        client_retry: false,
        dialect: Some(crate::llm::Dialect::OpenAiChat),
        model: None,
        usage: None,
        upstream_request_id: None,
        key_hash: 0,
        body_hash: body,
        reported_cost_usd: None,
        tag: None,
        first_role: Role::Live,
    }
}

const POISON: u64 = 7;
const OTHER: u64 = 8;
use Arm::{Canary, Legacy};
use Outcome::{Ok as Good, ServerError as Bad};

/// Feeds attempts and tells which of them were repeats.
fn repeats(attempts: &[Sample]) -> Vec<bool> {
    let mut repeats = Repeats::default();
    attempts
        .iter()
        .map(|sample| repeats.record(sample))
        .collect()
}

#[test]
fn a_body_that_fails_again_while_its_arm_answers_others_is_a_repeat() {
    let attempts = [
        sample(0, POISON, Canary, Bad),
        sample(100, OTHER, Canary, Good),
        sample(200, POISON, Canary, Bad),
        sample(59_000, POISON, Canary, Outcome::RateLimited),
        // Each failure makes the row longer; what comes more than a minute later is no repeat.
        sample(118_000, POISON, Canary, Outcome::Quota),
        sample(179_000, POISON, Canary, Bad),
    ];
    let expected = [false, false, true, true, true, false];
    assert_eq!(repeats(&attempts), expected);
}

#[test]
fn it_does_not_matter_how_the_repeat_itself_comes_out() {
    for outcome in Outcome::ALL {
        let attempts = [
            sample(0, POISON, Canary, Bad),
            sample(100, OTHER, Canary, Good),
            sample(200, POISON, Canary, outcome),
        ];
        let expected = [false, false, outcome.is_evidence()];
        assert_eq!(repeats(&attempts), expected, "{outcome}");
    }
}

#[test]
fn the_failure_may_have_been_the_other_arms() {
    let attempts = [
        sample(0, POISON, Legacy, Bad),
        sample(100, OTHER, Canary, Good),
        sample(200, POISON, Canary, Bad),
        sample(300, POISON, Legacy, Bad),
    ];
    // Legacy has answered nothing since.
    assert_eq!(repeats(&attempts), [false, false, true, false]);
}

#[test]
fn a_body_that_was_answered_within_the_hour_is_common_traffic() {
    for (answered_by, role) in [
        (Canary, Role::Live),
        (Legacy, Role::Rescue),
        (Canary, Role::Probe),
    ] {
        let answered = Sample {
            role,
            ..sample(0, POISON, answered_by, Good)
        };
        let mut attempts = vec![answered];
        for second in 1..3_700 {
            attempts.push(sample(second * 1_000, POISON, Canary, Bad));
            attempts.push(sample(second * 1_000 + 500, OTHER, Canary, Good));
        }
        let found = repeats(&attempts);
        let first = found.iter().position(|is_repeat| *is_repeat).unwrap();
        assert!((7_199..7_205).contains(&first), "{first}");
    }
}

#[test]
fn what_began_before_the_failure_was_known_is_no_repeat() {
    let attempts = [
        sample(0, POISON, Canary, Bad),
        sample(20, OTHER, Canary, Good),
        sample(5, POISON, Canary, Bad),
    ];
    assert_eq!(repeats(&attempts), [false; 3]);
}

#[test]
fn an_answer_to_a_request_from_before_the_failure_proves_nothing() {
    let mut slow = sample(0, OTHER, Canary, Good);
    slow.latency_us = 500_000;
    let attempts = [
        sample(100, POISON, Canary, Bad),
        slow,
        sample(600, POISON, Canary, Bad),
    ];
    assert_eq!(repeats(&attempts), [false; 3]);
}

#[test]
fn refusals_and_clients_that_leave_make_no_repeats() {
    for outcome in [
        Outcome::ClientError,
        Outcome::ClientGone,
        Outcome::Parity,
        Outcome::Internal,
    ] {
        let attempts = [
            sample(0, POISON, Canary, outcome),
            sample(100, OTHER, Canary, Good),
            sample(200, POISON, Canary, Bad),
        ];
        assert_eq!(repeats(&attempts), [false; 3], "{outcome}");
    }
}

#[test]
fn bodies_that_were_not_read_are_never_repeats() {
    let attempts = [
        sample(0, 0, Canary, Bad),
        sample(100, 0, Canary, Good),
        sample(200, 0, Canary, Bad),
    ];
    assert_eq!(repeats(&attempts), [false; 3]);
}

#[test]
fn memory_stays_bounded_in_a_flood() {
    let mut repeats = Repeats::default();
    for body in 1..400_000u64 {
        let outcome = if body % 2 == 0 { Good } else { Bad };
        repeats.record(&sample(1_000_000, body, Canary, outcome));
    }
    for map in [&repeats.answered.young, &repeats.answered.old] {
        assert!(map.len() <= BODIES_MAX);
    }
    assert!(repeats.failed.young.len() <= BODIES_MAX && repeats.failed.old.len() <= BODIES_MAX);
}
