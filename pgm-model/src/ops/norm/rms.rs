//! RMSNorm without weights.

use burn::tensor::Tensor;

/// The epsilon of MaskGIT's norms.
const EPSILON: f64 = 1e-5;

/// `x / sqrt(mean(x^2) + 1e-5)`, the mean over the last dimension.
///
/// # Shapes
/// `[B, S, H] -> [B, S, H]`
pub fn rms_norm(x: Tensor<3>) -> Tensor<3> {
    let scale = (x.clone() * x.clone()).mean_dim(2).add_scalar(EPSILON).sqrt().recip(); // [B, S, 1]
    x * scale
}
