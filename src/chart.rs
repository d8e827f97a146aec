//! Charts as the text of SVG files: the course of the weight, and one metric of both arms over time.
//!
//! For the dashboard and the report. Pure: numbers in, text out; reads no clock and writes no file.
//! The text holds no script and no `style`, so that the strictest content policy takes it. Every colour
//! is one of [`colours`], written as a presentation attribute, so that a page can put its own in place:
//! `[stroke="#0072B2"] { stroke: var(--legacy) }`. The root element says where the plot is (`data-left`,
//! `data-top`, `data-width`, `data-height`, in pixels) and what it spans (`data-from`, `data-to` in Unix
//! milliseconds, `data-max` in the unit of the values; the lowest value is always 0), which is all that a
//! page needs to draw a crosshair.
#![deny(clippy::disallowed_methods)]

use plotters::prelude::*;

use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;

mod canvas;
mod scale;

use canvas::{Canvas, Shape};

/// The colours of a chart as plotters writes them. People who see no red or green tell them apart, too.
pub mod colours {
    use plotters::style::RGBColor;

    /// `#0072B2`
    pub const LEGACY: RGBColor = RGBColor(0x00, 0x72, 0xB2);
    /// `#E69F00`, also the line of the weight
    pub const CANARY: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
    /// `#D55E00`: trip, retreat, roll back
    pub const STOP: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
    /// `#009E73`: promote, resume, complete
    pub const GO: RGBColor = RGBColor(0x00, 0x9E, 0x73);
    /// `#6E7781`: hold
    pub const HOLD: RGBColor = RGBColor(0x6E, 0x77, 0x81);
    /// `#AA4499`: what an operator or the configuration changed
    pub const OPERATOR: RGBColor = RGBColor(0xAA, 0x44, 0x99);
    /// `#E3E6EA`: lines of the grid
    pub const GRID: RGBColor = RGBColor(0xE3, 0xE6, 0xEA);
    /// `#59626C`: labels
    pub const LABEL: RGBColor = RGBColor(0x59, 0x62, 0x6C);
    /// `#FFFFFF`: the ground that the chart stands on; halos of marks
    pub const GROUND: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
}

/// The size of a chart and the time that it covers.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Width in CSS pixels, 120 to 4,000.
    pub width: u32,
    /// Height in CSS pixels, 60 to 2,000.
    pub height: u32,
    /// Where the time axis begins.
    pub from: UnixMillis,
    /// Where it ends.
    pub to: UnixMillis,
    /// Labels show UTC plus this many minutes; 0 for UTC.
    pub utc_offset_min: i32,
}

/// What the values of a metric are, for the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A fraction, shown in percent.
    Share,
    /// Milliseconds, shown in milliseconds or seconds.
    Millis,
    /// US dollars.
    Usd,
    /// Something per second, as a plain number.
    PerSecond,
}

/// A decision on the line of the weight.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// When it was taken.
    pub at: UnixMillis,
    /// Its kind as in the decision log, `roll-back`.
    pub kind: &'a str,
    /// The effective share of the canary after it, a fraction.
    pub weight: f64,
}

/// One value of an arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When, usually the middle of the step that it sums up.
    pub at: UnixMillis,
    /// The value in its unit; `None` leaves a gap.
    pub value: Option<f64>,
    /// An interval around it, lowest and highest.
    pub band: Option<(f64, f64)>,
}

impl Point {
    /// What can be drawn of it.
    fn value(&self) -> Option<f64> {
        self.value.filter(|value| value.is_finite())
    }

    fn band(&self) -> Option<(f64, f64)> {
        self.band
            .filter(|(low, high)| low.is_finite() && high.is_finite())
    }
}

