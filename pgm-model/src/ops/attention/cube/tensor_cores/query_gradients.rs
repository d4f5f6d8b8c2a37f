//! The gradient of the queries.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use cubecl::prelude::*;

use super::super::layout::{Layout, angle_start, token_at};
use super::product::{load_rows, mma, store_rotated_grad, sums_as_lhs, zero_sums};
use super::tile::{LoadOptions, ROW_PADDING, TILE, is_visible, load_labels, load_tile, resident_tile, shares_a_label};

/// The gradient of the queries, in the columns of the queries.
#[cube(launch)]
pub(crate) fn query_grads<T: Float>(
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
    #[comptime] width: usize,
) {
    let size!(W) = width;
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let n_heads = CUBE_COUNT_Y as usize;
    let (g, t) = (UNIT_POS_PLANE as usize / 4, UNIT_POS_PLANE as usize % 4);

    let resident = resident_tile(q_sorted, row, n_queries, layout.labelled);
    let (query_0, query_1) = (resident.token_0, resident.token_1);
    let token_0 = row * n_queries + query_0 as usize;
    let token_1 = row * n_queries + query_1 as usize;

    let q_step = comptime!(layout.rows[0]);
    let first_number = comptime!(layout.firsts[0]) + head * d;
    let start_0 = token_0 * q_step + first_number;
    let start_1 = token_1 * q_step + first_number;
    let angle_0 = angle_start(row, query_0 as usize, n_queries, d, layout.shared_angles[0]);
    let angle_1 = angle_start(row, query_1 as usize, n_queries, d, layout.shared_angles[0]);
    let q_rows = load_rows::<T, W>(q, (start_0, start_1), q_angles, (angle_0, angle_1), scale, true, half, width);
    let grads = ((token_0 * n_heads + head) * d, (token_1 * n_heads + head) * d);
    let upstream = load_rows::<T, W>(grad, grads, q_angles, (angle_0, angle_1), 1.0, false, half, width);
    let stat = (row * n_heads + head) * n_queries;
    let shifts = statistics.len() / 2;
    let log_0 = statistics[stat + query_0 as usize];
    let log_1 = statistics[stat + query_1 as usize];
    let shift_0 = statistics[shifts + stat + query_0 as usize];
    let shift_1 = statistics[shifts + stat + query_1 as usize];

    let row_step = comptime!(d / width + ROW_PADDING);
    let column_step = comptime!(TILE as usize / width + ROW_PADDING);
    let lane_first = if comptime!(width == 2) { t } else { 2 * t };
    let lane_second = comptime!(if width == 2 { 4usize } else { 1usize });
    let mut keys = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut keys_by_column = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut values = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut tokens = Shared::<[i32]>::new_slice(TILE as usize);
    let mut labels = Shared::<[i32]>::new_slice(TILE as usize);

    let mut sums = zero_sums(d / 8);
    let mut first = 0_usize.runtime();
    while first < n_keys {
        let mut overlaps = shares_a_label(k_sorted, row, n_keys, first, &resident, layout.labelled);
        if comptime!(layout.causal) {
            overlaps = overlaps && token_at(k_sorted, row, n_keys, first, layout.labelled) <= resident.last;
        }
        if overlaps {
            sync_cube();
            let options = comptime!(LoadOptions {
                half,
                width,
                rotated: true,
                shared_angles: layout.shared_angles[1],
                labelled: layout.labelled,
                rows: true,
                columns: true,
            });
            let first_key = comptime!(layout.firsts[1]) + head * d;
            let first_value = comptime!(layout.firsts[2]) + head * d;
            let (k_step, v_step) = comptime!((layout.rows[1], layout.rows[2]));
            load_tile::<T, W>(
                kv,
                k_step,
                first_key,
                k_angles,
                k_sorted,
                row,
                n_keys,
                first,
                1.0,
                &mut keys,
                &mut keys_by_column,
                options,
            );
            let options = comptime!(LoadOptions { rotated: false, columns: false, ..options });
            load_tile::<T, W>(
                kv,
                v_step,
                first_value,
                k_angles,
                k_sorted,
                row,
                n_keys,
                first,
                1.0,
                &mut values,
                &mut keys_by_column,
                options,
            );
            load_labels(k_sorted, row, n_keys, first, &mut tokens, &mut labels, layout.labelled);
            sync_cube();

            // A step of tokens at a time, so that few sums are held.
            #[unroll]
            for part in 0..comptime!(TILE as usize / (8 * width)) {
                let mut scores = zero_sums(width);
                let mut products = zero_sums(width);
                #[unroll]
                for tile in 0..width {
                    #[unroll]
                    for step in 0..comptime!(d / (8 * width)) {
                        let at = (8 * (width * part + tile) + g) * row_step + 8 * step + t;
                        mma::<T, W>(&q_rows, step, &keys, at, 4usize, &mut scores, tile, width);
                        mma::<T, W>(&upstream, step, &values, at, 4usize, &mut products, tile, width);
                    }
                    let mut row_0 = scores[2 * tile];
                    let mut row_1 = scores[2 * tile + 1];
                    #[unroll]
                    for e in 0..2usize {
                        let column = 8 * (width * part + tile) + 2 * t + e;
                        let (key, label) = (tokens[column], labels[column]);
                        let score_0 = (row_0.extract(e) - log_0).exp() * (products[2 * tile].extract(e) - shift_0);
                        let score_1 = (row_1.extract(e) - log_1).exp() * (products[2 * tile + 1].extract(e) - shift_1);
                        let visible_0 = is_visible(query_0, resident.label_0, key, label, layout.causal);
                        let visible_1 = is_visible(query_1, resident.label_1, key, label, layout.causal);
                        row_0.insert(e, select(visible_0, score_0, 0.0_f32));
                        row_1.insert(e, select(visible_1, score_1, 0.0_f32));
                    }
                    scores[2 * tile] = row_0;
                    scores[2 * tile + 1] = row_1;
                }
                let score_grads = sums_as_lhs::<T, W>(&scores, width, width);
                #[unroll]
                for tile in 0..comptime!(d / 8) {
                    let at = (8 * tile + g) * column_step + 8 * part + lane_first;
                    mma::<T, W>(&score_grads, 0usize, &keys_by_column, at, lane_second, &mut sums, tile, width);
                }
            }
        }
        first += comptime!(TILE as usize);
    }
    if resident.place_0 < n_queries {
        store_rotated_grad(q_grads, start_0, q_angles, angle_0, &sums, scale, 0usize, half);
    }
    if resident.place_1 < n_queries {
        store_rotated_grad(q_grads, start_1, q_angles, angle_1, &sums, scale, 1usize, half);
    }
}
