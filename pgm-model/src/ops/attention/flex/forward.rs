//! The output of attention, some queries of a group at a time.

use super::QUERIES;
use super::inputs::{AttentionInputs, key_capacity};
use super::shared_output::SharedOutput;
use crate::ops::flex::gemm::{self, Matrix};
use crate::ops::flex::math;
use crate::ops::flex::memory::scratch;
use crate::parallel::for_each_task_with;

/// The output `[B, Q, H]` and the log-sum-exp of each query's scores `[B, h, Q]`.
#[allow(unsafe_code)] // tasks write one output side by side
pub(super) fn output(inputs: &AttentionInputs) -> (Vec<f32>, Vec<f32>) {
    let (d, n_heads) = (inputs.head_width, inputs.n_heads);
    let mut out = vec![0.0; inputs.n_rows * inputs.n_queries * inputs.width()];
    let mut lse = vec![0.0; inputs.n_rows * n_heads * inputs.n_queries];
    let groups = inputs.groups();
    let (shared_out, shared_lse) = (SharedOutput::new(&mut out), SharedOutput::new(&mut lse));
    let n = key_capacity(&groups);
    let buffers = || [n * d, n * d, QUERIES * n, QUERIES * d, QUERIES * d].map(scratch);
    for_each_task_with(groups.len() * n_heads, buffers, |buffers, task| {
        let [keys, key_values, scores, q, heads] = buffers.each_mut().map(|buffer| &mut **buffer);
        let (group, head) = (&groups[task / n_heads], task % n_heads);
        let first_lse = (group.row * n_heads + head) * inputs.n_queries;
        let keys = inputs.rotated_keys(group, head, keys);
        let key_values = inputs.gathered_values(group, head, key_values);
        for (piece, queries) in group.queries.chunks(QUERIES).enumerate() {
            let first = piece * QUERIES;
            let (n_queries, n_keys) = (queries.len(), inputs.n_visible(group, first + queries.len()));
            if n_keys == 0 {
                continue;
            }
            let q = Matrix::rows(inputs.rotated_queries(group, head, queries, q), d);
            let scores = &mut scores[..n_queries * n_keys];
            let scores = gemm::assign_here(scores, q, Matrix::rows(keys, d).transposed(), [n_queries, d, n_keys]);
            let mut sums = [0.0; QUERIES];
            for (i, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
                if !inputs.hide(group, first + i, scores) {
                    // The query's output and log-sum-exp stay 0.
                    scores.fill(0.0);
                    sums[i] = f32::INFINITY;
                    continue;
                }
                let max = math::max(scores);
                sums[i] = math::exp(scores, max);
                // SAFETY: no other task has this query and head.
                let lse = unsafe { shared_lse.slice(first_lse + queries[i], 1) };
                lse[0] = max + sums[i].ln();
            }
            let (weights, key_values) = (Matrix::rows(scores, n_keys), Matrix::rows(key_values, d));
            let heads = gemm::assign_here(&mut heads[..n_queries * d], weights, key_values, [n_queries, n_keys, d]);
            for ((query, sum), values) in queries.iter().zip(sums).zip(heads.chunks_exact(d)) {
                // SAFETY: no other task has this query and head.
                let out = unsafe { shared_out.slice(inputs.output_start(group.row, *query, head), d) };
                math::scale(values, 1.0 / sum, out);
            }
        }
    });
    (out, lse)
}
