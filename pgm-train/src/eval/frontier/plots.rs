//! The two plots of a frontier.

use super::curve::FrontierCurve;
use super::report::Frontier;
use crate::TrainError;
use crate::judge::metrics::Estimate;
use crate::plot::{Axis, Colour, Marker, Plot, PlotCurve, PlotLine, PlotPoint, colour, mixed, short};

impl Frontier {
    /// Perplexity under the judge against entropy: a curve for each model and number of steps, darker with more steps; its
    /// points are temperatures. As SVG.
    ///
    /// # Errors
    /// [`TrainError::File`] when it cannot be drawn.
    pub fn plot(&self) -> Result<String, TrainError> {
        let point = |at: [Option<Estimate>; 2]| {
            let [x, y] = at.map(|estimate| estimate.map_or(f64::NAN, |estimate| estimate.value));
            let [x_interval, y_interval] = at.map(|estimate| estimate.and_then(|estimate| estimate.interval));
            PlotPoint { at: [x, y], x_interval, y_interval }
        };
        let models = self.models();
        let curve = |curve: &FrontierCurve| {
            let number = models.iter().position(|model| *model == curve.variant.model).unwrap_or(0);
            let own: Vec<&str> = self.curves_of(&curve.variant.model).map(|(_, curve)| curve.name.as_str()).collect();
            let place = own.iter().position(|name| *name == curve.name).unwrap_or(0);
            let share = if own.len() > 1 { 0.35 + 0.65 * place as f64 / (own.len() - 1) as f64 } else { 1.0 };
            PlotCurve {
                name: curve.name.clone(),
                colour: mixed(colour(number), share),
                marker: marker(number),
                points: curve.points.iter().map(|found| point([found.entropy, found.perplexity])).collect(),
            }
        };
        let mut lines = Vec::new();
        if let (Some(entropy), Some(perplexity)) = (self.held_out.entropy, self.held_out.perplexity) {
            let name = format!("held-out text: {}, {} nats", short(perplexity.value), short(entropy.value));
            lines.push(PlotLine::Vertical(entropy.value, name));
            lines.push(PlotLine::Horizontal(perplexity.value, String::new()));
        }
        let (x, y) = (Axis::linear("unigram entropy of a sample, nats"), Axis::log("perplexity under the judge"));
        Plot { x, y, curves: self.curves.iter().map(curve).collect(), lines }.svg()
    }

    /// Perplexity at the entropy of held-out text against the wall time of a sample: a curve for each model, whose points are
    /// numbers of steps. Curves that do not reach the entropy have no point. As SVG.
    ///
    /// # Errors
    /// [`TrainError::File`] when it cannot be drawn.
    pub fn time_plot(&self) -> Result<String, TrainError> {
        let mut curves = Vec::new();
        for (number, model) in self.models().into_iter().enumerate() {
            let mut top_ps: Vec<Option<f64>> = self.curves_of(model).map(|(_, curve)| curve.top_p).collect();
            top_ps.dedup();
            top_ps.sort_by(|a, b| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
            top_ps.dedup();
            for (place, top_p) in top_ps.iter().enumerate() {
                let own = self.curves_of(model).filter(|(_, curve)| curve.top_p == *top_p);
                let name = match top_p {
                    Some(top_p) if top_ps.len() > 1 => format!("{model}, top-p {top_p}"),
                    _ => model.to_string(),
                };
                let colour: Colour = mixed(colour(number), 1.0 - 0.6 * place as f64 / top_ps.len() as f64);
                let points = own.map(|(_, curve)| PlotPoint {
                    at: [curve.wall_time.median, curve.matched.map_or(f64::NAN, |matched| matched.value)],
                    x_interval: Some([curve.wall_time.least, curve.wall_time.most]),
                    y_interval: curve.matched.and_then(|matched| matched.interval),
                });
                curves.push(PlotCurve { name, colour, marker: marker(number), points: points.collect() });
            }
        }
        let held_out = self.held_out.perplexity.map(|perplexity| {
            PlotLine::Horizontal(perplexity.value, format!("held-out text: {}", short(perplexity.value)))
        });
        let name = format!("compared at {} s", short(self.equal_time.seconds));
        let lines = held_out.into_iter().chain([PlotLine::Vertical(self.equal_time.seconds, name)]).collect();
        let entropy = self.held_out.entropy.map_or("-".to_string(), |entropy| short(entropy.value));
        let y = format!("perplexity under the judge at an entropy of {entropy} nats");
        Plot { x: Axis::log("wall time of a sample, seconds"), y: Axis::log(&y), curves, lines }.svg()
    }
}

fn marker(number: usize) -> Marker {
    [Marker::Circle, Marker::Triangle, Marker::Cross][number % 3]
}
