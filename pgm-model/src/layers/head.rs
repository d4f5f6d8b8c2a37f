//! The final layer: modulated norm, and the linear map to the vocabulary.
// B batch, K positions, H hidden, V vocabulary

use burn::module::{Initializer, Module};
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, assert_shape};

use super::modulation::{ShiftScale, constant_vectors, folded_norm, modulation};
use super::norm::norm;
use crate::condition::Condition;
use crate::config::BackboneConfig;
use crate::ops;

/// Targets and weights of a loss.
#[derive(Clone, Debug)]
pub struct LossTarget {
    /// The true tokens, `[B, L]`.
    pub targets: Tensor<2, Int>,
    /// The weight of each token's cross-entropy, `[B, L]`.
    pub weights: Tensor<2>,
    /// Id of the mask token, which is never predicted.
    pub mask_index: usize,
}

/// Norm with shift and scale, zero-initialised linear.
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

    /// The head with a constant condition `[c]` folded into its norm; it no longer reads a condition.
    pub(crate) fn folded(self, condition: &Tensor<1>) -> Self {
        let Some(layer) = &self.modulation else { return self };
        Self { norm: folded_norm(self.norm, constant_vectors(layer, condition)), modulation: None, ..self }
    }

    /// Raw logits. The mask token's logit is not set to -inf here: losses and samplers exclude it.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn forward(&self, x: Tensor<3>, condition: Option<&Condition>) -> Tensor<3> {
        self.linear(self.modulated_norm(x, condition))
    }

    /// The linear map alone, of what [`modulated_norm`](Self::modulated_norm) returns.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn linear(&self, x: Tensor<3>) -> Tensor<3> {
        ops::linear(&self.linear, x)
    }

    /// [`loss::weighted_loss`](crate::loss::weighted_loss) of the logits, computed without holding them all; `[1]`.
    ///
    /// # Shapes
    /// `[B, K, H]`, targets and weights `[B, K] -> [1]`
    pub fn loss(&self, x: Tensor<3>, condition: Option<&Condition>, target: &LossTarget) -> Tensor<1> {
        let [n_rows, n_positions, width] = x.dims();
        assert_shape!(target.targets, [n_rows, n_positions]);
        assert_shape!(target.weights, [n_rows, n_positions]);
        let x = self.modulated_norm(x, condition);
        let n = n_rows * n_positions;
        let (targets, weights) = (target.targets.clone().reshape([n]), target.weights.clone().reshape([n]));
        let (w, v) = (self.linear.weight.val(), self.linear.weight.dims()[1]);
        let b = self.linear.bias.as_ref().map_or_else(|| Tensor::zeros([v], &w.device()), |bias| bias.val());
        ops::linear_cross_entropy(x.reshape([n, width]), w, b, targets, weights, target.mask_index)
    }

    /// The head without its linear map.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, H]`
    pub fn modulated_norm(&self, x: Tensor<3>, condition: Option<&Condition>) -> Tensor<3> {
        ShiftScale::new(&self.modulation, condition).norm(&self.norm, x)
    }
}
