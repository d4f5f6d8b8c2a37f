//! Encoder block (self-attention) and decoder block (cross-attention), with their feed-forward layer.
//!
//! Shapes: B batch, C keys, K queries, H hidden, c conditioning width.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use crate::attention::{AttentionMask, attend, split_heads};
use crate::conditioning::{modulate, modulation, modulators};
use crate::config::BackboneConfig;
use crate::plan::Plan;
use crate::rotary::RotaryAngles;

pub(crate) fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_bias(false).init(device)
}

/// Linear, GELU (the tanh form), linear.
#[derive(Module, Debug)]
pub struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn new(config: &BackboneConfig, device: &Device) -> Self {
        let inner = config.mlp_ratio * config.hidden_size;
        Self {
            up: LinearConfig::new(config.hidden_size, inner).init(device),
            down: LinearConfig::new(inner, config.hidden_size).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.down.forward(gelu_tanh(self.up.forward(x)))
    }
}

// 0.5 (1 + tanh(u)) = sigmoid(2 u): one transcendental function instead of a power and a tanh.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let two_root = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let cubic = x.clone() * x.clone() * (two_root * 0.044715) + two_root;
    sigmoid(x.clone() * cubic) * x
}

/// Self-attention within a group, then the feed-forward layer; both modulated and gated by the condition.
#[derive(Module, Debug)]
pub struct EncoderBlock {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    out: Linear,
    mlp: FeedForward,
    modulation: Linear,
    dropout: Dropout,
    n_heads: usize,
}

impl EncoderBlock {
    /// A new block.
    pub fn new(config: &BackboneConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            norm1: norm(width, device),
            norm2: norm(width, device),
            qkv: LinearConfig::new(width, 3 * width).with_bias(false).init(device),
            out: LinearConfig::new(width, width).with_bias(false).init(device),
            mlp: FeedForward::new(config, device),
            modulation: modulation(config.cond_dim, 6 * width, device),
            dropout: DropoutConfig::new(config.dropout).init(),
            n_heads: config.n_heads,
        }
    }

    /// # Shapes
    /// `[B, C, H] -> [B, C, H]`, condition `[B or 1, c]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        condition: &Tensor<2>,
        angles: &RotaryAngles,
        mask: Option<&AttentionMask>,
    ) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, condition);
        let (q, k, v) = self.project(modulate(self.norm1.forward(x.clone()), shift1, scale1), angles);
        let x = x + self.dropout.forward(self.out.forward(attend(q, k, v, mask))) * gate1;
        let branch = self.mlp.forward(modulate(self.norm2.forward(x.clone()), shift2, scale2));
        x + self.dropout.forward(branch) * gate2
    }

    /// As [`forward`](Self::forward) for the last S tokens of a sequence whose earlier keys and values are in `cache`;
    /// theirs are added to it. `mask` hides keys, old and new, from the S queries.
    ///
    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`, condition `[B or 1, c]`
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        condition: &Tensor<2>,
        angles: &RotaryAngles,
        mask: Option<&AttentionMask>,
        cache: &mut KeyValues,
    ) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, condition);
        let (q, k, v) = self.project(modulate(self.norm1.forward(x.clone()), shift1, scale1), angles);
        let (k, v) = cache.append(k, v);
        let x = x + self.out.forward(attend(q, k, v, mask)) * gate1;
        x.clone() + self.mlp.forward(modulate(self.norm2.forward(x), shift2, scale2)) * gate2
    }

    // Rotated queries and keys, and values: `[B, C, H] -> [B, h, C, d]` three times.
    fn project(&self, x: Tensor<3>, angles: &RotaryAngles) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let width = x.dims()[2];
        let qkv = self.qkv.forward(x); // [B, C, 3 H]
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(qkv.clone().narrow(2, i * width, width), self.n_heads));
        (angles.rotate(q), angles.rotate(k), v)
    }
}

/// Rotated keys and values of the tokens that one block has seen, `[B, h, C, d]` each.
#[derive(Clone, Debug, Default)]
pub struct KeyValues(Option<(Tensor<4>, Tensor<4>)>);

impl KeyValues {
    fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.0.take() {
            Some((old_k, old_v)) => (Tensor::cat(vec![old_k, k], 2), Tensor::cat(vec![old_v, v], 2)),
            None => (k, v),
        };
        self.0.insert(all).clone()
    }
}

/// Cross-attention from the positions to decode to the encoder output, then the feed-forward layer.
///
/// Decoded positions never see each other, so any subset can be decoded alone at a cost proportional to its size.
#[derive(Module, Debug)]
pub struct DecoderBlock {
    q_norm1: LayerNorm,
    kv_norm1: LayerNorm,
    norm2: LayerNorm,
    q: Linear,
    kv: Linear,
    out: Linear,
    mlp: FeedForward,
    modulation: Linear,
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
            modulation: modulation(config.cond_dim, 6 * width, device),
            dropout: DropoutConfig::new(config.dropout).init(),
            n_heads: config.n_heads,
        }
    }

    /// # Shapes
    /// `[B, K, H]`, encoder output `[B, C, H] -> [B, K, H]`, condition `[B or 1, c]`
    pub fn forward(&self, x: Tensor<3>, encoded: &Tensor<3>, condition: &Tensor<2>, plan: &Plan) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, condition);
        let q = self.q.forward(modulate(self.q_norm1.forward(x.clone()), shift1, scale1)); // [B, K, H]
        let (k, v) = keys_and_values(&self.kv, self.kv_norm1.forward(encoded.clone()), self.n_heads);
        let q = plan.queries.rotate(split_heads(q, self.n_heads));
        let context = attend(q, plan.keys.rotate(k), v, plan.across.as_ref());
        let x = x + self.dropout.forward(self.out.forward(context)) * gate1;
        let branch = self.mlp.forward(modulate(self.norm2.forward(x.clone()), shift2, scale2));
        x + self.dropout.forward(branch) * gate2
    }
}

/// One projection to keys and values: `[B, C, H] -> [B, h, C, d]` twice.
pub(crate) fn keys_and_values(layer: &Linear, x: Tensor<3>, n_heads: usize) -> (Tensor<4>, Tensor<4>) {
    let width = x.dims()[2];
    let kv = layer.forward(x); // [B, C, 2 H]
    let [k, v] = [0, 1].map(|i| split_heads(kv.clone().narrow(2, i * width, width), n_heads));
    (k, v)
}
