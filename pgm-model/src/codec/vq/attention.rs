//! Self-attention over the spatial positions of the lowest resolution, and the mid block of encoder and decoder.
// N pictures, C channels, h rows and w columns, S = h w places

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use super::layers::{conv1, norm};
use super::residual::ResidualBlock;

/// Single-head self-attention over all spatial positions, with a residual connection.
#[derive(Module, Debug)]
pub(super) struct AttentionBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttentionBlock {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        let [q, k, v, proj_out] = std::array::from_fn(|_| conv1(width, width, device));
        Self { norm: norm(width, device), q, k, v, proj_out }
    }

    /// # Shapes
    /// `[N, C, h, w] -> [N, C, h, w]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let normed = self.norm.forward(x.clone());
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|conv| conv.forward(normed.clone()).reshape([n, c, h * w]));
        let scores = (q * (c as f64).powf(-0.5)).swap_dims(1, 2).matmul(k); // [N, S, S]
        let context = v.matmul(softmax(scores, 2).swap_dims(1, 2)); // [N, C, S]
        x + self.proj_out.forward(context.reshape([n, c, h, w]))
    }
}

/// Residual block, attention, residual block.
pub(super) type Middle = (ResidualBlock, AttentionBlock, ResidualBlock);

/// A mid block of that width.
pub(super) fn middle(width: usize, device: &Device) -> Middle {
    (
        ResidualBlock::new(width, width, device),
        AttentionBlock::new(width, device),
        ResidualBlock::new(width, width, device),
    )
}

/// Runs the middle.
///
/// # Shapes
/// `[N, C, h, w] -> [N, C, h, w]`
pub(super) fn through_middle((first, attention, last): &Middle, x: Tensor<4>) -> Tensor<4> {
    last.forward(attention.forward(first.forward(x)))
}
