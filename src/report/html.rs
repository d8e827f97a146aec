//! A report as one HTML file: no script, nothing loaded from anywhere, fit for a mail and for paper.
//!
//! Pure. Whatever comes from a store or a configuration is text, never markup.
#![deny(clippy::disallowed_methods)]

use std::fmt::Write as _;

use super::charts::charts;
use super::words::{self, count, length, moment, money, share};
use super::{Incident, Report};
use crate::store::StoredDecision;

mod tables;

use tables::{arms, differences, write_savings};

const STYLE: &str = include_str!("html/page.css");
/// Older decisions are left out of the page; JSON and Markdown have them all.
const DECISIONS_MAX: usize = 500;

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let title = text(&format!("Migration report: {}", report.rollout));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    header(&mut page, report);
    tiles(&mut page, report);
    story(&mut page, report);
    pictures(&mut page, report);
    differences(&mut page, report);
    arms(&mut page, report);
    if let Some(savings) = &report.savings {
        write_savings(&mut page, savings);
    }
    incidents(&mut page, report);
    decisions(&mut page, report);
    notes(&mut page, report);
    write(&mut page, "</main>\n</body>\n</html>\n");
    page
}

fn write(page: &mut String, part: &str) {
    // Writing to a String cannot fail.
    write!(page, "{part}").unwrap_or_default();
}

/// Text that means only itself, in an element or an attribute.
fn text(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for letter in raw.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            // No document may hold these, whoever wrote them.
            letter if letter.is_control() => text.push(' '),
            letter => text.push(letter),
        }
    }
    text
}

fn header(page: &mut String, report: &Report) {
    let of = |url: Option<&String>| url.map_or("unknown".to_owned(), |url| text(url));
    write(
        page,
        &format!(
            "<header>\n<p class=\"kicker\">Migration report &middot; {} ({})</p>\n<h1>{}</h1>\n\
             <p class=\"meta\"><span class=\"legacy\">legacy</span> {} &rarr; \
             <span class=\"canary\">canary</span> {}<br>{} to {} UTC</p>\n</header>\n",
            text(&report.rollout),
            text(&report.rollout_id),
            text(&report.headline),
            of(report.base_urls.legacy.as_ref()),
            of(report.base_urls.canary.as_ref()),
            moment(report.from),
            moment(report.to)
        ),
    );
}

/// The numbers that are asked for first.
fn tiles(page: &mut String, report: &Report) {
    let mut tiles: Vec<(String, String, String)> = Vec::new();
    let mut tile = |name: &str, value: String, more: String| {
        tiles.push((name.to_owned(), value, more));
    };
    let took = report.duration_s.map(length).unwrap_or_default();
    let since = if took.is_empty() {
        "not begun".to_owned()
    } else {
        format!("after {took}")
    };
    tile("on the canary", share(report.weight), since);
    for name in ["error_rate", "latency_p99_ms"] {
        let Some(it) = report.differences.iter().find(|it| it.metric == name) else {
            continue;
        };
        let (label, unit) = words::metric(name);
        let more = format!(
            "legacy {}: {}",
            words::value(unit, it.legacy.value),
            words::verdict(it)
        );
        tile(
            &format!("canary {label}"),
            words::value(unit, it.canary.value),
            more,
        );
    }
    if report.started_at.is_some() {
        let masked = report.masked.canary;
        tile(
            "failures that clients saw",
            count(masked.reached_clients),
            format!("{} more were hidden by failover", count(masked.made_good)),
        );
    }
    if let Some(savings) = &report.savings {
        let month = savings.per_month_usd.as_ref();
        let month = month.map_or(String::new(), |it| format!("{} a month", money(it.value)));
        tile("saved so far", money(savings.so_far_usd.value), month);
    }
    write(
        page,
        "<section class=\"tiles\" aria-label=\"Key figures\">\n",
    );
    for (name, value, more) in tiles {
        write(
            page,
            &format!(
                "<div class=\"tile\"><p>{}</p><p class=\"figure\">{}</p><p class=\"more\">{}</p></div>\n",
                text(&name),
                text(&value),
                text(&more)
            ),
        );
    }
    write(page, "</section>\n");
}

fn story(page: &mut String, report: &Report) {
    write(page, "<section>\n<h2>In short</h2>\n");
    for paragraph in &report.story {
        write(page, &format!("<p>{}</p>\n", text(paragraph)));
    }
    write(page, "</section>\n");
}

fn pictures(page: &mut String, report: &Report) {
    write(
        page,
        "<section>\n<h2>Over time</h2>\n<p class=\"key\"><span class=\"legacy\">legacy</span> \
         <span class=\"canary\">canary</span> <span class=\"go\">&#9650; promote, resume, complete</span> \
         <span class=\"stop\">&#9660; trip, retreat, roll back</span> <span class=\"hold\">&#9632; hold</span> \
         <span class=\"operator\">&#9670; operator, configuration</span></p>\n<div class=\"charts\">\n",
    );
    for chart in charts(report) {
        write(
            page,
            &format!(
                "<figure>\n<figcaption>{}</figcaption>\n{}\n</figure>\n",
                chart.title, chart.svg
            ),
        );
    }
    write(
        page,
        "</div>\n<p class=\"small\">Times in UTC. The bands are 95% intervals of each bin.</p>\n</section>\n",
    );
}

