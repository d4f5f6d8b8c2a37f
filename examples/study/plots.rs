//! The plots of `results.md`.

use pgm_train::plot::{Axis, Colour, Marker, Plot, PlotCurve, PlotPoint, colour, mixed};

use crate::evaluate::{Findings, GeneratedSamples, TrainedModel};
use crate::report::title;
use crate::{KINDS, Study};

// The colour of a kind is that of its place among the frontier's models.
fn colour_of(kind: &str) -> Colour {
    colour(KINDS.iter().position(|(_, other)| *other == kind).unwrap_or(KINDS.len()))
}

fn points(points: impl Iterator<Item = (f64, f64)>) -> Vec<PlotPoint> {
    points.map(PlotPoint::from).collect()
}

impl Study {
    /// The plots by their file names, as SVG. Those of the frontier come first.
    pub fn plots(&self, found: &Findings) -> anyhow::Result<[(&'static str, String); 6]> {
        let curves = KINDS.iter().map(|(_, kind)| {
            let models: Vec<&TrainedModel> = found.trained.iter().filter(|model| model.kind == *kind).collect();
            let means = models[0].curve.iter().enumerate().skip(1).map(|(index, &(step, _))| {
                let logs = models.iter().filter_map(|model| model.curve.get(index)).map(|point| point.1.ln());
                (step, (logs.sum::<f64>() / models.len() as f64).exp())
            });
            PlotCurve {
                name: title(kind).to_string(),
                colour: colour_of(kind),
                marker: Marker::Circle,
                points: points(means),
            }
        });
        let (x, y) = (Axis::linear("training step"), Axis::linear("perplexity of held-out bytes"));
        let perplexity = Plot { x, y, curves: curves.collect(), lines: Vec::new() }.svg()?;
        let of_samples = |y: &str, value: fn(&GeneratedSamples) -> f64| {
            let (x, y) = (Axis::log("tokens sampled a second"), Axis::linear(y));
            Plot { x, y, curves: self.sampling_curves(found, value), lines: Vec::new() }.svg()
        };
        let generative = of_samples("perplexity under the judge", GeneratedSamples::perplexity)?;
        let entropy = of_samples("unigram entropy, nats", GeneratedSamples::entropy)?;
        Ok([
            ("results-frontier.svg", found.frontier.plot()?),
            ("results-wall-time.svg", found.frontier.time_plot()?),
            ("results-kept.svg", found.kept.plot()?),
            ("results-perplexity.svg", perplexity),
            ("results-generative.svg", generative),
            ("results-entropy.svg", entropy),
        ])
    }

    // One curve per model: the sampling speed against `value`, one point per number of steps.
    fn sampling_curves(&self, found: &Findings, value: fn(&GeneratedSamples) -> f64) -> Vec<PlotCurve> {
        let mut curves: Vec<PlotCurve> = Vec::new();
        for (_, kind) in KINDS.into_iter().filter(|(_, kind)| *kind != "ar") {
            for targets in [None, Some("one"), Some("both")] {
                let last = |row: &&GeneratedSamples| row.rounds == 0 || row.rounds == self.plan.rounds;
                let rows = found.generated.iter().filter(|row| row.kind == kind && row.targets == targets);
                let points = points(rows.filter(last).map(|row| (row.rate, value(row))));
                if points.is_empty() {
                    continue;
                }
                let (name, shade) = match targets {
                    None => (title(kind).to_string(), 1.0),
                    Some("one") => (format!("{} distilled, one", title(kind)), 0.7),
                    Some(targets) => (format!("{} distilled, {targets}", title(kind)), 0.4),
                };
                let marker = if targets.is_some() { Marker::Triangle } else { Marker::Circle };
                curves.push(PlotCurve { name, colour: mixed(colour_of(kind), shade), marker, points });
            }
        }
        let ar = found.generated.iter().filter(|row| row.kind == "ar").map(|row| (row.rate, value(row)));
        curves.push(PlotCurve {
            name: title("ar").to_string(),
            colour: colour_of("ar"),
            marker: Marker::Circle,
            points: points(ar),
        });
        curves
    }
}
