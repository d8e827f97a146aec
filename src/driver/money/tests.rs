//! What is known of costs, what is not, and who is told when.

use super::budget::Watch;
use super::day::{NAMES_MOST, OTHER};
use super::*;
use crate::alert::kind::Severity;
use crate::arm::Weight;
use crate::config::parse::parse;
use crate::outcome::Outcome;
use crate::sample::{Role, Usage};

mod restarts;

const DAY_MS: i64 = 86_400_000;
/// Midnight in UTC.
const TODAY: i64 = 20_000;
const NOON: UnixMillis = UnixMillis(TODAY * DAY_MS + DAY_MS / 2);

/// A million tokens of `small` cost a dollar at either arm.
const CONFIG: &str = r#"
[proxy]
tag-header = "x-team"
[arms.legacy]
base-url = "https://a.example.com"
prices = { small = { input = 1, output = 1 } }
[arms.canary]
base-url = "https://b.example.com"
api-key = "client"
models = { alias = "small" }
prices = { small = { input = 1, output = 1 }, free = { input = 0, output = 0 } }
[[budget]]
name = "canary"
usd-per-day = 10
arm = "canary"
[[budget]]
name = "search"
usd-per-day = 2
model = "s*"
tag = "search"
"#;

fn config_with(from: &str, to: &str) -> Config {
    assert!(CONFIG.contains(from), "{from}");
    parse(&CONFIG.replace(from, to), &|_| None).unwrap().config
}

fn config() -> Config {
    config_with("x-team", "x-team")
}

/// A served attempt at the canary that cost `dollars`.
fn sample(model: &str, dollars: u32) -> Sample {
    Sample {
        started_at: NOON,
        rollout: Some(0),
        config_epoch: 1,
        arm: Arm::Canary,
        assigned: Arm::Canary,
        weight: Weight::FULL,
        stage: 0,
        role: Role::Live,
        attempt: 1,
        outcome: Outcome::Ok,
        status: 200,
        latency_us: 1_000,
        ttft_us: None,
        streamed: false,
        complete: true,
        conn_reused: true,
        client_retry: false,
        dialect: Some(crate::llm::Dialect::OpenAiChat),
        model: Some(model.into()),
        usage: Some(Usage {
            output_tokens: dollars * 1_000_000,
            ..Usage::default()
        }),
        upstream_request_id: None,
        key_hash: 0,
        body_hash: 0,
        reported_cost_usd: None,
        tag: None,
        first_role: Role::Live,
    }
}

fn tagged(tag: &str, dollars: u32) -> Sample {
    Sample {
        tag: Some(tag.into()),
        ..sample("small", dollars)
    }
}

/// Books a sample; gives the thresholds that were told.
fn spend(money: &mut Money, config: &Config, sample: &Sample) -> Vec<(String, u32)> {
    let cost_usd = cost_of(config, sample);
    let (_, reached) = money.spend(config, sample, cost_usd);
    reached
        .into_iter()
        .map(|it| (it.budget, it.percent))
        .collect()
}

fn told(budget: &str, percent: u32) -> Vec<(String, u32)> {
    vec![(budget.to_owned(), percent)]
}

#[test]
fn an_unknown_cost_is_none_and_never_zero() {
    let config = config();
    let cut = |outcome, complete| Sample {
        outcome,
        complete,
        streamed: true,
        ttft_us: Some(10),
        ..sample("small", 3)
    };
    let cases = [
        ("its price is known", sample("small", 3), Some(3.0)),
        ("the map names it", sample("alias", 3), Some(3.0)),
        ("it is free", sample("free", 3), Some(0.0)),
        ("it has no price", sample("large", 3), None),
        (
            "no model",
            Sample {
                model: None,
                ..sample("small", 3)
            },
            None,
        ),
        (
            "no tokens",
            Sample {
                usage: None,
                ..sample("small", 3)
            },
            None,
        ),
        ("the stream broke off", cut(Outcome::Truncated, false), None),
        (
            "the client left early",
            cut(Outcome::ClientGone, false),
            None,
        ),
        (
            "the client left after the last word",
            cut(Outcome::ClientGone, true),
            Some(3.0),
        ),
        (
            "a rescue",
            Sample {
                role: Role::Rescue,
                ..sample("small", 3)
            },
            Some(3.0),
        ),
        (
            "legacy does not know the alias",
            Sample {
                arm: Arm::Legacy,
                ..sample("alias", 3)
            },
            None,
        ),
    ];
    for (what, sample, expected) in cases {
        assert_eq!(cost_of(&config, &sample), expected, "{what}");
    }
}

