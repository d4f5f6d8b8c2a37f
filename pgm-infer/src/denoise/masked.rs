//! The masked baseline: the network over the full length.
//!
//! Shapes: B rows, K positions, H hidden.

use burn::tensor::{Device, Tensor};
use pgm_model::{MaskedTransformer, Positions};

use super::images::Drawable;
use super::rows::{by_length, dense, to_vecs};
use crate::InferError;
use crate::sample::logits::Logits;
use crate::sample::{CleanRow, Denoiser, SampleRequest, SampleRow, SampleSettings};

/// Where the masked baseline runs its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadPositions {
    /// At the positions that this step decodes: the same samples at less cost.
    #[default]
    Decoded,
    /// At every position that is still masked, as MDLM's sampler does, which draws everywhere and keeps what changes.
    Masked,
}

/// The masked baseline.
#[derive(Debug)]
pub struct MaskedDenoiser<'a> {
    model: &'a MaskedTransformer,
    device: &'a Device,
    mask_index: usize,
    drawable: Drawable,
    head_at: HeadPositions,
}

impl<'a> MaskedDenoiser<'a> {
    /// The network on its device; `mask_index` fills open positions and is never drawn.
    pub fn new(model: &'a MaskedTransformer, device: &'a Device, mask_index: usize, head_at: HeadPositions) -> Self {
        Self { model, device, mask_index, drawable: Drawable::without(mask_index), head_at }
    }

    // [B, K, H]
    fn hidden(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Tensor<3> {
        let tokens = dense(rows, self.mask_index as u32, self.device);
        let mut wanted = to_vecs(positions);
        if self.head_at == HeadPositions::Masked {
            for (row, wanted) in rows.iter().zip(&mut wanted) {
                let mut is_open = vec![true; row.length];
                row.positions.iter().chain(wanted.iter()).for_each(|&position| is_open[position] = false);
                wanted.extend((0..row.length).filter(|&position| is_open[position]));
            }
        }
        self.model.hidden_at(tokens, &Positions::new(&wanted, self.device))
    }
}

impl Denoiser for MaskedDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let parts = by_length(rows, positions, |rows, positions| self.hidden(rows, positions));
        let logits = Logits::from_parts(parts, Box::new(|hidden| self.model.logits(hidden)));
        Ok(match self.head_at {
            HeadPositions::Decoded => logits,
            HeadPositions::Masked => logits.computed_everywhere(),
        })
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
