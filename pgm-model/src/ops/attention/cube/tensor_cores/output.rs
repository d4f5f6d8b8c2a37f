//! The output of attention.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use cubecl::prelude::*;

use super::super::layout::{LOWEST, Layout, angle_start, token_at};
use super::product::{load_rows, mma, row_max, row_sum, sums_as_lhs, zero_sums};
use super::tile::{LoadOptions, ROW_PADDING, TILE, is_visible, load_labels, load_tile, resident_tile, shares_a_label};

/// The output `[B, Q, H]` and the log-sum-exp of each query's scores `[B, h, Q]`.
#[cube(launch)]
pub(crate) fn forward<T: Float>(
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
    let q_rows = load_rows::<T, W>(
        q,
        (token_0 * q_step + first_number, token_1 * q_step + first_number),
        q_angles,
        (
            angle_start(row, query_0 as usize, n_queries, d, layout.shared_angles[0]),
            angle_start(row, query_1 as usize, n_queries, d, layout.shared_angles[0]),
        ),
        scale,
        true,
        half,
        width,
    );

    let tiles = comptime!(TILE as usize / 8);
    let row_step = comptime!(d / width + ROW_PADDING);
    let column_step = comptime!(TILE as usize / width + ROW_PADDING);
    // The first of a lane's words of a right factor that is summed over tokens, and the distance to the second. The order is
    // that of `sums_as_lhs`.
    let lane_first = if comptime!(width == 2) { t } else { 2 * t };
    let lane_second = comptime!(if width == 2 { 4usize } else { 1usize });
    let mut keys = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut values = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut tokens = Shared::<[i32]>::new_slice(TILE as usize);
    let mut labels = Shared::<[i32]>::new_slice(TILE as usize);

    let mut sums = zero_sums(d / 8);
    let mut max_0 = f32::new(LOWEST);
    let mut max_1 = f32::new(LOWEST);
    let mut sum_0 = 0.0_f32;
    let mut sum_1 = 0.0_f32;
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
                columns: false,
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
                &mut values,
                options,
            );
            let options = comptime!(LoadOptions { rotated: false, rows: false, columns: true, ..options });
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
                &mut keys,
                &mut values,
                options,
            );
            load_labels(k_sorted, row, n_keys, first, &mut tokens, &mut labels, layout.labelled);
            sync_cube();

            let mut scores = zero_sums(tiles);
            let mut tile_max_0 = f32::new(LOWEST);
            let mut tile_max_1 = f32::new(LOWEST);
            #[unroll]
            for tile in 0..tiles {
                #[unroll]
                for step in 0..comptime!(d / (8 * width)) {
                    let at = (8 * tile + g) * row_step + 8 * step + t;
                    mma::<T, W>(&q_rows, step, &keys, at, 4usize, &mut scores, tile, width);
                }
                let mut row_0 = scores[2 * tile];
                let mut row_1 = scores[2 * tile + 1];
                #[unroll]
                for e in 0..2usize {
                    let column = 8 * tile + 2 * t + e;
                    let (key, label) = (tokens[column], labels[column]);
                    let score_0 = select(
                        is_visible(query_0, resident.label_0, key, label, layout.causal),
                        row_0.extract(e),
                        LOWEST,
                    );
                    let score_1 = select(
                        is_visible(query_1, resident.label_1, key, label, layout.causal),
                        row_1.extract(e),
                        LOWEST,
                    );
                    tile_max_0 = tile_max_0.max(score_0);
                    tile_max_1 = tile_max_1.max(score_1);
                    row_0.insert(e, score_0);
                    row_1.insert(e, score_1);
                }
                scores[2 * tile] = row_0;
                scores[2 * tile + 1] = row_1;
            }
            let new_max_0 = max_0.max(row_max(tile_max_0));
            let new_max_1 = max_1.max(row_max(tile_max_1));
            let rescale_0 = (max_0 - new_max_0).exp();
            let rescale_1 = (max_1 - new_max_1).exp();
            max_0 = new_max_0;
            max_1 = new_max_1;
            sum_0 *= rescale_0;
            sum_1 *= rescale_1;
            #[unroll]
            for tile in 0..comptime!(d / 8) {
                sums[2 * tile] = sums[2 * tile] * Vector::new(rescale_0);
                sums[2 * tile + 1] = sums[2 * tile + 1] * Vector::new(rescale_1);
            }
            #[unroll]
            for tile in 0..tiles {
                let mut row_0 = scores[2 * tile];
                let mut row_1 = scores[2 * tile + 1];
                #[unroll]
                for e in 0..2usize {
                    // A hidden score has no weight, even in a row without visible keys; NaN keeps its weight.
                    let weight_0 = select(row_0.extract(e) <= LOWEST, 0.0_f32, (row_0.extract(e) - new_max_0).exp());
                    let weight_1 = select(row_1.extract(e) <= LOWEST, 0.0_f32, (row_1.extract(e) - new_max_1).exp());
                    sum_0 += weight_0;
                    sum_1 += weight_1;
                    row_0.insert(e, weight_0);
                    row_1.insert(e, weight_1);
                }
                scores[2 * tile] = row_0;
                scores[2 * tile + 1] = row_1;
            }
            let weights = sums_as_lhs::<T, W>(&scores, tiles, width);
            #[unroll]
            for step in 0..comptime!(tiles / width) {
                #[unroll]
                for tile in 0..comptime!(d / 8) {
                    let at = (8 * tile + g) * column_step + 8 * step + lane_first;
                    mma::<T, W>(&weights, step, &values, at, lane_second, &mut sums, tile, width);
                }
            }
        }
        first += comptime!(TILE as usize);
    }

    let sum_0 = row_sum(sum_0);
    let sum_1 = row_sum(sum_1);
    // A query without keys: its sum is 0, and so is its output.
    let factor_0 = select(sum_0 == 0.0, 0.0_f32, 1.0 / sum_0);
    let factor_1 = select(sum_1 == 0.0, 0.0_f32, 1.0 / sum_1);
    if resident.place_0 < n_queries {
        #[unroll]
        for tile in 0..comptime!(d / 8) {
            #[unroll]
            for e in 0..2usize {
                out[(token_0 * n_heads + head) * d + 8 * tile + 2 * t + e] = sums[2 * tile].extract(e) * factor_0;
            }
        }
        if t == 0 {
            lse[(row * n_heads + head) * n_queries + query_0 as usize] =
                select(sum_0 == 0.0, 0.0_f32, max_0 + sum_0.ln());
        }
    }
    if resident.place_1 < n_queries {
        #[unroll]
        for tile in 0..comptime!(d / 8) {
            #[unroll]
            for e in 0..2usize {
                out[(token_1 * n_heads + head) * d + 8 * tile + 2 * t + e] = sums[2 * tile + 1].extract(e) * factor_1;
            }
        }
        if t == 0 {
            lse[(row * n_heads + head) * n_queries + query_1 as usize] =
                select(sum_1 == 0.0, 0.0_f32, max_1 + sum_1.ln());
        }
    }
}
