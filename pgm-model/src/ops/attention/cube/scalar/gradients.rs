//! The gradients of attention.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

// B rows, Q queries, C keys, h heads, d head width, H = h d

use cubecl::prelude::*;

use super::super::layout::{Layout, angle_start, label_at, token_at};
use super::tile::{TILE, load_keys, load_rotated};

/// The log-sum-exp of each query and head, then the dot product of output and gradient, `[2, B, h, Q]`.
#[cube(launch)]
pub(crate) fn statistics(
    out: &[f32],
    lse: &[f32],
    grad: &[f32],
    statistics: &mut [f32],
    n_queries: u32,
    n_heads: u32,
    #[comptime] d: usize,
) {
    let index = ABSOLUTE_POS;
    if index >= lse.len() {
        terminate!();
    }
    let (n_queries, n_heads) = (n_queries as usize, n_heads as usize);
    let (query, head, row) = (index % n_queries, index / n_queries % n_heads, index / n_queries / n_heads);
    let start = ((row * n_queries + query) * n_heads + head) * d;
    let mut product = 0.0_f32;
    for i in 0..d {
        product += out[start + i] * grad[start + i];
    }
    statistics[index] = lse[index];
    statistics[lse.len() + index] = product;
}

/// The gradient of the queries, in the columns of the queries.
#[cube(launch)]
pub(crate) fn query_grads(
    q: &[f32],
    kv: &[f32],
    q_angles: &[f32],
    k_angles: &[f32],
    q_sorted: &[i32],
    k_sorted: &[i32],
    statistics: &[f32],
    grad: &[f32],
    q_grads: &mut [f32],
    n_queries: u32,
    n_keys: u32,
    scale: f32,
    #[comptime] layout: Layout,
    #[comptime] n_streamed: usize,
) {
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (q_row, q_first) = comptime!((layout.rows[0], layout.firsts[0]));
    let q_shared = comptime!(layout.shared_angles[0]);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row, unit) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize, UNIT_POS as usize);
    let n_heads = CUBE_COUNT_Y as usize;

    let place = CUBE_POS_X as usize * TILE as usize + unit;
    let in_range = place < n_queries;
    let place = place.min(n_queries - 1);
    let query = token_at(q_sorted, row, n_queries, place, layout.labelled) as usize;
    let label = label_at(q_sorted, row, n_queries, place, layout.labelled);
    let tile_first = CUBE_POS_X as usize * TILE as usize;
    let tile_last = (tile_first + TILE as usize).min(n_queries) - 1;
    let lowest = label_at(q_sorted, row, n_queries, tile_first, layout.labelled);
    let highest = label_at(q_sorted, row, n_queries, tile_last, layout.labelled);
    let last_query = token_at(q_sorted, row, n_queries, tile_last, layout.labelled);

    let mut q_vector = Array::<f32>::new(d);
    let mut upstream = Array::<f32>::new(d);
    let mut q_grad = Array::<f32>::new(d);
    let start = (row * n_queries + query) * q_row + q_first + head * d;
    let angle = angle_start(row, query, n_queries, d, q_shared);
    let grad_start = ((row * n_queries + query) * n_heads + head) * d;
    #[unroll]
    for i in 0..half {
        let (real, imaginary) = load_rotated(q, start, q_angles, angle, i, half);
        q_vector[i] = real * scale;
        q_vector[half + i] = imaginary * scale;
        upstream[i] = grad[grad_start + i];
        upstream[half + i] = grad[grad_start + half + i];
        q_grad[i] = 0.0;
        q_grad[half + i] = 0.0;
    }
    let stat = (row * n_heads + head) * n_queries + query;
    let (log, shift) = (statistics[stat], statistics[statistics.len() / 2 + stat]);

    let mut keys = Shared::<[f32]>::new_slice(n_streamed * d);
    let mut values = Shared::<[f32]>::new_slice(n_streamed * d);
    let mut streamed_tokens = Shared::<[i32]>::new_slice(n_streamed);
    let mut streamed_labels = Shared::<[i32]>::new_slice(n_streamed);
    let mut first = 0_usize.runtime();
    while first < n_keys {
        let n_loaded = (n_keys - first).min(n_streamed);
        let first_label = label_at(k_sorted, row, n_keys, first, layout.labelled);
        let last_label = label_at(k_sorted, row, n_keys, first + n_loaded - 1, layout.labelled);
        let mut overlaps = first_label <= highest && last_label >= lowest;
        if comptime!(layout.causal) {
            overlaps = overlaps && token_at(k_sorted, row, n_keys, first, layout.labelled) <= last_query;
        }
        sync_cube();
        if overlaps {
            load_keys(
                kv,
                k_angles,
                k_sorted,
                row,
                head,
                n_keys,
                first,
                n_loaded,
                &mut keys,
                &mut values,
                &mut streamed_tokens,
                &mut streamed_labels,
                layout,
            );
        }
        sync_cube();
        if overlaps {
            for slot in 0..n_loaded {
                let mut visible = streamed_labels[slot] == label;
                if comptime!(layout.causal) {
                    visible = visible && streamed_tokens[slot] <= query as i32;
                }
                if visible {
                    let mut score = 0.0_f32;
                    let mut product = 0.0_f32;
                    #[unroll]
                    for i in 0..d {
                        score += q_vector[i] * keys[slot * d + i];
                        product += upstream[i] * values[slot * d + i];
                    }
                    let score_grad = (score - log).exp() * (product - shift);
                    #[unroll]
                    for i in 0..d {
                        q_grad[i] = q_grad[i] + score_grad * keys[slot * d + i];
                    }
                }
            }
        }
        first += n_streamed;
    }
    if in_range {
        #[unroll]
        for i in 0..half {
            let (real, imaginary) = (q_grad[i] * scale, q_grad[half + i] * scale);
            let (cos, sin) = (q_angles[angle + i], q_angles[angle + half + i]);
            q_grads[start + i] = real * cos + imaginary * sin;
            q_grads[start + half + i] = imaginary * cos - real * sin;
        }
    }
}

