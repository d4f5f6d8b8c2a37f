//! Attention, forward and backward, in pieces: no matrix of all scores is ever held.
//!
//! Tokens carry labels, and a query sees the keys of its label. For each row, head and label the tokens are gathered,
//! turned by their angles and laid side by side: what is left are small dense products, with no masked work.
//!
//! Shapes: B rows, Q queries, C keys, h heads, d head width, H = h d.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::product::{Matrix, product_here};
use super::{AttentionKind, ints, math, uninitialised, values};

/// Queries whose scores are held at a time.
const QUERIES: usize = 64;

/// Vectors of all heads side by side, `[B, S, row]`, those of interest from column `first`.
#[derive(Clone, Copy)]
struct Columns {
    row: usize,
    first: usize,
}

pub(super) struct Inputs {
    queries: FlexTensor,
    // Absent when the keys stand in the queries' tensor.
    keys: Option<FlexTensor>,
    columns: [Columns; 3], // of q, k and v
    angles: [Angles; 2],
    labels: [Vec<i64>; 2],
    pub(super) n_rows: usize,
    pub(super) n_queries: usize,
    n_keys: usize,
    n_heads: usize,
    head_width: usize,
    causal: bool,
}

// Cosines, then sines, `[B or 1, S, d]`.
struct Angles {
    table: FlexTensor,
    shared: bool,
}

impl Angles {
    fn new(table: &FlexTensor) -> Self {
        Self { table: table.to_contiguous(), shared: table.layout().shape()[0] == 1 }
    }

    fn at(&self, row: usize, n_tokens: usize, token: usize, half: usize) -> [&[f32]; 2] {
        let index = if self.shared { token } else { row * n_tokens + token };
        let (cos, sin) = values(&self.table)[2 * half * index..][..2 * half].split_at(half);
        [cos, sin]
    }
}

// A label for every token; all are alike where labels say nothing.
fn labels_of(labels: &FlexTensor, n_tokens: usize, labelled: bool) -> Vec<i64> {
    if !labelled {
        return vec![0; n_tokens];
    }
    let labels = ints(labels);
    assert_eq!(labels.len(), n_tokens, "a label for every token");
    labels
}

// The tokens of one label in one row.
struct Group {
    queries: Vec<usize>,
    keys: Vec<usize>,
}

// Keys for which there must be room, of few different numbers: memory of one size is found again, and what is set aside
// for many sizes adds up.
fn room_for_keys(groups: &[(usize, Group)]) -> usize {
    groups.iter().map(|(_, group)| group.keys.len()).max().unwrap_or(0).next_power_of_two()
}

// What a backward pass needs beside its inputs: vectors of keys, scores, and vectors of queries.
type Scratch = ([Vec<f32>; 4], [Vec<f32>; 2], [Vec<f32>; 3]);

impl Inputs {
    pub(super) fn of_self(qkv: &FlexTensor, angles: &FlexTensor, labels: &FlexTensor, kind: AttentionKind) -> Self {
        let [n_rows, n_tokens, row] = qkv.layout().shape().dims();
        let width = row / 3;
        let labels = labels_of(labels, n_rows * n_tokens, kind.labelled);
        Self {
            queries: qkv.to_contiguous(),
            keys: None,
            columns: [0, 1, 2].map(|index| Columns { row, first: index * width }),
            angles: [Angles::new(angles), Angles::new(angles)],
            labels: [labels.clone(), labels],
            n_rows,
            n_queries: n_tokens,
            n_keys: n_tokens,
            n_heads: kind.n_heads,
            head_width: width / kind.n_heads,
            causal: kind.causal,
        }
    }

    pub(super) fn of_cross(
        q: &FlexTensor,
        kv: &FlexTensor,
        angles: [&FlexTensor; 2],
        labels: [&FlexTensor; 2],
        kind: AttentionKind,
    ) -> Self {
        let [n_rows, n_queries, width] = q.layout().shape().dims();
        let [_, n_keys, row] = kv.layout().shape().dims();
        let [of_queries, of_keys] = labels;
        let labels = [(of_queries, n_queries), (of_keys, n_keys)].map(|(x, n)| labels_of(x, n_rows * n, kind.labelled));
        Self {
            queries: q.to_contiguous(),
            keys: Some(kv.to_contiguous()),
            columns: [Columns { row: width, first: 0 }, Columns { row, first: 0 }, Columns { row, first: width }],
            angles: angles.map(Angles::new),
            labels,
            n_rows,
            n_queries,
            n_keys,
            n_heads: kind.n_heads,
            head_width: width / kind.n_heads,
            causal: false,
        }
    }

