//! `pgm-infer bench --plot`: the time of each sampling step against its floating-point operations.

use std::path::Path;

use anyhow::anyhow;
use pgm_infer::bench::Measured;
use pgm_model::model_folder::write_file;
use plotters::prelude::*;

/// Writes an SVG with a point for each step of each model, and a line through the points of a model.
pub fn draw(path: &Path, series: &[(&str, &Measured)]) -> anyhow::Result<()> {
    let mut svg = String::new();
    picture(&mut svg, series).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    Ok(write_file(path, svg.as_bytes())?)
}

fn picture(svg: &mut String, series: &[(&str, &Measured)]) -> Result<(), Box<dyn std::error::Error>> {
    const GIGA: f64 = 1e9;
    let points = |measured: &Measured| -> Vec<(f64, f64)> {
        measured.steps().into_iter().map(|(flops, seconds)| (flops / GIGA, seconds)).collect()
    };
    let all: Vec<(f64, f64)> = series.iter().flat_map(|(_, measured)| points(measured)).collect();
    let largest = |of: fn(&(f64, f64)) -> f64| 1.05 * all.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let root = SVGBackend::with_string(svg, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..largest(|point| point.0), 0.0..largest(|point| point.1))?;
    chart.configure_mesh().x_desc("GFLOP of a step").y_desc("seconds").light_line_style(WHITE).draw()?;
    let colours = [RGBColor(70, 120, 180), RGBColor(210, 110, 30)];
    for ((name, measured), colour) in series.iter().zip(colours) {
        chart
            .draw_series(points(measured).into_iter().map(|point| Circle::new(point, 3, colour.filled())))?
            .label(*name)
            .legend(move |(x, y)| Circle::new((x + 8, y), 3, colour.filled()));
        if let Some(cost) = measured.step_cost() {
            let at = |gflop: f64| (gflop, cost.fixed_seconds + gflop * GIGA / cost.flops_per_second);
            let line = [at(0.0), at(largest(|point| point.0))];
            let label = format!("{:.1} ms + {:.0} GFLOP/s", cost.fixed_seconds * 1e3, cost.flops_per_second / GIGA);
            chart
                .draw_series(LineSeries::new(line, colour.mix(0.6)))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.mix(0.6)));
        }
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}
