//! The validations of several runs in one picture.

use std::path::Path;

use plotters::prelude::*;

use super::history::{self, Line};
use crate::TrainError;

/// The validations of a run.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its name in the picture.
    pub name: String,
    /// Steps and NELBO in nats per token, by step.
    pub points: Vec<(usize, f64)>,
}

impl Curve {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// [`TrainError::File`] when its file cannot be read, [`TrainError::Config`] when it has no validation.
    pub fn read(name: &str, run: &Path) -> Result<Self, TrainError> {
        let point = |line: Line| match line {
            Line::Validation(line) => Some((line.step, line.val_nelbo)),
            Line::Train(_) => None,
        };
        let points: Vec<_> =
            history::read(run)?.into_iter().filter_map(point).filter(|point| point.1.is_finite()).collect();
        if points.is_empty() {
            let problem = format!("has no {} with a validation; name the folder of a run", history::METRICS_FILE);
            return Err(TrainError::Config { origin: run.display().to_string(), problem });
        }
        Ok(Self { name: name.to_string(), points })
    }

    /// Step and value of the lowest validation.
    pub fn lowest(&self) -> Option<(usize, f64)> {
        self.points.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The first step whose validation is at most `goal`.
    pub fn first_at_most(&self, goal: f64) -> Option<usize> {
        self.points.iter().find(|point| point.1 <= goal).map(|point| point.0)
    }
}

/// Draws the curves into an SVG; the lowest validation of the last one is a line across. On a logarithmic axis step 0 is left
/// out.
///
/// # Errors
/// [`TrainError::File`] or [`TrainError::Model`] when it cannot be written.
pub fn draw_curves(path: &Path, curves: &[Curve], log_steps: bool) -> Result<(), TrainError> {
    let mut svg = String::new();
    picture(&mut svg, curves, log_steps).map_err(|error| TrainError::file("write", path, error))?;
    Ok(pgm_model::model_folder::write_file(path, svg.as_bytes())?)
}

const COLOURS: [RGBColor; 6] = [
    RGBColor(50, 100, 190),
    RGBColor(210, 110, 30),
    RGBColor(40, 140, 70),
    RGBColor(150, 60, 160),
    RGBColor(190, 50, 60),
    RGBColor(110, 110, 110),
];

fn picture(svg: &mut String, curves: &[Curve], log_steps: bool) -> Result<(), Box<dyn std::error::Error>> {
    // A logarithmic axis is a linear axis of the base-2 logarithms.
    let place = |step: usize| if log_steps { (step as f64).log2() } else { step as f64 };
    let points = |curve: &Curve| -> Vec<(f64, f64)> {
        let shown = curve.points.iter().filter(|point| !log_steps || point.0 > 0);
        shown.map(|&(step, value)| (place(step), value)).collect()
    };
    let all: Vec<(f64, f64)> = curves.iter().flat_map(points).collect();
    let extent = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) =
            all.iter().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let margin = (0.04 * (high - low)).max(0.01);
        if all.is_empty() { 0.0..1.0 } else { low - margin..high + margin }
    };
    let (x, y) = (extent(|point| point.0), extent(|point| point.1));
    let root = SVGBackend::with_string(svg, (860, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(x.clone(), y)?;
    let label = |x: &f64| format!("{:.0}", if log_steps { x.exp2() } else { *x });
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("validation NELBO, nats per token")
        .x_label_formatter(&label)
        .light_line_style(WHITE)
        .draw()?;
    if let Some((_, goal)) = curves.last().and_then(Curve::lowest) {
        chart.draw_series(LineSeries::new([(x.start, goal), (x.end, goal)], BLACK.mix(0.4)))?;
    }
    for (curve, colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
        let points = points(curve);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_compared_and_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, points: &[(usize, f64)]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let line = |&(step, nats): &(usize, f64)| {
                format!("{{\"step\":{step},\"val_nelbo\":{nats},\"val_ppl\":{}}}\n", nats.exp())
            };
            std::fs::write(path.join("metrics.jsonl"), points.iter().map(line).collect::<String>()).unwrap();
            Curve::read(name, &path)
        };
        let slow = run("from scratch", &[(0, 5.5), (100, 3.5), (200, 2.5)]).unwrap();
        let fast = run("converted", &[(0, 4.0), (10, 2.6), (20, 2.5), (30, 2.4)]).unwrap();
        assert_eq!((slow.lowest(), fast.lowest()), (Some((200, 2.5)), Some((30, 2.4))));
        assert_eq!((fast.first_at_most(2.5), slow.first_at_most(2.4)), (Some(20), None));
        for log_steps in [false, true] {
            let path = folder.path().join("curves.svg");
            draw_curves(&path, &[fast.clone(), slow.clone()], log_steps).unwrap();
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(svg.contains("from scratch") && svg.contains("converted") && svg.ends_with("</svg>\n"), "{svg}");
        }
        assert!(run("empty", &[]).unwrap_err().to_string().contains("empty: has no metrics.jsonl with a validation"));
        assert!(Curve::read("none", &folder.path().join("none")).is_err());
    }
}
