//! All steps of a set of rows.

use std::ops::ControlFlow;

use crate::InferError;
use crate::sample::denoiser::Denoiser;
use crate::sample::request::{SampleRequest, SampleSettings};
use crate::sample::row::SampleRow;
use crate::sample::sampled::{RowChange, SampledRow};
use crate::sample::step::{StepResult, advance};

/// The argument of a callback after each step.
#[derive(Debug)]
pub struct StepView<'a> {
    /// Steps done so far.
    pub step: usize,
    /// Steps in all; an order that chooses its own count may need fewer.
    pub n_steps: usize,
    /// Network evaluations so far.
    pub n_evaluations: usize,
    /// The changes of each row.
    pub changes: &'a [RowChange],
}

/// The sampled rows.
#[derive(Clone, Debug)]
pub struct SampleOutput {
    /// One for each request.
    pub rows: Vec<SampledRow>,
    /// Network evaluations.
    pub n_evaluations: usize,
}

/// Samples all requests together. `observe` runs after each step and can stop the run, which then returns the rows as they
/// are.
///
/// A step that decodes nothing costs no evaluation.
///
/// # Errors
/// [`InferError::Setting`] and [`InferError::Request`] for requests that cannot be sampled, [`InferError::NotFinite`] for
/// logits that no token can be drawn from, [`InferError::Device`] when the device fails.
pub fn sample(
    denoiser: &dyn Denoiser,
    requests: &[SampleRequest],
    settings: &SampleSettings,
    observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
) -> Result<SampleOutput, InferError> {
    let mut rows = requests.iter().map(|request| denoiser.row(request, settings)).collect::<Result<Vec<_>, _>>()?;
    let (mut step, mut n_evaluations) = (0, 0);
    while rows.iter().any(|row| !row.is_done()) {
        let mut all: Vec<&mut SampleRow> = rows.iter_mut().collect();
        let StepResult { changes, evaluated } = advance(denoiser, &mut all)?;
        let changes = changes.into_iter().collect::<Result<Vec<_>, _>>()?;
        step += 1;
        n_evaluations += usize::from(evaluated);
        let n_steps = rows.iter().map(SampleRow::n_steps).max().unwrap_or(0);
        let view = StepView { step, n_steps, n_evaluations, changes: &changes };
        if observe(&view).is_break() {
            break;
        }
    }
    let mask_index = denoiser.mask_index();
    Ok(SampleOutput { rows: rows.iter().map(|row| row.sampled(mask_index)).collect(), n_evaluations })
}
