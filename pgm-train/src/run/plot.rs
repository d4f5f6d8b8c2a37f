//! `loss.svg`: the learning curve, drawn from `metrics.jsonl`.

use std::path::Path;

use plotters::prelude::*;

use super::history::{self, Line, ValidationFigures};
use crate::TrainError;

/// Name of the picture in a run's folder.
pub(crate) const LOSS_FILE: &str = "loss.svg";

/// Draws training loss and validations against steps.
pub(crate) fn draw<V: ValidationFigures>(out: &Path) -> Result<(), TrainError> {
    let (mut train, mut validation, mut intervals) = (Vec::new(), Vec::new(), Vec::new());
    for line in history::read_lines::<V>(out)? {
        match line {
            Line::Train(line) => train.push((line.step as f64, line.train_loss)),
            Line::Validation(line) => {
                let (step, (value, interval)) = (line.step() as f64, line.point());
                validation.push((step, value));
                intervals.extend(interval.map(|ends| (step, ends)));
            }
        }
    }
    let all = || train.iter().chain(&validation);
    let last = all().map(|point| point.0).fold(1.0, f64::max);
    let low = all().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return Ok(());
    }
    let margin = (0.05 * (high - low)).max(0.01);
    let mut svg = String::new();
    picture::<V>(&mut svg, [&train, &validation], &intervals, last, low - margin..high + margin)
        .map_err(|error| TrainError::file("write", out.join(LOSS_FILE), error))?;
    pgm_model::model_folder::write_file(&out.join(LOSS_FILE), svg.as_bytes())?;
    Ok(())
}

fn picture<V: ValidationFigures>(
    svg: &mut String,
    [train, validation]: [&[(f64, f64)]; 2],
    intervals: &[(f64, [f64; 2])],
    last: f64,
    range: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, range)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc(V::UNIT)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    let (blue, orange) = (RGBColor(70, 120, 180), RGBColor(210, 110, 30));
    chart
        .draw_series(LineSeries::new(train.iter().copied(), blue.mix(0.7)))?
        .label("training loss")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], blue));
    chart
        .draw_series(LineSeries::new(validation.iter().copied(), orange.stroke_width(2)))?
        .label(V::CURVE)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], orange.stroke_width(2)));
    let bar = |&(step, [low, high]): &(f64, [f64; 2])| PathElement::new([(step, low), (step, high)], orange);
    chart.draw_series(intervals.iter().map(bar))?;
    chart.draw_series(validation.iter().map(|point| Circle::new(*point, 3, orange.filled())))?;
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}
