//! The gradients of keys and values.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use cubecl::prelude::*;

use super::super::layout::{Layout, angle_start, token_at};
use super::product::{load_rows, mma, store_rotated_grad, store_row, sums_as_lhs, zero_sums};
use super::tile::{LoadOptions, ROW_PADDING, TILE, is_visible, load_labels, load_tile, resident_tile, shares_a_label};

/// The gradients of keys and values, in their columns.
#[cube(launch)]
pub(crate) fn key_grads<T: Float>(
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
    #[comptime] width: usize,
) {
    let size!(W) = width;
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let n_heads = CUBE_COUNT_Y as usize;
    let (g, t) = (UNIT_POS_PLANE as usize / 4, UNIT_POS_PLANE as usize % 4);

    let resident = resident_tile(k_sorted, row, n_keys, layout.labelled);
    let (key_0, key_1) = (resident.token_0, resident.token_1);
    let token_0 = row * n_keys + key_0 as usize;
    let token_1 = row * n_keys + key_1 as usize;

    let (k_step, v_step) = comptime!((layout.rows[1], layout.rows[2]));
    let first_key = comptime!(layout.firsts[1]) + head * d;
    let first_value = comptime!(layout.firsts[2]) + head * d;
    let start_0 = token_0 * k_step + first_key;
    let start_1 = token_1 * k_step + first_key;
    let value_0 = token_0 * v_step + first_value;
    let value_1 = token_1 * v_step + first_value;
    let angle_0 = angle_start(row, key_0 as usize, n_keys, d, layout.shared_angles[1]);
    let angle_1 = angle_start(row, key_1 as usize, n_keys, d, layout.shared_angles[1]);
    let k_rows = load_rows::<T, W>(kv, (start_0, start_1), k_angles, (angle_0, angle_1), 1.0, true, half, width);
    let v_rows = load_rows::<T, W>(kv, (value_0, value_1), k_angles, (angle_0, angle_1), 1.0, false, half, width);

    let row_step = comptime!(d / width + ROW_PADDING);
    let column_step = comptime!(TILE as usize / width + ROW_PADDING);
    let lane_first = if comptime!(width == 2) { t } else { 2 * t };
    let lane_second = comptime!(if width == 2 { 4usize } else { 1usize });
    let mut queries = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut queries_by_column = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut upstream = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut upstream_by_column = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut tokens = Shared::<[i32]>::new_slice(TILE as usize);
    let mut labels = Shared::<[i32]>::new_slice(TILE as usize);
    let mut logs = Shared::<[f32]>::new_slice(TILE as usize);
    let mut shifts = Shared::<[f32]>::new_slice(TILE as usize);

    let mut k_grad = zero_sums(d / 8);
    let mut v_grad = zero_sums(d / 8);
    let mut first = 0_usize.runtime();
    while first < n_queries {
        let mut overlaps = shares_a_label(q_sorted, row, n_queries, first, &resident, layout.labelled);
        if comptime!(layout.causal) {
            let last = (first + comptime!(TILE as usize)).min(n_queries) - 1;
            overlaps = overlaps && token_at(q_sorted, row, n_queries, last, layout.labelled) >= resident.first;
        }
        if overlaps {
            sync_cube();
            let options = comptime!(LoadOptions {
                half,
                width,
                rotated: true,
                shared_angles: layout.shared_angles[0],
                labelled: layout.labelled,
                rows: true,
                columns: true,
            });
            let q_step = comptime!(layout.rows[0]);
            let first_number = comptime!(layout.firsts[0]) + head * d;
            load_tile::<T, W>(
                q,
                q_step,
                first_number,
                q_angles,
                q_sorted,
                row,
                n_queries,
                first,
                scale,
                &mut queries,
                &mut queries_by_column,
                options,
            );
            let options = comptime!(LoadOptions { rotated: false, ..options });
            load_tile::<T, W>(
                grad,
                n_heads * d,
                head * d,
                q_angles,
                q_sorted,
                row,
                n_queries,
                first,
                1.0,
                &mut upstream,
                &mut upstream_by_column,
                options,
            );
            load_labels(q_sorted, row, n_queries, first, &mut tokens, &mut labels, layout.labelled);
            let unit = UNIT_POS as usize;
            if unit < comptime!(TILE as usize) {
                let query =
                    token_at(q_sorted, row, n_queries, (first + unit).min(n_queries - 1), layout.labelled) as usize;
                let stat = (row * n_heads + head) * n_queries + query;
                logs[unit] = statistics[stat];
                shifts[unit] = statistics[statistics.len() / 2 + stat];
            }
            sync_cube();

            #[unroll]
            for part in 0..comptime!(TILE as usize / (8 * width)) {
                let mut scores = zero_sums(width);
                let mut products = zero_sums(width);
                #[unroll]
                for tile in 0..width {
                    #[unroll]
                    for step in 0..comptime!(d / (8 * width)) {
                        let at = (8 * (width * part + tile) + g) * row_step + 8 * step + t;
                        mma::<T, W>(&k_rows, step, &queries, at, 4usize, &mut scores, tile, width);
                        mma::<T, W>(&v_rows, step, &upstream, at, 4usize, &mut products, tile, width);
                    }
                    let mut row_0 = scores[2 * tile];
                    let mut row_1 = scores[2 * tile + 1];
                    let mut product_0 = products[2 * tile];
                    let mut product_1 = products[2 * tile + 1];
                    #[unroll]
                    for e in 0..2usize {
                        let column = 8 * (width * part + tile) + 2 * t + e;
                        let (query, label) = (tokens[column], labels[column]);
                        let (log, shift) = (logs[column], shifts[column]);
                        let visible_0 = is_visible(query, label, key_0, resident.label_0, layout.causal);
                        let visible_1 = is_visible(query, label, key_1, resident.label_1, layout.causal);
                        let weight_0 = select(visible_0, (row_0.extract(e) - log).exp(), 0.0_f32);
                        let weight_1 = select(visible_1, (row_1.extract(e) - log).exp(), 0.0_f32);
                        row_0.insert(e, weight_0);
                        row_1.insert(e, weight_1);
                        product_0.insert(e, weight_0 * (product_0.extract(e) - shift));
                        product_1.insert(e, weight_1 * (product_1.extract(e) - shift));
                    }
                    scores[2 * tile] = row_0;
                    scores[2 * tile + 1] = row_1;
                    products[2 * tile] = product_0;
                    products[2 * tile + 1] = product_1;
                }
                let weights = sums_as_lhs::<T, W>(&scores, width, width);
                let score_grads = sums_as_lhs::<T, W>(&products, width, width);
                #[unroll]
                for tile in 0..comptime!(d / 8) {
                    let at = (8 * tile + g) * column_step + 8 * part + lane_first;
                    mma::<T, W>(&weights, 0usize, &upstream_by_column, at, lane_second, &mut v_grad, tile, width);
                    mma::<T, W>(&score_grads, 0usize, &queries_by_column, at, lane_second, &mut k_grad, tile, width);
                }
            }
        }
        first += comptime!(TILE as usize);
    }
    if resident.place_0 < n_keys {
        store_rotated_grad(k_grads, start_0, k_angles, angle_0, &k_grad, 1.0, 0usize, half);
        store_row(k_grads, value_0, &v_grad, 0usize, d);
    }
    if resident.place_1 < n_keys {
        store_rotated_grad(k_grads, start_1, k_angles, angle_1, &k_grad, 1.0, 1usize, half);
        store_row(k_grads, value_1, &v_grad, 1usize, d);
    }
}