    pub(super) fn width(&self) -> usize {
        self.n_heads * self.head_width
    }

    fn keys(&self) -> &FlexTensor {
        self.keys.as_ref().unwrap_or(&self.queries)
    }

    /// Output `[B, Q, H]` and the log-sum-exp of each query's scores `[B, h, Q]`.
    pub(super) fn forward(&self) -> (Vec<f32>, Vec<f32>) {
        let (d, width) = (self.head_width, self.width());
        let mut out = vec![0.0; self.n_rows * self.n_queries * width];
        let mut lse = vec![0.0; self.n_rows * self.n_heads * self.n_queries];
        let groups = self.all_groups();
        let (shared, shared_lse) = (Shared(out.as_mut_ptr()), Shared(lse.as_mut_ptr()));
        let room = room_for_keys(&groups);
        let scratch = || [room * d, room * d, QUERIES * room, QUERIES * d, QUERIES * d].map(uninitialised);
        (0..groups.len() * self.n_heads).into_par_iter().for_each_init(scratch, |scratch, task| {
            let [keys, key_values, scores, q, outs] = scratch.each_mut().map(Vec::as_mut_slice);
            let ((row, group), head) = (&groups[task / self.n_heads], task % self.n_heads);
            let (row, first_lse) = (*row, (row * self.n_heads + head) * self.n_queries);
            let keys = self.rotated_keys(row, head, &group.keys, keys);
            let key_values = self.gathered_values(row, head, &group.keys, key_values);
            for (piece, queries) in group.queries.chunks(QUERIES).enumerate() {
                let n_keys = self.visible(group, piece * QUERIES + queries.len());
                let scores = &mut scores[..queries.len() * n_keys];
                let q = self.rotated_queries(row, head, queries, q);
                let (rows, across) = (Matrix::rows(q, d), Matrix::rows(keys, d).transposed());
                product_here(scores, n_keys, false, rows, across, [queries.len(), d, n_keys]);
                let mut sums = [0.0; QUERIES];
                for (i, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
                    self.hide(group, piece * QUERIES + i, scores);
                    let max = math::max(scores);
                    sums[i] = math::exp(scores, max);
                    // SAFETY: within `lse`, and no other task has this query and head.
                    let lse = unsafe { shared_lse.slice(first_lse + queries[i], 1) };
                    lse[0] = max + sums[i].ln();
                }
                let (rows, across) = (Matrix::rows(scores, n_keys), Matrix::rows(key_values, d));
                product_here(outs, d, false, rows, across, [queries.len(), n_keys, d]);
                for ((query, sum), values) in queries.iter().zip(sums).zip(outs.chunks_exact(d)) {
                    let start = (row * self.n_queries + query) * width + head * d;
                    // SAFETY: within `out`, and no other task has this query and head.
                    let out = unsafe { shared.slice(start, d) };
                    math::scale(values, 1.0 / sum, out);
                }
            }
        });
        (out, lse)
    }

    /// Gradients of the queries' tensor and of the keys'; with the keys in the queries' tensor all of it is in the first.
    pub(super) fn backward(&self, out: &[f32], lse: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut of_queries = vec![0.0; values(&self.queries).len()];
        let mut of_keys = vec![0.0; self.keys.as_ref().map_or(0, |keys| values(keys).len())];
        let groups = self.all_groups();
        let query_grads = Shared(of_queries.as_mut_ptr());
        let key_grads = if self.keys.is_some() { Shared(of_keys.as_mut_ptr()) } else { Shared(query_grads.0) };
        let (d, room) = (self.head_width, room_for_keys(&groups));
        let scratch = || {
            let of_keys = [room * d; 4].map(uninitialised);
            let of_scores = [QUERIES * room; 2].map(uninitialised);
            (of_keys, of_scores, [QUERIES * d; 3].map(uninitialised))
        };
        (0..groups.len() * self.n_heads).into_par_iter().for_each_init(scratch, |scratch, task| {
            let ((row, group), head) = (&groups[task / self.n_heads], task % self.n_heads);
            let lse = &lse[(row * self.n_heads + head) * self.n_queries..][..self.n_queries];
            self.backward_of_group(*row, head, group, [out, lse, grad], [&query_grads, &key_grads], scratch);
        });
        (of_queries, of_keys)
    }

