//! The interface between the sampling loop and a network.

use crate::InferError;
use crate::sample::clean_row::CleanRow;
use crate::sample::logits::Logits;
use crate::sample::request::{SampleRequest, SampleSettings};
use crate::sample::row::SampleRow;

/// Predicts the tokens at some positions from the tokens that are known so far.
pub trait Denoiser {
    /// Logits at `positions[row]` of each row; rows may differ in length and in their number of positions.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails, [`InferError::Request`] for rows that this network cannot predict.
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError>;

    /// The token that stands for an open position.
    fn mask_index(&self) -> usize;

    /// The classes that are never drawn; the mask is one of them.
    fn excluded_classes(&self) -> &[usize];

    /// Bounds the memory for what is kept of rows between evaluations. Beyond it rows are dropped and encoded again.
    fn bound_cache(&self, _max_bytes: usize) {}

    /// Bytes that are kept of rows between evaluations.
    fn cache_bytes(&self) -> usize {
        0
    }

    /// A new row to sample with this network.
    ///
    /// # Errors
    /// [`InferError::Setting`] and [`InferError::Request`] for requests that cannot be sampled.
    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        SampleRow::new(request, settings)
    }
}
