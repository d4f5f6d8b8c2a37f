//! A convolution with its batch norm folded in, and the pools.
// B batch, C channels, H height, W width

use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};

use super::weights::NamedWeights;
use crate::TrainError;

/// Variance added by the batch norms.
const EPSILON: f32 = 1e-3;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Rows and columns of zeros on each side.
    pub padding: [usize; 2],
}

/// Convolution without bias, batch norm, ReLU.
#[derive(Debug)]
pub(super) struct Convolution {
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: [usize; 2],
}

impl Convolution {
    pub fn read(weights: &mut NamedWeights, name: &str, shape: Shape, device: &Device) -> Result<Self, TrainError> {
        let Shape { channels: [n_in, n_out], kernel: [height, width], stride, padding } = shape;
        let sizes = [n_out, n_in, height, width];
        let mut kernel = weights.take(&format!("{name}.conv.weight"), &sizes)?;
        let mut of_norm = |key: &str| weights.take(&format!("{name}.bn.{key}"), &[n_out]);
        let (gain, shift) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let scales: Vec<f32> =
            gain.iter().zip(&variance).map(|(gain, variance)| gain / (variance + EPSILON).sqrt()).collect();
        for (row, scale) in kernel.chunks_exact_mut(n_in * height * width).zip(&scales) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
        let bias: Vec<f32> = (0..n_out).map(|at| shift[at] - mean[at] * scales[at]).collect();
        Ok(Self {
            weight: Tensor::from_data(TensorData::new(kernel, sizes), device),
            bias: Tensor::from_data(TensorData::new(bias, [n_out]), device),
            stride,
            padding,
        })
    }

    /// # Shapes
    /// `[B, C in, H, W] -> [B, C out, H', W']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], self.padding, [1, 1], 1);
        relu(conv2d(x, self.weight.clone(), Some(self.bias.clone()), options))
    }
}

/// The largest of 3 x 3 values, every second pixel.
pub(super) fn shrink(x: Tensor<4>) -> Tensor<4> {
    max_pool2d(x, MaxPoolOptions { stride: [2, 2], ..MaxPoolOptions::new([3, 3]) })
}

/// The largest of 3 x 3 values at every pixel.
pub(super) fn max_around(x: Tensor<4>) -> Tensor<4> {
    max_pool2d(x, MaxPoolOptions { stride: [1, 1], padding: [(1, 1); 2], ..MaxPoolOptions::new([3, 3]) })
}

/// The mean of 3 x 3 values at every pixel; pixels outside the picture are not counted.
pub(super) fn mean_around(x: Tensor<4>) -> Tensor<4> {
    let options = AvgPoolOptions::new([3, 3]);
    avg_pool2d(x, AvgPoolOptions { stride: [1, 1], padding: [(1, 1); 2], count_include_pad: false, ..options })
}
