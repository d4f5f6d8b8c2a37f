//! RMSNorm: a norm without a mean.

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::constants::EPSILON;
#[cfg(feature = "fused")]
use crate::ops::device::fused;
#[cfg(feature = "fused")]
use crate::ops::extension::fused_ops::FusedOps;

/// `x / sqrt(mean(x^2) + 1e-5)`, the mean over the last dimension.
///
/// # Shapes
/// `[B, S, H] -> [B, S, H]`
pub fn rms_norm(x: Tensor<3>) -> Tensor<3> {
    let options = (&x.device(), x.dtype());
    let shape = [1, 1, x.dims()[2]];
    affine_rms_norm(x.clone(), [Tensor::ones(shape, options), Tensor::zeros(shape, options)])
}

/// `rms_norm(x) * weight + bias`, with a weight and a bias for all rows of the batch, for each of them, or for each position
/// of a single row.
///
/// # Shapes
/// x `[B, S, H]`, weight and bias `[1, 1, H]`, `[B, 1, H]`, or `[1, S, H]` where B is 1 `-> [B, S, H]`
pub fn affine_rms_norm(x: Tensor<3>, [weight, bias]: [Tensor<3>; 2]) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, weight, bias) {
        let [weight, bias] = [weight, bias].map(|vectors| vectors.flatten::<2>(0, 1).into_dispatch());
        let (y, _moments) = Dispatch::affine_rms_norm(x.into_dispatch(), weight, bias);
        return Tensor::from_dispatch(y);
    }
    let scale = (x.clone() * x.clone()).mean_dim(2).add_scalar(f64::from(EPSILON)).sqrt().recip(); // [B, S, 1]
    x * scale * weight + bias
}
