//! The MaskGIT baseline: the network over the whole image.
//!
//! Shapes: B rows, K positions, H hidden.

use burn::tensor::{Device, Tensor};
use pgm_model::{MaskGit, Positions};

use super::rows::{by_length, dense, to_vecs};
use crate::InferError;
use crate::sample::logits::Logits;
use crate::sample::{CleanRow, Denoiser};

/// The MaskGIT baseline. Its head runs at the positions that are asked for.
#[derive(Debug)]
pub struct MaskGitDenoiser<'a> {
    model: &'a MaskGit,
    device: &'a Device,
    mask_index: usize,
    excluded: Vec<usize>,
}

impl<'a> MaskGitDenoiser<'a> {
    /// The network on its device; `mask_index` fills open positions and is never drawn.
    pub fn new(model: &'a MaskGit, device: &'a Device, mask_index: usize) -> Self {
        Self { model, device, mask_index, excluded: vec![mask_index] }
    }

    // [B, K, H]
    fn hidden(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Tensor<3> {
        let codes = dense(rows, self.mask_index as u32, self.device);
        self.model.hidden_at(codes, None, &Positions::new(&to_vecs(positions), self.device))
    }
}

impl Denoiser for MaskGitDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let parts = by_length(rows, positions, |rows, positions| self.hidden(rows, positions));
        Ok(Logits::from_parts(parts, Box::new(|hidden| self.model.logits(hidden))))
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }

    fn excluded_classes(&self) -> &[usize] {
        &self.excluded
    }
}