fn incidents(page: &mut String, report: &Report) {
    write(page, "<section>\n<h2>Incidents</h2>\n");
    if report.incidents.is_empty() {
        write(page, "<p>None: the canary was never stopped.</p>\n");
    }
    for it in &report.incidents {
        incident(page, it);
    }
    write(page, "</section>\n");
}

fn incident(page: &mut String, it: &Incident) {
    let open = if it.is_open { ", not over yet" } else { "" };
    write(
        page,
        &format!(
            "<article class=\"stop\">\n<h3>{} {} &rarr; {} <time>{}</time></h3>\n\
             <p>Lasted {}{open}. {} on the canary around it; {} made good, {} seen by clients.</p>\n",
            text(&it.kind),
            share(it.weight_from),
            share(it.weight_to),
            moment(it.at),
            length(it.duration_s),
            words::counted(it.canary.failed, "failure"),
            count(it.canary.made_good),
            count(it.canary.reached_clients),
        ),
    );
    reasons(page, &it.reason);
    write(page, "</article>\n");
}

/// The parts of a reason as the decision log joins them.
fn reasons(page: &mut String, reason: &str) {
    write(page, "<ul>");
    for part in reason.split(" · ") {
        write(page, &format!("<li>{}</li>", text(part)));
    }
    write(page, "</ul>\n");
}

fn decisions(page: &mut String, report: &Report) {
    write(page, "<section>\n<h2>Every decision</h2>\n");
    let left_out = report.decisions.len().saturating_sub(DECISIONS_MAX);
    if left_out > 0 {
        write(
            page,
            &format!(
                "<p>{left_out} earlier ones are left out here; the report as JSON has them.</p>\n"
            ),
        );
    }
    if report.decisions.is_empty() {
        write(page, "<p>None yet.</p>\n");
    }
    for it in report.decisions.iter().skip(left_out) {
        decision(page, it);
    }
    write(page, "</section>\n");
}

fn decision(page: &mut String, it: &StoredDecision) {
    let class = match it.kind.as_str() {
        "start" | "promote" | "resume" | "retry" | "complete" => "go",
        "trip" | "retreat" | "roll-back" | "probe-failed" => "stop",
        "hold" => "hold",
        _ => "operator",
    };
    let weights = if it.weight_from == it.weight_to {
        it.weight_to.to_string()
    } else {
        format!("{} &rarr; {}", it.weight_from, it.weight_to)
    };
    write(
        page,
        &format!(
            "<article class=\"{class}\">\n<h3>{} {weights} <time>{}</time></h3>\n",
            text(&it.kind),
            moment(it.at)
        ),
    );
    reasons(page, &it.reason);
    let evidence = evidence(it);
    write(
        page,
        &format!(
            "<p class=\"small\">decision {} &middot; stage {} &middot; by {}{}</p>\n</article>\n",
            it.id,
            it.stage.saturating_add(1),
            text(&it.by),
            text(&evidence)
        ),
    );
}

/// The numbers that a decision rests on, in words.
fn evidence(it: &StoredDecision) -> String {
    let number = |name: &str| it.evidence.get(name).and_then(serde_json::Value::as_f64);
    let mut words = String::new();
    if let Some(guard) = it.evidence.get("guard").and_then(serde_json::Value::as_str) {
        words.push_str(&format!(" · guard {guard}"));
    }
    if let (Some(evidence), Some(needed)) = (number("evidence"), number("needed"))
        && needed > 0.0
    {
        words.push_str(&format!(
            " · evidence {} of {needed:.0} needed",
            short(evidence)
        ));
    }
    let counts = [
        "canary_errors",
        "canary_requests",
        "legacy_errors",
        "legacy_requests",
    ]
    .map(number);
    if let [
        Some(failed),
        Some(canary),
        Some(legacy_failed),
        Some(legacy),
    ] = counts
        && canary + legacy > 0.0
    {
        words.push_str(&format!(
            " · errors of the stage: canary {failed:.0}/{canary:.0}, legacy {legacy_failed:.0}/{legacy:.0}"
        ));
    }
    words
}

fn short(number: f64) -> String {
    if number >= 1e6 {
        format!("{number:.0e}")
    } else {
        format!("{number:.1}")
    }
}

fn notes(page: &mut String, report: &Report) {
    write(page, "<section>\n<h2>About the data</h2>\n<ul>\n");
    for note in &report.notes {
        write(page, &format!("<li>{}</li>\n", text(note)));
    }
    write(page, "</ul>\n</section>\n");
}
