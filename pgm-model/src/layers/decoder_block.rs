//! The decoder block: cross-attention and a feed-forward layer.
// B batch, C keys, K queries, H hidden

use burn::module::Module;
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};

use super::dropout::Dropout;
use super::feed_forward::FeedForward;
use super::modulation::{BlockModulation, constant_vectors, folded_gate, folded_norm, modulation};
use super::norm::{affine, norm};
use super::row_keys::{RowKeys, attend_rows};
use crate::attention_plan::AttentionPlan;
use crate::condition::Condition;
use crate::config::BackboneConfig;
use crate::ops::{cross_attention, linear, recomputed_linear, recomputed_norm};

/// Cross-attention from the positions to decode to the encoder output, then the feed-forward layer.
///
/// Decoded positions never see each other. So any subset of them can be decoded alone, at a cost proportional to its size.
#[derive(Module, Debug)]
pub struct DecoderBlock {
    q_norm1: LayerNorm,
    kv_norm1: LayerNorm,
    norm2: LayerNorm,
    q: Linear,
    kv: Linear,
    out: Linear,
    mlp: FeedForward,
    modulation: Option<Linear>,
    dropout: Dropout,
    n_heads: usize,
}

impl DecoderBlock {
    /// A new block.
    pub fn new(config: &BackboneConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            q_norm1: norm(width, device),
            kv_norm1: norm(width, device),
            norm2: norm(width, device),
            q: LinearConfig::new(width, width).with_bias(false).init(device),
            kv: LinearConfig::new(width, 2 * width).with_bias(false).init(device),
            out: LinearConfig::new(width, width).with_bias(false).init(device),
            mlp: FeedForward::new(config, device),
            modulation: Some(modulation(config.cond_dim, BlockModulation::N * width, device)),
            dropout: Dropout::new(config.dropout),
            n_heads: config.n_heads,
        }
    }

    /// The same block with dropout on every device.
    pub(crate) fn with_dropout(self) -> Self {
        Self { dropout: self.dropout.always(), ..self }
    }

    /// The block with a constant condition `[c]` folded into its weights; it no longer reads a condition.
    pub(crate) fn folded(self, condition: &Tensor<1>) -> Self {
        let Some(layer) = &self.modulation else { return self };
        let [shift1, scale1, gate1, shift2, scale2, gate2] = constant_vectors(layer, condition);
        Self {
            q_norm1: folded_norm(self.q_norm1, [shift1, scale1]),
            norm2: folded_norm(self.norm2, [shift2, scale2]),
            out: folded_gate(self.out, gate1),
            mlp: self.mlp.folded(gate2),
            modulation: None,
            ..self
        }
    }

    /// Keys, then values, of the encoder output. They are recomputed in the backward pass, because those of all blocks
    /// come from the same tensor.
    ///
    /// # Shapes
    /// `[B, C, H] -> [B, C, 2 H]`
    pub fn keys_values(&self, encoded: &Tensor<3>) -> Tensor<3> {
        recomputed_linear(&self.kv, recomputed_norm(encoded.clone(), affine(&self.kv_norm1)))
    }

    /// The block, given `kv` from [`keys_values`](Self::keys_values).
    ///
    /// # Shapes
    /// x `[B, K, H]`, kv `[B, C, 2 H] -> [B, K, H]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        kv: Tensor<3>,
        condition: Option<&Condition>,
        plan: &AttentionPlan,
    ) -> Tensor<3> {
        let angles = [&plan.queries, &plan.keys];
        self.forward_with(x, condition, |q, dtype| {
            cross_attention(q, kv, angles, plan.across.as_ref(), self.n_heads, dtype)
        })
    }

    /// As [`forward`](Self::forward) for the positions to decode of packed rows, each row with its own keys.
    ///
    /// # Shapes
    /// `[1, K, H] -> [1, K, H]`
    pub(crate) fn forward_rows<'a>(
        &self,
        x: Tensor<3>,
        condition: Option<&Condition>,
        rows: impl Iterator<Item = RowKeys<'a>>,
    ) -> Tensor<3> {
        self.forward_with(x, condition, |q, dtype| attend_rows(&q, rows, self.n_heads, dtype))
    }

    // `attention` takes queries, [B, K, H], and the dtype of the matmuls, and returns [B, K, H].
    fn forward_with(
        &self,
        x: Tensor<3>,
        condition: Option<&Condition>,
        attention: impl FnOnce(Tensor<3>, DType) -> Tensor<3>,
    ) -> Tensor<3> {
        let BlockModulation { attention: (shift_scale1, gate1), feed_forward: (shift_scale2, gate2) } =
            BlockModulation::new(&self.modulation, condition);
        let q = recomputed_linear(&self.q, shift_scale1.recomputed_norm(&self.q_norm1, x.clone())); // [B, K, H]
        let context = attention(q, self.kv.weight.val().dtype()); // [B, K, H]
        let x = gate1.gated_sum(x, self.dropout.forward(linear(&self.out, context)));
        let branch = self.mlp.forward(shift_scale2.recomputed_norm(&self.norm2, x.clone()));
        gate2.gated_sum(x, self.dropout.forward(branch))
    }
}
