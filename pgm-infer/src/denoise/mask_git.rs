//! The MaskGIT baseline: the network over the whole image.
//!
//! Shapes: B rows, K positions, H hidden.

use burn::tensor::{Device, Tensor};
use pgm_model::{Class, MaskGit, ModelConfig, Positions};

use super::images::Drawable;
use super::rows::{by_length, dense, to_vecs};
use crate::InferError;
use crate::sample::logits::Logits;
use crate::sample::{CleanRow, Denoiser, SampleRequest, SampleRow, SampleSettings};

/// The MaskGIT baseline. Its head runs at the positions that are asked for.
#[derive(Debug)]
pub struct MaskGitDenoiser<'a> {
    model: &'a MaskGit,
    device: &'a Device,
    mask_index: usize,
    drawable: Drawable,
}

impl<'a> MaskGitDenoiser<'a> {
    /// The network of this configuration on its device; the mask fills open positions and is never drawn.
    pub fn new(model: &'a MaskGit, device: &'a Device, config: &ModelConfig) -> Self {
        Self { model, device, mask_index: config.backbone().mask_index, drawable: Drawable::new(config) }
    }

    // [B, K, H]
    fn hidden(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Tensor<3> {
        let codes = dense(rows, self.mask_index as u32, self.device);
        let classes: Vec<Class> = rows.iter().map(|row| row.class).collect();
        self.model.hidden_at(codes, Some(&classes), &Positions::new(&to_vecs(positions), self.device))
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
        &self.drawable.excluded
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        self.drawable.check(request)?;
        SampleRow::new(request, settings)
    }
}
