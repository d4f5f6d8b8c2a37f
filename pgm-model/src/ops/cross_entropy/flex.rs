//! [`linear_cross_entropy`](super::linear_cross_entropy) on the CPU, some rows at a time: the `[N, V]` logits are never
//! held as a whole.

// N rows, H hidden, V vocabulary

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use crate::ops::flex::gemm::{self, Matrix};
use crate::ops::flex::math;
use crate::ops::flex::memory::{append, scratch, written};
use crate::ops::flex::simd::{exp_of, for_each_instruction_set, max_of, sum_of};
use crate::ops::flex::tensor::{ints, shape, tensor, values};
use crate::parallel::prelude::*;

/// Logits that are held at a time, at most: 64 MiB, unless 64 rows are more.
const MAX_LOGITS: usize = 16 << 20;
/// Rows of logits that are held at a time, at most. Reading and writing the weight's gradient once for so many rows costs
/// next to nothing.
const MAX_ROWS: usize = 512;
/// Rows of one task.
const ROWS: usize = 8;
/// The bias of the excluded class: its probability is 0 in float32.
const EXCLUDED: f32 = -1e30;

pub(crate) fn linear_cross_entropy(
    linear: [FlexTensor; 3],
    targets: FlexTensor,
    weights: FlexTensor,
    excluded_class: usize,
) -> FlexTensor {
    let ([x, w, b], weights) = (linear.map(|tensor| tensor.to_contiguous()), weights.to_contiguous());
    let inputs = LinearCrossEntropy::new([&x, &w, &b, &weights], ints(&targets), excluded_class);
    tensor(vec![inputs.loss(None)], Shape::new([1]))
}

pub(crate) fn linear_cross_entropy_with_gradients(
    linear: [FlexTensor; 3],
    targets: FlexTensor,
    weights: FlexTensor,
    excluded_class: usize,
) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
    let ([x, w, b], weights) = (linear.map(|tensor| tensor.to_contiguous()), weights.to_contiguous());
    let inputs = LinearCrossEntropy::new([&x, &w, &b, &weights], ints(&targets), excluded_class);
    let (loss, Gradients { x: x_grad, w: w_grad, b: b_grad }) = inputs.loss_with_gradients();
    let loss = tensor(vec![loss], Shape::new([1]));
    (loss, tensor(x_grad, shape(&x)), tensor(w_grad, shape(&w)), tensor(b_grad, shape(&b)))
}

struct LinearCrossEntropy<'a> {
    x: &'a [f32], // [N, H]
    w: &'a [f32], // [H, V]
    b: Vec<f32>,  // [V]
    weights: &'a [f32],
    targets: Vec<i64>,
    sizes: [usize; 3], // N, H, V
}

/// Gradients of the weighted sum, as far as they are computed.
struct Gradients {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
}

