//! The feed-forward layer of a block.
// B batch, S positions, H hidden, I inner width

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::modulation::folded_gate;
use crate::config::BackboneConfig;
use crate::ops::{bias_gelu, linear, matmul};

/// Linear, GELU (tanh form), linear.
#[derive(Module, Debug)]
pub struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    /// A new layer.
    pub fn new(config: &BackboneConfig, device: &Device) -> Self {
        let inner = config.mlp_ratio * config.hidden_size;
        Self {
            up: LinearConfig::new(config.hidden_size, inner).init(device),
            down: LinearConfig::new(inner, config.hidden_size).init(device),
        }
    }

    /// The layer with a gate `[H]` folded in: `gate * layer(x)`.
    pub(crate) fn folded(self, gate: Tensor<1>) -> Self {
        Self { down: folded_gate(self.down, gate), ..self }
    }

    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.up.bias.as_ref().expect("initialised with a bias").val();
        let inner = bias_gelu(matmul(x, self.up.weight.val()), bias); // [B, S, I]
        linear(&self.down, inner) // [B, S, H]
    }
}
