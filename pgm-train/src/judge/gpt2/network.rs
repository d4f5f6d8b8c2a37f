//! GPT-2 (Radford et al. 2019), for inference in float32.
//!
//! Attention is composed of matmuls and a softmax on purpose: the fused kernels of some devices compute in float16, which
//! a perplexity would show. Queries are processed in blocks and the head in chunks of positions. So neither the scores of
//! all queries nor the logits of all positions are in memory at once.
//!
//! Shapes: B batch, L length, H hidden, V vocabulary, h heads, d head width, Q queries of a block, R positions of a chunk.

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Bool, Int, Tensor, assert_shape};
use pgm_model::ops::split_heads;

use crate::token_nll::in_chunks;

/// Queries of one block of attention.
const QUERY_BLOCK: usize = 256;

#[derive(Module, Debug)]
pub(super) struct Block {
    pub(super) norm1: LayerNorm,
    pub(super) qkv: Linear,
    pub(super) out: Linear,
    pub(super) norm2: LayerNorm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) n_heads: usize,
}

impl Block {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let width = x.dims()[2];
        let qkv = self.qkv.forward(self.norm1.forward(x.clone())); // [B, L, 3 H]
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(qkv.clone().narrow(2, i * width, width), self.n_heads));
        let x = x + self.out.forward(causal_attention(q, k, v));
        let branch = self.down.forward(gelu_new(self.up.forward(self.norm2.forward(x.clone()))));
        x + branch
    }
}

// Each block of queries attends to the keys up to the block's end, with a causal mask. q, k, v [B, h, L, d] -> [B, L, H]
fn causal_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
    let [n_rows, n_heads, length, head_dim] = q.dims();
    let q = q / (head_dim as f64).sqrt();
    let blocks = (0..length).step_by(QUERY_BLOCK).map(|start| {
        let n_queries = QUERY_BLOCK.min(length - start);
        let n_keys = start + n_queries;
        let hidden = Tensor::<2, Bool>::tril_mask([n_queries, n_keys], start as i64, &q.device());
        let scores = q.clone().narrow(2, start, n_queries).matmul(k.clone().narrow(2, 0, n_keys).swap_dims(2, 3));
        let hidden = hidden.unsqueeze::<4>().expand(scores.dims()); // [B, h, Q, L]
        softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3).matmul(v.clone().narrow(2, 0, n_keys))
    });
    Tensor::cat(blocks.collect(), 2).swap_dims(1, 2).reshape([n_rows, length, n_heads * head_dim])
}

// The tanh approximation of GELU, by 0.5 (1 + tanh(u)) = sigmoid(2 u).
fn gelu_new(x: Tensor<3>) -> Tensor<3> {
    let two_root = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let cubic = x.clone() * x.clone() * (two_root * 0.044715) + two_root;
    sigmoid(x.clone() * cubic) * x
}

/// A GPT-2 language model, for inference.
#[derive(Module, Debug)]
pub struct Gpt2 {
    pub(super) tokens: Embedding,
    pub(super) positions: Embedding,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: LayerNorm,
}

impl Gpt2 {
    /// Logits at every position. Position `i` predicts token `i + 1`.
    ///
    /// # Shapes
    /// `[B, L] -> [B, L, V]`
    ///
    /// # Panics
    /// When `L` is 0 or larger than the configuration's `n_positions`.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [n_rows, length] = tokens.dims();
        let hidden = self.hidden(tokens);
        let width = hidden.dims()[2];
        let logits = self.logits(hidden.reshape([n_rows * length, width])); // [B L, V]
        let n_classes = logits.dims()[1];
        logits.reshape([n_rows, length, n_classes])
    }

    /// NLL in nats of every token but the first, given the tokens before it. The head runs over chunks of positions.
    ///
    /// # Shapes
    /// `[B, L] -> [B, L - 1]`
    ///
    /// # Panics
    /// When `L` is less than 2 or larger than the configuration's `n_positions`.
    pub fn negative_log_likelihood(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let length = tokens.dims()[1];
        assert!(length >= 2, "the first token has no prediction");
        let targets = tokens.clone().narrow(1, 1, length - 1);
        let hidden = self.hidden(tokens).narrow(1, 0, length - 1); // [B, L - 1, H]
        in_chunks(hidden, targets, |hidden, targets| {
            let [n_rows, n_positions, width] = hidden.dims();
            let logits = self.logits(hidden.reshape([n_rows * n_positions, width])); // [R, V]
            let chosen = logits.clone().gather(1, targets.reshape([n_rows * n_positions, 1])); // [R, 1]
            let largest = logits.clone().max_dim(1);
            let rest = (logits - largest.clone()).exp().sum_dim(1).log();
            (rest + largest - chosen).reshape([n_rows, n_positions])
        })
    }

    /// The last hidden state, after the final norm, at one position of each row: the features of MAUVE.
    ///
    /// # Shapes
    /// `[B, L]`, positions `[B] -> [B, H]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and when `positions` does not have one entry per row.
    pub fn features(&self, tokens: Tensor<2, Int>, positions: Tensor<1, Int>) -> Tensor<2> {
        let [n_rows, length] = tokens.dims();
        assert_shape!(positions, [n_rows]);
        let hidden = self.hidden(tokens);
        let width = hidden.dims()[2];
        let row_start = Tensor::<1, Int>::arange(0..n_rows as i64, &hidden.device()).mul_scalar(length as i32);
        hidden.reshape([n_rows * length, width]).select(0, positions + row_start)
    }

    pub(super) fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let length = tokens.dims()[1];
        let n_positions = self.positions.weight.dims()[0];
        assert!((1..=n_positions).contains(&length), "{length} tokens, but the model has {n_positions} positions");
        let positions = self.positions.weight.val().narrow(0, 0, length).unsqueeze::<3>(); // [1, L, H]
        let x = self.tokens.forward(tokens) + positions;
        self.norm.forward(self.blocks.iter().fold(x, |x, block| block.forward(x)))
    }

    pub(super) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.tokens.weight.val().transpose())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn blocks_of_queries_attend_as_one_matmul_over_all_queries() {
        let device = Device::flex();
        let length = QUERY_BLOCK + 9;
        let make = |seed: usize| {
            let values: Vec<f32> = (0..length * 4).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 11.0 - 1.0).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 2, length, 2]), &device)
        };
        let (q, k, v) = (make(0), make(1), make(2));
        let hidden = Tensor::<2, Bool>::tril_mask([length, length], 0, &device).unsqueeze::<4>();
        let scores = (q.clone() / 2_f64.sqrt()).matmul(k.clone().swap_dims(2, 3));
        let scores = scores.clone().mask_fill(hidden.expand(scores.dims()), f32::NEG_INFINITY);
        let expected = softmax(scores, 3).matmul(v.clone()).swap_dims(1, 2).reshape([1, length, 4]);
        let values = |tensor: Tensor<3>| tensor.try_into_vec_as::<f32>().unwrap();
        let found = values(causal_attention(q, k, v));
        for (found, expected) in found.iter().zip(values(expected)) {
            assert!((found - expected).abs() < 1e-5);
        }
    }
}
