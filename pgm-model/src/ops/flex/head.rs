//! The last linear layer and its cross-entropy, a piece of rows at a time: `[N, V]` logits are never held.
//!
//! Shapes: N rows, H hidden, V vocabulary.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{Matrix, math, product, uninitialised, values};

/// Logits that are held at a time, at most: 64 MiB, unless 64 rows are more.
const HELD: usize = 16 << 20;
/// Rows of logits that are held at a time, at most: enough that reading and writing the weight's gradient once for each
/// such piece costs next to nothing.
const MOST_ROWS: usize = 512;
/// Rows that one task takes.
const ROWS: usize = 8;
/// The bias of the class that is left out: its probability is 0 in float32.
const NEVER: f32 = -1e30;

pub(super) struct Head<'a> {
    x: &'a [f32], // [N, H]
    w: &'a [f32], // [H, V]
    b: Vec<f32>,
    weights: &'a [f32],
    targets: Vec<i64>,
    sizes: [usize; 3], // N, H, V
}

/// Gradients of the weighted sum.
pub(super) struct Gradients {
    pub(super) x: Vec<f32>,
    pub(super) w: Vec<f32>,
    pub(super) b: Vec<f32>,
}

impl<'a> Head<'a> {
    pub(super) fn new([x, w, b, weights]: [&'a FlexTensor; 4], targets: Vec<i64>, skip: usize) -> Self {
        let (n, [h, v]) = (targets.len(), w.layout().shape().dims());
        let (x, w, weights, mut b) = (values(x), values(w), values(weights), values(b).to_vec());
        assert!(x.len() == n * h && b.len() == v && weights.len() == n, "sizes of the head's inputs");
        assert!(targets.iter().all(|&target| (0..v as i64).contains(&target)), "a target outside the vocabulary");
        if let Some(bias) = b.get_mut(skip) {
            *bias = NEVER;
        }
        Self { x, w, b, weights, targets, sizes: [n, h, v] }
    }

    /// Room for the gradients.
    pub(super) fn gradients(&self) -> Gradients {
        let [n, h, v] = self.sizes;
        Gradients { x: uninitialised(n * h), w: uninitialised(h * v), b: vec![0.0; v] }
    }

    /// The sum of weighted cross-entropies, and its gradients if there is room for them.
    pub(super) fn loss(&self, mut gradients: Option<&mut Gradients>) -> f32 {
        let [n, h, v] = self.sizes;
        let at_once = (HELD / v).clamp(64, MOST_ROWS).min(n.max(1));
        let mut held = uninitialised(at_once * v);
        let mut loss = 0.0_f64;
        for start in (0..n).step_by(at_once) {
            let n_rows = at_once.min(n - start);
            let logits = &mut held[..n_rows * v];
            let x = Matrix::rows(&self.x[start * h..(start + n_rows) * h], h);
            product(logits, v, false, x, Matrix::rows(self.w, v), [n_rows, h, v]);
            let sums = self.probabilities(start, logits, gradients.is_some());
            for (row_loss, sums) in sums {
                loss += row_loss;
                if let Some(gradients) = &mut gradients {
                    math::add(&sums, &mut gradients.b);
                }
            }
            if let Some(Gradients { x: grad_x, w: grad_w, .. }) = gradients.as_deref_mut() {
                let grad_x = &mut grad_x[start * h..(start + n_rows) * h];
                let logit_grads = Matrix::rows(logits, v);
                product(grad_x, h, false, logit_grads, Matrix::rows(self.w, v).transposed(), [n_rows, v, h]);
                product(grad_w, v, start > 0, x.transposed(), logit_grads, [h, n_rows, v]);
            }
        }
        loss as f32
    }

    // The loss of each piece of rows; with gradients, logits become `weight (softmax - one-hot)` and their sums over the
    // piece come along.
    fn probabilities(&self, start: usize, logits: &mut [f32], with_gradients: bool) -> Vec<(f64, Vec<f32>)> {
        let v = self.sizes[2];
        let pieces = logits.par_chunks_mut(ROWS * v).enumerate().map(|(piece, logits)| {
            let mut sums = vec![0.0; if with_gradients { v } else { 0 }];
            let mut loss = 0.0;
            for (row, logits) in (start + piece * ROWS..).zip(logits.chunks_exact_mut(v)) {
                let (target, weight) = (self.targets[row] as usize, self.weights[row]);
                let at_target = logits[target] + self.b[target];
                let max = math::max_with_bias(logits, &self.b);
                let sum = math::exp_with_bias(logits, &self.b, max);
                loss += f64::from(weight) * f64::from(max + sum.ln() - at_target);
                if with_gradients {
                    math::scale_and_add(logits, weight / sum, &mut sums);
                    logits[target] -= weight;
                    sums[target] -= weight;
                }
            }
            (loss, sums)
        });
        pieces.collect()
    }
}
