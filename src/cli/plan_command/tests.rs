//! What `cutover plan` takes, refuses, and prints.

use super::*;
use crate::arm::PerArm;
use crate::config::parse::parse as parse_config;

fn config(prices: (&str, &str), rest: &str) -> Config {
    let text = format!(
        "[arms.legacy]\nbase-url = \"https://a/v1\"\n{}\n\
         [arms.canary]\nbase-url = \"https://b/v1\"\napi-key = \"env:KEY\"\n{}\n{rest}",
        prices.0, prices.1
    );
    let parsed = parse_config(&text, &|_| Some("key".to_owned()));
    parsed.unwrap_or_else(|faults| panic!("{faults:?}")).config
}

#[test]
fn rates_are_read_in_every_unit() {
    let cases = [
        ("10/min", 10.0 / 60.0),
        ("3/s", 3.0),
        ("1000/h", 1_000.0 / 3_600.0),
        ("0.5/s", 0.5),
        (" 86400 / day ", 1.0),
    ];
    for (text, expected) in cases {
        let found = read::rate(text).unwrap();
        assert!((found - expected).abs() < 1e-9, "{text}: {found}");
    }
    for text in [
        "10", "", "/min", "-1/s", "0/s", "NaN/s", "inf/s", "10/week", "1e99/s",
    ] {
        let problem = read::rate(text).expect_err(text);
        assert!(problem.contains("like 10/min"), "{problem}");
    }
}

#[test]
fn shares_and_tokens_are_read_or_refused_with_an_example() {
    assert_eq!(read::share("0.5%"), Ok(0.005));
    assert_eq!(read::share("100 %"), Ok(1.0));
    for text in ["0.5", "101%", "-1%", "NaN%", "%"] {
        assert!(read::share(text).is_err(), "{text}");
    }
    let tokens = read::tokens("1200/300").unwrap();
    assert_eq!(
        tokens,
        Tokens {
            input: 1_200.0,
            output: 300.0
        }
    );
    for text in ["1200", "1200/", "a/b", "-1/2", "1/inf"] {
        assert!(read::tokens(text).is_err(), "{text}");
    }
}

#[test]
fn costs_are_those_of_the_model_under_both_its_names() {
    let tokens = read::tokens("1000/500").unwrap();
    let per_s = 1_000.0 / (30.0 * 86_400.0);
    let gpt4 = "prices = { \"gpt-4\" = { input = 10, output = 30 } }";
    let relay = "models = { \"gpt-4\" = \"gpt-4.1\" }\n\
                 prices = { \"gpt-4.1\" = { input = 2, output = 8 } }";
    let both = Costs::of(&config((gpt4, relay), ""), None, &tokens, per_s).unwrap();
    assert_eq!(both.model.as_deref(), Some("gpt-4"));
    // A thousand requests of 1,000 and 500 tokens.
    assert!((both.usd.legacy.unwrap() - 25.0).abs() < 1e-9);
    assert!((both.savings().unwrap() - 19.0).abs() < 1e-9);
    let one = Costs::of(&config((gpt4, ""), ""), None, &tokens, per_s).unwrap();
    assert_eq!((one.usd.canary, one.savings()), (None, None));
    let none = Costs::of(&config(("", ""), ""), None, &tokens, per_s).unwrap();
    assert_eq!(
        none,
        Costs {
            model: None,
            usd: PerArm::default()
        }
    );
    let two = "prices = { a = { input = 1, output = 1 }, b = { input = 2, output = 2 } }";
    let several = config((two, two), "");
    let problem = Costs::of(&several, None, &tokens, per_s).unwrap_err();
    assert_eq!(
        problem,
        "several models have prices; name one with --model: a, b"
    );
    let named = Costs::of(&several, Some("b"), &tokens, per_s).unwrap();
    assert!((named.usd.legacy.unwrap() - 3.0).abs() < 1e-9);
    let problem = Costs::of(&several, Some("c"), &tokens, per_s).unwrap_err();
    assert_eq!(problem, "there is no price for c; priced are: a, b");
}

#[test]
fn a_rollout_is_found_by_its_name() {
    let two = config(
        ("", ""),
        "[[rollout]]\nname = \"chat\"\n[[rollout]]\nname = \"rest\"\n",
    );
    let refusal = |config: Option<&Config>, name: Option<&str>| match chosen(config, name) {
        Err(Failure::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen(Some(&two), Some("rest")).unwrap().0, "rest");
    assert_eq!(
        refusal(Some(&two), None),
        "name one with --rollout: chat, rest"
    );
    assert!(refusal(Some(&two), Some("x")).contains("there is: chat, rest"));
    assert!(refusal(None, Some("x")).contains("--config"));
}

fn shown(per_min: f64, costs: Option<Costs>) -> Answer {
    let policy = default_policy();
    let traffic = Traffic {
        requests_per_s: per_min / 60.0,
        legacy_error_rate: 0.005,
        streamed: None,
        phi: 1.0,
    };
    Answer {
        rollout: "default".to_owned(),
        config: None,
        plan: plan(&policy, &traffic),
        warm_up_requests: policy.warm_up_requests,
        advice: advice(&policy, &traffic),
        traffic,
        costs,
    }
}

#[test]
fn the_table_has_a_row_for_each_stage_and_ends_with_advice() {
    let text = text::answer(&shown(10.0, Some(Costs::default())));
    assert!(text.starts_with("rollout default (built-in rules) at 10/min, legacy errors 0.5%\n"));
    for stage in 1..=7 {
        assert!(text.contains(&format!("\n  {stage}/7 ")), "{text}");
    }
    assert!(text.contains("proof (error-rate)"), "{text}");
    assert!(text.contains("\nmigration    about "), "{text}");
    assert!(
        text.contains("legacy unknown, canary unknown, saves unknown"),
        "{text}"
    );
    assert!(
        text.contains("\nadvice\n  - a first stage of 1% takes about "),
        "{text}"
    );
    assert!(!text.contains("$0"), "{text}");
}

#[test]
fn json_has_every_documented_field() {
    let value = json::answer(&shown(10.0, Some(Costs::default())));
    for pointer in [
        "/rollout",
        "/config",
        "/requests_per_s",
        "/legacy_error_rate",
        "/streamed_share",
        "/warm_up/legacy_requests",
        "/warm_up/time_s",
        "/stages/0/index",
        "/stages/0/weight",
        "/stages/0/approve",
        "/stages/0/dwell_s",
        "/stages/0/proof",
        "/stages/0/slowest_guard",
        "/stages/0/canary_requests/mean",
        "/stages/0/canary_requests/p90",
        "/stages/0/proof_s/mean",
        "/stages/0/time_s/p90",
        "/stages/0/dominates",
        "/stages/0/guards/0/name",
        "/stages/0/guards/0/need",
        "/stages/0/guards/0/canary_requests_mean",
        "/stages/6/proof_s",
        "/total_s/median",
        "/total_s/p90",
        "/cost_per_month_usd/legacy",
        "/cost_per_month_usd/canary",
        "/cost_per_month_usd/savings",
        "/cost_per_month_usd/model",
        "/advice/0/kind",
        "/advice/0/text",
        "/advice/0/better_weight",
    ] {
        assert!(value.pointer(pointer).is_some(), "{pointer} in {value:#}");
    }
    assert_eq!(value["stages"][0]["weight"], 0.01);
    assert_eq!(value["cost_per_month_usd"]["legacy"], Value::Null);
    assert_eq!(value["advice"][0]["kind"], "slow-first-stage");
}
