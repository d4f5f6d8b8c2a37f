//! The gradients of attention, some queries of a group at a time. Probabilities are recomputed from the log-sum-exp.

use super::QUERIES;
use super::inputs::{AttentionInputs, Columns, Group, key_capacity};
use super::loops;
use super::shared_output::SharedOutput;
use crate::ops::flex::gemm::{self, Matrix};
use crate::ops::flex::math;
use crate::ops::flex::memory::{Uninit, scratch, write_each};
use crate::ops::flex::tensor::values;
use crate::parallel::for_each_task_with;

/// Gradients of the queries' tensor and of the keys' tensor. If the keys are in the queries' tensor, the first has all
/// gradients and the second is empty.
pub(super) fn gradients(inputs: &AttentionInputs, upstream: [&[f32]; 3]) -> (Vec<f32>, Vec<f32>) {
    let mut query_grads = vec![0.0; inputs.queries_len()];
    let mut key_grads = vec![0.0; inputs.keys.as_ref().map_or(0, |keys| values(keys).len())];
    let groups = inputs.groups();
    let outputs = (SharedOutput::new(&mut query_grads), SharedOutput::new(&mut key_grads));
    let outputs = match inputs.keys {
        Some(_) => [&outputs.0, &outputs.1],
        None => [&outputs.0, &outputs.0],
    };
    let n_keys = key_capacity(&groups);
    let buffers = || Buffers::new(n_keys, inputs.head_width);
    for_each_task_with(groups.len() * inputs.n_heads, buffers, |buffers, task| {
        let (group, head) = (&groups[task / inputs.n_heads], task % inputs.n_heads);
        group_gradients(inputs, (group, head), upstream, outputs, buffers);
    });
    (query_grads, key_grads)
}

/// Scratch memory of a thread.
struct Buffers {
    // Keys, values and their gradients.
    keys: [Box<Uninit>; 4],
    // Probabilities and gradients of scores.
    scores: [Box<Uninit>; 2],
    // Queries, gradients of the output and gradients of the queries.
    queries: [Box<Uninit>; 3],
}

impl Buffers {
    fn new(n_keys: usize, d: usize) -> Self {
        Self {
            keys: [n_keys * d; 4].map(scratch),
            scores: [QUERIES * n_keys; 2].map(scratch),
            queries: [QUERIES * d; 3].map(scratch),
        }
    }
}

#[allow(unsafe_code)] // tasks write one output side by side
fn group_gradients(
    inputs: &AttentionInputs,
    (group, head): (&Group, usize),
    [out, lse, grad]: [&[f32]; 3],
    [query_grads, key_grads]: [&SharedOutput<'_>; 2],
    buffers: &mut Buffers,
) {
    let (d, row) = (inputs.head_width, group.row);
    let lse = &lse[(row * inputs.n_heads + head) * inputs.n_queries..][..inputs.n_queries];
    let [keys, key_values, k_grad, v_grad] = buffers.keys.each_mut().map(|buffer| &mut **buffer);
    let keys = inputs.rotated_keys(group, head, keys);
    let key_values = inputs.gathered_values(group, head, key_values);
    let [k_grad, v_grad] = [k_grad, v_grad].map(|grads| write_each!(&mut grads[..group.keys.len() * d], |_| 0.0));
    for (piece, queries) in group.queries.chunks(QUERIES).enumerate() {
        let first = piece * QUERIES;
        let (n, n_keys) = (queries.len(), inputs.n_visible(group, first + queries.len()));
        if n_keys == 0 {
            continue;
        }
        let [q, grads, q_grad] = buffers.queries.each_mut().map(|buffer| &mut **buffer);
        let q = inputs.rotated_queries(group, head, queries, q);
        let mut shifts = [0.0; QUERIES];
        let vectors = |values| inputs.output_vectors(values, row, head);
        loops::dots(vectors(out), vectors(grad), queries, &mut shifts);
        let grads: &[f32] = loops::gather(vectors(grad), queries, &mut grads[..n * d]);
        let (q, grads) = (Matrix::rows(q, d), Matrix::rows(grads, d));
        let (k, v) = (Matrix::rows(keys, d), Matrix::rows(key_values, d));
        let [probabilities, score_grads] = buffers.scores.each_mut().map(|buffer| &mut buffer[..n * n_keys]);
        let probabilities = gemm::assign_here(probabilities, q, k.transposed(), [n, d, n_keys]);
        let score_grads = gemm::assign_here(score_grads, grads, v.transposed(), [n, d, n_keys]);
        let rows = probabilities.chunks_exact_mut(n_keys).zip(score_grads.chunks_exact_mut(n_keys));
        for (i, (probabilities, score_grads)) in rows.enumerate() {
            inputs.hide(group, first + i, probabilities);
            math::exp(probabilities, lse[queries[i]]);
            loops::softmax_grad(probabilities, score_grads, shifts[i]);
        }
        let (probabilities, score_grads) = (Matrix::rows(probabilities, n_keys), Matrix::rows(score_grads, n_keys));
        gemm::add_here(&mut v_grad[..n_keys * d], probabilities.transposed(), grads, [n_keys, n, d]);
        gemm::add_here(&mut k_grad[..n_keys * d], score_grads.transposed(), q, [n_keys, n, d]);
        let q_grad = gemm::assign_here(&mut q_grad[..n * d], score_grads, k, [n, n_keys, d]);
        let angles = inputs.angles[0].of_row(row, inputs.n_queries, d);
        for (query, grad) in queries.iter().zip(q_grad.chunks_exact(d)) {
            let Columns { row: stride, first } = inputs.columns[0];
            let start = (row * inputs.n_queries + query) * stride + first + head * d;
            // SAFETY: no other task has this query and head.
            let out = unsafe { query_grads.slice(start, d) };
            loops::rotate_back(grad, &angles[query * d..][..d], inputs.scale(), out);
        }
    }
    let angles = inputs.angles[1].of_row(row, inputs.n_keys, d);
    for (i, key) in group.keys.iter().enumerate() {
        let start = |columns: Columns| (row * inputs.n_keys + key) * columns.row + columns.first + head * d;
        // SAFETY: no other task has this key and head, and the columns of keys and values are apart.
        let [key_grad, value_grad] = [1, 2].map(|which| unsafe { key_grads.slice(start(inputs.columns[which]), d) });
        loops::rotate_back(&k_grad[i * d..(i + 1) * d], &angles[key * d..][..d], 1.0, key_grad);
        value_grad.copy_from_slice(&v_grad[i * d..(i + 1) * d]);
    }
}
