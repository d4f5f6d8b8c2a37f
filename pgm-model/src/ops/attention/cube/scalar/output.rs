//! The output of attention.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

// B rows, Q queries, C keys, h heads, d head width, H = h d

use cubecl::prelude::*;

use super::super::layout::{LOWEST, Layout, angle_start, label_at, token_at};
use super::tile::{TILE, load_keys, load_rotated};

/// The output `[B, Q, H]` and the log-sum-exp of each query's scores, `[B, h, Q]`.
#[cube(launch)]
pub(crate) fn forward(
    q: &[f32],
    kv: &[f32],
    q_angles: &[f32],
    k_angles: &[f32],
    q_sorted: &[i32],
    k_sorted: &[i32],
    out: &mut [f32],
    lse: &mut [f32],
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
    let mut sum_of_values = Array::<f32>::new(d);
    let start = (row * n_queries + query) * q_row + q_first + head * d;
    let angle = angle_start(row, query, n_queries, d, q_shared);
    #[unroll]
    for i in 0..half {
        let (real, imaginary) = load_rotated(q, start, q_angles, angle, i, half);
        q_vector[i] = real * scale;
        q_vector[half + i] = imaginary * scale;
        sum_of_values[i] = 0.0;
        sum_of_values[half + i] = 0.0;
    }
    let mut max = f32::new(LOWEST);
    let mut sum = 0.0_f32;

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
                    #[unroll]
                    for i in 0..d {
                        score += q_vector[i] * keys[slot * d + i];
                    }
                    if score > max {
                        let rescale = (max - score).exp();
                        sum *= rescale;
                        #[unroll]
                        for i in 0..d {
                            sum_of_values[i] = sum_of_values[i] * rescale;
                        }
                        max = score;
                    }
                    let weight = (score - max).exp();
                    sum += weight;
                    #[unroll]
                    for i in 0..d {
                        sum_of_values[i] = sum_of_values[i] + weight * values[slot * d + i];
                    }
                }
            }
        }
        first += n_streamed;
    }
    if in_range {
        // A query without keys: its sum is 0, and so is its output.
        let mut factor = 0.0_f32;
        let mut log = 0.0_f32;
        if sum > 0.0 {
            factor = 1.0 / sum;
            log = max + sum.ln();
        }
        lse[(row * n_heads + head) * n_queries + query] = log;
        let start = (row * n_queries + query) * n_heads * d + head * d;
        #[unroll]
        for i in 0..d {
            out[start + i] = sum_of_values[i] * factor;
        }
    }
}
