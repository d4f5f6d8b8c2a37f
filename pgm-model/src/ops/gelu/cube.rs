//! [`bias_gelu`](super::bias_gelu) on GPUs: one unit an element.
#![allow(missing_docs)] // launchers that the macro writes

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::ops::constants::GELU;
use crate::ops::cube::tensors::{empty_like, sum_over_rows, unit_per_element};

pub(crate) fn bias_gelu(x: CubeTensor, bias: CubeTensor) -> CubeTensor {
    let [x, bias] = [x, bias].map(into_contiguous);
    let out = empty_like(&x);
    if let Some((count, dim)) = unit_per_element(&out) {
        let args = [x, bias, out.clone()].map(CubeTensor::into_buffer_arg);
        let [x, bias, to] = args;
        bias_gelu_kernel::launch(&out.client, count, dim, x, bias, to);
    }
    out
}

pub(crate) fn bias_gelu_backward(x: CubeTensor, bias: CubeTensor, grad: CubeTensor) -> (CubeTensor, CubeTensor) {
    let [x, bias, grad] = [x, bias, grad].map(into_contiguous);
    let (out, vector) = (empty_like(&x), bias.shape());
    if let Some((count, dim)) = unit_per_element(&out) {
        let [x, bias, grad, to] = [x, bias, grad, out.clone()].map(CubeTensor::into_buffer_arg);
        bias_gelu_grad_kernel::launch(&out.client, count, dim, x, bias, grad, to);
    }
    let bias_grad = sum_over_rows(out.clone(), vector);
    (out, bias_grad)
}

// `sigmoid(x (GELU[0] + GELU[1] x^2))`; the bound keeps the exponential finite.
#[cube]
fn gelu_gate(x: f32) -> f32 {
    let inner = x * (GELU[0] + GELU[1] * x * x);
    1.0 / (1.0 + ((-inner).min(80.0)).exp())
}

#[cube(launch)]
fn bias_gelu_kernel(x: &[f32], bias: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    let x = x[index] + bias[index % bias.len()];
    out[index] = x * gelu_gate(x);
}

#[cube(launch)]
fn bias_gelu_grad_kernel(x: &[f32], bias: &[f32], grad: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    let x = x[index] + bias[index % bias.len()];
    let gate = gelu_gate(x);
    let slope = x * (GELU[0] + 3.0 * GELU[1] * x * x);
    out[index] = grad[index] * gate * (1.0 + slope * (1.0 - gate));
}
