//! The network evaluation of a step, with guidance.

use crate::InferError;
use crate::sample::clean_row::CleanRow;
use crate::sample::denoiser::Denoiser;
use crate::sample::logits::{GuidedRow, Logits};

/// A row of a step's network evaluation.
pub(super) struct EvaluatedRow<'a> {
    pub(super) clean: &'a CleanRow,
    pub(super) positions: &'a [usize],
    /// The same row without its class, and the weight that it has against the class; none in a step without guidance.
    pub(super) guide: Option<(CleanRow, f64)>,
}

/// The logits of all rows, guided, in one evaluation.
pub(super) fn evaluate<'d>(denoiser: &'d dyn Denoiser, rows: &[EvaluatedRow<'_>]) -> Result<Logits<'d>, InferError> {
    let mut clean: Vec<&CleanRow> = rows.iter().map(|row| row.clean).collect();
    let mut positions: Vec<&[usize]> = rows.iter().map(|row| row.positions).collect();
    let mut guided: Vec<Option<GuidedRow>> = Vec::with_capacity(rows.len());
    for row in rows {
        guided.push(row.guide.as_ref().map(|(without_class, weight)| {
            clean.push(without_class);
            positions.push(row.positions);
            GuidedRow { without_class: clean.len() - 1, weight: *weight as f32 }
        }));
    }
    let logits = denoiser.logits(&clean, &positions)?;
    Ok(if clean.len() == rows.len() { logits } else { logits.guided(guided) })
}
