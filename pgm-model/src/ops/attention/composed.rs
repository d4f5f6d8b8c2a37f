//! Attention composed of Burn's own operations, with masks.
//!
//! A query without a single key gets output 0 and gradient 0: at small t a whole group is often empty.

// B batch, h heads, Q queries, C keys, d head width, H = h d

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{FloatDType, Tensor};

use crate::visibility::{AttentionMask, Visibility};

/// Splits the last dimension into heads.
///
/// # Shapes
/// `[B, S, H] -> [B, h, S, d]`
pub fn split_heads(x: Tensor<3>, n_heads: usize) -> Tensor<4> {
    let [n_rows, length, width] = x.dims();
    x.reshape([n_rows, length, n_heads, width / n_heads]).swap_dims(1, 2)
}

/// Scaled dot-product attention; without a `visibility` every query sees every key.
///
/// # Shapes
/// q `[B, h, Q, d]`, k and v `[B, h, C, d] -> [B, Q, H]`
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, visibility: Option<&Visibility>) -> Tensor<3> {
    let mask = visibility.map(Visibility::mask);
    let [n_rows, n_heads, n_queries, head_width] = q.dims();
    let heads = if q.device().is_autodiff() {
        differentiable(q, k, v, mask)
    } else {
        let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: false };
        attention(q, k, v, mask.map(|mask| mask.hidden.clone()), None, options)
    };
    let heads = match mask {
        Some(mask) => {
            let dtype: FloatDType = heads.dtype().into();
            heads * mask.has_keys.clone().cast(dtype)
        }
        None => heads,
    };
    heads.swap_dims(1, 2).reshape([n_rows, n_queries, n_heads * head_width])
}

// Burn's own fallback divides by the smallest positive number where nothing is visible, and the gradient of that can
// overflow. Here hidden scores are finite: a query without keys gets a harmless average, which `has_keys` sets to zero.
fn differentiable(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: Option<&AttentionMask>) -> Tensor<4> {
    const HIDDEN: f32 = -1e30;
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let scores = (q * scale).matmul(k.swap_dims(2, 3)); // [B, h, Q, C]
    let scores = match mask {
        Some(mask) => {
            let hidden = mask.hidden.clone().expand(scores.dims());
            scores.mask_fill(hidden, HIDDEN)
        }
        None => scores,
    };
    softmax(scores, 3).matmul(v)
}
