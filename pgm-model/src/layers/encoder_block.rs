//! The encoder block: self-attention and a feed-forward layer.
// B batch, C tokens, S new tokens, H hidden, h heads, d head width

use burn::module::Module;
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};

use super::dropout::Dropout;
use super::feed_forward::FeedForward;
use super::key_values::KeyValues;
use super::modulation::{BlockModulation, constant_vectors, folded_gate, folded_norm, modulation};
use super::norm::norm;
use super::row_keys::{RowKeys, attend_rows};
use crate::attention_plan::SelfAttentionPlan;
use crate::condition::Condition;
use crate::config::BackboneConfig;
use crate::ops::{attend, linear, self_attention, split_heads};

/// Self-attention, then the feed-forward layer. The condition modulates the norms and gates the branches.
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
            norm1: folded_norm(self.norm1, [shift1, scale1]),
            norm2: folded_norm(self.norm2, [shift2, scale2]),
            out: folded_gate(self.out, gate1),
            mlp: self.mlp.folded(gate2),
            modulation: None,
            ..self
        }
    }

    /// # Shapes
    /// `[B, C, H] -> [B, C, H]`
    pub fn forward(&self, x: Tensor<3>, condition: Option<&Condition>, plan: &SelfAttentionPlan) -> Tensor<3> {
        let attention = |qkv, dtype| self_attention(qkv, &plan.angles, plan.visibility.as_ref(), self.n_heads, dtype);
        self.forward_with(x, condition, attention)
    }

    /// As [`forward`](Self::forward) for the new tokens of packed rows. `rows` takes keys and values of the new tokens,
    /// `[1, S, 2 H]`, and returns each row's kept and new ones.
    ///
    /// # Shapes
    /// `[1, S, H] -> [1, S, H]`
    pub(crate) fn forward_rows<'a, R: Iterator<Item = RowKeys<'a>>>(
        &self,
        x: Tensor<3>,
        condition: Option<&Condition>,
        rows: impl FnOnce(Tensor<3>) -> R,
    ) -> Tensor<3> {
        let width = x.dims()[2];
        self.forward_with(x, condition, |qkv, dtype| {
            let rows = rows(qkv.clone().narrow(2, width, 2 * width));
            attend_rows(&qkv.narrow(2, 0, width), rows, self.n_heads, dtype)
        })
    }

    // `attention` takes queries, keys and values, [B, C, 3 H], and the dtype of the matmuls, and returns [B, C, H].
    fn forward_with(
        &self,
        x: Tensor<3>,
        condition: Option<&Condition>,
        attention: impl FnOnce(Tensor<3>, DType) -> Tensor<3>,
    ) -> Tensor<3> {
        let BlockModulation { attention: (shift_scale1, gate1), feed_forward: (shift_scale2, gate2) } =
            BlockModulation::new(&self.modulation, condition);
        let qkv = linear(&self.qkv, shift_scale1.norm(&self.norm1, x.clone())); // [B, C, 3 H]
        let context = attention(qkv, self.qkv.weight.val().dtype()); // [B, C, H]
        let x = gate1.gated_sum(x, self.dropout.forward(linear(&self.out, context)));
        let branch = self.mlp.forward(shift_scale2.norm(&self.norm2, x.clone()));
        gate2.gated_sum(x, self.dropout.forward(branch))
    }

    /// As [`forward`](Self::forward) for the last S tokens of a sequence. `cache` holds the keys and values of the earlier
    /// ones, and those of the new ones are appended to it. `plan` has the angles of the new tokens and the visibility of all
    /// keys from them.
    ///
    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        condition: Option<&Condition>,
        plan: &SelfAttentionPlan,
        cache: &mut KeyValues,
    ) -> Tensor<3> {
        let BlockModulation { attention: (shift_scale1, gate1), feed_forward: (shift_scale2, gate2) } =
            BlockModulation::new(&self.modulation, condition);
        let width = x.dims()[2];
        let qkv = linear(&self.qkv, shift_scale1.norm(&self.norm1, x.clone())); // [B, S, 3 H]
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(qkv.clone().narrow(2, i * width, width), self.n_heads));
        let (k, v) = cache.append(plan.angles.rotate(k), v); // [B, h, C, d] each
        let context = attend(plan.angles.rotate(q), k, v, plan.visibility.as_ref()); // [B, S, H]
        let x = gate1.gated_sum(x, linear(&self.out, context));
        let branch = self.mlp.forward(shift_scale2.norm(&self.norm2, x.clone()));
        gate2.gated_sum(x, branch)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::TensorData;

    use super::*;
    use crate::rotary::RotaryAngles;

    // Distinct numbers in [-0.5, 0.5).
    fn numbers<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i + seed) * 37 % 101) as f32 / 101.0 - 0.5).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn a_condition_per_row_equals_the_constant_one_where_the_rows_are_equal_and_only_there() {
        let (device, [n_rows, n_tokens, width, cond_dim]) = (Device::flex(), [3, 5, 14, 11]);
        let config = BackboneConfig { cond_dim, ..BackboneConfig::new(17, width, 1, n_tokens) };
        let mut block = EncoderBlock::new(&config, &device);
        let layer = block.modulation.as_mut().unwrap();
        layer.weight = Param::from_tensor(numbers([cond_dim, 6 * width], 3));
        let (x, condition) = (numbers([n_rows, n_tokens, width], 1), numbers([cond_dim], 2));
        let plan = SelfAttentionPlan { angles: RotaryAngles::at_all(1, n_tokens, width, &device), visibility: None };
        let run = |block: &EncoderBlock, condition: Option<&Condition>| {
            block.forward(x.clone(), condition, &plan).try_into_vec_as::<f32>().unwrap()
        };
        let rows = condition.clone().unsqueeze::<2>().expand([n_rows, cond_dim]);
        let constant = run(&block, Some(&Condition::Constant(condition.clone())));
        let per_row = run(&block, Some(&Condition::PerRow(rows.clone())));
        let folded = run(&block.clone().folded(&condition), None);
        for ((a, b), c) in constant.iter().zip(&per_row).zip(&folded) {
            assert!((a - b).abs() < 1e-5 && (a - c).abs() < 1e-5, "{a} {b} {c}");
        }
        let other = Tensor::cat(vec![rows.narrow(0, 0, 2), numbers([1, cond_dim], 50)], 0);
        let other = run(&block, Some(&Condition::PerRow(other)));
        let n_same = 2 * n_tokens * width;
        assert_eq!(other[..n_same], per_row[..n_same]);
        assert!(other[n_same..].iter().zip(&per_row[n_same..]).any(|(a, b)| (a - b).abs() > 1e-3));
    }
}
