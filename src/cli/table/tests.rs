use serde_json::json;

use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn arm(cost: &Value, unpriced: u64) -> Value {
    json!({
        "requests": 10, "errors": 0, "error_rate": 0.0, "rate_limited": 0, "masked": 0,
        "latency_ms": {"p50": 800.0, "p99": 2500.0}, "ttft_ms": {"p50": 90.0, "p99": null},
        "tokens_per_s": {"p50": 81.6}, "cache_hit_share": 0.25, "cost_usd": cost,
        "reported_cost_usd": null, "unpriced": unpriced, "no_usage": 1, "breaker": "closed",
    })
}

fn shown(status: &Value) -> String {
    super::status(status, Paint::PLAIN, NOW)
}

#[test]
fn why_it_does_not_move_stands_above_the_numbers() {
    let mut canary = arm(&json!(null), 0);
    canary["breaker"] = json!("open");
    canary["headroom"] = json!({"requests": {"limit": 10_000, "remaining": 900, "share": 0.05}});
    let status = json!({
        "rollouts": [{
            "name": "default", "state": "running", "weight": 0.05, "attempt": 1,
            "reason": "dwell: 12m left \u{b7} needs about 1,900 more canary requests, ~9m at this rate for error-rate",
            "next_action_at": "2023-11-14T22:25:20.000Z",
            "stage": {"index": 2, "of": 3}, "stages": [0.01, 0.05, 1.0],
            "dominant_keys": ["3f2a"], "dominant_note": null, "constant_keys": [], "repeats": 4,
            "guards": [
                {"name": "error-rate", "verdict": "undecided", "value": 0.0032, "limit": 0.0099,
                    "evidence": 4.06, "needed": 20.0, "requests_needed": 1893, "eta_s": 551},
                {"name": "latency-p99", "verdict": "healthy", "value": 1210.0, "limit": 1340.0,
                    "evidence": 1e171, "needed": 20.0, "requests_needed": null, "eta_s": null},
                {"name": "ttft-p99", "verdict": "no-data", "value": null, "limit": null,
                    "evidence": 0.0, "needed": 20.0, "requests_needed": null, "eta_s": null},
            ],
            "arms": {"legacy": arm(&json!(1.0), 0), "canary": canary},
        }],
        "learned_ids": {"known": 12},
        "alerts": [{"webhook": "https://hooks.example.com/****", "format": "slack", "sent": 3,
            "failed": 1, "dropped": 2, "queued": 0, "last_error": "it answered 500"}],
    });
    insta::assert_snapshot!(shown(&status), @r"
    ALERTS DO NOT ALL ARRIVE: https://hooks.example.com/**** refused 1, 2 given up, it answered 500

    default  RUNNING  5% to the canary  stage 2/3  attempt 1
      stages  1% > [5%] > 100%
      why     dwell: 12m left · needs about 1,900 more canary requests, ~9m at this rate for error-rate
      next    may go up in 12m (22:25:20 UTC), if every guard has proof by then
      sticky key 3f2a has over 2% of the requests and is no evidence
      4 repeats of requests that nobody could answer are no evidence

              requests  errors  rate  429  masked  p50    p99    ttft p50  ttft p99  tok/s  cached  cost   reported
      legacy        10       0    0%    0       0  800ms  2.50s      90ms         -     82     25%  $1.00         -
      canary        10       0    0%    0       0  800ms  2.50s      90ms         -     82     25%      -         -
      legacy: not in its cost: 0 without a price or cut short, 1 without tokens
      canary: its connections fail, so it is not dialled (breaker open)
      canary: its rate limits have room for 900 of 10,000 requests

      guard        verdict    canary  limit  evidence    needs
      error-rate   undecided   0.32%  0.99%   4.1 of 20  1,900 more requests, ~9m
      latency-p99  healthy     1.21s  1.34s  >200 of 20  proven
      ttft-p99     no-data         -      -           -  no data in this stage yet

      webhook                         format  sent  failed  dropped  queued  last error
      https://hooks.example.com/****  slack      3       1        2       0  it answered 500

    12 learned ids: requests that name one go to the canary, which keeps their state
    ");
}

#[test]
fn budgets_and_unknown_costs_are_shown_where_there_are_any() {
    let status = json!({
        "rollouts": [{
            "name": "default", "state": "running", "reason": "dwell", "weight": 0.05, "attempt": 1,
            "stage": {"index": 2, "of": 7}, "guards": [],
            "arms": {"legacy": arm(&json!(null), 9), "canary": arm(&json!(1.5), 2)},
        }],
        "budgets": [
            {"name": "canary", "usd_per_day": 100.0, "spent_usd": 82.5, "share": 0.825, "unpriced": 2, "no_usage": 1},
            {"name": "search", "usd_per_day": 5.0, "spent_usd": null, "share": null, "unpriced": 4, "no_usage": 0},
        ],
    });
    insta::assert_snapshot!(shown(&status), @r"
    default  RUNNING  5% to the canary  stage 2/7  attempt 1
      why     dwell
      next    goes up as soon as every guard has proof

              requests  errors  rate  429  masked  p50    p99    ttft p50  ttft p99  tok/s  cached  cost   reported
      legacy        10       0    0%    0       0  800ms  2.50s      90ms         -     82     25%      -         -
      canary        10       0    0%    0       0  800ms  2.50s      90ms         -     82     25%  $1.50         -
      canary: not in its cost: 2 without a price or cut short, 1 without tokens

      guard  verdict  canary  limit  evidence  needs

      budget  per day  spent today  share  unknown
      canary  $100.00       $82.50  82.5%        3
      search    $5.00            -      -        4
    ");
}

#[test]
fn what_is_broken_comes_first_and_a_finished_migration_says_what_to_keep() {
    let status = json!({
        "store": {"healthy": false, "error": "disk full", "dropped_samples": 3},
        "config": {"error": "cutover.toml:3:1: stages: no"},
        "rollouts": [{
            "name": "default", "state": "complete", "reason": "complete at 100%", "weight": 1.0,
            "attempt": 1, "stage": {"index": 2, "of": 2}, "stages": [0.05, 1.0], "guards": [],
            "arms": {"legacy": arm(&json!(null), 0), "canary": arm(&json!(null), 0)},
        }],
    });
    let text = shown(&status);
    let head: Vec<&str> = text.lines().take(10).collect();
    insta::assert_snapshot!(head.join("\n"), @r"
    STORE FAILING, weights do not rise: disk full
    3 samples were dropped because a queue was full
    CONFIGURATION REJECTED, the one before is in force:
    cutover.toml:3:1: stages: no

    default  COMPLETE  100% to the canary  stage 2/2  attempt 1
      stages  5% > [100%]
      why     complete at 100%
      keep    legacy's credentials and this daemon for 30 days: until then `cutover rollback` brings everything back within a second
    ");
    let painted = super::status(&status, Paint::FULL, NOW);
    assert!(painted.contains("\x1b[32mCOMPLETE\x1b[0m"), "{painted}");
    assert!(!text.contains('\x1b'));
    assert_eq!(
        shown(&json!({})),
        "no rollout is configured: all traffic goes to legacy\n"
    );
}
