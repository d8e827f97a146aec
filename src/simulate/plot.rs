//! One run as a picture: the canary's share, and what both arms did under it.
//!
//! Text of an SVG file; writes no file itself.
#![deny(clippy::disallowed_methods)]

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::series::{Point, Series};
use super::tally::Tally;
use crate::arm::{Arm, PerArm};
use crate::controller::DecisionKind;
use crate::controller::evidence::ArmCell;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (1_000, 900);
const FONT: &str = "sans-serif";
const WEIGHT: RGBColor = RGBColor(60, 60, 60);
/// Told apart by people who see no red or green, too.
const COLOURS: PerArm<RGBColor> = PerArm {
    legacy: RGBColor(0, 114, 178),
    canary: RGBColor(230, 159, 0),
};
const STOP: RGBColor = RGBColor(213, 94, 0);

/// What a panel shows of an arm in a stretch of time; `None` without requests.
type Metric = fn(&ArmCell) -> Option<f64>;

/// Draws the course of a run that lasted at most `duration_ms`.
pub(super) fn svg(
    title: &str,
    duration_ms: i64,
    series: &Series,
    tally: &Tally,
) -> Result<String, String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(said)?;
        let body = root.titled(title, (FONT, 22)).map_err(said)?;
        let days = (duration_ms as f64 / 86_400_000.0).max(1e-6);
        let plot = Plot { series, days };
        let [shares, rest @ ..] = &body.split_evenly((4, 1))[..] else {
            return Err("no room to draw".to_owned());
        };
        plot.weight(shares, tally)?;
        let panels: [(&str, Metric); 3] = [
            ("failed (%)", |cell| {
                (cell.requests > 0).then(|| 100.0 * cell.errors as f64 / cell.requests as f64)
            }),
            ("p50 (ms)", |cell| cell.latency.quantile_ms(0.5)),
            ("p99 (ms)", |cell| cell.latency.quantile_ms(0.99)),
        ];
        for (area, (name, metric)) in rest.iter().zip(panels) {
            plot.arms(area, name, metric)?;
        }
        root.present().map_err(said)?;
    }
    Ok(text)
}

fn said(error: impl Display) -> String {
    format!("the picture cannot be drawn: {error}")
}

fn day_label(day: &f64) -> String {
    format!("{}d", short(day))
}

/// Without zeros that say nothing.
fn short(value: &f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Plot<'a> {
    series: &'a Series,
    days: f64,
}

impl Plot<'_> {
    fn day(&self, place: usize) -> f64 {
        place as f64 * self.series.stretch_ms as f64 / 86_400_000.0
    }

    fn points<'p>(
        &'p self,
        of: impl Fn(&Point) -> Option<f64> + 'p,
    ) -> impl Iterator<Item = (f64, f64)> + 'p {
        let points = self.series.points.iter().enumerate();
        points.filter_map(move |(place, point)| Some((self.day(place), of(point)?)))
    }

    /// The same in pieces that end where an arm had no requests: nothing is drawn where nothing was.
    fn pieces(&self, of: impl Fn(&Point) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
        let mut pieces: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        for (place, point) in self.series.points.iter().enumerate() {
            match (of(point), pieces.last_mut()) {
                (Some(value), Some(piece)) => piece.push((self.day(place), value)),
                (None, Some(piece)) if !piece.is_empty() => pieces.push(Vec::new()),
                _ => {}
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// The canary's share, with a mark for every trip, retreat and rollback.
    fn weight(&self, area: &Area<'_>, tally: &Tally) -> Result<(), String> {
        let mut chart = ChartBuilder::on(area)
            .caption(
                "the canary's share (%) · marks: trip, retreat, rollback",
                (FONT, 14),
            )
            .margin(6)
            .x_label_area_size(22)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..self.days, 0.0..105.0)
            .map_err(said)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&day_label)
            .y_label_formatter(&short)
            .draw()
            .map_err(said)?;
        let mut before = 0.0;
        let steps = self
            .points(|point| Some(point.weight.fraction() * 100.0))
            .flat_map(|(day, weight)| {
                let step = [(day, before), (day, weight)];
                before = weight;
                step
            });
        chart
            .draw_series(LineSeries::new(steps, WEIGHT.stroke_width(2)))
            .map_err(said)?;
        let marks = tally.decisions.iter().filter(|decision| {
            matches!(
                decision.kind,
                DecisionKind::Trip | DecisionKind::Retreat | DecisionKind::RollBack
            )
        });
        let marks = marks.map(|decision| {
            let ms = decision.at.millis_since(super::run::START);
            let weight = decision.weight_from.fraction() * 100.0;
            TriangleMarker::new((ms as f64 / 86_400_000.0, weight), 6, STOP.filled())
        });
        chart.draw_series(marks).map_err(said)?;
        Ok(())
    }

    /// One metric of both arms over time.
    fn arms(&self, area: &Area<'_>, name: &str, metric: Metric) -> Result<(), String> {
        let of = |arm: Arm| self.points(move |point| metric(point.arms.get(arm)));
        let highest = Arm::BOTH
            .into_iter()
            .flat_map(of)
            .fold(0.0f64, |highest, (_, value)| highest.max(value));
        let mut chart = ChartBuilder::on(area)
            .caption(name, (FONT, 14))
            .margin(6)
            .x_label_area_size(22)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..self.days, 0.0..highest.max(1e-3) * 1.05)
            .map_err(said)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&day_label)
            .y_label_formatter(&short)
            .draw()
            .map_err(said)?;
        for arm in Arm::BOTH {
            let colour = *COLOURS.get(arm);
            let pieces = self.pieces(move |point| metric(point.arms.get(arm)));
            let lines = pieces
                .into_iter()
                .map(|piece| PathElement::new(piece, colour));
            chart
                .draw_series(lines)
                .map_err(said)?
                .label(arm.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE)
            .draw()
            .map_err(said)
    }
}
