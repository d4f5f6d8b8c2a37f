//! Plots of measured curves as SVG: points with intervals, lines through them, a legend beside the axes.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::TrainError;

const WIDTH: u32 = 800;
const LEGEND: u32 = 250;
const HEIGHT: u32 = 520;
const LEGEND_LINE: i32 = 18;

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

const PALETTE: [Colour; 10] = [
    [50, 100, 190],
    [210, 110, 30],
    [40, 140, 70],
    [110, 110, 110],
    [150, 70, 160],
    [190, 50, 60],
    [30, 150, 170],
    [150, 120, 30],
    [220, 120, 170],
    [30, 50, 90],
];

/// The colour of the curve with this number; they repeat after ten.
pub fn colour(index: usize) -> Colour {
    PALETTE[index % PALETTE.len()]
}

/// A colour mixed with white; a share of 1 leaves it as it is.
pub fn mixed(colour: Colour, share: f64) -> Colour {
    colour.map(|part| (f64::from(part) * share + 255.0 * (1.0 - share)) as u8)
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with the unit.
    pub name: String,
    /// Whether it is logarithmic. Values that are not positive are then left out.
    pub log: bool,
}

impl Axis {
    /// A linear axis.
    pub fn linear(name: &str) -> Self {
        Self { name: name.to_string(), log: false }
    }

    /// A logarithmic axis.
    pub fn log(name: &str) -> Self {
        Self { name: name.to_string(), log: true }
    }

    // A logarithmic axis is a linear axis of the base-2 logarithms.
    fn place(&self, value: f64) -> f64 {
        if self.log { value.log2() } else { value }
    }

    fn label(&self, place: f64) -> String {
        let value = if self.log { place.exp2() } else { place };
        short(value)
    }
}

/// The shape of a curve's points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    #[default]
    Circle,
    /// A triangle.
    Triangle,
    /// A cross.
    Cross,
}

/// A point of a curve. One with a coordinate that is not finite is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlotPoint {
    /// x and y.
    pub at: [f64; 2],
    /// The ends of a horizontal bar through it.
    pub x_interval: Option<[f64; 2]>,
    /// The ends of a vertical bar through it.
    pub y_interval: Option<[f64; 2]>,
}

impl From<(f64, f64)> for PlotPoint {
    fn from((x, y): (f64, f64)) -> Self {
        Self { at: [x, y], x_interval: None, y_interval: None }
    }
}

/// A curve: a line through its points, in their order.
#[derive(Clone, Debug)]
pub struct PlotCurve {
    /// Its name in the legend.
    pub name: String,
    /// Its colour.
    pub colour: Colour,
    /// The shape of its points.
    pub marker: Marker,
    /// Its points.
    pub points: Vec<PlotPoint>,
}

/// A straight line across the plot.
#[derive(Clone, Debug)]
pub enum PlotLine {
    /// At an x, with a name for the legend; an empty one is left out of it.
    Vertical(f64, String),
    /// At a y, with a name for the legend; an empty one is left out of it.
    Horizontal(f64, String),
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves, in the order of the legend.
    pub curves: Vec<PlotCurve>,
    /// Lines across the plot.
    pub lines: Vec<PlotLine>,
}

