//! [`layer_norm`](super::layer_norm) on GPUs: one cube a row.
#![allow(missing_docs)] // launchers that the macro writes

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::ops::constants::EPSILON;
use crate::ops::cube::reduce::{UNITS, cube_index, cube_sum};
use crate::ops::cube::tensors::{cube_per_row, empty, empty_like, n_rows, sum_over_rows};

pub(crate) fn affine_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor) -> (CubeTensor, CubeTensor) {
    let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
    let n = n_rows(&x);
    let (out, moments) = (empty_like(&x), empty(&x, Shape::new([n, 2])));
    if let Some((count, dim)) = cube_per_row(n) {
        let client = x.client.clone();
        let [x, weight, bias, to] = [x, weight, bias, out.clone()].map(CubeTensor::into_buffer_arg);
        norm_kernel::launch(&client, count, dim, x, weight, bias, to, moments.clone().into_buffer_arg());
    }
    (out, moments)
}

pub(crate) fn affine_norm_backward(
    x: CubeTensor,
    weight: CubeTensor,
    moments: CubeTensor,
    grad: CubeTensor,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [x, weight, moments, grad] = [x, weight, moments, grad].map(into_contiguous);
    let (out, weight_products, vector) = (empty_like(&x), empty_like(&x), weight.shape());
    if let Some((count, dim)) = cube_per_row(n_rows(&x)) {
        let client = x.client.clone();
        let inputs = [x, weight, moments, grad.clone(), out.clone(), weight_products.clone()];
        let [x, weight, moments, grad, to, to_products] = inputs.map(CubeTensor::into_buffer_arg);
        norm_grad_kernel::launch(&client, count, dim, x, weight, moments, grad, to, to_products);
    }
    (out, sum_over_rows(weight_products, vector.clone()), sum_over_rows(grad, vector))
}

/// The normalised row, its mean and its reciprocal standard deviation.
#[cube(launch)]
fn norm_kernel(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32], moments: &mut [f32]) {
    let (row, width) = (cube_index(), weight.len());
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let start = row * width;
    let inside = start < out.len();
    let unit = UNIT_POS as usize;
    let mut sum = 0.0_f32;
    if inside {
        let mut i = unit;
        while i < width {
            sum += x[start + i];
            i += UNITS as usize;
        }
    }
    let mean = cube_sum(sum, &mut shared) / f32::cast_from(width as u32);
    let mut squares = 0.0_f32;
    if inside {
        let mut i = unit;
        while i < width {
            let centred = x[start + i] - mean;
            squares += centred * centred;
            i += UNITS as usize;
        }
    }
    let variance = cube_sum(squares, &mut shared) / f32::cast_from(width as u32);
    let scale = 1.0 / (variance + EPSILON).sqrt();
    if inside {
        let mut i = unit;
        while i < width {
            out[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
            i += UNITS as usize;
        }
        if unit == 0 {
            moments[2 * row] = mean;
            moments[2 * row + 1] = scale;
        }
    }
}

/// The gradient of x, and the products whose sum over rows is the weight's gradient.
#[cube(launch)]
fn norm_grad_kernel(
    x: &[f32],
    weight: &[f32],
    moments: &[f32],
    grad: &[f32],
    out: &mut [f32],
    weight_products: &mut [f32],
) {
    let (row, width) = (cube_index(), weight.len());
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let start = row * width;
    let inside = start < out.len();
    let unit = UNIT_POS as usize;
    let mut sum = 0.0_f32;
    let mut product = 0.0_f32;
    let mut mean = 0.0_f32;
    let mut scale = 0.0_f32;
    if inside {
        mean = moments[2 * row];
        scale = moments[2 * row + 1];
        let mut i = unit;
        while i < width {
            let normalised = (x[start + i] - mean) * scale;
            let upstream = grad[start + i];
            weight_products[start + i] = upstream * normalised;
            sum += upstream * weight[i];
            product += upstream * weight[i] * normalised;
            i += UNITS as usize;
        }
    }
    let mean_grad = cube_sum(sum, &mut shared) / f32::cast_from(width as u32);
    let mean_product = cube_sum(product, &mut shared) / f32::cast_from(width as u32);
    if inside {
        let mut i = unit;
        while i < width {
            let normalised = (x[start + i] - mean) * scale;
            out[start + i] = scale * (grad[start + i] * weight[i] - mean_grad - normalised * mean_product);
            i += UNITS as usize;
        }
    }
}
