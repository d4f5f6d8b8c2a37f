//! The final layer: norm, modulation, and the linear map to the vocabulary.
//!
//! Shapes: B batch, K positions, H hidden, V vocabulary.

use burn::module::{Initializer, Module};
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};

use crate::block::norm;
use crate::conditioning::{folded_norm, modulated_norm, modulation, modulators};
use crate::config::BackboneConfig;
use crate::ops;

/// What a loss compares the logits with.
#[derive(Clone, Debug)]
pub struct LossTarget {
    /// The right tokens, `[B, L]`.
    pub targets: Tensor<2, Int>,
    /// What each token's cross-entropy counts, `[B, L]`.
    pub weights: Tensor<2>,
    /// The class that is never predicted.
    pub mask_index: usize,
}

/// Norm, shift and scale, zero-initialised linear.
#[derive(Module, Debug)]
pub struct Head {
    norm: LayerNorm,
    modulation: Option<Linear>,
    linear: Linear,
}

impl Head {
    /// A new head.
    pub fn new(config: &BackboneConfig, device: &Device) -> Self {
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        Self {
            norm: norm(width, device),
            modulation: Some(modulation(config.cond_dim, 2 * width, device)),
            linear: LinearConfig::new(width, vocab).with_initializer(Initializer::Zeros).init(device),
        }
    }

    /// The head with what the condition does folded into its norm.
    pub(crate) fn folded(self, condition: &Tensor<2>) -> Self {
        let [shift, scale] = modulators(&self.modulation, Some(condition));
        Self { norm: folded_norm(self.norm, shift, scale), modulation: None, ..self }
    }

    /// Raw logits; the mask's column is an ordinary number here, the loss and the samplers leave it out.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn forward(&self, x: Tensor<3>, condition: Option<&Tensor<2>>) -> Tensor<3> {
        let [shift, scale] = modulators(&self.modulation, condition);
        ops::linear(&self.linear, modulated_norm(&self.norm, x, shift, scale))
    }

    /// As [`loss::weighted_loss`](crate::loss::weighted_loss) of the logits, without holding them all; `[1]`.
    ///
    /// # Shapes
    /// `[B, K, H]`, targets and weights `[B, K]`
    pub fn loss(&self, x: Tensor<3>, condition: Option<&Tensor<2>>, goal: &LossTarget) -> Tensor<1> {
        let [shift, scale] = modulators(&self.modulation, condition);
        let x = modulated_norm(&self.norm, x, shift, scale);
        let [n_rows, n_positions, width] = x.dims();
        let n = n_rows * n_positions;
        let (targets, weights) = (goal.targets.clone().reshape([n]), goal.weights.clone().reshape([n]));
        let (w, v) = (self.linear.weight.val(), self.linear.weight.dims()[1]);
        let b = self.linear.bias.as_ref().map_or_else(|| Tensor::zeros([v], &w.device()), |bias| bias.val());
        ops::linear_cross_entropy(x.reshape([n, width]), w, b, targets, weights, goal.mask_index)
    }
}
