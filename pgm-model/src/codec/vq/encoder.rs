//! The encoder: from pixels to vectors at the lowest resolution.
// N pictures, C channels, H x W pixels, h x w codes, Z channels of a vector

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::attention::{AttentionBlock, Middle, middle, through_middle};
use super::config::VqCodecConfig;
use super::layers::{conv3, norm, norm_swish_conv};
use super::residual::{Downsample, ResidualBlock};

/// The blocks of one resolution.
#[derive(Module, Debug)]
struct Level {
    res: Vec<ResidualBlock>,
    // One behind each residual block of the lowest resolution.
    attn: Vec<AttentionBlock>,
    downsample: Option<Downsample>,
}

/// The encoder.
#[derive(Module, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    conv_blocks: Vec<Level>,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(config: &VqCodecConfig, device: &Device) -> Self {
        let (last, mut inputs) = (config.last_level(), config.base_width);
        let level = |level: usize| {
            let outputs = config.width(level);
            let res = (0..config.n_blocks)
                .map(|_| {
                    let block = ResidualBlock::new(inputs, outputs, device);
                    inputs = outputs;
                    block
                })
                .collect();
            let n_attention = if level == last { config.n_blocks } else { 0 };
            Level {
                res,
                attn: (0..n_attention).map(|_| AttentionBlock::new(outputs, device)).collect(),
                downsample: (level != last).then(|| Downsample::new(outputs, device)),
            }
        };
        let conv_blocks = (0..=last).map(level).collect();
        let width = config.width(last);
        Self {
            conv_in: conv3(config.channels, config.base_width, device),
            conv_blocks,
            mid: middle(width, device),
            norm_out: norm(width, device),
            conv_out: conv3(width, config.z_width, device),
        }
    }

    /// # Shapes
    /// `[N, C, H, W] -> [N, Z, h, w]`
    pub(super) fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(pixels);
        for level in &self.conv_blocks {
            for (index, block) in level.res.iter().enumerate() {
                x = block.forward(x);
                if let Some(attention) = level.attn.get(index) {
                    x = attention.forward(x);
                }
            }
            if let Some(downsample) = &level.downsample {
                x = downsample.forward(x);
            }
        }
        norm_swish_conv(&self.norm_out, &self.conv_out, through_middle(&self.mid, x))
    }
}