    fn backward_of_group(
        &self,
        row: usize,
        head: usize,
        group: &Group,
        [out, lse, grad]: [&[f32]; 3],
        [query_grads, key_grads]: [&Shared; 2],
        ([keys, key_values, grad_k, grad_v], [probabilities, score_grads], [q, grads, grad_q]): &mut Scratch,
    ) {
        let (d, half, width) = (self.head_width, self.head_width / 2, self.width());
        let keys = self.rotated_keys(row, head, &group.keys, keys);
        let key_values = self.gathered_values(row, head, &group.keys, key_values);
        let [grad_k, grad_v] = [grad_k, grad_v].map(|grads| &mut grads[..group.keys.len() * d]);
        grad_k.fill(0.0);
        grad_v.fill(0.0);
        for (piece, queries) in group.queries.chunks(QUERIES).enumerate() {
            let (n, n_keys) = (queries.len(), self.visible(group, piece * QUERIES + queries.len()));
            let q = self.rotated_queries(row, head, queries, q);
            let mut shifts = [0.0; QUERIES];
            for (i, query) in queries.iter().enumerate() {
                let start = (row * self.n_queries + query) * width + head * d;
                let grad = &grad[start..start + d];
                shifts[i] = math::dot(grad, &out[start..start + d]);
                grads[i * d..(i + 1) * d].copy_from_slice(grad);
            }
            let probabilities = &mut probabilities[..n * n_keys];
            let score_grads = &mut score_grads[..n * n_keys];
            let (q, grads) = (Matrix::rows(q, d), Matrix::rows(&grads[..n * d], d));
            let (keys, key_values) = (Matrix::rows(keys, d), Matrix::rows(key_values, d));
            product_here(probabilities, n_keys, false, q, keys.transposed(), [n, d, n_keys]);
            product_here(score_grads, n_keys, false, grads, key_values.transposed(), [n, d, n_keys]);
            let rows = probabilities.chunks_exact_mut(n_keys).zip(score_grads.chunks_exact_mut(n_keys));
            for (i, (probabilities, score_grads)) in rows.enumerate() {
                self.hide(group, piece * QUERIES + i, probabilities);
                math::exp(probabilities, lse[queries[i]]);
                math::softmax_grad(probabilities, score_grads, shifts[i]);
            }
            let (probabilities, score_grads) = (Matrix::rows(probabilities, n_keys), Matrix::rows(score_grads, n_keys));
            product_here(grad_v, d, true, probabilities.transposed(), grads, [n_keys, n, d]);
            product_here(grad_k, d, true, score_grads.transposed(), q, [n_keys, n, d]);
            product_here(grad_q, d, false, score_grads, keys, [n, n_keys, d]);
            for (query, grad) in queries.iter().zip(grad_q.chunks_exact(d)) {
                let [cos, sin] = self.angles[0].at(row, self.n_queries, *query, half);
                let Columns { row: stride, first } = self.columns[0];
                let start = (row * self.n_queries + query) * stride + first + head * d;
                // SAFETY: within the tensor, and no other task has this query and head.
                let out = unsafe { query_grads.slice(start, d) };
                math::rotate_back(grad, cos, sin, self.scale(), out);
            }
        }
        for (i, key) in group.keys.iter().enumerate() {
            let [cos, sin] = self.angles[1].at(row, self.n_keys, *key, half);
            let start = |columns: Columns| (row * self.n_keys + key) * columns.row + columns.first + head * d;
            // SAFETY: within the tensor; no other task has this key and head, and the columns of k and v are apart.
            let [of_key, of_value] = [1, 2].map(|which| unsafe { key_grads.slice(start(self.columns[which]), d) });
            math::rotate_back(&grad_k[i * d..(i + 1) * d], cos, sin, 1.0, of_key);
            of_value.copy_from_slice(&grad_v[i * d..(i + 1) * d]);
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    // The groups of all rows, each with its row.
    fn all_groups(&self) -> Vec<(usize, Group)> {
        (0..self.n_rows).flat_map(|row| self.groups(row).into_iter().map(move |group| (row, group))).collect()
    }

    // A query without keys, and a key without queries, are in no group: they keep the 0 they were given.
    fn groups(&self, row: usize) -> Vec<Group> {
        let [query_labels, key_labels] = &self.labels;
        let query_labels = &query_labels[row * self.n_queries..][..self.n_queries];
        let key_labels = &key_labels[row * self.n_keys..][..self.n_keys];
        let mut groups: Vec<Group> = Vec::new();
        let mut places: Vec<i64> = Vec::new();
        // Tokens of one label often stand together.
        let mut last = 0;
        let mut place = |places: &[i64], label: i64| {
            if places.get(last) != Some(&label) {
                last = places.iter().position(|&known| known == label)?;
            }
            Some(last)
        };
        for (query, &label) in query_labels.iter().enumerate() {
            let place = place(&places, label).unwrap_or_else(|| {
                places.push(label);
                groups.push(Group { queries: Vec::new(), keys: Vec::new() });
                groups.len() - 1
            });
            groups[place].queries.push(query);
        }
        for (key, &label) in key_labels.iter().enumerate() {
            if let Some(place) = place(&places, label) {
                groups[place].keys.push(key);
            }
        }
        groups.retain(|group| !group.keys.is_empty());
        groups
    }

    // How many of the group's keys any of its first `n` queries sees.
    fn visible(&self, group: &Group, n: usize) -> usize {
        if self.causal { n } else { group.keys.len() }
    }

    // Hides the keys after the query from it.
    fn hide(&self, group: &Group, query: usize, scores: &mut [f32]) {
        if self.causal {
            let n = self.visible(group, query + 1);
            scores[n..].fill(f32::NEG_INFINITY);
        }
    }

    fn rotated_queries<'a>(&self, row: usize, head: usize, queries: &[usize], out: &'a mut [f32]) -> &'a [f32] {
        let tokens = (values(&self.queries), self.columns[0], self.n_queries);
        self.rotated(tokens, (&self.angles[0], self.scale()), row, head, queries, out)
    }

