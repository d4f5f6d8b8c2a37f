//! The final layer: norm, modulation, and the linear map to the vocabulary.
//!
//! Shapes: B batch, K positions, H hidden, V vocabulary.

use burn::module::{Initializer, Module};
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::block::norm;
use crate::conditioning::{modulate, modulation, modulators};
use crate::config::BackboneConfig;

/// Norm, shift and scale, zero-initialised linear.
#[derive(Module, Debug)]
pub struct Head {
    norm: LayerNorm,
    modulation: Linear,
    linear: Linear,
}

impl Head {
    /// A new head.
    pub fn new(config: &BackboneConfig, device: &Device) -> Self {
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        Self {
            norm: norm(width, device),
            modulation: modulation(config.cond_dim, 2 * width, device),
            linear: LinearConfig::new(width, vocab).with_initializer(Initializer::Zeros).init(device),
        }
    }

    /// Raw logits; the mask's column is an ordinary number here, the loss and the samplers leave it out.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn forward(&self, x: Tensor<3>, condition: &Tensor<2>) -> Tensor<3> {
        let [shift, scale] = modulators(&self.modulation, condition);
        self.linear.forward(modulate(self.norm.forward(x), shift, scale))
    }
}
