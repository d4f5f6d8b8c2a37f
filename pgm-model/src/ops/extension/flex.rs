//! The extension on Flex: each operation is forwarded to its `flex.rs`.

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};

use super::fused_ops::FusedOps;
use crate::ops::attention::settings::AttentionSettings;
use crate::ops::norm::flex::Centre;
use crate::ops::optimizer::step::AdamWStep;
use crate::ops::{attention, cross_entropy, gated_sum, gelu, matmul, norm, optimizer};

impl FusedOps for Flex {
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::flex::matmul(x, weight)
    }

    fn matmul_x_backward(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::flex::matmul_x_backward(weight, grad)
    }

    fn matmul_weight_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::flex::matmul_weight_backward(x, grad)
    }

    fn add_bias(y: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::flex::add_bias(y, bias)
    }

    fn add_bias_backward(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::flex::add_bias_backward(grad)
    }

    fn matmul_half(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::flex::matmul_half(x, weight)
    }

    fn matmul_quantised(x: FloatTensor<Self>, weight: QuantizedTensor<Self>, block: usize) -> FloatTensor<Self> {
        matmul::flex::matmul_quantised(x, weight, block)
    }

    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::flex::bias_gelu(x, bias)
    }

    fn bias_gelu_backward(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gelu::flex::bias_gelu_backward(x, bias, grad)
    }

    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::flex::affine_norm(x, weight, bias, Centre::Mean)
    }

    fn affine_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        norm::flex::affine_norm_backward(x, weight, moments, grad, Centre::Mean)
    }

    fn affine_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::flex::affine_norm(x, weight, bias, Centre::Zero)
    }

    fn affine_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        norm::flex::affine_norm_backward(x, weight, moments, grad, Centre::Zero)
    }

    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        gated_sum::flex::gated_sum(x, branch, gate)
    }

    fn gated_sum_backward(
        branch: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gated_sum::flex::gated_sum_backward(branch, gate, grad)
    }

    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self> {
        labels // the attention loops group the tokens themselves
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::flex::self_attention(qkv, angles, labels, settings)
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
        attention::flex::self_attention_backward(qkv, angles, labels, [out, lse, grad], settings)
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
        attention::flex::cross_attention([q, kv], [q_angles, k_angles], [q_labels, k_labels], settings)
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
        attention::flex::cross_attention_backward(
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
        cross_entropy::flex::linear_cross_entropy([x, w, b], targets, weights, excluded_class)
    }

    fn linear_cross_entropy_with_gradients(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        excluded_class: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::flex::linear_cross_entropy_with_gradients([x, w, b], targets, weights, excluded_class)
    }

    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        optimizer::flex::adamw(parameter, gradient, moment_1, moment_2, step)
    }

    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        optimizer::flex::sum_of_squares(x)
    }

    fn scale(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        optimizer::flex::scale(x, factor)
    }

    fn lerp(x: FloatTensor<Self>, y: FloatTensor<Self>, weight: f32) -> FloatTensor<Self> {
        optimizer::flex::lerp(x, y, weight)
    }
}
