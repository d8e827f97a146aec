//! What a scenario may say, and what is said of one that is wrong.

use super::*;
use crate::config::parse::render_all;

const DAY_MS: i64 = 86_400_000;

const WHOLE: &str = r#"
duration = "20d"
tick = "5s"
[traffic]
rate = 10
daily-swing = 0.5
[legacy]
error-rate = "0.5%"
latency = { median = "900ms", sigma = 1 }
ttft = { median = "200ms", sigma = 0.5 }
slow-tail = { share = "5%", factor = 8 }
[canary]
error-rate = "1%"
clusters = 5
streamed = "50%"
[[change]]
at = "10d"
for = "1h"
arm = "both"
error-rate = "5%"
latency-factor = 2
ttft-factor = 1.5
[[change]]
at = "12d"
[[incident]]
every = "12h"
for = "2m"
error-rate = "20%"
"#;

#[test]
fn every_key_is_read_and_the_canary_is_like_legacy_where_it_says_nothing() {
    let scenario = parse(WHOLE).unwrap();
    assert_eq!(
        (scenario.duration_ms, scenario.tick_ms),
        (20 * DAY_MS, 5_000)
    );
    assert_eq!((scenario.rate_per_s, scenario.daily_swing), (10.0, 0.5));
    let PerArm { legacy, canary } = scenario.arms;
    assert_eq!((legacy.error_rate, canary.error_rate), (0.005, 0.01));
    assert_eq!((legacy.clusters, canary.clusters), (1.0, 5.0));
    assert_eq!((legacy.streamed, canary.streamed), (1.0, 0.5));
    assert_eq!(legacy.latency, canary.latency);
    assert_eq!(
        legacy.latency,
        Times {
            median_ms: 900.0,
            sigma: 1.0
        }
    );
    let tail = canary.slow_tail.unwrap();
    assert_eq!((tail.share, tail.factor), (0.05, 8.0));
    let [first, second] = scenario.changes[..] else {
        panic!("{:?}", scenario.changes);
    };
    assert_eq!(first.until_ms - first.at_ms, 3_600_000);
    assert!(first.arms.legacy && first.arms.canary);
    assert_eq!((first.error_rate, first.latency_factor), (Some(0.05), 2.0));
    assert!(!second.arms.legacy && second.arms.canary);
    assert_eq!((second.until_ms, second.error_rate), (i64::MAX, None));
    assert_eq!(scenario.incidents[0].for_ms, 120_000);
}

#[test]
fn an_empty_scenario_is_a_healthy_canary_without_streams() {
    let scenario = parse("").unwrap();
    assert_eq!(scenario.arms.legacy, scenario.arms.canary);
    assert!(scenario.arms.canary.streamed <= 0.0);
    assert_eq!(scenario.duration_ms, 30 * DAY_MS);
}

#[test]
fn rates_may_name_their_unit_of_time() {
    for (text, per_s) in [
        ("10", 10.0),
        ("0.5", 0.5),
        ("\"30/min\"", 0.5),
        ("\"36/h\"", 0.01),
        ("\"2/s\"", 2.0),
    ] {
        let scenario = parse(&format!("[traffic]\nrate = {text}")).unwrap();
        assert!((scenario.rate_per_s - per_s).abs() < 1e-12, "{text}");
    }
}

#[test]
fn every_fault_is_told_at_once_with_place_and_remedy() {
    let text = "duration = \"20d\"\ntikc = \"10s\"\n[traffic]\nrate = 0\n[canary]\neror-rate = \"1%\"\n\
                latency = { median = 5 }\n[[change]]\narm = \"canari\"\nerror-rate = 0.05\n";
    let faults = parse(text).unwrap_err();
    let told = render_all(&faults, "outage.toml");
    for part in [
        "outage.toml:2:1: tikc: unknown key; did you mean \"tick\"?",
        "outage.toml:4:8: traffic.rate: this is no rate; write requests per second",
        "outage.toml:6:1: canary.eror-rate: unknown key; did you mean \"error-rate\"?",
        "outage.toml:7:22: canary.latency.median: an integer where a duration",
        "outage.toml:9:7: change[0].arm: \"canari\" is not known here; did you mean \"canary\"?",
        "outage.toml:10:14: change[0].error-rate: a float where a share in percent",
        "6 faults in outage.toml",
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
}

#[test]
fn runs_that_would_never_end_are_refused() {
    for (text, problem) in [
        ("duration = \"5s\"", "the tick is longer than the run"),
        ("tick = \"1ms\"", "more than 50 million ticks"),
        (
            "[traffic]\nrate = 1000000",
            "more than a million requests in a tick",
        ),
        ("tick = \"0s\"", "a duration of zero"),
        ("= 5", "this is not TOML"),
        ("traffic = 5", "an integer where a table is expected"),
    ] {
        let told = render_all(&parse(text).unwrap_err(), "s.toml");
        assert!(told.contains(problem), "{text}: {told}");
    }
}
