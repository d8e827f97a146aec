use std::cell::Cell;

use proptest::prelude::*;

use super::*;

fn fail(breaker: &Breaker, times: u8, now_ms: u64) {
    for _ in 0..times {
        breaker.ended(false, Outcome::Connect, || now_ms);
    }
}

fn opened(now_ms: u64) -> Breaker {
    let breaker = Breaker::default();
    fail(&breaker, OPENS_AFTER, now_ms);
    breaker
}

#[test]
fn it_opens_after_twenty_failures_in_a_row_and_says_how_they_came_out() {
    let breaker = Breaker::default();
    fail(&breaker, 19, 0);
    assert_eq!(breaker.admit(|| 0), Admission::Dial);
    breaker.ended(false, Outcome::TimeoutFirstByte, || 50);
    let away = Admission::TurnedAway(Outcome::TimeoutFirstByte);
    assert_eq!(breaker.admit(|| 1_049), away);
    assert_eq!(
        (breaker.phase(1_049), breaker.is_closed()),
        (Phase::Open, false)
    );
    assert_eq!(breaker.phase(1_050), Phase::HalfOpen);
}

#[test]
fn one_answer_among_the_failures_begins_the_count_anew() {
    for answer in [
        Outcome::Ok,
        Outcome::ServerError,
        Outcome::RateLimited,
        Outcome::SoftError,
    ] {
        let breaker = Breaker::default();
        fail(&breaker, 19, 0);
        breaker.ended(false, answer, || 0);
        fail(&breaker, 19, 0);
        assert!(breaker.is_closed(), "{answer}");
    }
}

#[test]
fn what_says_nothing_about_reaching_the_arm_neither_counts_nor_ends_a_row() {
    for neither in [
        Outcome::ClientGone,
        Outcome::OverLimit,
        Outcome::Internal,
        Outcome::Reset,
    ] {
        let breaker = Breaker::default();
        for _ in 0..100 {
            breaker.ended(false, neither, || 0);
        }
        fail(&breaker, 19, 0);
        breaker.ended(false, neither, || 0);
        assert!(breaker.is_closed(), "{neither}");
        fail(&breaker, 1, 0);
        assert!(!breaker.is_closed(), "{neither}");
    }
}

#[test]
fn probes_go_one_at_a_time_and_wait_twice_as_long_each_up_to_thirty_seconds() {
    let breaker = opened(0);
    let mut now_ms = 0;
    for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let early = breaker.admit(|| now_ms + wait_ms - 1);
        assert_eq!(early, Admission::TurnedAway(Outcome::Connect), "{wait_ms}");
        now_ms += wait_ms;
        assert_eq!(breaker.admit(|| now_ms), Admission::Probe, "{wait_ms}");
        let beside = breaker.admit(|| now_ms + 10);
        assert_eq!(beside, Admission::TurnedAway(Outcome::Connect), "{wait_ms}");
        breaker.ended(true, Outcome::Connect, || now_ms);
    }
    now_ms += 30_000;
    assert_eq!(breaker.admit(|| now_ms), Admission::Probe);
    breaker.ended(true, Outcome::Ok, || now_ms);
    assert_eq!(breaker.admit(|| now_ms), Admission::Dial);
    fail(&breaker, 19, now_ms);
    assert!(breaker.is_closed(), "a success forgets all failures");
}

#[test]
fn a_probe_that_hangs_keeps_others_away_for_thirty_seconds_only() {
    let breaker = opened(0);
    assert_eq!(breaker.admit(|| 1_000), Admission::Probe);
    assert_eq!(
        breaker.admit(|| 30_999),
        Admission::TurnedAway(Outcome::Connect)
    );
    assert_eq!(breaker.admit(|| 31_000), Admission::Probe);
}

#[test]
fn a_probe_whose_client_leaves_makes_room_for_the_next_and_one_that_is_hung_up_on_has_failed() {
    let breaker = opened(0);
    assert_eq!(breaker.admit(|| 1_000), Admission::Probe);
    breaker.ended(true, Outcome::ClientGone, || 1_200);
    assert_eq!(breaker.admit(|| 1_200), Admission::Probe);
    breaker.ended(true, Outcome::Reset, || 2_000);
    assert_eq!(
        breaker.admit(|| 3_999),
        Admission::TurnedAway(Outcome::Connect)
    );
    assert_eq!(breaker.admit(|| 4_000), Admission::Probe);
}