/// The course of the weight: `steps` holds each change as time and fraction, oldest first; the first one
/// may lie before the frame. `title` is read to those who cannot see it.
///
/// # Errors
/// If the chart cannot be drawn.
pub fn weight(
    frame: &Frame,
    title: &str,
    steps: &[(UnixMillis, f64)],
    marks: &[Mark<'_>],
) -> Result<String, String> {
    let mut canvas = Canvas::new(frame, scale::shares());
    let mut line = Vec::new();
    let mut before = None;
    for (at, weight) in steps {
        let at = UnixMillis(at.0.max(frame.from.0));
        if at > frame.to {
            break;
        }
        line.extend(before.map(|before| (at, before)));
        line.push((at, *weight));
        before = Some(*weight);
    }
    line.extend(before.map(|before| (frame.to, before)));
    let shown = |mark: &&Mark<'_>| frame.from <= mark.at && mark.at <= frame.to;
    let marks: Vec<_> = marks.iter().filter(shown).collect();
    canvas.label = format!("{title}. {}", in_words(&line, marks.len()));
    canvas.draw(|paper| {
        if line.is_empty() {
            return paper.note("nothing recorded in this time");
        }
        let floor = |at: Option<&(UnixMillis, f64)>| at.map(|(at, _)| (*at, 0.0));
        let outline = floor(line.first()).into_iter().chain(line.iter().copied());
        paper.area(outline.chain(floor(line.last())), colours::CANARY, 0.16)?;
        paper.line(line.iter().copied(), colours::CANARY, 2.0)?;
        for mark in &marks {
            let (shape, colour) = look_of(mark.kind);
            paper.mark(mark.at, mark.weight, shape, colour)?;
        }
        Ok(())
    })
}

/// One metric of both arms. Neighbouring points further apart than `gap_ms` are not joined: nothing is
/// drawn where nothing was. `title` is read to those who cannot see it.
///
/// # Errors
/// If the chart cannot be drawn.
pub fn metric(
    frame: &Frame,
    title: &str,
    unit: Unit,
    arms: PerArm<&[Point]>,
    gap_ms: i64,
) -> Result<String, String> {
    let seen = |point: &&Point| frame.from <= point.at && point.at <= frame.to;
    let of = |arm: Arm| arms.get(arm).iter().filter(seen);
    let highest = Arm::BOTH
        .into_iter()
        .flat_map(of)
        .filter_map(Point::value)
        .fold(0.0f64, f64::max);
    // A wide interval around a thin point must not press all lines to the floor.
    let band = Arm::BOTH
        .into_iter()
        .flat_map(of)
        .filter_map(|point| Some(point.band()?.1));
    let highest = band.fold(highest, f64::max).min(highest * 1.6);
    let mut canvas = Canvas::new(frame, scale::values(unit, highest, frame.height));
    let words = Arm::BOTH.map(|arm| last_in_words(arm, of(arm), unit));
    canvas.label = format!("{title}. {}.", words.join("; "));
    canvas.draw(|paper| {
        if Arm::BOTH
            .into_iter()
            .flat_map(of)
            .all(|point| point.value().is_none())
        {
            return paper.note("no traffic in this time");
        }
        let colours = PerArm {
            legacy: colours::LEGACY,
            canary: colours::CANARY,
        };
        let pieces = PerArm::from_fn(|arm| pieces(of(arm), gap_ms));
        for arm in Arm::BOTH {
            for piece in pieces.get(arm) {
                let (low, high) = band_of(piece);
                let outline = low.into_iter().chain(high.into_iter().rev());
                paper.area(outline, *colours.get(arm), 0.16)?;
            }
        }
        for arm in Arm::BOTH {
            for piece in pieces.get(arm) {
                let values = piece.iter().filter_map(|p| Some((p.at, p.value()?)));
                paper.line(values, *colours.get(arm), 1.75)?;
            }
        }
        Ok(())
    })
}

/// A value as people read it: `0.42%`, `1.34s`, `$0.021`, `37`.
#[must_use]
pub fn text_of(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Share => format!("{}%", scale::three_digits(value * 100.0)),
        Unit::Millis if value < 1_000.0 => format!("{}ms", scale::three_digits(value)),
        Unit::Millis => format!("{}s", scale::three_digits(value / 1_000.0)),
        Unit::Usd => format!("${}", scale::three_digits(value)),
        Unit::PerSecond => scale::three_digits(value),
    }
}

/// How a kind of decision is marked; more than colour tells them apart.
fn look_of(kind: &str) -> (Shape, RGBColor) {
    match kind {
        "start" | "promote" | "resume" | "retry" => (Shape::Up, colours::GO),
        "complete" => (Shape::Dot, colours::GO),
        "trip" | "retreat" | "roll-back" => (Shape::Down, colours::STOP),
        "probe-failed" => (Shape::Dot, colours::STOP),
        "hold" => (Shape::Square, colours::HOLD),
        _ => (Shape::Diamond, colours::OPERATOR),
    }
}

fn in_words(line: &[(UnixMillis, f64)], marks: usize) -> String {
    let (Some((_, first)), Some((_, last))) = (line.first(), line.last()) else {
        return "Nothing recorded in this time.".to_owned();
    };
    let share = |weight: f64| text_of(Unit::Share, weight);
    let lowest = line.iter().fold(f64::INFINITY, |low, (_, w)| low.min(*w));
    let highest = line.iter().fold(0.0f64, |high, (_, w)| high.max(*w));
    format!(
        "From {} to {} of the traffic on the canary, between {} and {}, with {marks} decisions.",
        share(*first),
        share(*last),
        share(lowest),
        share(highest),
    )
}

fn last_in_words<'p>(arm: Arm, points: impl Iterator<Item = &'p Point>, unit: Unit) -> String {
    match points.filter_map(Point::value).last() {
        Some(value) => format!("{arm} lately {}", text_of(unit, value)),
        None => format!("{arm} without traffic"),
    }
}

/// Points that may be joined, gaps left out.
fn pieces<'p>(points: impl Iterator<Item = &'p Point>, gap_ms: i64) -> Vec<Vec<Point>> {
    let mut pieces: Vec<Vec<Point>> = Vec::new();
    let mut last_at = None;
    for point in points {
        if point.value().is_none() {
            last_at = None;
            continue;
        }
        let joined = last_at.is_some_and(|at| point.at.millis_since(at) <= gap_ms);
        match pieces.last_mut() {
            Some(piece) if joined => piece.push(*point),
            _ => pieces.push(vec![*point]),
        }
        last_at = Some(point.at);
    }
    pieces
}

type Line = Vec<(UnixMillis, f64)>;

fn band_of(piece: &[Point]) -> (Line, Line) {
    let with_band = piece.iter().filter_map(|p| Some((p.at, p.band()?)));
    with_band
        .map(|(at, (low, high))| ((at, low), (at, high)))
        .unzip()
}

#[cfg(test)]
mod tests;
