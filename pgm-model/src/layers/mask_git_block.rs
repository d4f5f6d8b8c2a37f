//! The block of the MaskGIT baseline: self-attention with normalised queries and keys, and a SwiGLU layer.
// B batch, S tokens, H hidden, I inner width

use burn::module::{Initializer, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::dropout::Dropout;
use super::modulation::{BlockModulation, modulation};
use super::rms_norm::RmsNorm;
use crate::condition::Condition;
use crate::config::BackboneConfig;
use crate::ops::{linear, rms_norm, self_attention};
use crate::rotary::RotaryAngles;

/// A linear layer without a bias, initialised as Xavier's.
pub(crate) fn xavier(inputs: usize, outputs: usize, device: &Device) -> Linear {
    let initializer = Initializer::XavierUniform { gain: 1.0 };
    LinearConfig::new(inputs, outputs).with_bias(false).with_initializer(initializer).init(device)
}

/// The inner width of the SwiGLU layer: two thirds of `mlp_ratio * hidden_size`, rounded up to a multiple of 256.
pub fn swiglu_width(config: &BackboneConfig) -> usize {
    (2 * config.mlp_ratio * config.hidden_size / 3).next_multiple_of(256)
}

/// Self-attention, then the SwiGLU layer. The condition modulates the norms and gates the branches.
#[derive(Module, Debug)]
pub struct MaskGitBlock {
    norm1: RmsNorm,
    norm2: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
    modulation: Option<Linear>,
    dropout: Dropout,
    n_heads: usize,
}

impl MaskGitBlock {
    /// A new block.
    pub fn new(config: &BackboneConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, swiglu_width(config));
        Self {
            norm1: RmsNorm::new(width, false, device),
            norm2: RmsNorm::new(width, false, device),
            q: xavier(width, width, device),
            k: xavier(width, width, device),
            v: xavier(width, width, device),
            out: xavier(width, width, device),
            gate: xavier(width, inner, device),
            up: xavier(width, inner, device),
            down: xavier(inner, width, device),
            modulation: Some(modulation(config.cond_dim, BlockModulation::N * width, device)),
            dropout: Dropout::new(config.dropout),
            n_heads: config.n_heads,
        }
    }

    /// The block. `condition` is SiLU(class embedding). `unrotated` holds zero angles, since MaskGIT has learned positions.
    ///
    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`
    pub fn forward(&self, x: Tensor<3>, condition: &Condition, unrotated: &RotaryAngles) -> Tensor<3> {
        let BlockModulation { attention: (shift_scale1, gate1), feed_forward: (shift_scale2, gate2) } =
            BlockModulation::new(&self.modulation, Some(condition));
        let normed = self.norm1.forward(x.clone(), shift_scale1);
        // Queries and keys are normalised over all heads together.
        let [q, k] = [&self.q, &self.k].map(|layer| rms_norm(linear(layer, normed.clone())));
        let qkv = Tensor::cat(vec![q, k, linear(&self.v, normed)], 2); // [B, S, 3 H]
        let dtype = self.q.weight.val().dtype();
        let context = self_attention(qkv, unrotated, None, self.n_heads, dtype); // [B, S, H]
        let x = gate1.gated_sum(x, self.dropout.forward(linear(&self.out, context)));
        let normed = self.norm2.forward(x.clone(), shift_scale2);
        let inner = silu(linear(&self.gate, normed.clone())) * linear(&self.up, normed); // [B, S, I]
        gate2.gated_sum(x, linear(&self.down, self.dropout.forward(inner)))
    }
}
