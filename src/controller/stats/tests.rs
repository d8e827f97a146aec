//! The mathematics against the reference vectors, and the property that makes evidence valid.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} in {row}"))
}

fn line(row: &Value) -> Line {
    Line {
        ratio: number(row, "r"),
        increase: number(row, "delta"),
    }
}

#[track_caller]
fn close(found: f64, expected: f64, within: f64) {
    assert!(
        (found - expected).abs() <= within,
        "{found} instead of {expected}"
    );
}

#[test]
fn factors_agree_with_the_reference() {
    for row in golden()["lr_factors"].as_array().unwrap() {
        let f = lr_factors(
            number(row, "p1"),
            number(row, "pl_hat"),
            line(row),
            number(row, "w"),
        );
        close(f.canary_event, number(row, "ce"), 1e-9);
        close(f.canary_none, number(row, "cn"), 1e-9);
        close(f.legacy_event, number(row, "le"), 1e-9);
        close(f.legacy_none, number(row, "ln"), 1e-9);
    }
}

#[test]
fn targets_and_requests_needed_agree_with_the_reference() {
    for row in golden()["target"].as_array().unwrap() {
        close(
            target(number(row, "odds"), number(row, "pl_hat"), line(row)),
            number(row, "p1"),
            1e-9,
        );
    }
    for row in golden()["requests_needed"].as_array().unwrap() {
        let odds: &[f64] = if row["kind"] == "promote" {
            &PROMOTE_ODDS
        } else {
            &ROLLBACK_ODDS
        };
        let rates = (number(row, "pc"), number(row, "pl"));
        let found = requests_needed(
            odds,
            line(row),
            number(row, "w"),
            rates,
            number(row, "nats"),
        );
        match row["canary_requests"].as_f64() {
            Some(expected) => close(found.unwrap() / expected, 1.0, 1e-9),
            None => assert_eq!(found, None),
        }
    }
}

#[test]
fn sums_of_exponentials_stay_in_log_space() {
    let none = f64::NEG_INFINITY;
    close(logaddexp(none, -3.0), -3.0, 0.0);
    close(logaddexp(-3.0, none), -3.0, 0.0);
    assert!(logaddexp(none, none).is_infinite());
    close(logaddexp(1_000.0, 1_000.0), 1_000.0 + 2f64.ln(), 1e-12);
    assert!(logsumexp([none, none].into_iter()) < f64::MIN);
    close(
        logsumexp([700.0, 701.0, none].into_iter()),
        701.313_261_687_518_2,
        1e-9,
    );
    assert!(logsumexp([none, f64::NAN].into_iter()).is_nan());
}

proptest! {
    /// The expected factor of a request is 1 on the whole line of allowed pairs and at most 1 below it:
    /// that is all that the guarantee rests on.
    #[test]
    fn a_bet_is_fair_on_the_line_and_loses_below_it(
        ratio in prop::sample::select(vec![0.0, 0.5, 1.0, 1.2, 1.5, 2.0]),
        increase in prop::sample::select(vec![0.0, 0.001, 0.004, 0.05]),
        share in prop::sample::select(vec![0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]),
        log_hat in -4.0f64..-0.2,
        place in 0.0f64..1.0,
        slack in 0.0f64..1.0,
        expert in 0usize..13,
    ) {
        let increase = if ratio == 0.0 && increase == 0.0 { 0.05 } else { increase };
        let line = Line { ratio, increase };
        let hat = 10f64.powf(log_hat);
        prop_assume!(line.allowed(hat) <= 0.98);
        let harm = expert < 8;
        let odds = if harm { ROLLBACK_ODDS[expert] } else { PROMOTE_ODDS[expert - 8] };
        let f = lr_factors(target(odds, hat, line), hat, line, share);
        let all = [f.canary_event, f.canary_none, f.legacy_event, f.legacy_none];
        prop_assert!(all.iter().all(|value| value.is_finite()), "{f:?}");
        let mean = |canary: f64, legacy: f64| {
            share * (canary * f.canary_event.exp() + (1.0 - canary) * f.canary_none.exp())
                + (1.0 - share) * (legacy * f.legacy_event.exp() + (1.0 - legacy) * f.legacy_none.exp())
        };
        let legacy = place * (1.0 - increase) / ratio.max(1.0);
        let on_line = line.allowed(legacy);
        if ratio > 0.0 {
            prop_assert!((mean(on_line, legacy) - 1.0).abs() < 1e-9);
        }
        let inside = if harm { on_line * (1.0 - slack) } else { on_line + (1.0 - on_line) * slack };
        prop_assert!(mean(inside, legacy) <= 1.0 + 1e-9, "{}", mean(inside, legacy));
    }

    #[test]
    fn evidence_is_additive_over_cells_of_equal_share(a in 1u32..50, b in 1u32..50, events in 0u32..4) {
        let line = Line { ratio: 1.2, increase: 0.004 };
        let f = lr_factors(target(2.5, 0.005, line), 0.005, line, 0.25);
        let cell = |n: u32, k: u32| Counts {
            canary: f64::from(n),
            canary_events: f64::from(k.min(n)),
            legacy: f64::from(3 * n),
            legacy_events: f64::from(k),
        };
        let (one, two) = (cell(a, events), cell(b, 1));
        let mut both = one;
        both.add(two);
        let apart = f.increment(one) + f.increment(two);
        prop_assert!((f.increment(both) - apart).abs() < 1e-9);
    }
}
