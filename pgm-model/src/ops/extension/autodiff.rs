//! The extension with gradients: each operation is forwarded to its `autodiff.rs`.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::fused_ops::FusedOps;
use crate::ops::attention::settings::AttentionSettings;
use crate::ops::norm::autodiff::Kind;
use crate::ops::{attention, cross_entropy, gated_sum, gelu, matmul, norm};

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::autodiff::matmul::<B, C>(x, weight)
    }

    fn recomputed_matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::autodiff::recomputed_matmul::<B, C>(x, weight)
    }

    fn add_bias(y: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::autodiff::add_bias::<B, C>(y, bias)
    }

    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::autodiff::bias_gelu::<B, C>(x, bias)
    }

    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::autodiff::affine_norm::<B, C>(x, weight, bias, Kind::Layer)
    }

    fn affine_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::autodiff::affine_norm::<B, C>(x, weight, bias, Kind::Rms)
    }

    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        gated_sum::autodiff::gated_sum::<B, C>(x, branch, gate)
    }

    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self> {
        B::sorted_by_label(labels)
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::autodiff::self_attention::<B, C>(qkv, angles, labels, settings)
    }

    fn cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::autodiff::cross_attention::<B, C>(q, kv, q_angles, k_angles, q_labels, k_labels, settings)
    }

    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        excluded_class: usize,
    ) -> FloatTensor<Self> {
        cross_entropy::autodiff::linear_cross_entropy::<B, C>(x, w, b, targets, weights, excluded_class)
    }
}
