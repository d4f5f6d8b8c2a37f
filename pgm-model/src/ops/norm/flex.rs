//! [`layer_norm`](super::layer_norm) and RMSNorm on the CPU.
#![allow(clippy::too_many_arguments)] // the loop of one row and its sums

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use crate::ops::constants::EPSILON;
use crate::ops::flex::memory::{ROWS, SetSums, Uninit, write_chunks, write_each, write_row_groups};
use crate::ops::flex::simd::{PartialSums, fma, for_each_instruction_set, partial_sums, totals};
use crate::ops::flex::tensor::{rows_of_set, shape, tensor, values, width};

/// What a norm subtracts from each row: its mean (layer norm), or nothing (RMSNorm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Centre {
    Mean,
    Zero,
}

// A weight and a bias have one row for all rows of x, or one for each of several sets of as many consecutive rows.

/// Rows whose sums are added side by side.
const GROUP: usize = 8;

pub(crate) fn affine_norm(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    centre: Centre,
) -> (FlexTensor, FlexTensor) {
    let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
    let (width, numbers) = (width(&x), values(&x));
    let n_rows = numbers.len() / width;
    let n_of_set = rows_of_set(n_rows, values(&weight).len() / width);
    let [weights, biases] = [&weight, &bias].map(|tensor| SetRows::new(tensor, n_of_set, width));
    let new_moments = || Vec::with_capacity(ROWS);
    let (out, moments) = write_row_groups(n_rows, width, GROUP, new_moments, |all: &mut Vec<[f32; 2]>, rows, out| {
        let x = &numbers[rows.start * width..rows.end * width];
        let first = all.len();
        all.resize(first + rows.len(), [0.0; 2]);
        moments(x, width, centre, &mut all[first..]);
        write_chunks(out, width, |i, out| {
            let row = rows.start + i;
            norm(&x[i * width..][..width], all[first + i], weights.of(row), biases.of(row), out)
        })
    });
    (tensor(out, shape(&x)), tensor(moments.concat().into_flattened(), Shape::new([n_rows, 2])))
}

pub(crate) fn affine_norm_backward(
    x: FlexTensor,
    weight: FlexTensor,
    moments: FlexTensor,
    grad: FlexTensor,
    centre: Centre,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let [x, weight, moments, grad] = [x, weight, moments, grad].map(|tensor| tensor.to_contiguous());
    let (width, numbers, grads) = (width(&x), values(&x), values(&grad));
    let moments = values(&moments).as_chunks::<2>().0;
    let (n_rows, n_sets) = (numbers.len() / width, values(&weight).len() / width);
    let n_of_set = rows_of_set(n_rows, n_sets);
    let weights = SetRows::new(&weight, n_of_set, width);
    let new_sums = || SetSums::new(2 * width);
    let (out, sums) = write_row_groups(n_rows, width, GROUP, new_sums, |sums, rows, out| {
        let [x, grad] = [numbers, grads].map(|all| &all[rows.start * width..rows.end * width]);
        let mut averages = [[0.0; 2]; GROUP];
        let averages = &mut averages[..rows.len()];
        self::averages([x, grad], weights.from(rows.start), &moments[rows.clone()], centre, averages);
        write_chunks(out, width, |i, out| {
            let (row, [x, grad]) = (rows.start + i, [x, grad].map(|all| &all[i * width..][..width]));
            let (weight_grad, bias_grad) = sums.of(row / n_of_set).split_at_mut(width);
            norm_grad(x, weights.of(row), moments[row], averages[i], grad, out, weight_grad, bias_grad)
        })
    });
    let sums = SetSums::total(&sums, n_sets, 2 * width);
    let of_sets = |first: usize| sums.chunks(2 * width).flat_map(|sum| &sum[first..first + width]).copied().collect();
    let (weight_grad, bias_grad): (Vec<f32>, Vec<f32>) = (of_sets(0), of_sets(width));
    let vector = shape(&weight);
    (tensor(out, shape(&x)), tensor(weight_grad, vector.clone()), tensor(bias_grad, vector))
}

/// The rows of a weight or a bias for each row of x, from row `first` on.
#[derive(Clone, Copy)]
struct SetRows<'a> {
    all: &'a [f32],
    n_of_set: usize,
    width: usize,
    first: usize,
}

impl<'a> SetRows<'a> {
    fn new(tensor: &'a FlexTensor, n_of_set: usize, width: usize) -> Self {
        Self { all: values(tensor), n_of_set, width, first: 0 }
    }

    /// As seen from a later row.
    fn from(self, row: usize) -> Self {
        Self { first: self.first + row, ..self }
    }

    fn of(&self, row: usize) -> &'a [f32] {
        &self.all[(self.first + row) / self.n_of_set * self.width..][..self.width]
    }
}

