//! Operations of our own: what Burn composes of many passes over memory, in one pass with a gradient written by hand.
//!
//! On Flex, in float32, they are fused (module `flex`); on any other device or type they are composed of ordinary tensor
//! operations, which is also what the tests compare them with. Callers do not know which.
//!
//! Shapes: B batch, S positions, H hidden, N rows, V vocabulary, h heads, d head width.

#[cfg(feature = "flex")]
mod extension;
#[cfg(feature = "flex")]
mod flex;

use burn::tensor::activation::sigmoid;
use burn::tensor::{FloatDType, Int, Tensor, module};

use crate::attention::{self, Visibility, split_heads};
use crate::loss;
use crate::rotary::RotaryAngles;

#[cfg(feature = "flex")]
use burn::backend::Dispatch;
#[cfg(feature = "flex")]
use extension::FusedOps;

/// `gelu(x) = x sigmoid(GELU[0] x + GELU[1] x^3)`, the tanh form: `2 sqrt(2/pi)` and 0.044715 times it.
const GELU: [f32; 2] = [1.595_769_1, 0.071_354_82];
/// Added to the variance by every norm of the model.
pub(crate) const EPSILON: f32 = 1e-5;

// Whether all of these are float32 on Flex.
#[cfg(feature = "flex")]
macro_rules! fused {
    ($first:expr $(, $other:expr)*) => {
        $first.device().without_autodiff() == burn::tensor::Device::flex()
            && [$first.dtype() $(, $other.dtype())*].iter().all(|dtype| *dtype == burn::tensor::DType::F32)
    };
}

/// `gelu(x + bias)` in the tanh form.
///
/// # Shapes
/// `[B, S, H], [H] -> [B, S, H]`
pub fn bias_gelu(x: Tensor<3>, bias: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if fused!(x, bias) {
        return Tensor::from_dispatch(Dispatch::bias_gelu(x.into_dispatch(), bias.into_dispatch()));
    }
    let x = x + bias.unsqueeze::<3>();
    let inner = x.clone() * x.clone() * GELU[1] + GELU[0];
    sigmoid(x.clone() * inner) * x
}

/// `(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the last dimension.
///
/// # Shapes
/// `[B, S, H], [H], [H] -> [B, S, H]`
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if fused!(x, weight, bias) {
        let (y, _moments) = Dispatch::affine_norm(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    // A half-precision type cannot hold the sums.
    let dtype: FloatDType = x.dtype().into();
    let [weight, bias] = [weight, bias].map(|vector| vector.cast(FloatDType::F32));
    module::layer_norm(x.cast(FloatDType::F32), weight, Some(bias), f64::from(EPSILON)).cast(dtype)
}

/// `x + branch gate`.
///
/// # Shapes
/// `[B, S, H], [B, S, H], [H] -> [B, S, H]`
pub fn gated_sum(x: Tensor<3>, branch: Tensor<3>, gate: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if fused!(x, branch, gate) {
        let (x, branch, gate) = (x.into_dispatch(), branch.into_dispatch(), gate.into_dispatch());
        return Tensor::from_dispatch(Dispatch::gated_sum(x, branch, gate));
    }
    x + branch * gate.unsqueeze::<3>()
}

/// Self-attention: queries, keys and values side by side, of all heads side by side, not yet turned by the angles.
///
/// # Shapes
/// `[B, S, 3 H] -> [B, S, H]`
pub fn self_attention(
    qkv: Tensor<3>,
    angles: &RotaryAngles,
    visibility: Option<&Visibility>,
    n_heads: usize,
) -> Tensor<3> {
    let width = qkv.dims()[2] / 3;
    #[cfg(feature = "flex")]
    if fused!(qkv) {
        let [n_rows, n_tokens, _] = qkv.dims();
        let (cos, sin) = angles.tables();
        let labels = Visibility::labels(visibility, [n_rows, n_tokens, n_tokens], &qkv.device())[0].clone();
        let causal = visibility.is_some_and(Visibility::is_causal);
        let (qkv, labels) = (qkv.into_dispatch(), labels.into_dispatch());
        let (out, _lse) =
            Dispatch::self_attention(qkv, cos.into_dispatch(), sin.into_dispatch(), labels, n_heads, causal);
        return Tensor::from_dispatch(out);
    }
    let [q, k, v] = [0, 1, 2].map(|index| split_heads(qkv.clone().narrow(2, index * width, width), n_heads));
    attention::attend(angles.rotate(q), angles.rotate(k), v, visibility)
}

/// Cross-attention: keys and values side by side, nothing yet turned by the angles.
///
/// # Shapes
/// queries `[B, Q, H]`, keys and values `[B, C, 2 H] -> [B, Q, H]`
pub fn cross_attention(
    q: Tensor<3>,
    kv: Tensor<3>,
    [query_angles, key_angles]: [&RotaryAngles; 2],
    visibility: Option<&Visibility>,
    n_heads: usize,
) -> Tensor<3> {
    let width = q.dims()[2];
    #[cfg(feature = "flex")]
    if fused!(q, kv) {
        let ([n_rows, n_queries, _], [_, n_keys, _]) = (q.dims(), kv.dims());
        let labels = Visibility::labels(visibility, [n_rows, n_queries, n_keys], &q.device());
        let [q_labels, k_labels] = labels.map(|labels| labels.into_dispatch());
        let ((q_cos, q_sin), (k_cos, k_sin)) = (query_angles.tables(), key_angles.tables());
        let [q_cos, q_sin, k_cos, k_sin] = [q_cos, q_sin, k_cos, k_sin].map(|table| table.into_dispatch());
        let (q, kv) = (q.into_dispatch(), kv.into_dispatch());
        let (out, _lse) =
            Dispatch::cross_attention(q, kv, q_cos, q_sin, k_cos, k_sin, q_labels, k_labels, n_heads);
        return Tensor::from_dispatch(out);
    }
    let [k, v] = [0, 1].map(|index| split_heads(kv.clone().narrow(2, index * width, width), n_heads));
    attention::attend(query_angles.rotate(split_heads(q, n_heads)), key_angles.rotate(k), v, visibility)
}

/// Weighted sum of the cross-entropies, in nats, of `x w + b` against the targets, with class `skip` left out; `[1]`.
///
/// # Shapes
/// x `[N, H]`, w `[H, V]`, b `[V]`, targets and weights `[N]`
pub fn linear_cross_entropy(
    x: Tensor<2>,
    w: Tensor<2>,
    b: Tensor<1>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    skip: usize,
) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if fused!(x, w, b, weights) {
        let (x, w, b) = (x.into_dispatch(), w.into_dispatch(), b.into_dispatch());
        let (targets, weights) = (targets.into_dispatch(), weights.into_dispatch());
        return Tensor::from_dispatch(Dispatch::linear_cross_entropy(x, w, b, targets, weights, skip));
    }
    let logits = x.matmul(w) + b.unsqueeze::<2>();
    loss::weighted_loss(logits.unsqueeze(), targets.unsqueeze(), weights.unsqueeze(), skip)
}
