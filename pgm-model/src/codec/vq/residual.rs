//! The residual block of a codec, and the layers that change the resolution.
// N pictures, C channels, h rows and w columns of a level

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};

use super::layers::{conv1, conv3, norm, norm_swish_conv};

/// Two convolutions with norms before them, plus the input.
#[derive(Module, Debug)]
pub(super) struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    // Where the width changes.
    nin_shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(super) fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            norm1: norm(inputs, device),
            conv1: conv3(inputs, outputs, device),
            norm2: norm(outputs, device),
            conv2: conv3(outputs, outputs, device),
            nin_shortcut: (inputs != outputs).then(|| conv1(inputs, outputs, device)),
        }
    }

    /// # Shapes
    /// `[N, C, h, w] -> [N, C', h, w]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = norm_swish_conv(&self.norm1, &self.conv1, x.clone());
        let branch = norm_swish_conv(&self.norm2, &self.conv2, inner);
        match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(x) + branch,
            None => x + branch,
        }
    }
}

/// Half the rows and columns: a convolution with stride 2.
#[derive(Module, Debug)]
pub(super) struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        Self { conv: Conv2dConfig::new([width, width], [3, 3]).with_stride([2, 2]).init(device) }
    }

    /// One column of zeros on the right and one row below come before the convolution.
    ///
    /// # Shapes
    /// `[N, C, h, w] -> [N, C, h / 2, w / 2]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x.pad((0, 1, 0, 1), PadMode::Constant(0.0)))
    }
}

/// Twice the rows and columns: each place four times, then a convolution.
#[derive(Module, Debug)]
pub(super) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        Self { conv: conv3(width, width, device) }
    }

    /// # Shapes
    /// `[N, C, h, w] -> [N, C, 2 h, 2 w]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let doubled = x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, 2, w, 2]).reshape([n, c, 2 * h, 2 * w]);
        self.conv.forward(doubled)
    }
}
