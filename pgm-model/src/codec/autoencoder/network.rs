//! A small convolutional autoencoder whose middle is quantised.
//!
//! The encoder halves the sides once for each width: residual blocks, then a convolution of stride 2. The decoder mirrors
//! it: each pixel becomes four, then a convolution and residual blocks. Between them stands a quantiser.
//
// B batch, C channels, H x W pixels, h x w grid of codes, D width of the quantised vectors

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Int, Tensor};

use super::blocks::{DownLevel, NormedConv, ResidualBlock, UpLevel, conv, pointwise, residual_blocks, through};
use super::config::{AutoencoderConfig, QuantizerConfig};
use super::fsq::Fsq;
use super::vector_codebook::VectorCodebook;

/// How vectors become codes.
#[derive(Module, Debug)]
enum Quantizer {
    /// A learned codebook.
    Vq(VectorCodebook),
    /// Levels of each channel.
    Fsq(Levels),
}

/// The levels of [`Fsq`] as a module without parameters.
#[derive(Module, Debug)]
struct Levels {
    #[module(skip)]
    fsq: Fsq,
}

/// A reconstruction in training.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// The pixels, `[B, C, H, W]`. They may lie outside of -1 to 1.
    pub pixels: Tensor<4>,
    /// The loss of a learned codebook, `[1]`.
    pub codebook_loss: Option<Tensor<1>>,
}

/// The autoencoder.
#[derive(Module, Debug)]
pub struct Autoencoder {
    encoder: Encoder,
    quantizer: Quantizer,
    decoder: Decoder,
    grid: [usize; 2],
}

#[derive(Module, Debug)]
struct Encoder {
    input: Conv2d,
    levels: Vec<DownLevel>,
    middle: Vec<ResidualBlock>,
    output: NormedConv,
}

#[derive(Module, Debug)]
struct Decoder {
    input: Conv2d,
    middle: Vec<ResidualBlock>,
    levels: Vec<UpLevel>,
    output: NormedConv,
}

impl Autoencoder {
    /// An autoencoder with random weights.
    ///
    /// # Panics
    /// For a configuration that [`validate`](AutoencoderConfig::validate) refuses.
    pub fn new(config: &AutoencoderConfig, device: &Device) -> Self {
        let AutoencoderConfig { channels, ref widths, blocks, ref quantizer, .. } = *config;
        let lowest = *widths.last().expect("there is a width");
        // The widths at all resolutions. The lowest has that of the one above.
        let levels: Vec<[usize; 2]> =
            widths.iter().zip(widths.iter().skip(1).chain([&lowest])).map(|(&high, &low)| [high, low]).collect();
        let encoder = Encoder {
            input: conv([channels, widths[0]], device),
            levels: levels.iter().map(|&channels| DownLevel::new(blocks, channels, device)).collect(),
            middle: residual_blocks(blocks, lowest, device),
            output: NormedConv::new(pointwise([lowest, quantizer.width()], device), device),
        };
        let decoder = Decoder {
            input: conv([quantizer.width(), lowest], device),
            middle: residual_blocks(blocks, lowest, device),
            levels: levels.iter().rev().map(|&[high, low]| UpLevel::new(blocks, [low, high], device)).collect(),
            output: NormedConv::new(conv([widths[0], channels], device), device),
        };
        let quantizer = match quantizer {
            QuantizerConfig::Fsq { levels } => Quantizer::Fsq(Levels { fsq: Fsq::new(levels.clone()) }),
            QuantizerConfig::Vq { codes, width } => Quantizer::Vq(VectorCodebook::new(*codes, *width, device)),
        };
        Self { encoder, quantizer, decoder, grid: config.grid() }
    }

    /// Encodes, quantises and decodes; the gradient passes the quantiser.
    ///
    /// # Shapes
    /// `[B, C, H, W] -> [B, C, H, W]`
    pub fn reconstruct(&self, pixels: Tensor<4>) -> Reconstruction {
        let vectors = self.vectors(pixels);
        let (quantised, codebook_loss) = match &self.quantizer {
            Quantizer::Fsq(levels) => (levels.fsq.quantise(vectors), None),
            Quantizer::Vq(codebook) => {
                let (quantised, loss) = codebook.quantise(vectors);
                (quantised, Some(loss))
            }
        };
        Reconstruction { pixels: self.pixels(quantised), codebook_loss }
    }

