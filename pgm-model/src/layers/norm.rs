//! LayerNorm without a condition.
// B batch, S positions, H hidden

use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use crate::ops;

/// A new norm with a weight and no bias. Only the GroupSwap's norm has a bias.
pub(crate) fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_bias(false).init(device)
}

/// `norm(x)`.
///
/// # Shapes
/// `[B, S, H] -> [B, S, H]`
pub(crate) fn plain_norm(norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
    let [weight, bias] = affine(norm);
    ops::layer_norm(x, weight, bias)
}

/// The weight and the bias of a norm, `[H]` each; a missing bias is 0.
pub(crate) fn affine(norm: &LayerNorm) -> [Tensor<1>; 2] {
    let weight = norm.gamma.val();
    let bias = norm.beta.as_ref().map_or_else(|| weight.zeros_like(), |bias| bias.val());
    [weight, bias]
}
