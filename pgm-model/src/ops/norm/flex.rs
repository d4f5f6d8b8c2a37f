//! [`layer_norm`](super::layer_norm) and RMSNorm on the CPU.
#![allow(clippy::too_many_arguments)] // the loop of one row and its sums

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use crate::ops::constants::EPSILON;
use crate::ops::flex::memory::{ROWS, SetSums, Uninit, write_each, write_rows};
use crate::ops::flex::simd::{fma, for_each_instruction_set, sum_of};
use crate::ops::flex::tensor::{rows_of_set, shape, tensor, values, width};

/// What a norm subtracts from each row: its mean (layer norm), or nothing (RMSNorm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Centre {
    Mean,
    Zero,
}

// A weight and a bias have one row for all rows of x, or one for each of several sets of as many consecutive rows.

pub(crate) fn affine_norm(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    centre: Centre,
) -> (FlexTensor, FlexTensor) {
    let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
    let (width, numbers) = (width(&x), values(&x));
    let n_rows = numbers.len() / width;
    let (weights, biases) = (values(&weight), values(&bias));
    let n_of_set = rows_of_set(n_rows, weights.len() / width);
    let new_moments = || Vec::with_capacity(2 * ROWS);
    let (out, moments) = write_rows(n_rows, width, new_moments, |moments, row, out| {
        let x = &numbers[row * width..][..width];
        let [weight, bias] = [weights, biases].map(|all| &all[row / n_of_set * width..][..width]);
        let (out, of_row) = norm(x, weight, bias, centre, out);
        moments.extend_from_slice(&of_row);
        out
    });
    (tensor(out, shape(&x)), tensor(moments.concat(), Shape::new([n_rows, 2])))
}

pub(crate) fn affine_norm_backward(
    x: FlexTensor,
    weight: FlexTensor,
    moments: FlexTensor,
    grad: FlexTensor,
    centre: Centre,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let [x, weight, moments, grad] = [x, weight, moments, grad].map(|tensor| tensor.to_contiguous());
    let (width, numbers, grads, weights) = (width(&x), values(&x), values(&grad), values(&weight));
    let moments = values(&moments).as_chunks::<2>().0;
    let (n_rows, n_sets) = (numbers.len() / width, weights.len() / width);
    let n_of_set = rows_of_set(n_rows, n_sets);
    let new_sums = || SetSums::new(2 * width);
    let (out, sums) = write_rows(n_rows, width, new_sums, |sums, row, out| {
        let [x, grad] = [numbers, grads].map(|all| &all[row * width..][..width]);
        let set = row / n_of_set;
        let (weight_grad, bias_grad) = sums.of(set).split_at_mut(width);
        norm_grad(x, &weights[set * width..][..width], moments[row], centre, grad, out, weight_grad, bias_grad)
    });
    let sums = SetSums::total(&sums, n_sets, 2 * width);
    let of_sets = |first: usize| sums.chunks(2 * width).flat_map(|sum| &sum[first..first + width]).copied().collect();
    let (weight_grad, bias_grad): (Vec<f32>, Vec<f32>) = (of_sets(0), of_sets(width));
    let vector = shape(&weight);
    (tensor(out, shape(&x)), tensor(weight_grad, vector.clone()), tensor(bias_grad, vector))
}

for_each_instruction_set! {
    /// `normalised x * weight + bias`, one row; its mean and its reciprocal standard deviation.
    fn norm<'a>(
        x: &[f32], weight: &[f32], bias: &[f32], centre: Centre, out: &'a mut Uninit
    ) -> (&'a mut [f32], [f32; 2]) = norm_body;
    /// The gradient of one row, and additions to those of weight and bias.
    fn norm_grad<'a>(
        x: &[f32], weight: &[f32], moments: [f32; 2], centre: Centre, grad: &[f32], out: &'a mut Uninit,
        weight_grad: &mut [f32], bias_grad: &mut [f32]
    ) -> &'a mut [f32] = norm_grad_body;
}

#[inline(always)]
fn norm_body<'a, const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    centre: Centre,
    out: &'a mut Uninit,
) -> (&'a mut [f32], [f32; 2]) {
    let n = out.len();
    let (x, weight, bias) = (&x[..n], &weight[..n], &bias[..n]);
    let mean = match centre {
        Centre::Mean => sum_of(n, |i| x[i]) / n as f32,
        Centre::Zero => 0.0,
    };
    let variance = sum_of(n, |i| (x[i] - mean) * (x[i] - mean)) / n as f32;
    let rate = 1.0 / (variance + EPSILON).sqrt();
    (write_each!(out, |i| fma::<FMA>((x[i] - mean) * rate, weight[i], bias[i])), [mean, rate])
}

#[inline(always)]
fn norm_grad_body<'a, const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    [mean, rate]: [f32; 2],
    centre: Centre,
    grad: &[f32],
    out: &'a mut Uninit,
    weight_grad: &mut [f32],
    bias_grad: &mut [f32],
) -> &'a mut [f32] {
    let n = out.len();
    let (x, weight, grad) = (&x[..n], &weight[..n], &grad[..n]);
    let (weight_grad, bias_grad) = (&mut weight_grad[..n], &mut bias_grad[..n]);
    let average = match centre {
        Centre::Mean => sum_of(n, |i| grad[i] * weight[i]) / n as f32,
        Centre::Zero => 0.0,
    };
    let projection = sum_of(n, |i| grad[i] * weight[i] * ((x[i] - mean) * rate)) / n as f32;
    write_each!(out, |i| {
        let normalised = (x[i] - mean) * rate;
        weight_grad[i] = fma::<FMA>(grad[i], normalised, weight_grad[i]);
        bias_grad[i] += grad[i];
        rate * (grad[i] * weight[i] - average - normalised * projection)
    })
}