/// The gradients of keys and values, in their columns. Here the queries stream through shared memory.
#[cube(launch)]
pub(crate) fn key_grads(
    q: &[f32],
    kv: &[f32],
    q_angles: &[f32],
    k_angles: &[f32],
    q_sorted: &[i32],
    k_sorted: &[i32],
    statistics: &[f32],
    grad: &[f32],
    k_grads: &mut [f32],
    n_queries: u32,
    n_keys: u32,
    scale: f32,
    #[comptime] layout: Layout,
    #[comptime] n_streamed: usize,
) {
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (q_row, q_first) = comptime!((layout.rows[0], layout.firsts[0]));
    let (k_row, k_first) = comptime!((layout.rows[1], layout.firsts[1]));
    let (v_row, v_first) = comptime!((layout.rows[2], layout.firsts[2]));
    let (q_shared, k_shared) = comptime!((layout.shared_angles[0], layout.shared_angles[1]));
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row, unit) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize, UNIT_POS as usize);
    let n_heads = CUBE_COUNT_Y as usize;

    let place = CUBE_POS_X as usize * TILE as usize + unit;
    let in_range = place < n_keys;
    let place = place.min(n_keys - 1);
    let key = token_at(k_sorted, row, n_keys, place, layout.labelled) as usize;
    let label = label_at(k_sorted, row, n_keys, place, layout.labelled);
    let tile_first = CUBE_POS_X as usize * TILE as usize;
    let tile_last = (tile_first + TILE as usize).min(n_keys) - 1;
    let lowest = label_at(k_sorted, row, n_keys, tile_first, layout.labelled);
    let highest = label_at(k_sorted, row, n_keys, tile_last, layout.labelled);
    let first_key = token_at(k_sorted, row, n_keys, tile_first, layout.labelled);

    let mut k_vector = Array::<f32>::new(d);
    let mut v_vector = Array::<f32>::new(d);
    let mut k_grad = Array::<f32>::new(d);
    let mut v_grad = Array::<f32>::new(d);
    let start = (row * n_keys + key) * k_row + k_first + head * d;
    let value_start = (row * n_keys + key) * v_row + v_first + head * d;
    let angle = angle_start(row, key, n_keys, d, k_shared);
    #[unroll]
    for i in 0..half {
        let (real, imaginary) = load_rotated(kv, start, k_angles, angle, i, half);
        k_vector[i] = real;
        k_vector[half + i] = imaginary;
        v_vector[i] = kv[value_start + i];
        v_vector[half + i] = kv[value_start + half + i];
        k_grad[i] = 0.0;
        k_grad[half + i] = 0.0;
        v_grad[i] = 0.0;
        v_grad[half + i] = 0.0;
    }

    let mut queries = Shared::<[f32]>::new_slice(n_streamed * d);
    let mut upstream = Shared::<[f32]>::new_slice(n_streamed * d);
    let mut streamed_tokens = Shared::<[i32]>::new_slice(n_streamed);
    let mut streamed_labels = Shared::<[i32]>::new_slice(n_streamed);
    let mut logs = Shared::<[f32]>::new_slice(n_streamed);
    let mut shifts = Shared::<[f32]>::new_slice(n_streamed);
    let mut first = 0_usize.runtime();
    while first < n_queries {
        let n_loaded = (n_queries - first).min(n_streamed);
        let first_label = label_at(q_sorted, row, n_queries, first, layout.labelled);
        let last_label = label_at(q_sorted, row, n_queries, first + n_loaded - 1, layout.labelled);
        let mut overlaps = first_label <= highest && last_label >= lowest;
        if comptime!(layout.causal) {
            overlaps =
                overlaps && token_at(q_sorted, row, n_queries, first + n_loaded - 1, layout.labelled) >= first_key;
        }
        sync_cube();
        if overlaps {
            let mut index = unit;
            while index < n_loaded * half {
                let (slot, i) = (index / half, index % half);
                let query = token_at(q_sorted, row, n_queries, first + slot, layout.labelled) as usize;
                let token = row * n_queries + query;
                let angle = angle_start(row, query, n_queries, d, q_shared);
                let (real, imaginary) = load_rotated(q, token * q_row + q_first + head * d, q_angles, angle, i, half);
                queries[slot * d + i] = real * scale;
                queries[slot * d + half + i] = imaginary * scale;
                let start = (token * n_heads + head) * d;
                upstream[slot * d + i] = grad[start + i];
                upstream[slot * d + half + i] = grad[start + half + i];
                if i == 0 {
                    let stat = (row * n_heads + head) * n_queries + query;
                    streamed_tokens[slot] = query as i32;
                    streamed_labels[slot] = label_at(q_sorted, row, n_queries, first + slot, layout.labelled);
                    logs[slot] = statistics[stat];
                    shifts[slot] = statistics[statistics.len() / 2 + stat];
                }
                index += TILE as usize;
            }
        }
        sync_cube();
        if overlaps {
            for slot in 0..n_loaded {
                let mut visible = streamed_labels[slot] == label;
                if comptime!(layout.causal) {
                    visible = visible && streamed_tokens[slot] >= key as i32;
                }
                if visible {
                    let mut score = 0.0_f32;
                    let mut product = 0.0_f32;
                    #[unroll]
                    for i in 0..d {
                        score += k_vector[i] * queries[slot * d + i];
                        product += v_vector[i] * upstream[slot * d + i];
                    }
                    let weight = (score - logs[slot]).exp();
                    let score_grad = weight * (product - shifts[slot]);
                    #[unroll]
                    for i in 0..d {
                        v_grad[i] = v_grad[i] + weight * upstream[slot * d + i];
                        k_grad[i] = k_grad[i] + score_grad * queries[slot * d + i];
                    }
                }
            }
        }
        first += n_streamed;
    }
    if in_range {
        #[unroll]
        for i in 0..half {
            let (real, imaginary) = (k_grad[i], k_grad[half + i]);
            let (cos, sin) = (k_angles[angle + i], k_angles[angle + half + i]);
            k_grads[start + i] = real * cos + imaginary * sin;
            k_grads[start + half + i] = imaginary * cos - real * sin;
            k_grads[value_start + i] = v_grad[i];
            k_grads[value_start + half + i] = v_grad[half + i];
        }
    }
}
