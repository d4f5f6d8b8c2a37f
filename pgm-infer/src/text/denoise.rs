//! The steps of one row as a page shows them: the whole row once, then its changes by positions.

use serde::Serialize;

use super::canvas::Canvas;
use super::cells::{CellTexts, Stretch};
use super::model::TextModel;
use crate::sample::RowChange;

/// Describes the steps of one row.
#[derive(Debug)]
pub struct DenoiseText {
    index: usize,
    seed: u64,
    n_steps: usize,
    cells: CellTexts,
}

impl DenoiseText {
    /// The row `index` of a request, which has a seed and is to take `n_steps`; `canvas` shows it before the first step.
    pub fn new(index: usize, (seed, n_steps): (u64, usize), canvas: &Canvas, model: &TextModel) -> Self {
        Self { index, seed, n_steps, cells: CellTexts::new(canvas, model) }
    }

    /// The state before the first step.
    pub fn start(&self, canvas: &Canvas) -> DenoiseStep {
        let Self { index, seed, n_steps, .. } = *self;
        let segments = Some(self.cells.stretches(canvas));
        let (decoded, forgotten, changed) = (Vec::new(), Vec::new(), Vec::new());
        DenoiseStep { index, step: 0, n_steps, seed, decoded, forgotten, changed, segments }
    }

    /// Describes a step that `canvas` has applied already; none for a step that changes nothing.
    pub fn apply(
        &mut self,
        (step, n_steps): (usize, usize),
        change: &RowChange,
        canvas: &Canvas,
        model: &TextModel,
    ) -> Option<DenoiseStep> {
        if change.decoded.is_empty() && change.forgotten.is_empty() {
            return None;
        }
        let mut changed = self.cells.apply(change, canvas, model);
        let decoded = change.decoded.iter().zip(&change.log_probabilities);
        let decoded = decoded.map(|(&(position, token), &logprob)| {
            changed.remove(&position);
            DecodedToken { position, token, text: self.cells.text(position).to_string(), logprob }
        });
        let decoded = decoded.collect();
        let changed = changed.into_iter().map(|(position, text)| ChangedText { position, text }).collect();
        let (index, seed, forgotten) = (self.index, self.seed, change.forgotten.clone());
        Some(DenoiseStep { index, step, n_steps, seed, decoded, forgotten, changed, segments: None })
    }
}

/// One step of one row, as the event `denoise` has it: the changes of the text by positions.
#[derive(Debug, Serialize)]
pub struct DenoiseStep {
    index: usize,
    step: usize,
    n_steps: usize,
    seed: u64,
    decoded: Vec<DecodedToken>,
    // Positions that the step masked again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    forgotten: Vec<usize>,
    // Other positions whose text is another now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<ChangedText>,
    // The whole row; only before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<Stretch>>,
}

#[derive(Debug, Serialize)]
struct DecodedToken {
    position: usize,
    token: u32,
    // What it adds to the text before it. A character of several tokens is the text of the last.
    text: String,
    logprob: f64,
}

#[derive(Debug, Serialize)]
struct ChangedText {
    position: usize,
    text: String,
}