#[test]
fn requests_that_are_tried_anyway_do_not_lengthen_the_wait_and_may_end_it() {
    let breaker = opened(0);
    fail(&breaker, 50, 900);
    assert_eq!(breaker.admit(|| 1_000), Admission::Probe);
    fail(&breaker, 50, 1_500);
    assert_eq!(breaker.phase(1_500), Phase::HalfOpen);
    breaker.alive();
    assert_eq!(breaker.phase(1_500), Phase::Closed);
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Wait(u16),
    Ask,
    /// The oldest request under way ends.
    End(Outcome),
    /// A request that was not asked for ends: tried anyway.
    Anyway(Outcome),
}

fn act() -> impl Strategy<Value = Act> {
    // Mostly failures, or the breaker would hardly ever open.
    let outcome = prop_oneof![
        20 => Just(Outcome::Connect),
        4 => Just(Outcome::TimeoutTotal),
        1 => proptest::sample::select(Outcome::ALL.to_vec()),
    ];
    prop_oneof![
        (0u16..20_000).prop_map(Act::Wait),
        Just(Act::Ask),
        outcome.clone().prop_map(Act::End),
        outcome.prop_map(Act::Anyway),
    ]
}

proptest! {
    #[test]
    fn it_never_lets_two_probes_go_within_a_second_and_always_comes_back(
        acts in proptest::collection::vec(act(), 1..400)
    ) {
        let breaker = Breaker::default();
        let clock = Cell::new(0u64);
        let mut row = 0u32;
        let mut under_way = Vec::new();
        let mut probe_at = None;
        for act in acts {
            let mut end = |is_probe: bool, outcome: Outcome| {
                let was_closed = breaker.is_closed();
                breaker.ended(is_probe, outcome, || clock.get());
                match Signal::of(outcome) {
                    Signal::Alive => row = 0,
                    Signal::Failed(_) if was_closed => row += 1,
                    Signal::Failed(_) | Signal::HungUp => {}
                    Signal::Silent if is_probe => probe_at = None,
                    Signal::Silent => {}
                }
                assert_eq!(breaker.is_closed(), row < u32::from(OPENS_AFTER));
            };
            match act {
                Act::Wait(ms) => clock.set(clock.get() + u64::from(ms)),
                Act::End(outcome) if !under_way.is_empty() => end(under_way.remove(0), outcome),
                Act::End(_) => {}
                Act::Anyway(outcome) => end(false, outcome),
                Act::Ask => match breaker.admit(|| clock.get()) {
                    Admission::Dial => {
                        prop_assert!(breaker.is_closed());
                        under_way.push(false);
                    }
                    Admission::Probe => {
                        prop_assert!(!breaker.is_closed());
                        let since = probe_at.map_or(u64::MAX, |at| clock.get() - at);
                        prop_assert!(row == 0 || since >= BACK_OFF_MS, "{since}");
                        probe_at = Some(clock.get());
                        under_way.push(true);
                    }
                    Admission::TurnedAway(outcome) => {
                        prop_assert!(CAUSES.contains(&outcome));
                        prop_assert!(!breaker.is_closed());
                    }
                },
            }
        }
        // However it stands: once the longest wait is over, somebody is let through.
        clock.set(clock.get() + BACK_OFF_MS_MAX);
        prop_assert!(!matches!(breaker.admit(|| clock.get()), Admission::TurnedAway(_)));
    }

    #[test]
    fn states_read_back_as_they_are_written(
        until_ms in 0u64..=TIME_MS_MAX, round in 0u8..=u8::MAX, cause in 0u8..6
    ) {
        let back = Back { until_ms, round, cause };
        for state in [State::Open(back), State::Probing(back), State::Closed { failures: round }] {
            prop_assert_eq!(State::decode(state.encode()), state);
        }
    }
}
