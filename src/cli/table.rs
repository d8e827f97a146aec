//! `cutover status` as a table that a person can read in five seconds, also at three in the morning.
//!
//! Pure text from JSON: first the state and why, then what comes next, then the numbers behind it.
#![deny(clippy::disallowed_methods)]

use serde_json::Value;

use super::fields::{
    array, count, float_at, money, number, percent, rate, share, speed, text, time, word,
};
use super::outlook::{self, REMINDER};
use super::paint::{Paint, Tone};
use crate::clock::UnixMillis;

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
    /// A sentence may begin with a number and stays left all the same.
    is_words: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self {
            is_words: text.starts_with(char::is_alphabetic),
            text,
            tone: Tone::Plain,
        }
    }
}

impl Cell {
    /// A cell in a tone.
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        let cell = Self::from(text.into());
        Self { tone, ..cell }
    }

    /// A sentence.
    fn words(text: String) -> Self {
        let cell = Self::from(text);
        Self {
            is_words: true,
            ..cell
        }
    }
}

/// `cutover status`. The answer must be harmless already.
pub(super) fn status(status: &Value, paint: Paint, now: UnixMillis) -> String {
    let mut out = Out {
        text: String::new(),
        paint,
    };
    for (tone, words) in outlook::trouble(status) {
        out.line(&paint.tint(tone, &words));
    }
    if !out.text.is_empty() {
        out.line("");
    }
    for rollout in array(status, "/rollouts") {
        out.rollout(rollout, now);
    }
    if array(status, "/rollouts").is_empty() {
        out.line("no rollout is configured: all traffic goes to legacy");
    }
    out.budgets(status);
    out.clients(status);
    out.alerts(status);
    let learned = count(status, "/learned_ids/known");
    if learned > 0 {
        out.line(&format!(
            "{learned} learned ids: requests that name one go to the canary, which keeps their state"
        ));
    }
    out.text
}

struct Out {
    text: String,
    paint: Paint,
}

impl Out {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn columns<const N: usize>(&mut self, rows: &[[Cell; N]]) {
        write_cells(&mut self.text, rows, self.paint);
    }

    fn header<const N: usize>(names: [&str; N]) -> [Cell; N] {
        names.map(|name| Cell::new(Tone::Faint, name))
    }

    fn rollout(&mut self, rollout: &Value, now: UnixMillis) {
        let state = word(rollout, "/state");
        let head = format!(
            "{}  {}  {} to the canary  stage {}/{}  attempt {}",
            self.paint.tint(Tone::Strong, word(rollout, "/name")),
            self.paint
                .tint(outlook::tone_of_state(state), &state.to_uppercase()),
            share(rollout, "/weight"),
            number(rollout, "/stage/index"),
            number(rollout, "/stage/of"),
            number(rollout, "/attempt"),
        );
        self.line(&head);
        let stages: Vec<String> = outlook::ladder(rollout)
            .into_iter()
            .map(|(weight, is_present)| match is_present {
                true => self.paint.tint(Tone::Strong, &format!("[{weight}]")),
                false => weight,
            })
            .collect();
        if !stages.is_empty() {
            self.line(&format!("  stages  {}", stages.join(" > ")));
        }
        self.line(&format!("  why     {}", word(rollout, "/reason")));
        if let Some(next) = outlook::next_step(rollout, now) {
            self.line(&format!("  next    {next}"));
        }
        if state == "complete" {
            self.line(&format!("  keep    {REMINDER}"));
        }
        self.left_out(rollout);
        self.line("");
        self.arms(rollout);
        self.line("");
        self.guards(rollout);
        self.line("");
    }

    fn arms(&mut self, rollout: &Value) {
        let header = [
            "", "requests", "errors", "rate", "429", "masked", "p50", "p99", "ttft p50",
            "ttft p99", "tok/s", "cached", "cost", "reported",
        ];
        let mut rows = vec![Self::header(header)];
        rows.extend(["legacy", "canary"].map(|arm| arm_row(rollout, arm).map(Cell::from)));
        self.columns(&rows);
        for arm in ["legacy", "canary"] {
            self.unknown_costs(rollout, arm);
        }
        if let Some(saving) = outlook::saving(rollout) {
            self.line(&format!("  {}", saving.words()));
        }
        for arm in ["legacy", "canary"] {
            for (tone, words) in outlook::hindrances(rollout, arm) {
                let words = self.paint.tint(tone, &words);
                self.line(&format!("  {words}"));
            }
        }
    }

    fn guards(&mut self, rollout: &Value) {
        let header = ["guard", "verdict", "canary", "limit", "evidence", "needs"];
        let mut rows = vec![Self::header(header)];
        rows.extend(array(rollout, "/guards").iter().map(guard_row));
        self.columns(&rows);
    }

    /// What of the traffic is no evidence; nothing is said where there is nothing.
    fn left_out(&mut self, rollout: &Value) {
        for key in array(rollout, "/dominant_keys") {
            let key = key.as_str().unwrap_or("-");
            self.line(&format!(
                "  sticky key {key} has over 2% of the requests and is no evidence"
            ));
        }
        if let Some(note) = text(rollout, "/dominant_note") {
            self.line(&format!("  {note}"));
        }
        for key in array(rollout, "/constant_keys") {
            let key = key.as_str().unwrap_or("-");
            self.line(&format!(
                "  sticky key {key} is shared by most requests, so it is none"
            ));
        }
        if let repeats @ 1.. = count(rollout, "/repeats") {
            self.line(&format!(
                "  {repeats} repeats of requests that nobody could answer are no evidence"
            ));
        }
    }

