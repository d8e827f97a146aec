use serde_json::json;

use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

#[test]
fn what_comes_next_says_when_or_who_has_to_act() {
    let at = json!("2023-11-14T22:25:20.000Z");
    let cases = [
        (
            json!({"state": "warming-up", "stages": [0.01, 1.0], "reason": "warm-up: 3 of 2000"}),
            Some("goes to 1% after the warm-up; `cutover promote` goes now"),
        ),
        (
            json!({"state": "running", "next_action_at": at, "reason": "dwell: 12m left"}),
            Some("may go up in 12m (22:25:20 UTC), if every guard has proof by then"),
        ),
        (
            json!({"state": "running", "weight": 0.05, "stage": {"index": 2, "of": 7},
                "reason": "needs about 1,900 more canary requests"}),
            Some("goes up as soon as every guard has proof"),
        ),
        (
            json!({"state": "running", "weight": 0.05, "stage": {"index": 2, "of": 7},
                "reason": "will not converge: canary is at its margin (error-rate)"}),
            Some(
                "does not go up by itself: `cutover promote`, wider guards, or `cutover rollback`",
            ),
        ),
        (
            json!({"state": "running", "weight": 0.0, "stage": {"index": 1, "of": 7},
                "reason": "an operator set 0%; it goes up only by an operator"}),
            None,
        ),
        (
            json!({"state": "tripped", "next_action_at": at, "reason": "tripped"}),
            Some(
                "probes the canary in 12m (22:25:20 UTC), five good probes bring it back; \
                 `cutover resume` does not wait",
            ),
        ),
        (
            json!({"state": "rolled-back", "next_action_at": at, "reason": "rolled back"}),
            Some("tries again in 12m (22:25:20 UTC); `cutover retry` does not wait"),
        ),
        (
            json!({"state": "rolled-back", "reason": "rolled back; `cutover retry` starts"}),
            None,
        ),
        (
            json!({"state": "held", "reason": "held by an operator: lunch"}),
            Some("nothing until `cutover resume`; a trip or a rollback acts all the same"),
        ),
        (
            json!({"state": "held", "reason": "common cause: both arms fail"}),
            None,
        ),
        (
            json!({"state": "complete", "reason": "complete at 100%"}),
            None,
        ),
    ];
    for (rollout, expected) in cases {
        assert_eq!(next_step(&rollout, NOW).as_deref(), expected, "{rollout}");
    }
}

#[test]
fn a_bar_fills_evenly_and_is_full_only_with_proof() {
    let guard = |verdict: &str, evidence: f64| json!({"verdict": verdict, "evidence": evidence, "needed": 100.0});
    let near = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
    assert!(near(progress(&guard("undecided", 10.0)), 0.5));
    assert!(
        near(progress(&guard("undecided", 0.2)), 0.0),
        "evidence against it"
    );
    assert!(
        near(progress(&guard("undecided", 1e9)), 0.99),
        "other parts are missing"
    );
    assert!(near(progress(&guard("healthy", 100.0)), 1.0));
    assert!(near(progress(&guard("no-data", 0.0)), 0.0));
    assert!(near(progress(&json!({})), 0.0));
}

#[test]
fn what_a_guard_needs_is_an_estimate_in_words() {
    let undecided = |more: Value, eta: Value| json!({"verdict": "undecided", "requests_needed": more, "eta_s": eta});
    for (guard, expected) in [
        (
            undecided(json!(1_893), json!(551)),
            "1,900 more requests, ~9m",
        ),
        (undecided(json!(1_893), json!(null)), "1,900 more requests"),
        (undecided(json!(3), json!(0)), "3 more requests, ~1s"),
        (
            undecided(json!(null), json!(null)),
            "not converging at these rates",
        ),
        (json!({"verdict": "healthy"}), "proven"),
        (json!({"verdict": "no-data"}), "no data in this stage yet"),
    ] {
        assert_eq!(needs(&guard), expected);
    }
    let evidence_of = |found: f64| evidence(&json!({"evidence": found, "needed": 20.0}));
    let shown = [0.0, 4.06, 24.1, 199.0, 1e171].map(evidence_of);
    assert_eq!(
        shown,
        [
            "0 of 20",
            "4.1 of 20",
            "24.1 of 20",
            "199 of 20",
            ">200 of 20"
        ]
    );
}

#[test]
fn a_saving_counts_only_requests_of_known_cost() {
    let arm = |answered: u64, unpriced: u64, cost: Value| {
        let requests = answered + 30;
        json!({"requests": requests, "unpriced": unpriced, "no_usage": 0, "errors": 20,
            "rate_limited": 10, "cost_usd": cost})
    };
    let rollout =
        |legacy: Value, canary: Value| json!({"arms": {"legacy": legacy, "canary": canary}});
    let known = rollout(arm(1_000, 0, json!(2.0)), arm(600, 100, json!(0.5)));
    assert_eq!(
        saving(&known).unwrap().words(),
        "per 1,000 answers the canary costs $1.00, legacy $2.00: 50% less, saved about $0.5000 so far"
    );
    let dearer = rollout(arm(1_000, 0, json!(2.0)), arm(500, 0, json!(1.5)));
    assert_eq!(
        saving(&dearer).unwrap().words(),
        "per 1,000 answers the canary costs $3.00, legacy $2.00: 50% more, spent about $0.5000 more so far"
    );
    for unknown in [
        rollout(arm(1_000, 0, json!(null)), arm(500, 0, json!(1.5))),
        rollout(arm(1_000, 0, json!(2.0)), arm(500, 500, json!(0.0))),
        rollout(arm(1_000, 0, json!(2.0)), arm(0, 0, json!(null))),
        rollout(arm(1_000, 0, json!(2.0)), arm(0, 0, json!(0.1))),
    ] {
        assert_eq!(saving(&unknown), None);
    }
}
