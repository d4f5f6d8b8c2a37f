//! Encoder block (self-attention) and decoder block (cross-attention), with their feed-forward layer.
//!
//! Shapes: B batch, C keys, K queries, H hidden, c conditioning width.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::conditioning::{
    affine, folded_gate, folded_norm, gated_sum, modulated_norm, modulation, modulators, recomputed_modulated_norm,
};
use crate::config::BackboneConfig;
use crate::ops::{
    attend, bias_gelu, cross_attention, linear, matmul, recomputed_linear, recomputed_norm, self_attention, split_heads,
};
use crate::plan::AttentionPlan;
use crate::rotary::RotaryAngles;
use crate::visibility::Visibility;

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

    fn gated(self, gate: &Option<Tensor<3>>) -> Self {
        Self { down: folded_gate(self.down, gate), ..self }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.up.bias.as_ref().expect("made with a bias").val();
        linear(&self.down, bias_gelu(matmul(x, self.up.weight.val()), bias))
    }
}

/// Self-attention within a group, then the feed-forward layer; both modulated and gated by the condition.
#[derive(Module, Debug)]
pub struct EncoderBlock {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    out: Linear,
    mlp: FeedForward,
    modulation: Option<Linear>,
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
            modulation: Some(modulation(config.cond_dim, 6 * width, device)),
            dropout: DropoutConfig::new(config.dropout).init(),
            n_heads: config.n_heads,
        }
    }

    /// The block with what the condition does folded into its weights.
    pub(crate) fn folded(self, condition: &Tensor<2>) -> Self {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, Some(condition));
        Self {
            norm1: folded_norm(self.norm1, shift1, scale1),
            norm2: folded_norm(self.norm2, shift2, scale2),
            out: folded_gate(self.out, &gate1),
            mlp: self.mlp.gated(&gate2),
            modulation: None,
            ..self
        }
    }

    /// # Shapes
    /// `[B, C, H] -> [B, C, H]`, condition `[B or 1, c]`, absent in a folded block
    pub fn forward(
        &self,
        x: Tensor<3>,
        condition: Option<&Tensor<2>>,
        angles: &RotaryAngles,
        visibility: Option<&Visibility>,
    ) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, condition);
        let qkv = linear(&self.qkv, modulated_norm(&self.norm1, x.clone(), shift1, scale1)); // [B, C, 3 H]
        let context = self_attention(qkv, angles, visibility, self.n_heads, self.qkv.weight.val().dtype());
        let x = gated_sum(x, self.dropout.forward(linear(&self.out, context)), gate1);
        let branch = self.mlp.forward(modulated_norm(&self.norm2, x.clone(), shift2, scale2));
        gated_sum(x, self.dropout.forward(branch), gate2)
    }

    /// As [`forward`](Self::forward) for the last S tokens of a sequence whose earlier keys and values are in `cache`;
    /// theirs are added to it. `visibility` is that of all keys, old and new, from the S queries.
    ///
    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`, condition `[B or 1, c]`
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        condition: Option<&Tensor<2>>,
        angles: &RotaryAngles,
        visibility: Option<&Visibility>,
        cache: &mut KeyValues,
    ) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, condition);
        let width = x.dims()[2];
        let qkv = linear(&self.qkv, modulated_norm(&self.norm1, x.clone(), shift1, scale1)); // [B, S, 3 H]
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(qkv.clone().narrow(2, i * width, width), self.n_heads));
        let (k, v) = cache.append(angles.rotate(k), v);
        let context = attend(angles.rotate(q), k, v, visibility);
        let x = gated_sum(x, linear(&self.out, context), gate1);
        let branch = self.mlp.forward(modulated_norm(&self.norm2, x.clone(), shift2, scale2));
        gated_sum(x, branch, gate2)
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

    /// The last `width` tokens of some rows.
    pub(crate) fn rows(&self, rows: &[usize], width: usize) -> Self {
        let of = |x: &Tensor<4>| {
            let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &x.device());
            x.clone().narrow(2, x.dims()[2] - width, width).select(0, index)
        };
        Self(self.0.as_ref().map(|(k, v)| (of(k), of(v))))
    }

    /// The rows of several, each filled up with zeros in front to `width` tokens. The number is that of a part's rows, which
    /// may hold nothing at all.
    pub(crate) fn joined(parts: &[(Option<&Self>, usize)], width: usize) -> Self {
        let held = |part: Option<&Self>| part.and_then(|part| part.0.clone());
        let Some((like, _)) = parts.iter().find_map(|(part, _)| held(*part)) else { return Self(None) };
        let [_, n_heads, _, head_dim] = like.dims();
        let zeros =
            |n_rows, n_tokens| Tensor::zeros([n_rows, n_heads, n_tokens, head_dim], (&like.device(), like.dtype()));
        let filled = |x: Tensor<4>| match x.dims() {
            [_, _, n_tokens, _] if n_tokens == width => x,
            [n_rows, _, n_tokens, _] => Tensor::cat(vec![zeros(n_rows, width - n_tokens), x], 2),
        };
        let whole = |&(part, n_rows): &(Option<&Self>, usize)| match held(part) {
            Some((k, v)) => (filled(k), filled(v)),
            None => (zeros(n_rows, width), zeros(n_rows, width)),
        };
        let (keys, values): (Vec<_>, Vec<_>) = parts.iter().map(whole).unzip();
        Self(Some((Tensor::cat(keys, 0), Tensor::cat(values, 0))))
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
            modulation: Some(modulation(config.cond_dim, 6 * width, device)),
            dropout: DropoutConfig::new(config.dropout).init(),
            n_heads: config.n_heads,
        }
    }

    /// As [`EncoderBlock::folded`].
    pub(crate) fn folded(self, condition: &Tensor<2>) -> Self {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, Some(condition));
        Self {
            q_norm1: folded_norm(self.q_norm1, shift1, scale1),
            norm2: folded_norm(self.norm2, shift2, scale2),
            out: folded_gate(self.out, &gate1),
            mlp: self.mlp.gated(&gate2),
            modulation: None,
            ..self
        }
    }

    /// Keys and values of the encoder output, one behind the other.
    ///
    /// They are recomputed for the backward pass: those of all blocks come from the same tensor.
    ///
    /// # Shapes
    /// `[B, C, H] -> [B, C, 2 H]`
    pub fn keys_values(&self, encoded: &Tensor<3>) -> Tensor<3> {
        recomputed_linear(&self.kv, recomputed_norm(encoded.clone(), affine(&self.kv_norm1)))
    }

    /// # Shapes
    /// `[B, K, H]`, [`keys_values`](Self::keys_values) `[B, C, 2 H] -> [B, K, H]`, condition `[B or 1, c]`, absent in a
    /// folded block
    pub fn forward(
        &self,
        x: Tensor<3>,
        kv: Tensor<3>,
        condition: Option<&Tensor<2>>,
        plan: &AttentionPlan,
    ) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulators(&self.modulation, condition);
        let q = recomputed_linear(&self.q, recomputed_modulated_norm(&self.q_norm1, x.clone(), shift1, scale1)); // [B, K, H]
        let angles = [&plan.queries, &plan.keys];
        let dtype = self.kv.weight.val().dtype();
        let context = cross_attention(q, kv, angles, plan.across.as_ref(), self.n_heads, dtype);
        let x = gated_sum(x, self.dropout.forward(linear(&self.out, context)), gate1);
        let branch = self.mlp.forward(recomputed_modulated_norm(&self.norm2, x.clone(), shift2, scale2));
        gated_sum(x, self.dropout.forward(branch), gate2)
    }
}