#[test]
fn what_may_have_cost_money_has_a_line_and_the_rest_has_none() {
    let config = config();
    let nothing = |outcome, ttft_us| Sample {
        outcome,
        ttft_us,
        usage: None,
        complete: false,
        ..sample("small", 0)
    };
    let cut = |outcome, status, complete| Sample {
        status,
        complete,
        ..nothing(outcome, None)
    };
    let cases = [
        (sample("small", 1), Some((Some(1.0), 0, 0))),
        (sample("large", 1), Some((None, 1, 0))),
        (nothing(Outcome::Ok, None), Some((None, 0, 1))),
        (nothing(Outcome::Truncated, Some(5)), Some((None, 0, 1))),
        (nothing(Outcome::Connect, None), None),
        (nothing(Outcome::ServerError, None), None),
        // Its body was too large to be read, but a model was called.
        (
            Sample {
                model: None,
                ..nothing(Outcome::Ok, None)
            },
            Some((None, 0, 1)),
        ),
        (
            Sample {
                dialect: None,
                ..nothing(Outcome::Ok, None)
            },
            None,
        ),
        // Cut off after a head that promised an answer, by client or clock.
        (cut(Outcome::ClientGone, 200, false), Some((None, 0, 1))),
        (cut(Outcome::TimeoutTotal, 200, false), Some((None, 0, 1))),
        (cut(Outcome::Reset, 201, false), Some((None, 0, 1))),
        (cut(Outcome::ClientGone, 0, false), None),
        (cut(Outcome::ClientGone, 503, false), None),
        (cut(Outcome::ClientGone, 200, true), None),
        (cut(Outcome::InBandError, 200, false), None),
        (cut(Outcome::SoftError, 200, true), None),
        (
            Sample {
                reported_cost_usd: Some(0.5),
                ..nothing(Outcome::Ok, None)
            },
            Some((None, 0, 1)),
        ),
    ];
    for (sample, expected) in cases {
        let mut money = Money::default();
        let (cost_usd, bill) = money.book(&config, &sample);
        let found = bill.map(|bill| {
            assert_eq!((bill.day, &*bill.tag), (TODAY, ""));
            let spent = Spent::by(&sample, cost_usd);
            (spent.cost_usd, spent.unpriced, spent.no_usage)
        });
        assert_eq!(found, expected, "{sample:?}");
    }
}

#[test]
fn the_account_names_the_arms_own_model() {
    let (_, bill) = Money::default().book(&config(), &sample("alias", 1));
    assert_eq!(&*bill.unwrap().model, "small");
}

#[test]
fn further_names_of_a_day_are_other_but_those_of_the_configuration_stay() {
    let config = config();
    let mut money = Money::default();
    let mut names = BTreeSet::new();
    for number in 0..3 * NAMES_MOST {
        let mut sample = sample(&format!("model-{number}"), 1);
        sample.tag = Some(format!("tag-{number}").into());
        let bill = money.book(&config, &sample).1.unwrap();
        names.insert((bill.model, bill.tag));
    }
    assert_eq!(names.len(), NAMES_MOST + 1);
    let other = (OTHER.into(), OTHER.into());
    assert!(names.contains(&other));
    let check = |money: &mut Money, sample: Sample, expected: (&str, &str)| {
        let bill = money.book(&config, &sample).1.unwrap();
        assert_eq!((&*bill.model, &*bill.tag), expected);
    };
    check(&mut money, tagged("search", 1), ("small", "search"));
    check(&mut money, tagged("tag-3", 1), ("small", "tag-3"));
    check(&mut money, sample("model-3", 1), ("model-3", ""));
    check(&mut money, sample("new", 1), (OTHER, ""));
    // The next day has room again.
    let tomorrow = Sample {
        started_at: NOON.plus_millis(DAY_MS),
        ..sample("new", 1)
    };
    check(&mut money, tomorrow, ("new", ""));
}

#[test]
fn the_bound_on_names_holds_over_a_restart() {
    let config = config();
    let costs: Vec<DayCost> = (0..NAMES_MOST)
        .map(|number| DayCost {
            arm: Arm::Canary,
            bill: Bill {
                day: TODAY,
                model: format!("model-{number}").into(),
                tag: "".into(),
            },
            spent: Spent::default(),
        })
        .collect();
    let mut money = Money::restore(&config, &costs, &[], NOON);
    let mut model_of = |name: &str| money.book(&config, &sample(name, 1)).1.unwrap().model;
    assert_eq!(&*model_of("new"), OTHER);
    assert_eq!(&*model_of("model-7"), "model-7");
    assert_eq!(&*model_of("small"), "small");
}