impl Plot {
    /// The plot as SVG. Without any point it is an empty pair of axes.
    ///
    /// # Errors
    /// [`TrainError::File`] when it cannot be drawn.
    pub fn svg(&self) -> Result<String, TrainError> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| TrainError::file("draw", &self.y.name, error))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let entries = (self.curves.len() + self.lines.len()) as u32;
        let height = HEIGHT.max(40 + LEGEND_LINE as u32 * entries);
        let root = SVGBackend::with_string(svg, (WIDTH + LEGEND, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (area, legend) = root.split_horizontally(WIDTH);
        let (x_range, y_range) = (self.range(0), self.range(1));
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(x_range[0]..x_range[1], y_range[0]..y_range[1])?;
        chart
            .configure_mesh()
            .x_desc(&self.x.name)
            .y_desc(&self.y.name)
            .x_label_formatter(&|place| self.x.label(*place))
            .y_label_formatter(&|place| self.y.label(*place))
            .light_line_style(WHITE)
            .draw()?;
        for line in &self.lines {
            let ends = match line {
                PlotLine::Vertical(x, _) => [(self.x.place(*x), y_range[0]), (self.x.place(*x), y_range[1])],
                PlotLine::Horizontal(y, _) => [(x_range[0], self.y.place(*y)), (x_range[1], self.y.place(*y))],
            };
            chart.draw_series(DashedLineSeries::new(ends, 5, 4, BLACK.mix(0.6).into()))?;
        }
        for curve in &self.curves {
            let [red, green, blue] = curve.colour;
            let colour = RGBColor(red, green, blue);
            let points: Vec<(f64, f64)> = curve.points.iter().filter_map(|point| self.placed(point.at)).collect();
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            for point in &curve.points {
                let [x, y] = point.at;
                let bars = [
                    point.x_interval.map(|[low, high]| [[low, y], [high, y]]),
                    point.y_interval.map(|[low, high]| [[x, low], [x, high]]),
                ];
                let bars = bars.into_iter().flatten().filter_map(|[a, b]| Some([self.placed(a)?, self.placed(b)?]));
                chart.draw_series(bars.map(|ends| PathElement::new(ends, colour.mix(0.5))))?;
            }
            match curve.marker {
                Marker::Circle => chart.draw_series(points.iter().map(|&at| Circle::new(at, 4, colour.filled())))?,
                Marker::Triangle => {
                    chart.draw_series(points.iter().map(|&at| TriangleMarker::new(at, 5, colour.filled())))?
                }
                Marker::Cross => {
                    chart.draw_series(points.iter().map(|&at| Cross::new(at, 4, colour.stroke_width(2))))?
                }
            };
        }
        self.draw_legend(&legend)?;
        root.present()?;
        Ok(())
    }

    fn draw_legend(&self, area: &DrawingArea<SVGBackend, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        let style = ("sans-serif", 13).into_font();
        let mut y = 24;
        for curve in &self.curves {
            let [red, green, blue] = curve.colour;
            let colour = RGBColor(red, green, blue);
            area.draw(&PathElement::new([(4, y), (24, y)], colour.stroke_width(2)))?;
            match curve.marker {
                Marker::Circle => area.draw(&Circle::new((14, y), 4, colour.filled()))?,
                Marker::Triangle => area.draw(&TriangleMarker::new((14, y), 5, colour.filled()))?,
                Marker::Cross => area.draw(&Cross::new((14, y), 4, colour.stroke_width(2)))?,
            }
            area.draw(&Text::new(curve.name.clone(), (30, y - 7), style.clone()))?;
            y += LEGEND_LINE;
        }
        for line in &self.lines {
            let (PlotLine::Vertical(_, name) | PlotLine::Horizontal(_, name)) = line;
            if name.is_empty() {
                continue;
            }
            area.draw(&PathElement::new([(4, y), (11, y)], BLACK.mix(0.6)))?;
            area.draw(&PathElement::new([(17, y), (24, y)], BLACK.mix(0.6)))?;
            area.draw(&Text::new(name.clone(), (30, y - 7), style.clone()))?;
            y += LEGEND_LINE;
        }
        Ok(())
    }

    // A point's place on the axes; absent where it has none.
    fn placed(&self, at: [f64; 2]) -> Option<(f64, f64)> {
        let (x, y) = (self.x.place(at[0]), self.y.place(at[1]));
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }

    // The ends of an axis: all points, bars and lines with a margin.
    fn range(&self, axis: usize) -> [f64; 2] {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let of_point = points.filter(|point| self.placed(point.at).is_some()).flat_map(|point| {
            let bar = if axis == 0 { point.x_interval } else { point.y_interval };
            std::iter::once(point.at[axis]).chain(bar.into_iter().flatten())
        });
        let of_line = self.lines.iter().filter_map(|line| match (line, axis) {
            (PlotLine::Vertical(x, _), 0) => Some(*x),
            (PlotLine::Horizontal(y, _), 1) => Some(*y),
            _ => None,
        });
        let shown = if axis == 0 { &self.x } else { &self.y };
        let places = of_point.chain(of_line).map(|value| shown.place(value)).filter(|place| place.is_finite());
        let (low, high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| (low.min(place), high.max(place)));
        if low > high {
            return [0.0, 1.0];
        }
        let margin = (0.04 * (high - low)).max(0.01 * low.abs()).max(1e-9);
        [low - margin, high + margin]
    }
}

/// A number with at most three digits that count: for labels and tables of values of any size.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_string();
    }
    let digits = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ if size >= 1e-6 => (2.0 - size.log10().floor()) as usize,
        _ => return format!("{value:.1e}"),
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers() {
        let cases = [
            (0.0, "0"),
            (1234.5, "1234"),
            (99.96, "100"),
            (12.34, "12.3"),
            (1.0, "1"),
            (2.999, "3"),
            (0.05, "0.05"),
            (0.012_345, "0.0123"),
            (-0.000_123_4, "-0.000123"),
            (1.5e-9, "1.5e-9"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_plot_has_its_curves_bars_and_lines_and_leaves_out_what_has_no_place() {
        let curve = |name: &str, marker, points| PlotCurve { name: name.into(), colour: colour(1), marker, points };
        let bar = PlotPoint { at: [2.0, 3.0], x_interval: Some([1.5, 2.5]), y_interval: Some([2.0, 4.5]) };
        let missing = [(f64::NAN, 1.0), (3.0, f64::INFINITY), (-1.0, 2.0)].map(PlotPoint::from);
        let plot = Plot {
            x: Axis::log("seconds"),
            y: Axis::linear("perplexity <of text>"),
            curves: vec![
                curve("first", Marker::Circle, vec![(1.0, 2.0).into(), bar]),
                curve("second", Marker::Triangle, missing.to_vec()),
                curve("third", Marker::Cross, vec![(4.0, 2.5).into()]),
            ],
            lines: vec![PlotLine::Horizontal(5.0, "held-out text".into()), PlotLine::Vertical(3.0, "budget".into())],
        };
        let svg = plot.svg().unwrap();
        for name in ["first", "second", "third", "held-out text", "budget", "seconds", "perplexity &lt;of text&gt;"] {
            assert!(svg.contains(name), "{name}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        // Two points and the legend's.
        assert_eq!(svg.matches("<circle").count(), 3);
        // x from 1 to 4 in logarithms with a margin, y from 2 to 5.
        assert!((plot.range(0)[0] + 0.08).abs() < 1e-9 && (plot.range(0)[1] - 2.08).abs() < 1e-9);
        assert!((plot.range(1)[1] - 5.12).abs() < 1e-9);
        let empty = Plot { curves: Vec::new(), lines: Vec::new(), ..plot };
        assert!(empty.svg().unwrap().contains("seconds"));
    }

    #[test]
    fn many_curves_make_the_plot_higher() {
        let curve = |n: usize| PlotCurve {
            name: format!("curve {n}"),
            colour: mixed(colour(n), 0.5),
            marker: Marker::default(),
            points: vec![(1.0, n as f64).into()],
        };
        let plot = Plot {
            x: Axis::linear("x"),
            y: Axis::linear("y"),
            curves: (0..60).map(curve).collect(),
            lines: Vec::new(),
        };
        assert!(plot.svg().unwrap().contains(&format!("height=\"{}\"", 40 + 18 * 60)));
    }
}
