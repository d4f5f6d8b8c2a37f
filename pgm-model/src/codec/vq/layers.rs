//! What the blocks of a codec are made of.
// N pictures, C channels, h rows and w columns of a level

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, PaddingConfig2d};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::config::N_GROUPS;

/// A convolution of 3 x 3 that keeps rows and columns.
pub(super) fn conv3(inputs: usize, outputs: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([inputs, outputs], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
}

/// A convolution of 1 x 1.
pub(super) fn conv1(inputs: usize, outputs: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([inputs, outputs], [1, 1]).init(device)
}

/// A group norm of 32 groups.
pub(super) fn norm(width: usize, device: &Device) -> GroupNorm {
    GroupNormConfig::new(N_GROUPS, width).with_epsilon(1e-6).init(device)
}

/// `conv(swish(norm(x)))`.
///
/// # Shapes
/// `[N, C, h, w] -> [N, C', h, w]`
pub(super) fn norm_swish_conv(norm: &GroupNorm, conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    conv.forward(silu(norm.forward(x)))
}
