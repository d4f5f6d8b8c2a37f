//! The cost of refresh intervals against their speed, as a picture.

use plotters::prelude::*;

use super::{CacheFigures, CacheSpeed};
use crate::TrainError;

/// An SVG with a point for each interval: tokens per second, and nats per token with their 95 % interval.
///
/// # Errors
/// [`TrainError::Config`] when the picture cannot be drawn.
pub fn plot(figures: &[CacheFigures], speeds: &[CacheSpeed]) -> Result<String, TrainError> {
    let mut svg = String::new();
    draw(&mut svg, figures, speeds).map_err(|error| TrainError::Config {
        origin: "eval cache".to_string(),
        problem: format!("cannot draw the plot: {error}"),
    })?;
    Ok(svg)
}

fn draw(svg: &mut String, figures: &[CacheFigures], speeds: &[CacheSpeed]) -> Result<(), Box<dyn std::error::Error>> {
    let points: Vec<(String, f64, f64, [f64; 2])> = figures
        .iter()
        .zip(speeds)
        .filter_map(|(figures, speed)| {
            let nats = figures.nats_per_token?;
            let interval = nats.interval.unwrap_or([nats.value; 2]);
            Some((format!("R = {}", figures.refresh), speed.tokens_per_second, nats.value, interval))
        })
        .collect();
    let fastest = points.iter().map(|point| point.1).fold(1.0, f64::max);
    let low = points.iter().map(|point| point.3[0]).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.3[1]).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) };
    let margin = (0.1 * (high - low)).max(0.01);
    let root = SVGBackend::with_string(svg, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..1.12 * fastest, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("tokens per second")
        .y_desc("nats per token")
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .y_label_formatter(&|nats| format!("{nats:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    let blue = RGBColor(70, 120, 180);
    chart.draw_series(LineSeries::new(points.iter().map(|point| (point.1, point.2)), blue.mix(0.5)))?;
    let bar = |point: &(String, f64, f64, [f64; 2])| {
        PathElement::new([(point.1, point.3[0]), (point.1, point.3[1])], blue.mix(0.7))
    };
    chart.draw_series(points.iter().map(bar))?;
    chart.draw_series(points.iter().map(|point| Circle::new((point.1, point.2), 4, blue.filled())))?;
    chart.draw_series(points.iter().map(|point| {
        EmptyElement::at((point.1, point.2)) + Text::new(point.0.clone(), (8, -6), ("sans-serif", 14).into_font())
    }))?;
    root.present()?;
    Ok(())
}
