//! The extension on GPUs: each operation is forwarded to its Cube kernels.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;

use super::fused_ops::FusedOps;
use crate::ops::attention::settings::AttentionSettings;
use crate::ops::optimizer::step::AdamWStep;
use crate::ops::{attention, cross_entropy, gated_sum, gelu, norm, optimizer};

impl FusedOps for CubeBackend {
    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::cube::bias_gelu(x, bias)
    }

    fn bias_gelu_backward(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gelu::cube::bias_gelu_backward(x, bias, grad)
    }

    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::cube::affine_norm(x, weight, bias, true)
    }

    fn affine_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        norm::cube::affine_norm_backward(x, weight, moments, grad, true)
    }

    fn affine_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::cube::affine_norm(x, weight, bias, false)
    }

    fn affine_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        norm::cube::affine_norm_backward(x, weight, moments, grad, false)
    }

    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        gated_sum::cube::gated_sum(x, branch, gate)
    }

    fn gated_sum_backward(
        branch: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gated_sum::cube::gated_sum_backward(branch, gate, grad)
    }

    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self> {
        attention::cube::sorted_by_label(labels)
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::cube::self_attention(qkv, angles, labels, settings)
    }

    fn self_attention_backward(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        attention::cube::self_attention_backward(qkv, angles, labels, [out, lse, grad], settings)
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
        attention::cube::cross_attention([q, kv], [q_angles, k_angles], [q_labels, k_labels], settings)
    }

    fn cross_attention_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::cube::cross_attention_backward(
            [q, kv],
            [q_angles, k_angles],
            [q_labels, k_labels],
            [out, lse, grad],
            settings,
        )
    }

    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        excluded_class: usize,
    ) -> FloatTensor<Self> {
        cross_entropy::cube::linear_cross_entropy([x, w, b], targets, weights, excluded_class)
    }

    fn linear_cross_entropy_with_gradients(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        excluded_class: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::cube::linear_cross_entropy_with_gradients([x, w, b], targets, weights, excluded_class)
    }

    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        optimizer::cube::adamw(parameter, gradient, moment_1, moment_2, step)
    }
}
