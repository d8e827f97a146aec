//! Answers of the admin API as tables that a person can read in five seconds.
//!
//! Pure text from JSON: what is missing shows as `-`. Colours are the terminal's business and not used.

use std::fmt::Write as _;

use serde_json::Value;

use crate::clock::for_people;

/// `cutover status`
pub(super) fn status(status: &Value) -> String {
    let mut text = String::new();
    for rollout in array(status, "/rollouts") {
        write_rollout(&mut text, rollout);
    }
    write_budgets(&mut text, status);
    write_trouble(&mut text, status);
    text
}

fn write_rollout(text: &mut String, rollout: &Value) {
    let stage = format!(
        "stage {}/{}",
        number(rollout, "/stage/index"),
        number(rollout, "/stage/of")
    );
    let head = format!(
        "{}  {}  {} to the canary  {stage}  attempt {}",
        word(rollout, "/name"),
        word(rollout, "/state").to_uppercase(),
        share(rollout, "/weight"),
        number(rollout, "/attempt"),
    );
    line(text, &head);
    line(text, &format!("  {}", word(rollout, "/reason")));
    write_left_out(text, rollout);
    line(text, "");
    let header = [
        "", "requests", "errors", "rate", "429", "masked", "p50", "p99", "ttft p50", "ttft p99",
        "tok/s", "cached", "cost", "reported",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(["legacy", "canary"].map(|arm| arm_row(rollout, arm)));
    write_columns(text, &rows);
    for arm in ["legacy", "canary"] {
        write_unknown_costs(text, rollout, arm);
    }
    line(text, "");
    let header = ["guard", "verdict", "canary", "limit", "evidence", "needs"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(array(rollout, "/guards").iter().map(guard_row));
    write_columns(text, &rows);
    line(text, "");
}

/// What of the traffic is no evidence; nothing is said where there is nothing.
fn write_left_out(text: &mut String, rollout: &Value) {
    for key in array(rollout, "/dominant_keys") {
        let key = key.as_str().unwrap_or("-");
        line(
            text,
            &format!("  sticky key {key} has over 2% of the requests and is no evidence"),
        );
    }
    if let Some(note) = rollout.pointer("/dominant_note").and_then(Value::as_str) {
        line(text, &format!("  {note}"));
    }
    for key in array(rollout, "/constant_keys") {
        let key = key.as_str().unwrap_or("-");
        line(
            text,
            &format!("  sticky key {key} is shared by most requests, so it is none"),
        );
    }
    if let Some(repeats @ 1..) = rollout.pointer("/repeats").and_then(Value::as_u64) {
        line(
            text,
            &format!("  {repeats} repeats of requests that nobody could answer are no evidence"),
        );
    }
}

/// What is missing from a sum of costs; nothing is said where nothing is, or where no cost is known.
fn write_unknown_costs(text: &mut String, rollout: &Value, arm: &str) {
    let of = |field: &str| rollout.pointer(&format!("/arms/{arm}/{field}"));
    if of("cost_usd").is_none_or(Value::is_null) {
        return;
    }
    let count = |field: &str| of(field).and_then(Value::as_u64).unwrap_or(0);
    let (unpriced, no_usage) = (count("unpriced"), count("no_usage"));
    if unpriced + no_usage > 0 {
        let unpriced = format!("{unpriced} without a price or cut short");
        line(
            text,
            &format!("  {arm}: not in its cost: {unpriced}, {no_usage} without tokens"),
        );
    }
}

/// How far the budgets of today are spent.
fn write_budgets(text: &mut String, status: &Value) {
    let budgets = array(status, "/budgets");
    if budgets.is_empty() {
        return;
    }
    let header = ["budget", "per day", "spent today", "share", "unknown"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(budgets.iter().map(|budget| {
        let count = |field: &str| budget.pointer(field).and_then(Value::as_u64).unwrap_or(0);
        [
            word(budget, "/name").to_owned(),
            money(budget.pointer("/usd_per_day")),
            money(budget.pointer("/spent_usd")),
            rate(budget.pointer("/share")),
            (count("/unpriced") + count("/no_usage")).to_string(),
        ]
    }));
    write_columns(text, &rows);
    line(text, "");
}

fn arm_row(rollout: &Value, arm: &str) -> [String; 14] {
    let at = |field: &str| format!("/arms/{arm}/{field}");
    [
        arm.to_owned(),
        number(rollout, &at("requests")),
        number(rollout, &at("errors")),
        rate(rollout.pointer(&at("error_rate"))),
        number(rollout, &at("rate_limited")),
        number(rollout, &at("masked")),
        time(rollout.pointer(&at("latency_ms/p50"))),
        time(rollout.pointer(&at("latency_ms/p99"))),
        time(rollout.pointer(&at("ttft_ms/p50"))),
        time(rollout.pointer(&at("ttft_ms/p99"))),
        speed(rollout.pointer(&at("tokens_per_s/p50"))),
        rate(rollout.pointer(&at("cache_hit_share"))),
        money(rollout.pointer(&at("cost_usd"))),
        money(rollout.pointer(&at("reported_cost_usd"))),
    ]
}

fn guard_row(guard: &Value) -> [String; 6] {
    let name = word(guard, "/name");
    let is_time = name.starts_with("latency") || name.starts_with("ttft");
    let value = |field: &str| {
        let value = guard.pointer(field);
        if is_time { time(value) } else { rate(value) }
    };
    let needs = match guard.pointer("/requests_needed").and_then(Value::as_u64) {
        Some(requests) => {
            let eta = guard.pointer("/eta_s").and_then(Value::as_i64);
            // Seconds of an estimate over minutes say nothing.
            let eta = eta.map(|s| if s > 60 { s - s % 60 } else { s.max(1) });
            let eta = eta.map(|s| format!(", ~{}", for_people(s.saturating_mul(1_000))));
            format!("{requests} more requests{}", eta.unwrap_or_default())
        }
        None => "-".to_owned(),
    };
    let evidence = format!(
        "{} of {}",
        float(guard.pointer("/evidence")),
        float(guard.pointer("/needed"))
    );
    [
        name.to_owned(),
        word(guard, "/verdict").to_owned(),
        value("/value"),
        value("/limit"),
        evidence,
        needs,
    ]
}

fn write_trouble(text: &mut String, status: &Value) {
    if status.pointer("/store/healthy") == Some(&Value::Bool(false)) {
        let error = word(status, "/store/error");
        line(
            text,
            &format!("STORE FAILING, weights do not rise: {error}"),
        );
    }
    let dropped = status
        .pointer("/store/dropped_samples")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    if dropped > 0 {
        line(text, &format!("{dropped} samples were dropped"));
    }
    if let Some(error) = status.pointer("/config/error").and_then(Value::as_str) {
        line(
            text,
            &format!("CONFIGURATION REJECTED, the one before is in force:\n{error}"),
        );
    }
}

/// `cutover decisions`: oldest first, so that the latest is where the eye ends.
pub(super) fn decisions(answer: &Value) -> String {
    let mut text = String::new();
    for decision in array(answer, "/decisions").iter().rev() {
        let (from, to) = (
            share(decision, "/weight_from"),
            share(decision, "/weight_to"),
        );
        let weights = if from == to {
            to
        } else {
            format!("{from} -> {to}")
        };
        let row = format!(
            "{}  #{:<5} {:<12} {:<12} {weights:<14} {}",
            word(decision, "/at"),
            number(decision, "/id"),
            word(decision, "/rollout"),
            word(decision, "/kind"),
            word(decision, "/reason"),
        );
        line(&mut text, &row);
    }
    if text.is_empty() {
        text.push_str("no decisions yet\n");
    }
    text
}

pub(super) fn write_columns<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut out = String::from("  ");
        for (place, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            // Words to the left, numbers to the right.
            if place == 0 || cell.chars().next().is_some_and(char::is_alphabetic) {
                out.push_str(&format!("{cell}{padding}  "));
            } else {
                out.push_str(&format!("{padding}{cell}  "));
            }
        }
        line(text, out.trim_end());
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn word<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("-")
}

fn number(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .filter(|found| found.is_number())
        .map_or("-".into(), Value::to_string)
}

fn share(value: &Value, pointer: &str) -> String {
    rate(value.pointer(pointer))
}

fn rate(value: Option<&Value>) -> String {
    let Some(share) = value.and_then(Value::as_f64) else {
        return "-".to_owned();
    };
    let percent = share * 100.0;
    let mut text = if percent >= 10.0 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.2}")
    };
    while text.contains('.') && (text.ends_with('0') || text.ends_with('.')) {
        text.pop();
    }
    text + "%"
}

