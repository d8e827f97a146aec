//! The page is one well-formed file that loads nothing, whatever the record holds.

use super::*;
use crate::report::{html, markdown};

const HOSTILE: &str = "<script>alert('x')</script> & \"quoted\" | `code` \u{1b}[31m\u{0}";

/// Every element that opens closes, in order; attributes are quoted. Gives the names that were seen.
fn check_well_formed(page: &str) -> Vec<String> {
    const VOID: [&str; 2] = ["meta", "br"];
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        if open.last().is_none_or(|name| name != "style") {
            assert!(!text.contains('>'), "a stray > in {text:?}");
        }
        let end = rest[at..].find('>').unwrap() + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{tag} closes another");
            continue;
        }
        let name = tag.split([' ', '/', '\n']).next().unwrap().to_owned();
        seen.push(name.clone());
        if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    seen
}

fn check_page(report: &Report) -> String {
    let page = html::page(report);
    let elements = check_well_formed(&page);
    for loads in [
        "script", "link", "img", "iframe", "object", "embed", "base", "use", "image", "a",
    ] {
        assert!(!elements.iter().any(|name| name == loads), "<{loads}>");
    }
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for part in [
        "src=",
        "href=",
        "url(",
        "@import",
        " onload",
        " onclick",
        "javascript:",
    ] {
        assert!(!without_namespace.contains(part), "{part}");
    }
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    page
}

#[test]
fn hostile_text_is_text_in_every_format() {
    let mut hostile = input(
        vec![
            decision(1, 0, "start", "0%", "50%", HOSTILE),
            decision(2, 5, "trip", "50%", "0%", HOSTILE),
            decision(3, 6, "<b>kind</b>", "0%", "50%", HOSTILE),
        ],
        (0..20)
            .map(|minute| {
                point(
                    minute,
                    measured(50, 1, 0.01, 500.0),
                    measured(50, 1, 0.01, 400.0),
                )
            })
            .collect(),
    );
    hostile.rollout = HOSTILE.to_owned();
    hostile.base_urls.canary = Some(format!("https://{HOSTILE}"));
    let report = Report::new(hostile);
    let page = check_page(&report);
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    assert!(!page.contains('\u{0}') && !page.contains('\u{1b}'));
    let text = markdown::text(&report);
    assert!(
        !text.contains("<script>") && text.contains("\\| \\`code\\`"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["decisions"][1]["reason"], HOSTILE);
}

#[test]
fn a_store_without_traffic_and_one_in_its_warm_up_have_reports() {
    let report = Report::new(input(Vec::new(), Vec::new()));
    assert_eq!(report.headline, "No traffic yet");
    let page = check_page(&report);
    assert!(page.contains("No traffic yet") && page.contains("has seen no traffic"));
    assert!(markdown::text(&report).contains("None yet."));

    let points =
        (0..5).map(|minute| point(minute, measured(30, 0, 0.01, 500.0), Measured::default()));
    let report = Report::new(input(Vec::new(), points.collect()));
    assert_eq!(report.state, "warming-up");
    let page = check_page(&report);
    assert!(
        page.contains("150 requests so far"),
        "{}",
        report.story.join(" ")
    );
    assert!(page.contains("Nothing to compare yet"));
}

#[test]
fn a_long_record_stays_below_a_megabyte() {
    let mut decisions = vec![decision(1, 0, "start", "0%", "50%", "go")];
    for id in 2..3_000 {
        let (kind, from, to) = if id % 2 == 0 {
            ("trip", "50%", "0%")
        } else {
            ("resume", "0%", "50%")
        };
        let reason =
            "errors 11/14 in 0.9s: 6x connect 5x 503 · legacy 0.49% · 11 rescued by failover";
        decisions.push(decision(id, id * 20, kind, from, to, reason));
    }
    let points = (0..1_440)
        .map(|hour| {
            point(
                hour * 60,
                measured(50, 1, 0.01, 500.0),
                measured(50, 1, 0.01, 400.0),
            )
        })
        .collect();
    let report = Report::new(input(decisions, points));
    let page = html::page(&report);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(page.contains("earlier ones are left out here"));
}