    /// The codes of pixels in -1 to 1, row by row.
    ///
    /// # Shapes
    /// `[B, C, H, W] -> [B, h * w]`
    pub fn encode(&self, pixels: Tensor<4>) -> Tensor<2, Int> {
        let vectors = self.vectors(pixels);
        match &self.quantizer {
            Quantizer::Fsq(levels) => levels.fsq.codes(vectors),
            Quantizer::Vq(codebook) => codebook.codes(vectors),
        }
    }

    /// The pixels of codes. They may lie outside of -1 to 1.
    ///
    /// # Shapes
    /// `[B, h * w] -> [B, C, H, W]`
    ///
    /// # Panics
    /// For a code that the codebook does not have, with a learned codebook.
    pub fn decode(&self, codes: Tensor<2, Int>) -> Tensor<4> {
        self.pixels(match &self.quantizer {
            Quantizer::Fsq(levels) => levels.fsq.values(codes, self.grid),
            Quantizer::Vq(codebook) => codebook.values(codes, self.grid),
        })
    }

    /// Number of parameters.
    pub fn n_parameters(&self) -> usize {
        self.num_params()
    }

    // [B, C, H, W] -> [B, D, h, w]
    fn vectors(&self, pixels: Tensor<4>) -> Tensor<4> {
        let x = self.encoder.input.forward(pixels);
        let x = self.encoder.levels.iter().fold(x, |x, level| level.forward(x));
        self.encoder.output.forward(through(&self.encoder.middle, x))
    }

    // [B, D, h, w] -> [B, C, H, W]
    fn pixels(&self, vectors: Tensor<4>) -> Tensor<4> {
        let x = through(&self.decoder.middle, self.decoder.input.forward(vectors));
        let x = self.decoder.levels.iter().fold(x, |x, level| level.forward(x));
        self.decoder.output.forward(x)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::optim::GradientsParams;
    use burn::tensor::Distribution;

    fn config(quantizer: QuantizerConfig) -> AutoencoderConfig {
        AutoencoderConfig { height: 12, width: 20, channels: 3, widths: vec![4, 6], blocks: 1, quantizer }
    }

    #[test]
    fn training_and_the_two_halves_agree_and_every_weight_is_trained() {
        let device = Device::flex().autodiff();
        for quantizer in [QuantizerConfig::Fsq { levels: vec![5, 4] }, QuantizerConfig::Vq { codes: 11, width: 3 }] {
            let config = config(quantizer);
            let network = Autoencoder::new(&config, &device);
            let pixels = Tensor::<4>::random([2, 3, 12, 20], Distribution::Uniform(-1.0, 1.0), &device);
            let trained = network.reconstruct(pixels.clone());
            let codes = network.encode(pixels);
            assert_eq!(codes.dims(), [2, 3 * 5]);
            let highest = codes.clone().max().into_scalar::<i32>();
            assert!((0..config.quantizer.n_codes() as i32).contains(&highest));
            let decoded = network.decode(codes);
            assert_eq!(decoded.dims(), [2, 3, 12, 20]);
            let difference = (decoded - trained.pixels.clone()).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-5, "{difference}");
            let mut loss = trained.pixels.square().mean();
            if let Some(codebook) = trained.codebook_loss {
                loss = loss + codebook;
            }
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let mut n_weights = 0;
            struct Count<'a>(&'a mut usize);
            impl burn::module::ModuleVisitor for Count<'_> {
                fn visit_float<const D: usize>(&mut self, _: &burn::module::Param<Tensor<D>>) {
                    *self.0 += 1;
                }
            }
            network.visit(&mut Count(&mut n_weights));
            assert_eq!(gradients.len(), n_weights);
        }
    }
}
