//! Attention by group as three kernels with an online softmax: no matrix of scores is ever held.
//!
//! Tokens are taken in the order of their labels, so that a tile of queries and a tile of keys mostly share one; tiles
//! without a label in common are passed over. One unit holds one query (or, in `key_grads`, one key) and its head's
//! numbers in registers; the other side passes by in shared memory.
//!
//! Shapes: B rows, Q queries, C keys, h heads, d head width, H = h d. Angles are cosines then sines, `[B or 1, S, d]`;
//! sorted tokens are their indices, then their labels, `[B, 2 S]`.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use cubecl::prelude::*;

/// Units of a cube, so tokens of the side that stays in registers.
pub(super) const TILE: u32 = 64;
/// Below every score.
const LOWEST: f32 = -1e30;

/// Tokens of the side that passes by: two vectors each, 8 KiB of shared memory.
pub(super) fn passing(head_width: usize) -> usize {
    (1024 / head_width).clamp(1, 64)
}

/// What the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub(super) head_width: usize,
    /// Numbers from one token to the next, and where the first head's begin, of queries, keys and values.
    pub(super) rows: [usize; 3],
    pub(super) firsts: [usize; 3],
    /// Whether a query sees only itself and what comes before it.
    pub(super) causal: bool,
    /// Whether all rows have the angles of the first.
    pub(super) shared_angles: [bool; 2],
    /// Whether tokens have labels; without, each sees all, and they stand in their own order.
    pub(super) labelled: bool,
}

/// Where each token comes in the order of labels: its index and its label are written there. One unit a token.
#[cube(launch)]
pub(super) fn sort_by_label(labels: &[i32], sorted: &mut [i32], n_tokens: u32) {
    let (token, row, n) = (ABSOLUTE_POS_X as usize, CUBE_POS_Y as usize, n_tokens as usize);
    if token < n {
        let label = labels[row * n + token];
        let mut rank = 0_usize.runtime();
        for other in 0..n {
            let others = labels[row * n + other];
            if others < label || (others == label && other < token) {
                rank += 1;
            }
        }
        sorted[2 * row * n + rank] = token as i32;
        sorted[(2 * row + 1) * n + rank] = label;
    }
}

// The token at a place in the order of labels, and its label.
#[cube]
pub(super) fn token_at(sorted: &[i32], row: usize, n_tokens: usize, place: usize, #[comptime] labelled: bool) -> i32 {
    if comptime!(labelled) { sorted[2 * row * n_tokens + place] } else { place as i32 }
}

#[cube]
pub(super) fn label_at(sorted: &[i32], row: usize, n_tokens: usize, place: usize, #[comptime] labelled: bool) -> i32 {
    if comptime!(labelled) { sorted[(2 * row + 1) * n_tokens + place] } else { 0_i32.runtime() }
}

// A head's vector of one token, turned by its angles: element `i` of its first half and the one that belongs to it.
#[cube]
fn turned(x: &[f32], start: usize, angles: &[f32], angle: usize, i: usize, #[comptime] half: usize) -> (f32, f32) {
    let (real, imaginary) = (x[start + i], x[start + half + i]);
    let (cos, sin) = (angles[angle + i], angles[angle + half + i]);
    (real * cos - imaginary * sin, imaginary * cos + real * sin)
}

#[cube]
pub(super) fn angle_start(
    row: usize,
    token: usize,
    n_tokens: usize,
    #[comptime] width: usize,
    #[comptime] shared: bool,
) -> usize {
    if comptime!(shared) { token * width } else { (row * n_tokens + token) * width }
}

