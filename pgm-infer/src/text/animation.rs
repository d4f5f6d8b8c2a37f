//! A text that fills in the order in which its tokens were decoded, as an animated SVG.

use std::fmt::Write;

use super::canvas::{Canvas, Segment};
use super::layout::TextRow;
use super::model::TextModel;
use crate::sample::RowChange;

/// Columns of a line.
const COLUMNS: usize = 80;
/// Width and height of a character's cell, and the margin, in pixels.
const CELL: (f64, f64) = (8.4, 22.0);
const MARGIN: f64 = 16.0;
/// Seconds until the last token stands, and for which the whole text stands.
const FILLING: f64 = 8.0;
const WHOLE: f64 = 4.0;

/// A row of text and the step that decoded each of its tokens.
#[derive(Clone, Debug)]
pub struct TextAnimation {
    canvas: Canvas,
    decoded_in: Vec<usize>,
    n_steps: usize,
}

impl TextAnimation {
    /// A row before its first step.
    pub fn of_row(row: &TextRow) -> Self {
        let canvas = Canvas::of_row(row);
        Self { decoded_in: vec![0; canvas.length()], canvas, n_steps: 0 }
    }

    /// Applies the change of a step.
    pub fn apply(&mut self, change: &RowChange) {
        self.canvas.apply(change);
        for &(position, _) in &change.decoded {
            self.decoded_in[position] = self.n_steps;
        }
        self.n_steps += 1;
    }

    /// The animation: given text is black, and decoded tokens appear one step after the other, from blue (first) to orange
    /// (last). A viewer without animations shows the whole text.
    pub fn svg(&self, model: &TextModel) -> String {
        let mut lines = Lines { columns: 0, row: 0, elements: String::new() };
        for (position, segment) in self.canvas.pieces(model) {
            match segment {
                Segment::Given { text } => lines.add(&text, None),
                Segment::Decoded { text } | Segment::New { text } => {
                    let step = position.map_or(0, |position| self.decoded_in[position]);
                    lines.add(&text, Some(step as f64 / self.n_steps.max(1) as f64));
                }
                Segment::Open { n } => lines.add(&"░".repeat(n), None),
            }
        }
        let width = COLUMNS as f64 * CELL.0 + 2.0 * MARGIN;
        let height = (lines.row + 1) as f64 * CELL.1 + 2.0 * MARGIN;
        let title = format!("A text of {} tokens, decoded in {} steps", self.decoded_in.len(), self.n_steps);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
             {height:.0}\" font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\">\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            lines.elements
        )
    }
}

struct Lines {
    columns: usize,
    row: usize,
    elements: String,
}

impl Lines {
    // Adds a text that appears after `share` of the steps, or is there from the start.
    fn add(&mut self, text: &str, share: Option<f64>) {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                (self.columns, self.row) = (0, self.row + 1);
            }
            // A given text may be longer than a line; it is broken between words.
            for word in line.split_inclusive(' ') {
                let letters: Vec<char> =
                    word.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
                if self.columns > 0 && self.columns + word.trim_end().chars().count() > COLUMNS {
                    (self.columns, self.row) = (0, self.row + 1);
                }
                for letters in letters.chunks(COLUMNS) {
                    self.add_word(letters, share);
                }
            }
        }
    }

    fn add_word(&mut self, letters: &[char], share: Option<f64>) {
        let x = MARGIN + self.columns as f64 * CELL.0;
        let y = MARGIN + self.row as f64 * CELL.1;
        let width = letters.len() as f64 * CELL.0;
        self.columns += letters.len();
        let mut text = String::new();
        for letter in letters {
            match letter {
                '<' => text.push_str("&lt;"),
                '&' => text.push_str("&amp;"),
                // Spaces at the ends would be dropped.
                ' ' => text.push('\u{a0}'),
                letter => text.push(*letter),
            }
        }
        let baseline = y + 0.7 * CELL.1;
        let shape = format!("x=\"{x:.1}\" y=\"{baseline:.1}\" textLength=\"{width:.1}\"");
        let _ = match share {
            None => writeln!(self.elements, "<text {shape}>{text}</text>"),
            Some(share) => {
                let at = share * FILLING / (FILLING + WHOLE);
                let animate = |values: &str| {
                    format!(
                        "<animate attributeName=\"opacity\" calcMode=\"discrete\" values=\"{values}\" keyTimes=\"0;{at:.4}\" \
                         dur=\"{}s\" repeatCount=\"indefinite\"/>",
                        FILLING + WHOLE
                    )
                };
                let hue = 215.0 - 190.0 * share;
                writeln!(
                    self.elements,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#dddddd\" opacity=\"0\">{}</rect>\
                     <text {shape} fill=\"hsl({hue:.0},80%,38%)\">{text}{}</text>",
                    CELL.1 - 3.0,
                    animate("1;0"),
                    animate("0;1"),
                )
            }
        };
    }
}
