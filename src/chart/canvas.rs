//! The sheet a chart is drawn on: grid, labels, and what lines and marks look like.
//!
//! The plotting crate knows whole units only, so the sheet has [`FINE`] of them per pixel.
#![deny(clippy::disallowed_methods)]

use std::fmt::{Display, Write as _};

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::colours;
use super::scale::{self, Scale};
use super::{Frame, UnixMillis};

/// Units per pixel.
const FINE: i32 = 10;
const FONT: &str = "sans-serif";
const FONT_PX: f64 = 11.5;
/// What the plotting crate divides the size of a font by.
const FONT_FACTOR: f64 = 1.24;
/// Pixels of a digit, for the room that labels take.
const DIGIT_PX: u32 = 7;
const TOP_PX: u32 = 10;
const BOTTOM_PX: u32 = 24;
const RIGHT_PX: u32 = 14;
const MARK_PX: i32 = 5;

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a> = DrawingArea<SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What marks look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Up,
    Down,
    Square,
    Diamond,
    Dot,
}

/// A chart before it is drawn.
pub(super) struct Canvas {
    frame: Frame,
    scale: Scale,
    /// What is read to those who cannot see it.
    pub(super) label: String,
}

/// The drawing of one chart.
pub(super) struct Paper<'a> {
    from: UnixMillis,
    max: f64,
    root: Root<'a>,
    plane: Plane<'a>,
}

fn said(error: impl Display) -> String {
    format!("the chart cannot be drawn: {error}")
}

#[expect(clippy::cast_possible_truncation, reason = "`as` stops at the ends")]
fn units(px: f64) -> i32 {
    (px * f64::from(FINE)).round() as i32
}

impl Canvas {
    pub(super) fn new(frame: &Frame, scale: Scale) -> Self {
        let frame = Frame {
            width: frame.width.clamp(120, 4_000),
            height: frame.height.clamp(60, 2_000),
            to: UnixMillis(frame.to.0.max(frame.from.0.saturating_add(1))),
            ..*frame
        };
        Self {
            frame,
            scale,
            label: String::new(),
        }
    }

    fn left_px(&self) -> u32 {
        let longest = self.scale.ticks.iter().map(|(_, text)| text.len()).max();
        let digits = u32::try_from(longest.unwrap_or(0)).unwrap_or(0);
        (digits * DIGIT_PX + 12).max(44)
    }

    fn plot_px(&self) -> (u32, u32) {
        let width = self.frame.width.saturating_sub(self.left_px() + RIGHT_PX);
        let height = self.frame.height.saturating_sub(TOP_PX + BOTTOM_PX);
        (width, height)
    }

    /// Draws grid and labels, then what `content` draws.
    pub(super) fn draw(
        self,
        content: impl FnOnce(&Paper<'_>) -> Result<(), String>,
    ) -> Result<String, String> {
        let (plot_width, plot_height) = self.plot_px();
        let frame = &self.frame;
        let fine = |px: u32| units(f64::from(px));
        let size = (
            frame.width * FINE.unsigned_abs(),
            frame.height * FINE.unsigned_abs(),
        );
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
            let (left, top) = (fine(self.left_px()), fine(TOP_PX));
            let across = left..left + fine(plot_width);
            let upwards = top + fine(plot_height)..top;
            #[expect(clippy::cast_precision_loss, reason = "a span of time")]
            let span = frame.to.millis_since(frame.from) as f64;
            let plane = root.apply_coord_spec(Cartesian2d::new(
                0.0..span,
                0.0..self.scale.max,
                (across, upwards),
            ));
            let paper = Paper {
                from: frame.from,
                max: self.scale.max,
                root,
                plane,
            };
            paper.grid(&self.scale, span)?;
            paper.times(&scale::times(frame, plot_width), fine(frame.width))?;
            content(&paper)?;
            paper.root.present().map_err(said)?;
        }
        self.with_head(&text)
    }

    /// Puts a root element of our own in place of the plotting crate's.
    fn with_head(&self, drawn: &str) -> Result<String, String> {
        let (_, body) = drawn
            .split_once(">\n")
            .ok_or_else(|| said("it has no head"))?;
        let (plot_width, plot_height) = self.plot_px();
        let Frame {
            width,
            height,
            from,
            to,
            ..
        } = self.frame;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"",
            width * FINE.unsigned_abs(),
            height * FINE.unsigned_abs(),
        );
        push_escaped(&mut text, &self.label);
        write!(
            text,
            "\" data-left=\"{}\" data-top=\"{TOP_PX}\" data-width=\"{plot_width}\" \
             data-height=\"{plot_height}\" data-from=\"{}\" data-to=\"{}\" data-max=\"{}\">\n<desc>",
            self.left_px(),
            from.0,
            to.0,
            self.scale.max,
        )
        .map_err(said)?;
        push_escaped(&mut text, &self.label);
        text.push_str("</desc>\n");
        text.push_str(body);
        Ok(text)
    }
}

fn push_escaped(to: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '&' => to.push_str("&amp;"),
            '"' => to.push_str("&quot;"),
            // Control characters are no XML.
            c if c.is_control() => to.push(' '),
            c => to.push(c),
        }
    }
}