#[test]
fn each_threshold_is_told_once_and_a_leap_tells_the_higher() {
    let config = config();
    let mut money = Money::default();
    let steps = [
        (sample("small", 7), vec![]),
        (sample("large", 7), vec![]),
        (sample("small", 1), told("canary", 80)),
        (sample("small", 1), vec![]),
        (sample("small", 1), told("canary", 100)),
        (sample("small", 50), vec![]),
        (tagged("search", 5), told("search", 100)),
        (tagged("search", 5), vec![]),
        (tagged("other-team", 5), vec![]),
    ];
    for (sample, expected) in steps {
        assert_eq!(spend(&mut money, &config, &sample), expected, "{sample:?}");
    }
    // Both arms count where no arm is named, and legacy is none of the canary's.
    let of = |name: &str| {
        let all = money.status(&config, NOON);
        all.into_iter().find(|it| it.name == name).unwrap()
    };
    assert_eq!(
        (of("canary").spent_usd, of("canary").unpriced),
        (Some(75.0), 1)
    );
    assert_eq!(
        (of("search").spent_usd, of("search").share),
        (Some(10.0), Some(5.0))
    );
}

#[test]
fn receivers_hear_of_a_budget_twice_and_the_second_time_it_pages() {
    let config = config();
    let mut money = Money::default();
    for dollars in [7, 2, 1] {
        let sample = sample("small", dollars);
        let (_, reached) = money.spend(&config, &sample, cost_of(&config, &sample));
        money.tell(&reached);
    }
    let told = money.take_alerts();
    assert!(money.take_alerts().is_empty());
    let severities: Vec<Severity> = told.iter().map(|alert| alert.severity).collect();
    assert_eq!(severities, [Severity::Warning, Severity::Critical]);
    let keys: Vec<String> = told.iter().map(|alert| alert.key_of(alert.kind)).collect();
    assert_ne!(keys[0], keys[1]);
    assert!(told[1].text.contains("traffic goes on"), "{:?}", told[1]);
}

#[test]
fn sums_of_binary_fractions_reach_their_budget() {
    let config = config();
    let budget = &config.budgets[0];
    let tenth = Spent {
        cost_usd: Some(0.1),
        ..Spent::default()
    };
    let mut watch = Watch::default();
    let told: Vec<u32> = (1..=101)
        .filter_map(|count| watch.spend(budget, TODAY, &tenth).map(|_| count))
        .collect();
    assert_eq!(told, [80, 100]);
}

#[test]
fn a_day_ends_at_midnight_in_utc() {
    let config = config();
    let mut money = Money::default();
    let at = |started_at: i64, dollars| Sample {
        started_at: UnixMillis(started_at),
        ..sample("small", dollars)
    };
    let midnight = (TODAY + 1) * DAY_MS;
    assert_eq!(
        spend(&mut money, &config, &at(midnight - 1, 9)),
        told("canary", 80)
    );
    assert_eq!(
        spend(&mut money, &config, &at(midnight, 9)),
        told("canary", 80)
    );
    // An answer that began before midnight belongs to the day before, however late it ends.
    assert_eq!(
        spend(&mut money, &config, &at(midnight - 5, 1)),
        told("canary", 100)
    );
    let spent = |at: i64| money.status(&config, UnixMillis(at))[0].spent_usd;
    assert_eq!(spent(midnight - 1), Some(10.0));
    assert_eq!(spent(midnight), Some(9.0));
    assert_eq!(
        spent(midnight + DAY_MS),
        Some(0.0),
        "nothing is known to be spent yet"
    );
}

#[test]
fn few_days_are_kept_and_an_older_attempt_counts_on_the_oldest_of_them() {
    let config = config();
    let mut money = Money::default();
    for day in [3, 1, 5, 4, 2, 9, 3] {
        let started_at = UnixMillis(day * DAY_MS);
        money.book(
            &config,
            &Sample {
                started_at,
                ..sample("small", 1)
            },
        );
        assert!(money.days.len() <= DAYS_MOST);
    }
    let days: Vec<i64> = money.days.keys().copied().collect();
    assert_eq!(days, [4, 5, 9]);
    let lost = Sample {
        started_at: UnixMillis(0),
        ..sample("small", 1)
    };
    assert_eq!(money.book(&config, &lost).1.unwrap().day, 4);
}