    fn rotated_keys<'a>(&self, row: usize, head: usize, keys: &[usize], out: &'a mut [f32]) -> &'a [f32] {
        let tokens = (values(self.keys()), self.columns[1], self.n_keys);
        self.rotated(tokens, (&self.angles[1], 1.0), row, head, keys, out)
    }

    // In the first of `out`, which are returned.
    fn rotated<'a>(
        &self,
        (all, columns, n_tokens): (&[f32], Columns, usize),
        (angles, scale): (&Angles, f32),
        row: usize,
        head: usize,
        tokens: &[usize],
        out: &'a mut [f32],
    ) -> &'a [f32] {
        let d = self.head_width;
        let out = &mut out[..tokens.len() * d];
        let vectors = self.vectors((all, columns, n_tokens), row, head, tokens);
        for ((token, vector), out) in tokens.iter().zip(vectors).zip(out.chunks_exact_mut(d)) {
            let [cos, sin] = angles.at(row, n_tokens, *token, d / 2);
            math::rotate(vector, cos, sin, scale, out);
        }
        out
    }

    fn gathered_values<'a>(&self, row: usize, head: usize, keys: &[usize], out: &'a mut [f32]) -> &'a [f32] {
        let out = &mut out[..keys.len() * self.head_width];
        let vectors = self.vectors((values(self.keys()), self.columns[2], self.n_keys), row, head, keys);
        for (vector, out) in vectors.zip(out.chunks_exact_mut(self.head_width)) {
            out.copy_from_slice(vector);
        }
        out
    }

    // One head's vectors of some tokens of a row. Where those of a group stand is too irregular for a processor to guess
    // which come next, so it is told.
    fn vectors<'a>(
        &self,
        (all, columns, n_tokens): (&'a [f32], Columns, usize),
        row: usize,
        head: usize,
        tokens: &'a [usize],
    ) -> impl Iterator<Item = &'a [f32]> {
        const AHEAD: usize = 8;
        let d = self.head_width;
        let at = move |token: usize| &all[(row * n_tokens + token) * columns.row + columns.first + head * d..][..d];
        tokens.iter().enumerate().map(move |(index, token)| {
            if let Some(next) = tokens.get(index + AHEAD) {
                math::fetch(at(*next));
            }
            at(*token)
        })
    }
}

/// Numbers that several tasks write, each its own.
struct Shared(*mut f32);

// SAFETY: whoever takes a slice says why nobody else has it.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The range lies within the memory and nobody else reads or writes it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn slice(&self, start: usize, n: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), n) }
    }
}
