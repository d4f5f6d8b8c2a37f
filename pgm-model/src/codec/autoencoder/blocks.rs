//! The layers of the autoencoder.
//
// B batch, C channels, H x W pixels

use burn::module::{Initializer, Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::activation::silu;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor, module};

use crate::ops;

/// A convolution that keeps the sides, 3 x 3.
pub(super) fn conv(channels: [usize; 2], device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
}

/// A linear layer at every pixel.
pub(super) fn pointwise(channels: [usize; 2], device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, [1, 1]).init(device)
}

/// Group norm with one group: mean and variance of all values of a picture, then a scale and a shift for each channel.
#[derive(Module, Debug)]
pub struct PictureNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
}

impl PictureNorm {
    fn new(channels: usize, device: &Device) -> Self {
        Self { gamma: Initializer::Ones.init([channels], device), beta: Initializer::Zeros.init([channels], device) }
    }

    /// `[B, C, H, W] -> [B, C, H, W]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let n = channels * h * w;
        // One pass over the picture, with the channels' numbers spread over their pixels.
        let spread = |values: Tensor<1>| values.reshape([channels, 1]).expand([channels, h * w]).reshape([n]);
        let y = ops::layer_norm(x.reshape([batch, 1, n]), spread(self.gamma.val()), spread(self.beta.val()));
        y.reshape([batch, channels, h, w])
    }
}

/// Norm, SiLU and a convolution.
#[derive(Module, Debug)]
pub struct NormedConv {
    norm: PictureNorm,
    conv: Conv2d,
}

impl NormedConv {
    pub(super) fn new(conv: Conv2d, device: &Device) -> Self {
        let channels = conv.weight.lazy_shape().dims::<4>()[1];
        Self { norm: PictureNorm::new(channels, device), conv }
    }

    /// `[B, C, H, W] -> [B, C', H, W]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(silu(self.norm.forward(x)))
    }
}

/// Two normed convolutions beside the identity.
#[derive(Module, Debug)]
pub struct ResidualBlock {
    first: NormedConv,
    second: NormedConv,
}

impl ResidualBlock {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        let normed = || NormedConv::new(conv([channels, channels], device), device);
        Self { first: normed(), second: normed() }
    }

    /// `[B, C, H, W] -> [B, C, H, W]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        x.clone() + self.second.forward(self.first.forward(x))
    }
}

/// Residual blocks one after the other.
pub(super) fn residual_blocks(n: usize, channels: usize, device: &Device) -> Vec<ResidualBlock> {
    (0..n).map(|_| ResidualBlock::new(channels, device)).collect()
}

/// `[B, C, H, W] -> [B, C, H, W]`
pub(super) fn through(blocks: &[ResidualBlock], x: Tensor<4>) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x))
}

/// Residual blocks, then a convolution of stride 2.
#[derive(Module, Debug)]
pub struct DownLevel {
    blocks: Vec<ResidualBlock>,
    down: Conv2d,
}

impl DownLevel {
    pub(super) fn new(n_blocks: usize, channels: [usize; 2], device: &Device) -> Self {
        let down = Conv2dConfig::new(channels, [3, 3])
            .with_stride([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(device);
        Self { blocks: residual_blocks(n_blocks, channels[0], device), down }
    }

    /// `[B, C, H, W] -> [B, C', H / 2, W / 2]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.down.forward(through(&self.blocks, x))
    }
}

/// Each pixel becomes four, then a convolution and residual blocks.
#[derive(Module, Debug)]
pub struct UpLevel {
    up: Conv2d,
    blocks: Vec<ResidualBlock>,
}

impl UpLevel {
    pub(super) fn new(n_blocks: usize, channels: [usize; 2], device: &Device) -> Self {
        Self { up: conv(channels, device), blocks: residual_blocks(n_blocks, channels[1], device) }
    }

    /// `[B, C, H, W] -> [B, C', 2 H, 2 W]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([2 * h, 2 * w]);
        through(&self.blocks, self.up.forward(module::interpolate(x, options)))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::nn::GroupNormConfig;
    use burn::tensor::Distribution;

    #[test]
    fn the_picture_norm_is_burns_group_norm_with_one_group() {
        let device = Device::flex();
        let mut ours = PictureNorm::new(6, &device);
        let mut theirs = GroupNormConfig::new(1, 6).init(&device);
        let [gamma, beta] = [(0); 2].map(|_| Tensor::<1>::random([6], Distribution::Normal(0.0, 1.0), &device));
        ours.gamma = ours.gamma.map(|_| gamma.clone());
        ours.beta = ours.beta.map(|_| beta.clone());
        theirs.gamma = theirs.gamma.map(|param| param.map(|_| gamma.clone()));
        theirs.beta = theirs.beta.map(|param| param.map(|_| beta.clone()));
        let x = Tensor::<4>::random([2, 6, 5, 3], Distribution::Normal(1.0, 2.0), &device);
        let difference = (ours.forward(x.clone()) - theirs.forward(x)).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn an_upper_level_doubles_each_pixel_first() {
        let device = Device::flex();
        let level = UpLevel::new(1, [3, 2], &device);
        let x = Tensor::<4>::random([2, 3, 4, 5], Distribution::Default, &device);
        let doubled = x.clone().reshape([2, 3, 4, 1, 5, 1]).expand([2, 3, 4, 2, 5, 2]).reshape([2, 3, 8, 10]);
        let expected = through(&level.blocks, level.up.forward(doubled));
        let difference = (level.forward(x) - expected).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
    }
}
