//! The answer of `cutover backtest` for people: decisions side by side, then both courses in numbers.
//!
//! Pure text.

use std::fmt::Write as _;

use super::Answer;
use crate::arm::Weight;
use crate::backtest::compare::{Course, Line};
use crate::backtest::replay::Exposure;
use crate::cli::table::write_columns;
use crate::clock::{UnixMillis, for_people};

/// Shifts below this are those of the looks.
pub(super) const SAME_MS: i64 = 5_000;

/// `2026-11-21 14:30:05`
pub(super) fn moment(at: UnixMillis) -> String {
    let text = at.to_string().replace('T', " ");
    text.get(..19).unwrap_or(&text).to_owned()
}

/// The whole answer.
pub(super) fn answer(answer: &Answer<'_>) -> String {
    let replayed = answer.replayed;
    let mut text = format!(
        "rollout {} ({})  {} to {} UTC  {} cells  rules of {}\n\n",
        answer.rollout.name,
        answer.rollout.rollout_id,
        moment(replayed.from),
        moment(replayed.to),
        replayed.cells,
        answer.config
    );
    let header = ["time", "recorded", "replayed", "difference"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(answer.lines.iter().map(row));
    if answer.lines.is_empty() {
        text.push_str("  nothing was decided, and nothing would have been\n");
    } else {
        write_columns(&mut text, &rows);
    }
    write_reasons(&mut text, answer);
    text.push('\n');
    write_columns(&mut text, &summary(answer));
    text.push('\n');
    for note in notes(answer) {
        line(&mut text, &format!("  note: {note}"));
    }
    text
}

/// What is the same, and what is not.
pub(super) fn difference(line: &Line<'_>) -> String {
    match line {
        Line::Both(taken, would) => {
            let shift_ms = would.at.millis_since(taken.at);
            match shift_ms {
                _ if shift_ms.abs() < SAME_MS => "same".to_owned(),
                1.. => format!("{} later", for_people(shift_ms)),
                _ => format!("{} earlier", for_people(shift_ms.saturating_neg())),
            }
        }
        Line::Recorded(_) => "not taken".to_owned(),
        Line::Replayed(_) => "only replayed".to_owned(),
    }
}

fn row(line: &Line<'_>) -> [String; 4] {
    let said = |kind: &str, from: Weight, to: Weight| {
        if from == to {
            format!("{kind} {to}")
        } else {
            format!("{kind} {from} -> {to}")
        }
    };
    let none = || "nothing".to_owned();
    let (recorded, replayed) = match line {
        Line::Both(taken, would) => (
            said(taken.kind.as_str(), taken.weight_from, taken.weight_to),
            said(would.kind.as_str(), would.weight_from, would.weight_to),
        ),
        Line::Recorded(taken) => (
            said(taken.kind.as_str(), taken.weight_from, taken.weight_to),
            none(),
        ),
        Line::Replayed(would) => (
            none(),
            said(would.kind.as_str(), would.weight_from, would.weight_to),
        ),
    };
    [moment(line.at()), recorded, replayed, difference(line)]
}

/// Why one of them decided what the other did not.
fn write_reasons(text: &mut String, answer: &Answer<'_>) {
    let mut began = false;
    for it in &answer.lines {
        let (at, whose, kind, reason) = match it {
            Line::Both(..) => continue,
            Line::Recorded(taken) => (taken.at, "recorded", taken.kind, &taken.reason),
            Line::Replayed(would) => (would.at, "replayed", would.kind, &would.reason),
        };
        if !began {
            line(text, "\nWhere they part:");
            began = true;
        }
        line(text, &format!("  {} {whose} {kind}: {reason}", moment(at)));
    }
}

/// One number of a course.
type Count = fn(&Course) -> usize;
/// One number of an exposure.
type Part = fn(&Exposure) -> f64;

fn summary(answer: &Answer<'_>) -> Vec<[String; 3]> {
    let [was, would] = &answer.courses;
    let began = answer.replayed.from;
    let after =
        |at: Option<UnixMillis>| at.map_or("-".to_owned(), |at| for_people(at.millis_since(began)));
    let mut rows = vec![["", "recorded", "replayed"].map(str::to_owned)];
    let mut weights: Vec<Weight> = was
        .reached
        .iter()
        .chain(&would.reached)
        .map(|it| it.0)
        .collect();
    weights.sort();
    weights.dedup();
    for weight in weights {
        rows.push([
            format!("first at {weight}"),
            after(was.reached_at(weight)),
            after(would.reached_at(weight)),
        ]);
    }
    rows.push([
        "complete".to_owned(),
        after(was.completed_at),
        after(would.completed_at),
    ]);
    let counts: [(&str, Count); 3] = [
        ("trips", |course| course.trips),
        ("rollbacks", |course| course.rollbacks),
        ("retreats", |course| course.retreats),
    ];
    for (name, of) in counts {
        rows.push([name.to_owned(), of(was).to_string(), of(would).to_string()]);
    }
    let exposures: [(&str, Part); 2] = [
        ("canary requests", |exposure| exposure.requests),
        ("failed on the canary", |exposure| exposure.failed),
    ];
    let is_estimate = answer.differs.from.is_some();
    for (name, of) in exposures {
        let about = if is_estimate { "~" } else { "" };
        rows.push([
            name.to_owned(),
            format!("{:.0}", of(&answer.replayed.recorded)),
            format!("{about}{:.0}", of(&answer.replayed.replayed)),
        ]);
    }
    rows.push([
        "weight in the end".to_owned(),
        answer.recorded.weight_at(answer.replayed.to).to_string(),
        answer.replayed.state.weight().to_string(),
    ]);
    rows
}

/// What a reader has to know to judge the numbers.
pub(super) fn notes(answer: &Answer<'_>) -> Vec<String> {
    let mut notes = answer.notes.clone();
    if let Some(from) = answer.differs.from {
        notes.push(format!(
            "the weights differ from {} on, for {} in all: there the evidence is that of the recorded weight, \
             and would have come at another pace; requests are estimated from the recorded ones",
            moment(from),
            for_people(answer.differs.for_ms)
        ));
    }
    let unknown = answer.replayed.replayed.unknown;
    if unknown >= 0.5 {
        notes.push(format!(
            "about {unknown:.0} canary requests fall into times in which the record has none: nobody knows how \
             they would have fared"
        ));
    }
    for refused in &answer.replayed.refused {
        notes.push(format!(
            "{}: a recorded command had nothing to act on: {}",
            moment(refused.at),
            refused.why
        ));
    }
    notes
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}
