//! LlamaGen's VQGAN as one network.
// N pictures, C channels, H x W pixels, h x w codes

use std::ops::Range;

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Int, Tensor};

use super::config::VqCodecConfig;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::layers::conv1;
use super::quantiser::Quantiser;

/// A codec of pictures: an encoder, a codebook and a decoder.
#[derive(Module, Debug)]
pub struct VqCodec {
    encoder: Encoder,
    quant_conv: Conv2d,
    quantize: Quantiser,
    post_quant_conv: Conv2d,
    decoder: Decoder,
    channels: usize,
    downsampling: usize,
}

impl VqCodec {
    /// A new codec with PyTorch's initialisation. The configuration should have been [validated](VqCodecConfig::validate).
    pub fn new(config: &VqCodecConfig, device: &Device) -> Self {
        Self {
            encoder: Encoder::new(config, device),
            quant_conv: conv1(config.z_width, config.code_width, device),
            quantize: Quantiser::new(config, device),
            post_quant_conv: conv1(config.code_width, config.z_width, device),
            decoder: Decoder::new(config, device),
            channels: config.channels,
            downsampling: config.downsampling(),
        }
    }

    /// The codes of pictures, whose pixels are between -1 and 1. `chunk` pictures are computed at a time, which bounds the
    /// memory.
    ///
    /// # Shapes
    /// `[N, C, H, W] -> [N, h w]`, row after row
    ///
    /// # Panics
    /// When the pictures have other channels, or sides that are no multiples of a code's pixels.
    pub fn encode(&self, pictures: Tensor<4>, chunk: usize) -> Tensor<2, Int> {
        let [n, channels, height, width] = pictures.dims();
        assert_eq!(channels, self.channels, "channels of a picture");
        let fits = |side: usize| side > 0 && side.is_multiple_of(self.downsampling);
        assert!(fits(height) && fits(width), "sides that are multiples of {}", self.downsampling);
        let encode = |range: Range<usize>| {
            let some = pictures.clone().narrow(0, range.start, range.len());
            self.quantize.codes(self.quant_conv.forward(self.encoder.forward(some)))
        };
        Tensor::cat(chunks(n, chunk).map(encode).collect(), 0)
    }

    /// Decodes codes to pixels. Values may lie outside of -1 to 1, so callers clamp. `chunk` pictures are computed at a time.
    ///
    /// # Shapes
    /// `[N, h w] -> [N, C, H, W]` for a grid `[h, w]`
    ///
    /// # Panics
    /// When a row has not as many codes as the grid.
    pub fn decode(&self, codes: Tensor<2, Int>, grid: [usize; 2], chunk: usize) -> Tensor<4> {
        let [n, n_codes] = codes.dims();
        assert_eq!(n_codes, grid[0] * grid[1], "codes of a grid of {grid:?}");
        let decode = |range: Range<usize>| {
            let some = codes.clone().narrow(0, range.start, range.len());
            self.decoder.forward(self.post_quant_conv.forward(self.quantize.vectors(some, grid)))
        };
        Tensor::cat(chunks(n, chunk).map(decode).collect(), 0)
    }

    /// The number of trainable parameters.
    pub fn n_parameters(&self) -> usize {
        self.num_params()
    }
}

fn chunks(n: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    let chunk = chunk.max(1);
    (0..n).step_by(chunk).map(move |start| start..n.min(start + chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_codecs_have_their_numbers_of_parameters() {
        for (config, parameters) in [(VqCodecConfig::ds8(), 70_109_835), (VqCodecConfig::ds16(), 71_883_403)] {
            config.validate().unwrap();
            // Parameters initialise lazily, so counting them allocates nothing.
            assert_eq!(VqCodec::new(&config, &Device::flex()).n_parameters(), parameters);
        }
    }
}
