//! Attention on the CPU, in pieces: the matrix of all scores is never in memory.
//!
//! Tokens carry labels, and a query sees the keys of its label. For each row, head and label the tokens are gathered,
//! rotated by their angles and stored contiguously. What remains are small dense matmuls without masked entries.

mod backward;
mod forward;
mod inputs;
mod loops;
mod shared_output;

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use inputs::AttentionInputs;

use super::settings::AttentionSettings;
use crate::ops::flex::tensor::{shape, tensor, values};

/// Queries whose scores are held at a time.
const QUERIES: usize = 64;

pub(crate) fn self_attention(
    qkv: FlexTensor,
    angles: FlexTensor,
    labels: FlexTensor,
    settings: AttentionSettings,
) -> (FlexTensor, FlexTensor) {
    output(&AttentionInputs::of_self(&qkv, &angles, &labels, settings))
}

pub(crate) fn self_attention_backward(
    qkv: FlexTensor,
    angles: FlexTensor,
    labels: FlexTensor,
    [out, lse, grad]: [FlexTensor; 3],
    settings: AttentionSettings,
) -> FlexTensor {
    let inputs = AttentionInputs::of_self(&qkv, &angles, &labels, settings);
    let [out, lse, grad] = [out, lse, grad].map(|tensor| tensor.to_contiguous());
    let (gradient, _) = backward::gradients(&inputs, [values(&out), values(&lse), values(&grad)]);
    tensor(gradient, shape(&qkv))
}

pub(crate) fn cross_attention(
    [q, kv]: [FlexTensor; 2],
    angles: [FlexTensor; 2],
    labels: [FlexTensor; 2],
    settings: AttentionSettings,
) -> (FlexTensor, FlexTensor) {
    output(&AttentionInputs::of_cross([&q, &kv], angles.each_ref(), labels.each_ref(), settings))
}

pub(crate) fn cross_attention_backward(
    [q, kv]: [FlexTensor; 2],
    angles: [FlexTensor; 2],
    labels: [FlexTensor; 2],
    [out, lse, grad]: [FlexTensor; 3],
    settings: AttentionSettings,
) -> (FlexTensor, FlexTensor) {
    let inputs = AttentionInputs::of_cross([&q, &kv], angles.each_ref(), labels.each_ref(), settings);
    let [out, lse, grad] = [out, lse, grad].map(|tensor| tensor.to_contiguous());
    let (q_grad, kv_grad) = backward::gradients(&inputs, [values(&out), values(&lse), values(&grad)]);
    (tensor(q_grad, shape(&q)), tensor(kv_grad, shape(&kv)))
}

fn output(inputs: &AttentionInputs) -> (FlexTensor, FlexTensor) {
    let (out, lse) = forward::output(inputs);
    let AttentionInputs { n_rows, n_queries, n_heads, .. } = *inputs;
    (
        tensor(out, Shape::new([n_rows, n_queries, inputs.width()])),
        tensor(lse, Shape::new([n_rows, n_heads, n_queries])),
    )
}