// Keys, turned, and values from place `first` on into shared memory.
#[cube]
fn fetch_keys(
    kv: &[f32],
    k_angles: &[f32],
    k_sorted: &[i32],
    row: usize,
    head: usize,
    n_keys: usize,
    first: usize,
    n_here: usize,
    keys: &mut Shared<[f32]>,
    values: &mut Shared<[f32]>,
    tokens: &mut Shared<[i32]>,
    labels: &mut Shared<[i32]>,
    #[comptime] layout: Layout,
) {
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (k_row, k_first) = comptime!((layout.rows[1], layout.firsts[1]));
    let (v_row, v_first) = comptime!((layout.rows[2], layout.firsts[2]));
    let shared = comptime!(layout.shared_angles[1]);
    let mut index = UNIT_POS as usize;
    while index < n_here * half {
        let (which, i) = (index / half, index % half);
        let key = token_at(k_sorted, row, n_keys, first + which, layout.labelled) as usize;
        let token = row * n_keys + key;
        let angle = angle_start(row, key, n_keys, d, shared);
        let (real, imaginary) = turned(kv, token * k_row + k_first + head * d, k_angles, angle, i, half);
        keys[which * d + i] = real;
        keys[which * d + half + i] = imaginary;
        let start = token * v_row + v_first + head * d;
        values[which * d + i] = kv[start + i];
        values[which * d + half + i] = kv[start + half + i];
        if i == 0 {
            tokens[which] = key as i32;
            labels[which] = label_at(k_sorted, row, n_keys, first + which, layout.labelled);
        }
        index += TILE as usize;
    }
}

/// The output `[B, Q, H]` and the log-sum-exp of each query's scores, `[B, h, Q]`.
#[cube(launch)]
pub(super) fn forward(
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
    #[comptime] n_passing: usize,
) {
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (q_row, q_first) = comptime!((layout.rows[0], layout.firsts[0]));
    let q_shared = comptime!(layout.shared_angles[0]);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row, unit) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize, UNIT_POS as usize);
    let n_heads = CUBE_COUNT_Y as usize;

    let place = CUBE_POS_X as usize * TILE as usize + unit;
    let present = place < n_queries;
    let place = place.min(n_queries - 1);
    let query = token_at(q_sorted, row, n_queries, place, layout.labelled) as usize;
    let label = label_at(q_sorted, row, n_queries, place, layout.labelled);
    let tile_first = CUBE_POS_X as usize * TILE as usize;
    let tile_last = (tile_first + TILE as usize).min(n_queries) - 1;
    let lowest = label_at(q_sorted, row, n_queries, tile_first, layout.labelled);
    let highest = label_at(q_sorted, row, n_queries, tile_last, layout.labelled);
    let last_query = token_at(q_sorted, row, n_queries, tile_last, layout.labelled);

    let mut mine = Array::<f32>::new(d);
    let mut sum_of_values = Array::<f32>::new(d);
    let start = (row * n_queries + query) * q_row + q_first + head * d;
    let angle = angle_start(row, query, n_queries, d, q_shared);
    #[unroll]
    for i in 0..half {
        let (real, imaginary) = turned(q, start, q_angles, angle, i, half);
        mine[i] = real * scale;
        mine[half + i] = imaginary * scale;
        sum_of_values[i] = 0.0;
        sum_of_values[half + i] = 0.0;
    }
    let mut greatest = f32::new(LOWEST);
    let mut sum = 0.0_f32;

    let mut keys = Shared::<[f32]>::new_slice(n_passing * d);
    let mut values = Shared::<[f32]>::new_slice(n_passing * d);
    let mut passing_tokens = Shared::<[i32]>::new_slice(n_passing);
    let mut passing_labels = Shared::<[i32]>::new_slice(n_passing);
    let mut first = 0_usize.runtime();
    while first < n_keys {
        let n_here = (n_keys - first).min(n_passing);
        let first_label = label_at(k_sorted, row, n_keys, first, layout.labelled);
        let last_label = label_at(k_sorted, row, n_keys, first + n_here - 1, layout.labelled);
        let mut seen = first_label <= highest && last_label >= lowest;
        if comptime!(layout.causal) {
            seen = seen && token_at(k_sorted, row, n_keys, first, layout.labelled) <= last_query;
        }
        sync_cube();
        if seen {
            fetch_keys(
                kv,
                k_angles,
                k_sorted,
                row,
                head,
                n_keys,
                first,
                n_here,
                &mut keys,
                &mut values,
                &mut passing_tokens,
                &mut passing_labels,
                layout,
            );
        }
        sync_cube();
        if seen {
            for which in 0..n_here {
                let mut visible = passing_labels[which] == label;
                if comptime!(layout.causal) {
                    visible = visible && passing_tokens[which] <= query as i32;
                }
                if visible {
                    let mut score = 0.0_f32;
                    #[unroll]
                    for i in 0..d {
                        score += mine[i] * keys[which * d + i];
                    }
                    if score > greatest {
                        let shrink = (greatest - score).exp();
                        sum *= shrink;
                        #[unroll]
                        for i in 0..d {
                            sum_of_values[i] = sum_of_values[i] * shrink;
                        }
                        greatest = score;
                    }
                    let weight = (score - greatest).exp();
                    sum += weight;
                    #[unroll]
                    for i in 0..d {
                        sum_of_values[i] = sum_of_values[i] + weight * values[which * d + i];
                    }
                }
            }
        }
        first += n_passing;
    }
    if present {
        // A query without keys: its sum is 0, and so is its output.
        let mut factor = 0.0_f32;
        let mut log = 0.0_f32;
        if sum > 0.0 {
            factor = 1.0 / sum;
            log = greatest + sum.ln();
        }
        lse[(row * n_heads + head) * n_queries + query] = log;
        let start = (row * n_queries + query) * n_heads * d + head * d;
        #[unroll]
        for i in 0..d {
            out[start + i] = sum_of_values[i] * factor;
        }
    }
}

