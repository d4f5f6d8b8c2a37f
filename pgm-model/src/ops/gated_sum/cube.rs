//! [`gated_sum`](super::gated_sum) on GPUs: one unit an element.
#![allow(missing_docs)] // launchers that the macro writes

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::ops::cube::tensors::{empty_like, sum_over_rows, unit_per_element};

pub(crate) fn gated_sum(x: CubeTensor, branch: CubeTensor, gate: CubeTensor) -> CubeTensor {
    let [x, branch, gate] = [x, branch, gate].map(into_contiguous);
    let out = empty_like(&x);
    if let Some((count, dim)) = unit_per_element(&out) {
        let [x, branch, gate, to] = [x, branch, gate, out.clone()].map(CubeTensor::into_buffer_arg);
        gated_sum_kernel::launch(&out.client, count, dim, x, branch, gate, to);
    }
    out
}

pub(crate) fn gated_sum_backward(branch: CubeTensor, gate: CubeTensor, grad: CubeTensor) -> (CubeTensor, CubeTensor) {
    let [branch, gate, grad] = [branch, gate, grad].map(into_contiguous);
    let (out, gate_products, vector) = (empty_like(&branch), empty_like(&branch), gate.shape());
    if let Some((count, dim)) = unit_per_element(&out) {
        let inputs = [branch, gate, grad, out.clone(), gate_products.clone()];
        let [branch, gate, grad, to, to_products] = inputs.map(CubeTensor::into_buffer_arg);
        gated_sum_grad_kernel::launch(&out.client, count, dim, branch, gate, grad, to, to_products);
    }
    (out, sum_over_rows(gate_products, vector))
}

#[cube(launch)]
fn gated_sum_kernel(x: &[f32], branch: &[f32], gate: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    out[index] = x[index] + branch[index] * gate[index % gate.len()];
}

/// The gradient of the branch, and the products whose sum over rows is the gate's gradient.
#[cube(launch)]
fn gated_sum_grad_kernel(branch: &[f32], gate: &[f32], grad: &[f32], out: &mut [f32], gate_products: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    out[index] = grad[index] * gate[index % gate.len()];
    gate_products[index] = grad[index] * branch[index];
}
