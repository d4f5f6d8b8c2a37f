//! The plots of `results.md`.

use anyhow::anyhow;
use plotters::prelude::*;

use crate::evaluate::{Findings, GeneratedSamples, TrainedModel};
use crate::report::title;
use crate::{KINDS, Study};

const BLUE: RGBColor = RGBColor(50, 100, 190);
const ORANGE: RGBColor = RGBColor(210, 110, 30);
const GREEN: RGBColor = RGBColor(40, 140, 70);
const GREY: RGBColor = RGBColor(110, 110, 110);

fn colour(kind: &str) -> RGBColor {
    match kind {
        "pgm" => BLUE,
        "masked" => ORANGE,
        "complementary" => GREEN,
        _ => GREY,
    }
}

impl Study {
    /// The plots by their file names, as SVG.
    pub fn plots(&self, found: &Findings) -> anyhow::Result<[(&'static str, String); 3]> {
        let curves = KINDS.iter().map(|(_, kind)| {
            let models: Vec<&TrainedModel> = found.trained.iter().filter(|model| model.kind == *kind).collect();
            let points = models[0].curve.iter().enumerate().skip(1).map(|(index, &(step, _))| {
                let logs = models.iter().filter_map(|model| model.curve.get(index)).map(|point| point.1.ln());
                (step, (logs.sum::<f64>() / models.len() as f64).exp())
            });
            Curve { name: title(kind).to_string(), colour: colour(kind), triangles: false, points: points.collect() }
        });
        let axes = Axes { x: "training step", y: "perplexity of held-out bytes", log_x: false };
        let perplexity = plot(&axes, &curves.collect::<Vec<_>>())?;
        let axes = Axes { x: "tokens sampled a second", y: "perplexity under the judge", log_x: true };
        let generative = plot(&axes, &self.sampling_curves(found, GeneratedSamples::perplexity))?;
        let axes = Axes { x: "tokens sampled a second", y: "unigram entropy, nats", log_x: true };
        let entropy = plot(&axes, &self.sampling_curves(found, GeneratedSamples::entropy))?;
        Ok([
            ("results-perplexity.svg", perplexity),
            ("results-generative.svg", generative),
            ("results-entropy.svg", entropy),
        ])
    }

    // One curve per model: the sampling speed against `value`, one point per number of steps.
    fn sampling_curves(&self, found: &Findings, value: fn(&GeneratedSamples) -> f64) -> Vec<Curve> {
        let mut curves: Vec<Curve> = Vec::new();
        for kind in ["pgm", "masked", "complementary"] {
            for targets in [None, Some("one"), Some("both")] {
                let last = |row: &&GeneratedSamples| row.rounds == 0 || row.rounds == self.plan.rounds;
                let rows = found.generated.iter().filter(|row| row.kind == kind && row.targets == targets);
                let points: Vec<(f64, f64)> = rows.filter(last).map(|row| (row.rate, value(row))).collect();
                if !points.is_empty() {
                    let name = match targets {
                        None => title(kind).to_string(),
                        Some(targets) => format!("{} distilled, {targets} ▲", title(kind)),
                    };
                    let shade = match targets {
                        None => 1.0,
                        Some("one") => 0.7,
                        Some(_) => 0.4,
                    };
                    let colour = mixed(colour(kind), shade);
                    curves.push(Curve { name, colour, triangles: targets.is_some(), points });
                }
            }
        }
        let ar = found.generated.iter().filter(|row| row.kind == "ar").map(|row| (row.rate, value(row)));
        curves.push(Curve { name: title("ar").to_string(), colour: GREY, triangles: false, points: ar.collect() });
        curves
    }
}

fn mixed(colour: RGBColor, share: f64) -> RGBColor {
    let mix = |part: u8| (f64::from(part) * share + 255.0 * (1.0 - share)) as u8;
    RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

struct Axes {
    x: &'static str,
    y: &'static str,
    log_x: bool,
}

struct Curve {
    name: String,
    colour: RGBColor,
    /// Whether its points are triangles instead of circles.
    triangles: bool,
    points: Vec<(f64, f64)>,
}

fn plot(axes: &Axes, curves: &[Curve]) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, axes, curves).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, axes: &Axes, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    // A logarithmic axis is a linear axis of the base-2 logarithms.
    let place = |x: f64| if axes.log_x { x.log2() } else { x };
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.1.is_finite());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let margin = (0.06 * (high - low)).max(1e-3);
        low - margin..high + margin
    };
    if points().next().is_none() {
        return Ok(());
    }
    let (x, y) = (range(&mut points().map(|point| place(point.0))), range(&mut points().map(|point| point.1)));
    // Room for the legend above the points.
    let y = y.start..y.end + 0.06 * curves.len() as f64 * (y.end - y.start);
    let root = SVGBackend::with_string(svg, (860, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart =
        ChartBuilder::on(&root).margin(16).x_label_area_size(44).y_label_area_size(60).build_cartesian_2d(x, y)?;
    let label = |x: &f64| if axes.log_x { format!("{:.0}", x.exp2()) } else { format!("{x:.0}") };
    chart.configure_mesh().x_desc(axes.x).y_desc(axes.y).x_label_formatter(&label).light_line_style(WHITE).draw()?;
    for curve in curves {
        let colour = curve.colour;
        let points: Vec<(f64, f64)> = curve.points.iter().map(|&(x, y)| (place(x), y)).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        if curve.triangles {
            chart.draw_series(points.iter().map(|&point| TriangleMarker::new(point, 5, colour.filled())))?;
        } else {
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
