//! The public sampler's count of registers, for comparison with its results.

use crate::InferError;
use crate::sample::logits::Logits;
use crate::sample::{CleanRow, Denoiser, SampleRequest, SampleRow, SampleSettings};

/// A partition model with registers as the public sampler runs it. That sampler forgets the register when it counts the
/// tokens that can be seen, so nothing sees the newest token of a row in the step after it was drawn.
pub struct AsPublished<'a>(Box<dyn Denoiser + 'a>);

impl<'a> AsPublished<'a> {
    /// The denoiser of a model with registers.
    pub fn new(denoiser: Box<dyn Denoiser + 'a>) -> Self {
        Self(denoiser)
    }
}

impl std::fmt::Debug for AsPublished<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsPublished").finish_non_exhaustive()
    }
}

impl Denoiser for AsPublished<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let without_newest = |row: &&CleanRow| {
            let mut row = (*row).clone();
            row.positions.pop();
            row.tokens.pop();
            if let Some(sets) = &mut row.sets {
                sets.pop();
            }
            row
        };
        let rows: Vec<CleanRow> = rows.iter().map(without_newest).collect();
        self.0.logits(&rows.iter().collect::<Vec<_>>(), positions)
    }

    fn mask_index(&self) -> usize {
        self.0.mask_index()
    }

    fn excluded_classes(&self) -> &[usize] {
        self.0.excluded_classes()
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        self.0.row(request, settings)
    }
}