fn time(value: Option<&Value>) -> String {
    match value.and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.2}s", ms / 1_000.0),
    }
}

/// Small sums keep two digits that say something.
fn money(value: Option<&Value>) -> String {
    match value.and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(usd) if usd > 0.0 && usd < 0.01 => format!("${usd:.6}"),
        Some(usd) if usd > 0.0 && usd < 1.0 => format!("${usd:.4}"),
        Some(usd) => format!("${usd:.2}"),
    }
}

fn speed(value: Option<&Value>) -> String {
    match value.and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(speed) if speed < 10.0 => format!("{speed:.1}"),
        Some(speed) => format!("{speed:.0}"),
    }
}

fn float(value: Option<&Value>) -> String {
    let mut text = String::new();
    match value.and_then(Value::as_f64) {
        None => text.push('-'),
        Some(number) if number >= 1e6 => drop(write!(text, "{number:.0e}")),
        Some(number) if number >= 100.0 => drop(write!(text, "{number:.0}")),
        Some(number) => drop(write!(text, "{number:.2}")),
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn money_keeps_digits_that_say_something_and_unknown_is_no_zero() {
        let cases = [
            (json!(null), "-"),
            (json!(0.0), "$0.00"),
            (json!(0.000_123), "$0.000123"),
            (json!(0.5), "$0.5000"),
            (json!(1234.567), "$1234.57"),
        ];
        for (usd, expected) in cases {
            assert_eq!(money(Some(&usd)), expected);
        }
    }

    #[test]
    fn budgets_and_unknown_costs_are_shown_where_there_are_any() {
        let arm = |cost: Value, unpriced: u64| {
            json!({
                "requests": 10, "errors": 0, "error_rate": 0.0, "rate_limited": 0, "masked": 0,
                "latency_ms": {"p50": 800.0, "p99": 2500.0}, "ttft_ms": {"p50": 90.0, "p99": null},
                "tokens_per_s": {"p50": 81.6}, "cache_hit_share": 0.25, "cost_usd": cost,
                "reported_cost_usd": null, "unpriced": unpriced, "no_usage": 1,
            })
        };
        let status = json!({
            "rollouts": [{
                "name": "default", "state": "running", "reason": "dwell", "weight": 0.05, "attempt": 1,
                "stage": {"index": 2, "of": 7}, "guards": [],
                "arms": {"legacy": arm(json!(null), 9), "canary": arm(json!(1.5), 2)},
            }],
            "budgets": [
                {"name": "canary", "usd_per_day": 100.0, "spent_usd": 82.5, "share": 0.825, "unpriced": 2, "no_usage": 1},
                {"name": "search", "usd_per_day": 5.0, "spent_usd": null, "share": null, "unpriced": 4, "no_usage": 0},
            ],
        });
        insta::assert_snapshot!(super::status(&status), @r"
        default  RUNNING  5% to the canary  stage 2/7  attempt 1
          dwell

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
}
