//! Negative log-likelihoods of tokens from hidden states; see [`pgm_infer::score::nll`].

use burn::tensor::Tensor;
pub(crate) use pgm_infer::score::nll::{POSITIONS_AT_ONCE, in_chunks, token_nll};

use crate::TrainError;

/// Reads a tensor from the device, row by row.
///
/// # Errors
/// [`TrainError::Device`] when the device fails.
pub(crate) fn read<const D: usize>(values: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    values.try_into_vec_as::<f32>().map_err(|error| TrainError::Device(error.to_string()))
}
