//! Self-attention and cross-attention with rotary angles.
//!
//! The fused form stores no matrix of all scores and computes no masked scores: it takes the tokens of each label
//! together.

// B rows, S tokens, Q queries, C keys, h heads, H = h d

#[cfg(all(feature = "fused", feature = "autodiff"))]
pub(crate) mod autodiff;
mod composed;
#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;
#[cfg(feature = "fused")]
pub(crate) mod settings;
#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};
#[cfg(feature = "fused")]
use burn::tensor::{Device, Int};

#[cfg(feature = "fused")]
use super::device::fused;
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;
use crate::rotary::RotaryAngles;
use crate::visibility::Visibility;
pub use composed::{attend, split_heads};
#[cfg(feature = "fused")]
use settings::AttentionSettings;

/// Self-attention. `qkv` holds queries, keys and values side by side, each of all heads side by side, before rotation.
/// GPUs with tensor cores compute the matmuls in `matmul_dtype` if it is half precision.
///
/// # Shapes
/// qkv `[B, S, 3 H] -> [B, S, H]`
pub fn self_attention(
    qkv: Tensor<3>,
    angles: &RotaryAngles,
    visibility: Option<&Visibility>,
    n_heads: usize,
    matmul_dtype: DType,
) -> Tensor<3> {
    let width = qkv.dims()[2] / 3;
    #[cfg(feature = "fused")]
    if fused!(qkv) {
        let settings = AttentionSettings::new(n_heads, visibility, matmul_dtype);
        let [labels, _] = sorted_labels(visibility, &qkv.device());
        let (qkv, angles, labels) = (qkv.into_dispatch(), angles.table().into_dispatch(), labels.into_dispatch());
        let (out, _lse) = Dispatch::self_attention(qkv, angles, labels, settings);
        return Tensor::from_dispatch(out);
    }
    #[cfg(not(feature = "fused"))]
    let _ = matmul_dtype;
    let [q, k, v] = [0, 1, 2].map(|index| split_heads(qkv.clone().narrow(2, index * width, width), n_heads));
    attend(angles.rotate(q), angles.rotate(k), v, visibility)
}

/// Cross-attention. `kv` holds keys and values side by side; nothing is rotated yet. `matmul_dtype` as in
/// [`self_attention`].
///
/// # Shapes
/// q `[B, Q, H]`, kv `[B, C, 2 H] -> [B, Q, H]`
pub fn cross_attention(
    q: Tensor<3>,
    kv: Tensor<3>,
    [query_angles, key_angles]: [&RotaryAngles; 2],
    visibility: Option<&Visibility>,
    n_heads: usize,
    matmul_dtype: DType,
) -> Tensor<3> {
    let width = q.dims()[2];
    #[cfg(feature = "fused")]
    if fused!(q, kv) {
        let settings = AttentionSettings::new(n_heads, visibility, matmul_dtype);
        let labels = sorted_labels(visibility, &q.device());
        let [q_labels, k_labels] = labels.map(|labels| labels.into_dispatch());
        let [q_angles, k_angles] = [query_angles, key_angles].map(|angles| angles.table().into_dispatch());
        let (q, kv) = (q.into_dispatch(), kv.into_dispatch());
        let (out, _lse) = Dispatch::cross_attention(q, kv, q_angles, k_angles, q_labels, k_labels, settings);
        return Tensor::from_dispatch(out);
    }
    #[cfg(not(feature = "fused"))]
    let _ = matmul_dtype;
    let [k, v] = [0, 1].map(|index| split_heads(kv.clone().narrow(2, index * width, width), n_heads));
    attend(query_angles.rotate(split_heads(q, n_heads)), key_angles.rotate(k), v, visibility)
}

// Labels of queries and keys in the form that fused attention reads; where there are none, tensors that it does not read.
#[cfg(feature = "fused")]
fn sorted_labels(visibility: Option<&Visibility>, device: &Device) -> [Tensor<2, Int>; 2] {
    let sort = |labels: Tensor<2, Int>| Tensor::from_dispatch(Dispatch::sorted_by_label(labels.into_dispatch()));
    visibility.and_then(|visibility| visibility.sorted_labels(sort)).unwrap_or_else(|| {
        let unread = Tensor::empty([1, 2], device);
        [unread.clone(), unread]
    })
}