/// Of each query and head the log-sum-exp and the product of output and gradient, `[2, B, h, Q]`.
#[cube(launch)]
pub(super) fn statistics(
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

/// The queries' gradient, into their columns of a tensor like theirs.
#[cube(launch)]
pub(super) fn query_grads(
    q: &[f32],
    kv: &[f32],
    q_angles: &[f32],
    k_angles: &[f32],
    q_sorted: &[i32],
    k_sorted: &[i32],
    statistics: &[f32],
    grad: &[f32],
    of_queries: &mut [f32],
    n_queries: u32,
    n_keys: u32,
    scale: f32,
    #[comptime] layout: Layout,
    #[comptime] n_passing: usize,
) {
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (q_row, q_first) = comptime!((layout.rows[0], layout.firsts[0]));
    let q_shared = comptime!(layout.shared_angles[0]);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row, unit) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize, UNIT_POS as usize);
    let n_heads = CUBE_COUNT_Y as usize;

    let place = CUBE_POS_X as usize * TILE as usize + unit;
    let present = place < n_queries;
    let place = place.min(n_queries - 1);
    let query = token_at(q_sorted, row, n_queries, place, layout.labelled) as usize;
    let label = label_at(q_sorted, row, n_queries, place, layout.labelled);
    let tile_first = CUBE_POS_X as usize * TILE as usize;
    let tile_last = (tile_first + TILE as usize).min(n_queries) - 1;
    let lowest = label_at(q_sorted, row, n_queries, tile_first, layout.labelled);
    let highest = label_at(q_sorted, row, n_queries, tile_last, layout.labelled);
    let last_query = token_at(q_sorted, row, n_queries, tile_last, layout.labelled);

    let mut mine = Array::<f32>::new(d);
    let mut upstream = Array::<f32>::new(d);
    let mut gradient = Array::<f32>::new(d);
    let start = (row * n_queries + query) * q_row + q_first + head * d;
    let angle = angle_start(row, query, n_queries, d, q_shared);
    let grad_start = ((row * n_queries + query) * n_heads + head) * d;
    #[unroll]
    for i in 0..half {
        let (real, imaginary) = turned(q, start, q_angles, angle, i, half);
        mine[i] = real * scale;
        mine[half + i] = imaginary * scale;
        upstream[i] = grad[grad_start + i];
        upstream[half + i] = grad[grad_start + half + i];
        gradient[i] = 0.0;
        gradient[half + i] = 0.0;
    }
    let stat = (row * n_heads + head) * n_queries + query;
    let (log, shift) = (statistics[stat], statistics[statistics.len() / 2 + stat]);

    let mut keys = Shared::<[f32]>::new_slice(n_passing * d);
    let mut values = Shared::<[f32]>::new_slice(n_passing * d);
    let mut passing_tokens = Shared::<[i32]>::new_slice(n_passing);
    let mut passing_labels = Shared::<[i32]>::new_slice(n_passing);
    let mut first = 0_usize.runtime();
    while first < n_keys {
        let n_here = (n_keys - first).min(n_passing);
        let first_label = label_at(k_sorted, row, n_keys, first, layout.labelled);
        let last_label = label_at(k_sorted, row, n_keys, first + n_here - 1, layout.labelled);
        let mut seen = first_label <= highest && last_label >= lowest;
        if comptime!(layout.causal) {
            seen = seen && token_at(k_sorted, row, n_keys, first, layout.labelled) <= last_query;
        }
        sync_cube();
        if seen {
            fetch_keys(
                kv,
                k_angles,
                k_sorted,
                row,
                head,
                n_keys,
                first,
                n_here,
                &mut keys,
                &mut values,
                &mut passing_tokens,
                &mut passing_labels,
                layout,
            );
        }
        sync_cube();
        if seen {
            for which in 0..n_here {
                let mut visible = passing_labels[which] == label;
                if comptime!(layout.causal) {
                    visible = visible && passing_tokens[which] <= query as i32;
                }
                if visible {
                    let mut score = 0.0_f32;
                    let mut product = 0.0_f32;
                    #[unroll]
                    for i in 0..d {
                        score += mine[i] * keys[which * d + i];
                        product += upstream[i] * values[which * d + i];
                    }
                    let of_score = (score - log).exp() * (product - shift);
                    #[unroll]
                    for i in 0..d {
                        gradient[i] = gradient[i] + of_score * keys[which * d + i];
                    }
                }
            }
        }
        first += n_passing;
    }
    if present {
        #[unroll]
        for i in 0..half {
            let (real, imaginary) = (gradient[i] * scale, gradient[half + i] * scale);
            let (cos, sin) = (q_angles[angle + i], q_angles[angle + half + i]);
            of_queries[start + i] = real * cos + imaginary * sin;
            of_queries[start + half + i] = imaginary * cos - real * sin;
        }
    }
}