    /// What is missing from a sum of costs; nothing is said where nothing is, or where no cost is known.
    fn unknown_costs(&mut self, rollout: &Value, arm: &str) {
        let at = |field: &str| format!("/arms/{arm}/{field}");
        if float_at(rollout, &at("cost_usd")).is_none() {
            return;
        }
        let unpriced = count(rollout, &at("unpriced"));
        let no_usage = count(rollout, &at("no_usage"));
        if unpriced + no_usage > 0 {
            self.line(&format!(
                "  {arm}: not in its cost: {unpriced} without a price or cut short, {no_usage} without tokens"
            ));
        }
    }

    /// How far the budgets of today are spent.
    fn budgets(&mut self, status: &Value) {
        let budgets = array(status, "/budgets");
        if budgets.is_empty() {
            return;
        }
        let mut rows = vec![Self::header([
            "budget",
            "per day",
            "spent today",
            "share",
            "unknown",
        ])];
        rows.extend(budgets.iter().map(|budget| {
            let share = float_at(budget, "/share");
            let tone = match share {
                Some(1.0..) => Tone::Bad,
                Some(0.8..) => Tone::Care,
                _ => Tone::Plain,
            };
            [
                word(budget, "/name").to_owned().into(),
                money(budget.pointer("/usd_per_day")).into(),
                money(budget.pointer("/spent_usd")).into(),
                Cell::new(tone, share.map_or("-".to_owned(), percent)),
                (count(budget, "/unpriced") + count(budget, "/no_usage"))
                    .to_string()
                    .into(),
            ]
        }));
        self.columns(&rows);
        self.line("");
    }

    /// Who uses the proxy: those who ask most.
    fn clients(&mut self, status: &Value) {
        const SHOWN: usize = 10;
        let mut clients: Vec<&Value> = array(status, "/clients/known").iter().collect();
        if clients.is_empty() {
            return;
        }
        clients.sort_by_key(|client| std::cmp::Reverse(count(client, "/requests")));
        let mut rows = vec![Self::header([
            "client",
            "requests",
            "over its rate",
            "rate",
        ])];
        rows.extend(clients.iter().take(SHOWN).map(|client| {
            let limited = count(client, "/limited");
            let tone = if limited > 0 { Tone::Care } else { Tone::Plain };
            [
                word(client, "/name").to_owned().into(),
                number(client, "/requests").into(),
                Cell::new(tone, limited.to_string()),
                text(client, "/rate").unwrap_or("-").to_owned().into(),
            ]
        }));
        self.columns(&rows);
        if let more @ 1.. = clients.len().saturating_sub(SHOWN) {
            self.line(&format!("  and {more} more, all in --json"));
        }
        if let refused @ 1.. = count(status, "/clients/unauthorized") {
            self.line(&format!(
                "  {refused} requests without the key of a client were refused"
            ));
        }
        self.line("");
    }

    /// How the webhooks do.
    fn alerts(&mut self, status: &Value) {
        let alerts = array(status, "/alerts");
        if alerts.is_empty() {
            return;
        }
        let mut rows = vec![Self::header([
            "webhook",
            "format",
            "sent",
            "failed",
            "dropped",
            "queued",
            "last error",
        ])];
        rows.extend(alerts.iter().map(|alert| {
            [
                word(alert, "/webhook").to_owned().into(),
                word(alert, "/format").to_owned().into(),
                number(alert, "/sent").into(),
                number(alert, "/failed").into(),
                number(alert, "/dropped").into(),
                number(alert, "/queued").into(),
                Cell::new(Tone::Care, word(alert, "/last_error")),
            ]
        }));
        self.columns(&rows);
        self.line("");
    }
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

/// A guard's value or limit, in its unit.
pub(super) fn guard_value(guard: &Value, field: &str) -> String {
    let name = word(guard, "/name");
    let value = guard.pointer(field);
    if name.starts_with("latency") || name.starts_with("ttft") {
        time(value)
    } else {
        rate(value)
    }
}

fn guard_row(guard: &Value) -> [Cell; 6] {
    let verdict = word(guard, "/verdict");
    let tone = outlook::tone_of_verdict(verdict);
    [
        word(guard, "/name").to_owned().into(),
        Cell::new(tone, verdict),
        guard_value(guard, "/value").into(),
        guard_value(guard, "/limit").into(),
        outlook::evidence(guard).into(),
        Cell::words(outlook::needs(guard)),
    ]
}

/// A table without colours.
pub(super) fn write_columns<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let rows: Vec<[Cell; N]> = rows.iter().map(|row| row.clone().map(Cell::from)).collect();
    write_cells(text, &rows, Paint::PLAIN);
}

fn write_cells<const N: usize>(text: &mut String, rows: &[[Cell; N]], paint: Paint) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.text.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut out = String::from("  ");
        for (place, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            let shown = paint.tint(cell.tone, &cell.text);
            // Words to the left, numbers to the right.
            if place == 0 || cell.is_words {
                out.push_str(&format!("{shown}{padding}  "));
            } else {
                out.push_str(&format!("{padding}{shown}  "));
            }
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