impl Paper<'_> {
    fn place(&self, at: UnixMillis, value: f64) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "a span of time")]
        let at = at.millis_since(self.from) as f64;
        (at, value.clamp(0.0, self.max))
    }

    fn grid(&self, scale: &Scale, span: f64) -> Result<(), String> {
        for (value, label) in &scale.ticks {
            let line = [(0.0, *value), (span, *value)];
            let style = colours::GRID.stroke_width(FINE.unsigned_abs());
            self.plane
                .draw(&PathElement::new(line, style))
                .map_err(said)?;
            let (x, y) = self.plane.map_coordinate(&(0.0, *value));
            self.text(
                label,
                (x - 8 * FINE, y),
                Pos::new(HPos::Right, VPos::Center),
            )?;
        }
        Ok(())
    }

    fn times(&self, times: &[(UnixMillis, String)], width: i32) -> Result<(), String> {
        for (at, label) in times {
            let (x, y) = self.plane.map_coordinate(&self.place(*at, 0.0));
            let tick = [(x, y), (x, y + 4 * FINE)];
            let style = colours::GRID.stroke_width(FINE.unsigned_abs());
            self.root
                .draw(&PathElement::new(tick, style))
                .map_err(said)?;
            // A label that would be cut off at the end is written to its left.
            let half = i32::try_from(label.len()).unwrap_or(0) * FINE * 7 / 2;
            let (x, across) = if x + half > width {
                (width - FINE, HPos::Right)
            } else {
                (x, HPos::Center)
            };
            self.text(label, (x, y + 8 * FINE), Pos::new(across, VPos::Top))?;
        }
        Ok(())
    }

    fn text(&self, text: &str, at: (i32, i32), pos: Pos) -> Result<(), String> {
        let size = FONT_PX * FONT_FACTOR * f64::from(FINE);
        let style = (FONT, size).into_font().color(&colours::LABEL).pos(pos);
        self.root
            .draw(&Text::new(text.to_owned(), at, style))
            .map_err(said)
    }

    /// Words in the middle, where there is nothing to draw.
    pub(super) fn note(&self, text: &str) -> Result<(), String> {
        let (across, upwards) = (self.plane.get_x_range(), self.plane.get_y_range());
        let middle = (across.end / 2.0, upwards.end / 2.0);
        let at = self.plane.map_coordinate(&middle);
        self.text(text, at, Pos::new(HPos::Center, VPos::Center))
    }

    /// A line `width_px` pixels wide; a dot if it has one point only.
    pub(super) fn line(
        &self,
        points: impl Iterator<Item = (UnixMillis, f64)>,
        colour: RGBColor,
        width_px: f64,
    ) -> Result<(), String> {
        let points: Vec<_> = points.map(|(at, value)| self.place(at, value)).collect();
        let width = units(width_px).unsigned_abs();
        if let [only] = points[..] {
            let dot = Circle::new(only, width * 3 / 2, colour.filled());
            return self.plane.draw(&dot).map_err(said);
        }
        let line = PathElement::new(points, colour.stroke_width(width));
        self.plane.draw(&line).map_err(said)
    }

    /// A light area within an outline.
    pub(super) fn area(
        &self,
        outline: impl Iterator<Item = (UnixMillis, f64)>,
        colour: RGBColor,
        opacity: f64,
    ) -> Result<(), String> {
        let outline: Vec<_> = outline.map(|(at, value)| self.place(at, value)).collect();
        if outline.len() < 3 {
            return Ok(());
        }
        let area = Polygon::new(outline, colour.mix(opacity).filled());
        self.plane.draw(&area).map_err(said)
    }

    /// A mark with a halo, so that it is seen on the line.
    pub(super) fn mark(
        &self,
        at: UnixMillis,
        value: f64,
        shape: Shape,
        colour: RGBColor,
    ) -> Result<(), String> {
        let (x, y) = self.plane.map_coordinate(&self.place(at, value));
        self.shape((x, y), (MARK_PX + 2) * FINE, shape, colours::GROUND)?;
        self.shape((x, y), MARK_PX * FINE, shape, colour)
    }

    fn shape(
        &self,
        (x, y): (i32, i32),
        size: i32,
        shape: Shape,
        colour: RGBColor,
    ) -> Result<(), String> {
        let corners = match shape {
            Shape::Dot => {
                let dot = Circle::new((x, y), size.unsigned_abs(), colour.filled());
                return self.root.draw(&dot).map_err(said);
            }
            Shape::Up => vec![(x, y - size), (x + size, y + size), (x - size, y + size)],
            Shape::Down => vec![(x, y + size), (x + size, y - size), (x - size, y - size)],
            Shape::Diamond => vec![
                (x, y - size * 5 / 4),
                (x + size * 5 / 4, y),
                (x, y + size * 5 / 4),
                (x - size * 5 / 4, y),
            ],
            Shape::Square => {
                let half = size * 4 / 5;
                vec![
                    (x - half, y - half),
                    (x + half, y - half),
                    (x + half, y + half),
                    (x - half, y + half),
                ]
            }
        };
        let area = Polygon::new(corners, colour.filled());
        self.root.draw(&area).map_err(said)
    }
}