for_each_instruction_set! {
    /// The mean and the reciprocal standard deviation of each of at most `GROUP` rows.
    fn moments(x: &[f32], width: usize, centre: Centre, moments: &mut [[f32; 2]]) = moments_body;
    /// `normalised x * weight + bias`, one row.
    fn norm<'a>(x: &[f32], moments: [f32; 2], weight: &[f32], bias: &[f32], out: &'a mut Uninit) -> &'a mut [f32]
        = norm_body;
    /// Of each of at most `GROUP` rows, the mean of its gradient times the weight, and of that times the normalised row.
    fn averages(
        x_and_grad: [&[f32]; 2], weights: SetRows<'_>, moments: &[[f32; 2]], centre: Centre, averages: &mut [[f32; 2]]
    ) = averages_body;
    /// The gradient of one row, and additions to those of weight and bias.
    fn norm_grad<'a>(
        x: &[f32], weight: &[f32], moments: [f32; 2], averages: [f32; 2], grad: &[f32], out: &'a mut Uninit,
        weight_grad: &mut [f32], bias_grad: &mut [f32]
    ) -> &'a mut [f32] = norm_grad_body;
}

#[inline(always)]
fn moments_body<const FMA: bool>(x: &[f32], width: usize, centre: Centre, moments: &mut [[f32; 2]]) {
    let mut partial = [PartialSums::NONE; GROUP];
    if centre == Centre::Mean {
        for (x, partial) in x.chunks_exact(width).zip(&mut partial) {
            *partial = partial_sums(x.len(), |i| x[i]);
        }
    }
    let means = totals(&partial).map(|sum| sum / width as f32);
    for ((x, partial), mean) in x.chunks_exact(width).zip(&mut partial).zip(means) {
        *partial = partial_sums(x.len(), |i| (x[i] - mean) * (x[i] - mean));
    }
    let variances = totals(&partial).map(|sum| sum / width as f32);
    for (moments, (mean, variance)) in moments.iter_mut().zip(means.into_iter().zip(variances)) {
        *moments = [mean, 1.0 / (variance + EPSILON).sqrt()];
    }
}

#[inline(always)]
fn norm_body<'a, const FMA: bool>(
    x: &[f32],
    [mean, rate]: [f32; 2],
    weight: &[f32],
    bias: &[f32],
    out: &'a mut Uninit,
) -> &'a mut [f32] {
    let n = out.len();
    let (x, weight, bias) = (&x[..n], &weight[..n], &bias[..n]);
    write_each!(out, |i| fma::<FMA>((x[i] - mean) * rate, weight[i], bias[i]))
}

#[inline(always)]
fn averages_body<const FMA: bool>(
    [x, grad]: [&[f32]; 2],
    weights: SetRows<'_>,
    moments: &[[f32; 2]],
    centre: Centre,
    averages: &mut [[f32; 2]],
) {
    let width = weights.width;
    let mut partial = [PartialSums::NONE; GROUP];
    if centre == Centre::Mean {
        for (row, (grad, partial)) in grad.chunks_exact(width).zip(&mut partial).enumerate() {
            let n = grad.len();
            let weight = &weights.of(row)[..n];
            *partial = partial_sums(n, |i| grad[i] * weight[i]);
        }
    }
    let means = totals(&partial).map(|sum| sum / width as f32);
    let rows = x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(moments);
    for (row, (((x, grad), [mean, rate]), partial)) in rows.zip(&mut partial).enumerate() {
        let n = grad.len();
        let (x, weight) = (&x[..n], &weights.of(row)[..n]);
        *partial = partial_sums(n, |i| grad[i] * weight[i] * ((x[i] - mean) * rate));
    }
    let projections = totals(&partial).map(|sum| sum / width as f32);
    for (averages, (mean, projection)) in averages.iter_mut().zip(means.into_iter().zip(projections)) {
        *averages = [mean, projection];
    }
}

#[inline(always)]
fn norm_grad_body<'a, const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    [mean, rate]: [f32; 2],
    [average, projection]: [f32; 2],
    grad: &[f32],
    out: &'a mut Uninit,
    weight_grad: &mut [f32],
    bias_grad: &mut [f32],
) -> &'a mut [f32] {
    let n = out.len();
    let (x, weight, grad) = (&x[..n], &weight[..n], &grad[..n]);
    let (weight_grad, bias_grad) = (&mut weight_grad[..n], &mut bias_grad[..n]);
    write_each!(out, |i| {
        let normalised = (x[i] - mean) * rate;
        weight_grad[i] = fma::<FMA>(grad[i], normalised, weight_grad[i]);
        bias_grad[i] += grad[i];
        rate * (grad[i] * weight[i] - average - normalised * projection)
    })
}
