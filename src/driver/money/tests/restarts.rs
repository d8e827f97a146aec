//! What was spent and told before a restart is neither lost nor told again.

use super::*;

fn stored(dollars: f64) -> DayCost {
    DayCost {
        arm: Arm::Canary,
        bill: Bill {
            day: TODAY,
            model: "small".into(),
            tag: "search".into(),
        },
        spent: Spent {
            cost_usd: Some(dollars),
            unpriced: 3,
            no_usage: 2,
        },
    }
}

/// What is told at a start with these stored sums, as it is recorded.
fn told_at_start(
    config: &Config,
    dollars: f64,
    told: &[BudgetTold],
) -> (Money, Vec<(String, u32)>) {
    let mut money = Money::restore(config, &[stored(dollars)], told, NOON);
    let now_told = money.take_told();
    assert!(now_told.iter().all(|it| it.day == TODAY));
    let named = now_told.into_iter().map(|it| (it.budget, it.percent));
    (money, named.collect())
}

fn was_told(day: i64, budget: &str, percent: u32, usd_per_day: f64) -> BudgetTold {
    BudgetTold {
        day,
        budget: budget.to_owned(),
        percent,
        usd_per_day,
    }
}

#[test]
fn what_was_told_before_a_restart_is_not_told_again() {
    let config = config();
    let before = [
        was_told(TODAY, "canary", 80, 10.0),
        was_told(TODAY, "search", 80, 2.0),
        was_told(TODAY, "search", 100, 2.0),
    ];
    let (mut money, now_told) = told_at_start(&config, 8.5, &before);
    assert_eq!(now_told, []);
    let [canary, search] = <[_; 2]>::try_from(money.status(&config, NOON)).unwrap();
    assert_eq!(
        (canary.spent_usd, canary.unpriced, canary.no_usage),
        (Some(8.5), 3, 2)
    );
    assert_eq!(
        (search.spent_usd, search.day.as_str()),
        (Some(8.5), "2024-10-04")
    );
    assert_eq!(spend(&mut money, &config, &sample("small", 1)), []);
    assert_eq!(
        spend(&mut money, &config, &sample("small", 1)),
        told("canary", 100)
    );
    let full = [&before[1..], &[was_told(TODAY, "canary", 100, 10.0)]].concat();
    let (mut money, now_told) = told_at_start(&config, 10.0, &full);
    assert_eq!(now_told, []);
    assert_eq!(spend(&mut money, &config, &sample("small", 9)), []);
}

#[test]
fn a_budget_that_was_added_or_lowered_while_nothing_ran_is_told_at_the_start() {
    let config = config();
    let search = told("search", 100);
    let both = [told("canary", 80), search.clone()].concat();
    let before = was_told(TODAY, "canary", 80, 10.0);
    assert_eq!(told_at_start(&config, 8.5, &[]).1, both);
    assert_eq!(
        told_at_start(&config, 8.5, std::slice::from_ref(&before)).1,
        search
    );
    // Another day, another height and a lower threshold are something else.
    let others = [
        was_told(TODAY - 1, "canary", 100, 10.0),
        was_told(TODAY, "canary", 100, 8.0),
        was_told(TODAY, "search", 80, 2.0),
    ];
    assert_eq!(told_at_start(&config, 8.5, &others).1, both);
    let lowered = config_with("usd-per-day = 10", "usd-per-day = 5");
    let expected = [told("canary", 100), search].concat();
    assert_eq!(told_at_start(&lowered, 8.5, &[before]).1, expected);
    // Of yesterday nobody is told.
    let mut money = Money::restore(&config, &[stored(8.5)], &[], NOON.plus_millis(DAY_MS));
    assert_eq!(money.take_told(), []);
}