/// The keys' and values' gradients, into their columns of a tensor like theirs: here the queries pass by.
#[cube(launch)]
pub(super) fn key_grads(
    q: &[f32],
    kv: &[f32],
    q_angles: &[f32],
    k_angles: &[f32],
    q_sorted: &[i32],
    k_sorted: &[i32],
    statistics: &[f32],
    grad: &[f32],
    of_keys: &mut [f32],
    n_queries: u32,
    n_keys: u32,
    scale: f32,
    #[comptime] layout: Layout,
    #[comptime] n_passing: usize,
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
    let present = place < n_keys;
    let place = place.min(n_keys - 1);
    let key = token_at(k_sorted, row, n_keys, place, layout.labelled) as usize;
    let label = label_at(k_sorted, row, n_keys, place, layout.labelled);
    let tile_first = CUBE_POS_X as usize * TILE as usize;
    let tile_last = (tile_first + TILE as usize).min(n_keys) - 1;
    let lowest = label_at(k_sorted, row, n_keys, tile_first, layout.labelled);
    let highest = label_at(k_sorted, row, n_keys, tile_last, layout.labelled);
    let first_key = token_at(k_sorted, row, n_keys, tile_first, layout.labelled);

    let mut mine = Array::<f32>::new(d);
    let mut value = Array::<f32>::new(d);
    let mut of_key = Array::<f32>::new(d);
    let mut of_value = Array::<f32>::new(d);
    let start = (row * n_keys + key) * k_row + k_first + head * d;
    let value_start = (row * n_keys + key) * v_row + v_first + head * d;
    let angle = angle_start(row, key, n_keys, d, k_shared);
    #[unroll]
    for i in 0..half {
        let (real, imaginary) = turned(kv, start, k_angles, angle, i, half);
        mine[i] = real;
        mine[half + i] = imaginary;
        value[i] = kv[value_start + i];
        value[half + i] = kv[value_start + half + i];
        of_key[i] = 0.0;
        of_key[half + i] = 0.0;
        of_value[i] = 0.0;
        of_value[half + i] = 0.0;
    }

    let mut queries = Shared::<[f32]>::new_slice(n_passing * d);
    let mut upstream = Shared::<[f32]>::new_slice(n_passing * d);
    let mut passing_tokens = Shared::<[i32]>::new_slice(n_passing);
    let mut passing_labels = Shared::<[i32]>::new_slice(n_passing);
    let mut logs = Shared::<[f32]>::new_slice(n_passing);
    let mut shifts = Shared::<[f32]>::new_slice(n_passing);
    let mut first = 0_usize.runtime();
    while first < n_queries {
        let n_here = (n_queries - first).min(n_passing);
        let first_label = label_at(q_sorted, row, n_queries, first, layout.labelled);
        let last_label = label_at(q_sorted, row, n_queries, first + n_here - 1, layout.labelled);
        let mut seen = first_label <= highest && last_label >= lowest;
        if comptime!(layout.causal) {
            seen = seen && token_at(q_sorted, row, n_queries, first + n_here - 1, layout.labelled) >= first_key;
        }
        sync_cube();
        if seen {
            let mut index = unit;
            while index < n_here * half {
                let (which, i) = (index / half, index % half);
                let query = token_at(q_sorted, row, n_queries, first + which, layout.labelled) as usize;
                let token = row * n_queries + query;
                let angle = angle_start(row, query, n_queries, d, q_shared);
                let (real, imaginary) = turned(q, token * q_row + q_first + head * d, q_angles, angle, i, half);
                queries[which * d + i] = real * scale;
                queries[which * d + half + i] = imaginary * scale;
                let start = (token * n_heads + head) * d;
                upstream[which * d + i] = grad[start + i];
                upstream[which * d + half + i] = grad[start + half + i];
                if i == 0 {
                    let stat = (row * n_heads + head) * n_queries + query;
                    passing_tokens[which] = query as i32;
                    passing_labels[which] = label_at(q_sorted, row, n_queries, first + which, layout.labelled);
                    logs[which] = statistics[stat];
                    shifts[which] = statistics[statistics.len() / 2 + stat];
                }
                index += TILE as usize;
            }
        }
        sync_cube();
        if seen {
            for which in 0..n_here {
                let mut visible = passing_labels[which] == label;
                if comptime!(layout.causal) {
                    visible = visible && passing_tokens[which] >= key as i32;
                }
                if visible {
                    let mut score = 0.0_f32;
                    let mut product = 0.0_f32;
                    #[unroll]
                    for i in 0..d {
                        score += mine[i] * queries[which * d + i];
                        product += value[i] * upstream[which * d + i];
                    }
                    let weight = (score - logs[which]).exp();
                    let of_score = weight * (product - shifts[which]);
                    #[unroll]
                    for i in 0..d {
                        of_value[i] = of_value[i] + weight * upstream[which * d + i];
                        of_key[i] = of_key[i] + of_score * queries[which * d + i];
                    }
                }
            }
        }
        first += n_passing;
    }
    if present {
        #[unroll]
        for i in 0..half {
            let (real, imaginary) = (of_key[i], of_key[half + i]);
            let (cos, sin) = (k_angles[angle + i], k_angles[angle + half + i]);
            of_keys[start + i] = real * cos + imaginary * sin;
            of_keys[start + half + i] = imaginary * cos - real * sin;
            of_keys[value_start + i] = of_value[i];
            of_keys[value_start + half + i] = of_value[half + i];
        }
    }
}
