//! A report as Markdown: the same facts, tables instead of charts.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use std::fmt::Write as _;

use super::table::rows;
use super::words::{self, count, length, moment, share};
use super::{Estimate, Report, Savings};
use crate::chart::Unit;

/// The whole report.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = format!(
        "# Migration report: {}\n\n**{}**\n\n{} to {} UTC\n",
        plain(&report.rollout),
        plain(&report.headline),
        moment(report.from),
        moment(report.to)
    );
    for paragraph in &report.story {
        write(&mut text, &format!("\n{}\n", plain(paragraph)));
    }
    arms(&mut text, report);
    differences(&mut text, report);
    if let Some(savings) = &report.savings {
        write_savings(&mut text, savings);
    }
    incidents(&mut text, report);
    decisions(&mut text, report);
    heading(&mut text, "About the data");
    for note in &report.notes {
        write(&mut text, &format!("- {}\n", plain(note)));
    }
    text
}

fn write(text: &mut String, part: &str) {
    // Writing to a String cannot fail.
    write!(text, "{part}").unwrap_or_default();
}

fn heading(text: &mut String, heading: &str) {
    write(text, &format!("\n## {heading}\n\n"));
}

/// Text that means only itself: reasons and names come from people.
fn plain(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for letter in raw.chars() {
        match letter {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' => {
                text.push('\\');
                text.push(letter);
            }
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            letter if letter.is_control() => text.push(' '),
            letter => text.push(letter),
        }
    }
    text
}

fn with_range(unit: Unit, estimate: Option<&Estimate>) -> String {
    estimate.map_or("-".to_owned(), |it| {
        format!(
            "{} ({})",
            words::value(unit, it.value),
            words::range(unit, it)
        )
    })
}

fn arms(text: &mut String, report: &Report) {
    heading(text, "What each arm did");
    write(text, "| | legacy | canary |\n|---|---:|---:|\n");
    for (name, both) in rows(&report.arms.legacy, &report.arms.canary) {
        let [legacy, canary] = both.map(|(value, more)| match more.as_str() {
            "" => value,
            more => format!("{value} ({more})"),
        });
        write(text, &format!("| {name} | {legacy} | {canary} |\n"));
    }
    write(text, "\nIn brackets: 95% intervals.\n");
}

fn differences(text: &mut String, report: &Report) {
    heading(text, "Both arms at the same times");
    if report.differences.is_empty() {
        write(text, "Nothing to compare yet.\n");
        return;
    }
    write(
        text,
        "| | legacy | canary | the canary is | 95% interval |\n|---|---:|---:|---|---|\n",
    );
    for it in &report.differences {
        let (name, unit) = words::metric(it.metric);
        write(
            text,
            &format!(
                "| {name} | {} | {} | {} | {} |\n",
                words::value(unit, it.legacy.value),
                words::value(unit, it.canary.value),
                words::verdict(it),
                words::shift_range(unit, &it.difference)
            ),
        );
    }
}

fn write_savings(text: &mut String, savings: &Savings) {
    heading(text, "Money");
    let so_far = with_range(Unit::Usd, Some(&savings.so_far_usd));
    let per_month = with_range(Unit::Usd, savings.per_month_usd.as_ref());
    write(
        text,
        &format!("- saved so far: {so_far}\n- per month: {per_month}\n\n"),
    );
    write(text, &format!("{}\n", plain(&savings.method)));
}

fn incidents(text: &mut String, report: &Report) {
    heading(text, "Incidents");
    if report.incidents.is_empty() {
        write(text, "None.\n");
        return;
    }
    write(
        text,
        "| when (UTC) | what | how long | failed on the canary | reached clients | why |\n\
         |---|---|---:|---:|---:|---|\n",
    );
    for it in &report.incidents {
        let open = if it.is_open { ", not over" } else { "" };
        write(
            text,
            &format!(
                "| {} | {} {} -> {} | {}{open} | {} | {} | {} |\n",
                moment(it.at),
                plain(&it.kind),
                share(it.weight_from),
                share(it.weight_to),
                length(it.duration_s),
                count(it.canary.failed),
                count(it.canary.reached_clients),
                plain(&it.reason)
            ),
        );
    }
}

fn decisions(text: &mut String, report: &Report) {
    heading(text, "Every decision");
    if report.decisions.is_empty() {
        write(text, "None yet.\n");
        return;
    }
    write(
        text,
        "| id | when (UTC) | decision | by | why |\n|---:|---|---|---|---|\n",
    );
    for it in &report.decisions {
        write(
            text,
            &format!(
                "| {} | {} | {} {} -> {} | {} | {} |\n",
                it.id,
                moment(it.at),
                plain(&it.kind),
                it.weight_from,
                it.weight_to,
                plain(&it.by),
                plain(&it.reason)
            ),
        );
    }
}
