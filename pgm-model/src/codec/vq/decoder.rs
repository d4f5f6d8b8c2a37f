//! The decoder: from vectors at the lowest resolution to pixels.
// N pictures, C channels, H x W pixels, h x w codes, Z channels of a vector

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::attention::{AttentionBlock, Middle, middle, through_middle};
use super::config::VqCodecConfig;
use super::layers::{conv3, norm, norm_swish_conv};
use super::residual::{ResidualBlock, Upsample};

/// The blocks of one resolution.
#[derive(Module, Debug)]
struct Level {
    res: Vec<ResidualBlock>,
    // One behind each residual block of the lowest resolution.
    attn: Vec<AttentionBlock>,
    upsample: Option<Upsample>,
}

/// The decoder. Its first level is the lowest resolution.
#[derive(Module, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid: Middle,
    conv_blocks: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(config: &VqCodecConfig, device: &Device) -> Self {
        let last = config.last_level();
        let lowest = config.width(last);
        let (mut inputs, n_blocks) = (lowest, config.n_blocks + 1);
        let level = |level: usize| {
            let outputs = config.width(level);
            let res = (0..n_blocks)
                .map(|_| {
                    let block = ResidualBlock::new(inputs, outputs, device);
                    inputs = outputs;
                    block
                })
                .collect();
            let n_attention = if level == last { n_blocks } else { 0 };
            Level {
                res,
                attn: (0..n_attention).map(|_| AttentionBlock::new(outputs, device)).collect(),
                upsample: (level != 0).then(|| Upsample::new(outputs, device)),
            }
        };
        let conv_blocks = (0..=last).rev().map(level).collect();
        Self {
            conv_in: conv3(config.z_width, lowest, device),
            mid: middle(lowest, device),
            conv_blocks,
            norm_out: norm(config.width(0), device),
            conv_out: conv3(config.width(0), config.channels, device),
        }
    }

    /// # Shapes
    /// `[N, Z, h, w] -> [N, C, H, W]`
    pub(super) fn forward(&self, vectors: Tensor<4>) -> Tensor<4> {
        let mut x = through_middle(&self.mid, self.conv_in.forward(vectors));
        for level in &self.conv_blocks {
            for (index, block) in level.res.iter().enumerate() {
                x = block.forward(x);
                if let Some(attention) = level.attn.get(index) {
                    x = attention.forward(x);
                }
            }
            if let Some(upsample) = &level.upsample {
                x = upsample.forward(x);
            }
        }
        norm_swish_conv(&self.norm_out, &self.conv_out, x)
    }
}