impl<'a> LinearCrossEntropy<'a> {
    fn new([x, w, b, weights]: [&'a FlexTensor; 4], targets: Vec<i64>, excluded_class: usize) -> Self {
        let (n, [h, v]) = (targets.len(), w.layout().shape().dims());
        let (x, w, weights, mut b) = (values(x), values(w), values(weights), values(b).to_vec());
        assert!(x.len() == n * h && b.len() == v && weights.len() == n, "sizes of the inputs");
        assert!(targets.iter().all(|&target| (0..v as i64).contains(&target)), "a target outside the vocabulary");
        if let Some(bias) = b.get_mut(excluded_class) {
            *bias = EXCLUDED;
        }
        Self { x, w, b, weights, targets, sizes: [n, h, v] }
    }

    fn loss_with_gradients(&self) -> (f32, Gradients) {
        let [n, h, v] = self.sizes;
        let mut gradients = Gradients { x: Vec::with_capacity(n * h), w: Vec::new(), b: vec![0.0; v] };
        let loss = self.loss(Some(&mut gradients));
        if n == 0 {
            gradients.w = vec![0.0; h * v];
        }
        (loss, gradients)
    }

    // The sum of weighted cross-entropies, and its gradients if they are asked for.
    fn loss(&self, mut gradients: Option<&mut Gradients>) -> f32 {
        let [n, h, v] = self.sizes;
        let at_once = (MAX_LOGITS / v).clamp(64, MAX_ROWS).min(n.max(1));
        let mut held = scratch(at_once * v);
        let mut loss = 0.0_f64;
        for start in (0..n).step_by(at_once) {
            let n_rows = at_once.min(n - start);
            let x = Matrix::rows(&self.x[start * h..(start + n_rows) * h], h);
            let w = Matrix::rows(self.w, v);
            let logits = gemm::assign(&mut held[..n_rows * v], x, w, [n_rows, h, v]);
            let sums = self.rows_of_losses(start, logits, gradients.is_some());
            for (row_loss, sums) in sums {
                loss += row_loss;
                if let Some(gradients) = &mut gradients {
                    math::add(&sums, &mut gradients.b);
                }
            }
            if let Some(gradients) = gradients.as_deref_mut() {
                let logit_grads = Matrix::rows(logits, v);
                let sizes = [n_rows, v, h];
                append(&mut gradients.x, n_rows * h, |out| gemm::assign(out, logit_grads, w.transposed(), sizes));
                let sizes = [h, n_rows, v];
                match start {
                    0 => gradients.w = written(h * v, |out| gemm::assign(out, x.transposed(), logit_grads, sizes)),
                    _ => gemm::add(&mut gradients.w, x.transposed(), logit_grads, sizes),
                }
            }
        }
        loss as f32
    }

    // The loss of each task's rows. With gradients the logits become `weight (softmax - one-hot)`, and their sums over the
    // task's rows come along.
    fn rows_of_losses(&self, start: usize, logits: &mut [f32], with_gradients: bool) -> Vec<(f64, Vec<f32>)> {
        let v = self.sizes[2];
        let tasks = logits.par_chunks_mut(ROWS * v).enumerate().map(|(task, logits)| {
            let mut sums = vec![0.0; if with_gradients { v } else { 0 }];
            let mut loss = 0.0;
            for (row, logits) in (start + task * ROWS..).zip(logits.chunks_exact_mut(v)) {
                let (target, weight) = (self.targets[row] as usize, self.weights[row]);
                let at_target = logits[target] + self.b[target];
                let max = max_with_bias(logits, &self.b);
                let sum = exp_with_bias(logits, &self.b, max);
                loss += f64::from(weight) * f64::from(max + sum.ln() - at_target);
                if with_gradients {
                    scale_and_add(logits, weight / sum, &mut sums);
                    logits[target] -= weight;
                    sums[target] -= weight;
                }
            }
            (loss, sums)
        });
        tasks.collect()
    }
}

for_each_instruction_set! {
    /// The largest of `values + bias`.
    fn max_with_bias(values: &[f32], bias: &[f32]) -> f32 = max_with_bias_body;
    /// `values = exp(values + bias - shift)`; their sum.
    fn exp_with_bias(values: &mut [f32], bias: &[f32], shift: f32) -> f32 = exp_with_bias_body;
    /// `values *= scale`, then `sums += values`.
    fn scale_and_add(values: &mut [f32], scale: f32, sums: &mut [f32]) = scale_and_add_body;
}

#[inline(always)]
fn max_with_bias_body<const FMA: bool>(values: &[f32], bias: &[f32]) -> f32 {
    let bias = &bias[..values.len()];
    max_of(values.len(), |i| values[i] + bias[i])
}

#[inline(always)]
fn exp_with_bias_body<const FMA: bool>(values: &mut [f32], bias: &[f32], shift: f32) -> f32 {
    for (value, bias) in values.iter_mut().zip(bias) {
        *value = exp_of::<FMA>(*value + bias - shift);
    }
    sum_of(values.len(), |i| values[i])
}

#[inline(always)]
fn scale_and_add_body<const FMA: bool>(values: &mut [f32], scale: f32, sums: &mut [f32]) {
    for (value, sum) in values.iter_mut().zip(sums) {
        *value *= scale;
        *sum += *value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rows_have_zero_gradients() {
        let vector = |n: usize| tensor(vec![1.0; n], Shape::new([n]));
        let (x, w) = (tensor(Vec::new(), Shape::new([0, 40])), tensor(vec![1.0; 40 * 70], Shape::new([40, 70])));
        let inputs = [&x, &w, &vector(70), &vector(0)];
        // Memory that was never written may hold zeros, so it is filled with other numbers first.
        drop(std::hint::black_box(vec![1.0_f32; 40 * 70]));
        let (loss, gradients) = LinearCrossEntropy::new(inputs, Vec::new(), 69).loss_with_gradients();
        assert_eq!((loss, gradients.x.len()), (0.0, 0));
        assert_eq!(gradients.w, [0.0; 40 * 70]);
        assert_eq!(gradients.b, [0.0; 70]);
    }
}