#[test]
fn a_reload_keeps_what_was_told_and_tells_of_a_new_budget_that_is_spent_already() {
    let old = config();
    let mut money = Money::default();
    assert_eq!(spend(&mut money, &old, &tagged("search", 9)).len(), 2);
    let day = money.days.get_mut(&TODAY).unwrap();
    let next = config_with("usd-per-day = 10", "usd-per-day = 5");
    let told: Vec<_> = day
        .watch(TODAY, &old.budgets, &next.budgets, &[])
        .into_iter()
        .map(|it| (it.budget, it.percent))
        .collect();
    assert_eq!(told, [("canary".to_owned(), 100)], "`search` is as it was");
    assert_eq!(money.status(&next, NOON)[0].spent_usd, Some(9.0));
    money.reconfigure(&next, &old, NOON);
    assert_eq!(money.status(&old, NOON)[0].share, Some(0.9));
}

#[test]
fn a_budget_with_unknown_costs_alone_has_spent_an_unknown_sum() {
    let config = config();
    let mut money = Money::default();
    let status = |money: &Money| money.status(&config, NOON)[0].clone();
    assert_eq!(
        (status(&money).spent_usd, status(&money).share),
        (Some(0.0), Some(0.0))
    );
    money.book(&config, &sample("large", 3));
    assert_eq!(
        (status(&money).spent_usd, status(&money).share),
        (None, None)
    );
    assert_eq!(status(&money).unpriced, 1);
}

#[test]
fn a_model_without_a_price_is_told_once_and_only_so_many_are() {
    let config = config();
    let mut money = Money::default();
    let mut warned = |sample: &Sample| money.should_warn(&config, sample);
    assert!(warned(&sample("large", 1)));
    assert!(!warned(&sample("large", 1)));
    assert!(!warned(&sample("alias", 1)));
    assert!(warned(&Sample {
        arm: Arm::Legacy,
        ..sample("alias", 1)
    }));
    assert!(!warned(&Sample {
        usage: None,
        ..sample("huge", 1)
    }));
    let told = (0..1_000).filter(|number| warned(&sample(&format!("m{number}"), 1)));
    assert_eq!(told.count(), WARNED_MOST - 2);
    // An arm without any price has nothing to miss.
    let bare = config_with(
        "prices = { small = { input = 1, output = 1 } }\n[arms.canary]",
        "[arms.canary]",
    );
    let unpriced = Sample {
        arm: Arm::Legacy,
        ..sample("large", 1)
    };
    assert!(!Money::default().should_warn(&bare, &unpriced));
}

#[test]
fn models_without_a_price_that_are_found_at_once_are_one_message() {
    let config = config();
    let mut money = Money::default();
    let found = |money: &mut Money, count: u32| {
        for number in 0..count {
            money.book(&config, &sample(&format!("m{count}-{number}"), 1));
        }
        let told = money.take_alerts();
        told.into_iter()
            .map(|it| (it.subject.unwrap(), it.text))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&mut money, 0), []);
    let [(subject, text)] = <[_; 1]>::try_from(found(&mut money, 1)).unwrap();
    assert_eq!(subject, "canary m1-0");
    assert!(text.ends_with("add it to arms.canary.prices"), "{text}");
    let [(subject, text)] = <[_; 1]>::try_from(found(&mut money, 12)).unwrap();
    assert_eq!(subject, "12 models");
    assert!(text.starts_with("canary m12-0, canary m12-1,"), "{text}");
    assert!(text.contains("canary m12-9 and 2 more: "), "{text}");
}

#[test]
fn each_threshold_is_an_incident_of_its_own_that_ends_with_the_day() {
    let config = config();
    let mut money = Money::default();
    let mut keys = Vec::new();
    for dollars in [8, 2] {
        money.book(&config, &sample("small", dollars));
        let told = money.take_alerts();
        keys.extend(told.iter().map(|it| it.key_of(it.kind)));
    }
    let expected = ["80%", "100%"];
    let expected = expected.map(|it| format!("cutover/canary 2024-10-04 {it}/budget"));
    assert_eq!(keys, expected);
    money.end_days(NOON);
    assert_eq!(money.take_alerts(), []);
    // A restart knows what the run before has told.
    let told = money.take_told();
    let mut restored = Money::restore(&config, &[], &told, NOON.plus_millis(DAY_MS));
    for money in [&mut money, &mut restored] {
        money.end_days(NOON.plus_millis(DAY_MS));
        let ends = money.take_alerts();
        assert!(ends.iter().all(|it| it.quiet && it.resolves == [it.kind]));
        let ended: Vec<String> = ends.iter().map(|it| it.key_of(it.kind)).collect();
        assert_eq!(ended, keys);
        money.end_days(NOON.plus_millis(DAY_MS));
        assert_eq!(money.take_alerts(), [], "once");
    }
}
