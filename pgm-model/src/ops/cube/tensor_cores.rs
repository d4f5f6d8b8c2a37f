//! Attention by group on matrix units: what the kernels of `attention` do, sixteen rows of a plane at a time.
//!
//! An instruction multiplies sixteen rows by eight columns over eight words, of two numbers of half precision (PTX: `mma.m16n8k16`) or
//! one of tf32 (`m16n8k8`). A lane holds, with `g = lane / 4` and `t = lane % 4`: of the left factor the words `t` and
//! `t + 4` of the rows `g` and `g + 8`; of the right factor the words `t` and `t + 4` of column `g`; of the sums the
//! columns `2 t` and `2 t + 1` of the rows `g` and `g + 8`. So what is summed over lies side by side in shared memory,
//! and weights go from sums to left factors without leaving their lanes. Sums are float32.
//!
//! Shapes are those of `attention`; W numbers make a word.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

use super::attention::{Layout, angle_start, label_at, token_at};

/// Units of a cube: four planes, each with sixteen rows.
pub(super) const UNITS: u32 = 4 * 32;
/// Rows of a cube, and of the side that passes by.
pub(super) const TILE: u32 = 4 * 16;
/// Widest heads whose sums fit in registers.
pub(super) const WIDEST: usize = 64;
/// Below every score.
const LOWEST: f32 = -1e30;
/// The label of a place without a token.
const NOBODY: i32 = i32::MIN;
/// Words between rows of shared memory beyond what they hold, so that the lanes of a plane read from different banks.
const APART: usize = 4;

type Two = Const<2>;

// Adds to the sums of eight columns the product with one step of the left factor.
#[cube]
fn multiply<T: Float, W: Size>(
    left: &Array<Vector<T, W>>,
    #[comptime] step: usize,
    right: &Shared<[Vector<T, W>]>,
    at: usize,
    #[comptime] second: usize,
    sums: &mut Array<Vector<f32, Two>>,
    #[comptime] tile: usize,
    #[comptime] width: usize,
) {
    let matrix = MmaDefinition::<T, T, f32>::new(16usize, 8usize, 8 * width);
    let mut rows = Array::<Vector<T, W>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        rows[i] = left[4 * step + i];
    }
    let mut columns = Array::<Vector<T, W>>::new(2usize);
    columns[0] = right[at];
    columns[1] = right[at + second];
    let mut before = Array::<Vector<f32, Two>>::new(2usize);
    before[0] = sums[2 * tile];
    before[1] = sums[2 * tile + 1];
    let after = matrix.execute(&rows, &columns, &before);
    sums[2 * tile] = after[0];
    sums[2 * tile + 1] = after[1];
}

// Sums of `tiles` times eight columns, all 0.
#[cube]
fn nothing(#[comptime] tiles: usize) -> Array<Vector<f32, Two>> {
    let mut sums = Array::<Vector<f32, Two>>::new(2 * tiles);
    #[unroll]
    for i in 0..2 * tiles {
        sums[i] = Vector::new(0.0);
    }
    sums
}

// Sums as the left factor of a product over their columns; with words of one number those go in the order that the
// lanes hold, which `lane_first` and `lane_second` follow.
#[cube]
fn as_left<T: Float, W: Size>(
    sums: &Array<Vector<f32, Two>>,
    #[comptime] tiles: usize,
    #[comptime] width: usize,
) -> Array<Vector<T, W>> {
    let steps = comptime!(tiles / width);
    let mut left = Array::<Vector<T, W>>::new(4 * steps);
    #[unroll]
    for step in 0..steps {
        #[unroll]
        for i in 0..4usize {
            let mut word = Vector::<T, W>::empty();
            if comptime!(width == 2) {
                let pair = sums[4 * step + i];
                word.insert(0usize, T::cast_from(pair.extract(0usize)));
                word.insert(1usize, T::cast_from(pair.extract(1usize)));
            } else {
                let pair = sums[2 * step + i % 2];
                word.insert(0usize, T::cast_from(pair.extract(i / 2)));
            }
            left[4 * step + i] = word;
        }
    }
    left
}

// A head's numbers of two tokens as rows of a left factor, multiplied by `factor` and turned if they turn.
#[cube]
fn rows_of<T: Float, W: Size>(
    x: &[f32],
    starts: (usize, usize),
    angles: &[f32],
    angle: (usize, usize),
    factor: f32,
    #[comptime] turns: bool,
    #[comptime] half: usize,
    #[comptime] width: usize,
) -> Array<Vector<T, W>> {
    let t = UNIT_POS_PLANE as usize % 4;
    let steps = comptime!(half / (8 * width));
    let mut left = Array::<Vector<T, W>>::new(8 * steps);
    #[unroll]
    for step in 0..steps {
        #[unroll]
        for part in 0..2usize {
            let mut low_0 = Vector::<T, W>::empty();
            let mut low_1 = Vector::<T, W>::empty();
            let mut high_0 = Vector::<T, W>::empty();
            let mut high_1 = Vector::<T, W>::empty();
            #[unroll]
            for e in 0..width {
                let i = 8 * width * step + 4 * width * part + width * t + e;
                let (low, high) = pair(x, starts.0, angles, angle.0, i, turns, half);
                low_0.insert(e, T::cast_from(low * factor));
                high_0.insert(e, T::cast_from(high * factor));
                let (low, high) = pair(x, starts.1, angles, angle.1, i, turns, half);
                low_1.insert(e, T::cast_from(low * factor));
                high_1.insert(e, T::cast_from(high * factor));
            }
            left[4 * step + 2 * part] = low_0;
            left[4 * step + 2 * part + 1] = low_1;
            left[4 * (steps + step) + 2 * part] = high_0;
            left[4 * (steps + step) + 2 * part + 1] = high_1;
        }
    }
    left
}

// Element `i` of the first half and the one that belongs to it, turned or not.
#[cube]
fn pair(
    x: &[f32],
    start: usize,
    angles: &[f32],
    angle: usize,
    i: usize,
    #[comptime] turns: bool,
    #[comptime] half: usize,
) -> (f32, f32) {
    let (real, imaginary) = (x[start + i], x[start + half + i]);
    if comptime!(turns) {
        let (cos, sin) = (angles[angle + i], angles[angle + half + i]);
        (real * cos - imaginary * sin, imaginary * cos + real * sin)
    } else {
        (real, imaginary)
    }
}

// A head's numbers of the tokens that pass by, from place `first` on: in `rows` a token's numbers side by side, in
// `columns` a number of all tokens. Places without a token hold zeros.
#[cube]
fn fetch<T: Float, W: Size>(
    x: &[f32],
    x_step: usize,
    x_first: usize,
    angles: &[f32],
    sorted: &[i32],
    row: usize,
    n_tokens: usize,
    first: usize,
    factor: f32,
    rows: &mut Shared<[Vector<T, W>]>,
    columns: &mut Shared<[Vector<T, W>]>,
    #[comptime] what: Fetch,
) {
    let (half, width) = comptime!((what.half, what.width));
    let groups = comptime!(half / width);
    let row_step = comptime!(2 * half / width + APART);
    let column_step = comptime!(TILE as usize / width + APART);
    let mut index = UNIT_POS as usize;
    while index < comptime!(TILE as usize / width * groups) {
        let (place, i) = (index / groups * width, index % groups * width);
        let mut low_of = Array::<Vector<T, W>>::new(width);
        let mut high_of = Array::<Vector<T, W>>::new(width);
        #[unroll]
        for f in 0..width {
            low_of[f] = Vector::empty();
            high_of[f] = Vector::empty();
        }
        #[unroll]
        for e in 0..width {
            let at = first + place + e;
            let token = token_at(sorted, row, n_tokens, at.min(n_tokens - 1), what.labelled) as usize;
            let start = (row * n_tokens + token) * x_step + x_first;
            let angle = angle_start(row, token, n_tokens, 2 * half, what.shared_angles);
            let mut low_row = Vector::<T, W>::empty();
            let mut high_row = Vector::<T, W>::empty();
            #[unroll]
            for f in 0..width {
                let (low, high) = pair(x, start, angles, angle, i + f, what.turns, half);
                let present = at < n_tokens;
                let low = T::cast_from(select(present, low * factor, 0.0_f32));
                let high = T::cast_from(select(present, high * factor, 0.0_f32));
                low_row.insert(f, low);
                high_row.insert(f, high);
                let mut low_column = low_of[f];
                let mut high_column = high_of[f];
                low_column.insert(e, low);
                high_column.insert(e, high);
                low_of[f] = low_column;
                high_of[f] = high_column;
            }
            if comptime!(what.rows) {
                rows[(place + e) * row_step + i / width] = low_row;
                rows[(place + e) * row_step + (half + i) / width] = high_row;
            }
        }
        if comptime!(what.columns) {
            #[unroll]
            for f in 0..width {
                columns[(i + f) * column_step + place / width] = low_of[f];
                columns[(half + i + f) * column_step + place / width] = high_of[f];
            }
        }
        index += comptime!(UNITS as usize);
    }
}

/// How `fetch` puts down what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fetch {
    half: usize,
    width: usize,
    turns: bool,
    shared_angles: bool,
    labelled: bool,
    rows: bool,
    columns: bool,
}

// The side that stays: the places of a lane's two rows, their tokens and labels, the least and the greatest label of the
// whole cube's tile, its first and its last token.
#[derive(CubeType)]
struct Stay {
    place_0: usize,
    place_1: usize,
    token_0: i32,
    token_1: i32,
    label_0: i32,
    label_1: i32,
    lowest: i32,
    highest: i32,
    first: i32,
    last: i32,
}

#[cube]
fn staying(sorted: &[i32], row: usize, n_tokens: usize, #[comptime] labelled: bool) -> Stay {
    let first = CUBE_POS_X as usize * comptime!(TILE as usize);
    let last = (first + comptime!(TILE as usize)).min(n_tokens) - 1;
    let place_0 = first + UNIT_POS as usize / 32 * 16 + UNIT_POS_PLANE as usize / 4;
    let place_1 = place_0 + 8;
    let (at_0, at_1) = (place_0.min(n_tokens - 1), place_1.min(n_tokens - 1));
    Stay {
        place_0,
        place_1,
        token_0: token_at(sorted, row, n_tokens, at_0, labelled),
        token_1: token_at(sorted, row, n_tokens, at_1, labelled),
        label_0: label_at(sorted, row, n_tokens, at_0, labelled),
        label_1: label_at(sorted, row, n_tokens, at_1, labelled),
        lowest: label_at(sorted, row, n_tokens, first, labelled),
        highest: label_at(sorted, row, n_tokens, last, labelled),
        first: token_at(sorted, row, n_tokens, first, labelled),
        last: token_at(sorted, row, n_tokens, last, labelled),
    }
}

// Labels and places in the row of the tokens that pass by.
#[cube]
fn fetch_labels(
    sorted: &[i32],
    row: usize,
    n_tokens: usize,
    first: usize,
    tokens: &mut Shared<[i32]>,
    labels: &mut Shared<[i32]>,
    #[comptime] labelled: bool,
) {
    let unit = UNIT_POS as usize;
    if unit < comptime!(TILE as usize) {
        let at = first + unit;
        let place = at.min(n_tokens - 1);
        tokens[unit] = token_at(sorted, row, n_tokens, place, labelled);
        labels[unit] = select(at < n_tokens, label_at(sorted, row, n_tokens, place, labelled), NOBODY);
    }
}

// Whether the tile of the side that passes by has a label of the tile that stays.
#[cube]
fn meets(sorted: &[i32], row: usize, n_tokens: usize, first: usize, stay: &Stay, #[comptime] labelled: bool) -> bool {
    let last = (first + comptime!(TILE as usize)).min(n_tokens) - 1;
    label_at(sorted, row, n_tokens, first, labelled) <= stay.highest
        && label_at(sorted, row, n_tokens, last, labelled) >= stay.lowest
}

// Whether a query sees a key.
#[cube]
fn sees(query: i32, query_label: i32, key: i32, key_label: i32, #[comptime] causal: bool) -> bool {
    let same = query_label == key_label;
    if comptime!(causal) { same && key <= query } else { same }
}

// The greatest, or the sum, of what the four lanes of a row hold.
#[cube]
fn greatest_of_row(value: f32) -> f32 {
    let value = value.max(plane_shuffle_xor(value, 1));
    value.max(plane_shuffle_xor(value, 2))
}

#[cube]
fn sum_of_row(value: f32) -> f32 {
    let value = value + plane_shuffle_xor(value, 1);
    value + plane_shuffle_xor(value, 2)
}

/// As `attention::forward`.
#[cube(launch)]
pub(super) fn forward<T: Float>(
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

    let stay = staying(q_sorted, row, n_queries, layout.labelled);
    let (query_0, query_1) = (stay.token_0, stay.token_1);
    let token_0 = row * n_queries + query_0 as usize;
    let token_1 = row * n_queries + query_1 as usize;

    let q_step = comptime!(layout.rows[0]);
    let first_number = comptime!(layout.firsts[0]) + head * d;
    let mine = rows_of::<T, W>(
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
    let row_step = comptime!(d / width + APART);
    let column_step = comptime!(TILE as usize / width + APART);
    // Where a lane's words of a right factor are that is summed over tokens, in the order of `as_left`.
    let lane_first = if comptime!(width == 2) { t } else { 2 * t };
    let lane_second = comptime!(if width == 2 { 4usize } else { 1usize });
    let mut keys = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut values = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut tokens = Shared::<[i32]>::new_slice(TILE as usize);
    let mut labels = Shared::<[i32]>::new_slice(TILE as usize);

    let mut sums = nothing(d / 8);
    let mut greatest_0 = f32::new(LOWEST);
    let mut greatest_1 = f32::new(LOWEST);
    let mut sum_0 = 0.0_f32;
    let mut sum_1 = 0.0_f32;
    let mut first = 0_usize.runtime();
    while first < n_keys {
        let mut seen = meets(k_sorted, row, n_keys, first, &stay, layout.labelled);
        if comptime!(layout.causal) {
            seen = seen && token_at(k_sorted, row, n_keys, first, layout.labelled) <= stay.last;
        }
        if seen {
            sync_cube();
            let what = comptime!(Fetch {
                half,
                width,
                turns: true,
                shared_angles: layout.shared_angles[1],
                labelled: layout.labelled,
                rows: true,
                columns: false,
            });
            let first_key = comptime!(layout.firsts[1]) + head * d;
            let first_value = comptime!(layout.firsts[2]) + head * d;
            let (k_step, v_step) = comptime!((layout.rows[1], layout.rows[2]));
            fetch::<T, W>(
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
                what,
            );
            let what = comptime!(Fetch { turns: false, rows: false, columns: true, ..what });
            fetch::<T, W>(
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
                what,
            );
            fetch_labels(k_sorted, row, n_keys, first, &mut tokens, &mut labels, layout.labelled);
            sync_cube();

            let mut scores = nothing(tiles);
            let mut most_0 = f32::new(LOWEST);
            let mut most_1 = f32::new(LOWEST);
            #[unroll]
            for tile in 0..tiles {
                #[unroll]
                for step in 0..comptime!(d / (8 * width)) {
                    let at = (8 * tile + g) * row_step + 8 * step + t;
                    multiply::<T, W>(&mine, step, &keys, at, 4usize, &mut scores, tile, width);
                }
                let mut of_0 = scores[2 * tile];
                let mut of_1 = scores[2 * tile + 1];
                #[unroll]
                for e in 0..2usize {
                    let column = 8 * tile + 2 * t + e;
                    let (key, label) = (tokens[column], labels[column]);
                    let score_0 =
                        select(sees(query_0, stay.label_0, key, label, layout.causal), of_0.extract(e), LOWEST);
                    let score_1 =
                        select(sees(query_1, stay.label_1, key, label, layout.causal), of_1.extract(e), LOWEST);
                    most_0 = most_0.max(score_0);
                    most_1 = most_1.max(score_1);
                    of_0.insert(e, score_0);
                    of_1.insert(e, score_1);
                }
                scores[2 * tile] = of_0;
                scores[2 * tile + 1] = of_1;
            }
            let now_0 = greatest_0.max(greatest_of_row(most_0));
            let now_1 = greatest_1.max(greatest_of_row(most_1));
            let shrink_0 = (greatest_0 - now_0).exp();
            let shrink_1 = (greatest_1 - now_1).exp();
            greatest_0 = now_0;
            greatest_1 = now_1;
            sum_0 *= shrink_0;
            sum_1 *= shrink_1;
            #[unroll]
            for tile in 0..comptime!(d / 8) {
                sums[2 * tile] = sums[2 * tile] * Vector::new(shrink_0);
                sums[2 * tile + 1] = sums[2 * tile + 1] * Vector::new(shrink_1);
            }
            #[unroll]
            for tile in 0..tiles {
                let mut of_0 = scores[2 * tile];
                let mut of_1 = scores[2 * tile + 1];
                #[unroll]
                for e in 0..2usize {
                    // A hidden score counts for nothing even where none is seen; one that is not a number counts.
                    let weight_0 = select(of_0.extract(e) <= LOWEST, 0.0_f32, (of_0.extract(e) - now_0).exp());
                    let weight_1 = select(of_1.extract(e) <= LOWEST, 0.0_f32, (of_1.extract(e) - now_1).exp());
                    sum_0 += weight_0;
                    sum_1 += weight_1;
                    of_0.insert(e, weight_0);
                    of_1.insert(e, weight_1);
                }
                scores[2 * tile] = of_0;
                scores[2 * tile + 1] = of_1;
            }
            let weights = as_left::<T, W>(&scores, tiles, width);
            #[unroll]
            for step in 0..comptime!(tiles / width) {
                #[unroll]
                for tile in 0..comptime!(d / 8) {
                    let at = (8 * tile + g) * column_step + 8 * step + lane_first;
                    multiply::<T, W>(&weights, step, &values, at, lane_second, &mut sums, tile, width);
                }
            }
        }
        first += comptime!(TILE as usize);
    }

    let sum_0 = sum_of_row(sum_0);
    let sum_1 = sum_of_row(sum_1);
    // A query without keys: its sum is 0, and so is its output.
    let factor_0 = select(sum_0 == 0.0, 0.0_f32, 1.0 / sum_0);
    let factor_1 = select(sum_1 == 0.0, 0.0_f32, 1.0 / sum_1);
    if stay.place_0 < n_queries {
        #[unroll]
        for tile in 0..comptime!(d / 8) {
            #[unroll]
            for e in 0..2usize {
                out[(token_0 * n_heads + head) * d + 8 * tile + 2 * t + e] = sums[2 * tile].extract(e) * factor_0;
            }
        }
        if t == 0 {
            lse[(row * n_heads + head) * n_queries + query_0 as usize] =
                select(sum_0 == 0.0, 0.0_f32, greatest_0 + sum_0.ln());
        }
    }
    if stay.place_1 < n_queries {
        #[unroll]
        for tile in 0..comptime!(d / 8) {
            #[unroll]
            for e in 0..2usize {
                out[(token_1 * n_heads + head) * d + 8 * tile + 2 * t + e] = sums[2 * tile + 1].extract(e) * factor_1;
            }
        }
        if t == 0 {
            lse[(row * n_heads + head) * n_queries + query_1 as usize] =
                select(sum_1 == 0.0, 0.0_f32, greatest_1 + sum_1.ln());
        }
    }
}

// The gradient of vectors that were multiplied by `factor` and turned, of one row of sums, to where `start` says.
#[cube]
fn put_turned(
    to: &mut [f32],
    start: usize,
    angles: &[f32],
    angle: usize,
    sums: &Array<Vector<f32, Two>>,
    factor: f32,
    #[comptime] second: usize,
    #[comptime] half: usize,
) {
    let t = UNIT_POS_PLANE as usize % 4;
    #[unroll]
    for tile in 0..comptime!(half / 8) {
        #[unroll]
        for e in 0..2usize {
            let i = 8 * tile + 2 * t + e;
            let real = sums[2 * tile + second].extract(e) * factor;
            let imaginary = sums[2 * (half / 8 + tile) + second].extract(e) * factor;
            let (cos, sin) = (angles[angle + i], angles[angle + half + i]);
            to[start + i] = real * cos + imaginary * sin;
            to[start + half + i] = imaginary * cos - real * sin;
        }
    }
}

/// As `attention::query_grads`.
#[cube(launch)]
pub(super) fn query_grads<T: Float>(
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
    #[comptime] width: usize,
) {
    let size!(W) = width;
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let n_heads = CUBE_COUNT_Y as usize;
    let (g, t) = (UNIT_POS_PLANE as usize / 4, UNIT_POS_PLANE as usize % 4);

    let stay = staying(q_sorted, row, n_queries, layout.labelled);
    let (query_0, query_1) = (stay.token_0, stay.token_1);
    let token_0 = row * n_queries + query_0 as usize;
    let token_1 = row * n_queries + query_1 as usize;

    let q_step = comptime!(layout.rows[0]);
    let first_number = comptime!(layout.firsts[0]) + head * d;
    let start_0 = token_0 * q_step + first_number;
    let start_1 = token_1 * q_step + first_number;
    let angle_0 = angle_start(row, query_0 as usize, n_queries, d, layout.shared_angles[0]);
    let angle_1 = angle_start(row, query_1 as usize, n_queries, d, layout.shared_angles[0]);
    let mine = rows_of::<T, W>(q, (start_0, start_1), q_angles, (angle_0, angle_1), scale, true, half, width);
    let grads = ((token_0 * n_heads + head) * d, (token_1 * n_heads + head) * d);
    let upstream = rows_of::<T, W>(grad, grads, q_angles, (angle_0, angle_1), 1.0, false, half, width);
    let stat = (row * n_heads + head) * n_queries;
    let shifts = statistics.len() / 2;
    let log_0 = statistics[stat + query_0 as usize];
    let log_1 = statistics[stat + query_1 as usize];
    let shift_0 = statistics[shifts + stat + query_0 as usize];
    let shift_1 = statistics[shifts + stat + query_1 as usize];

    let row_step = comptime!(d / width + APART);
    let column_step = comptime!(TILE as usize / width + APART);
    let lane_first = if comptime!(width == 2) { t } else { 2 * t };
    let lane_second = comptime!(if width == 2 { 4usize } else { 1usize });
    let mut keys = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut keys_across = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut values = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut tokens = Shared::<[i32]>::new_slice(TILE as usize);
    let mut labels = Shared::<[i32]>::new_slice(TILE as usize);

    let mut sums = nothing(d / 8);
    let mut first = 0_usize.runtime();
    while first < n_keys {
        let mut seen = meets(k_sorted, row, n_keys, first, &stay, layout.labelled);
        if comptime!(layout.causal) {
            seen = seen && token_at(k_sorted, row, n_keys, first, layout.labelled) <= stay.last;
        }
        if seen {
            sync_cube();
            let what = comptime!(Fetch {
                half,
                width,
                turns: true,
                shared_angles: layout.shared_angles[1],
                labelled: layout.labelled,
                rows: true,
                columns: true,
            });
            let first_key = comptime!(layout.firsts[1]) + head * d;
            let first_value = comptime!(layout.firsts[2]) + head * d;
            let (k_step, v_step) = comptime!((layout.rows[1], layout.rows[2]));
            fetch::<T, W>(
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
                &mut keys_across,
                what,
            );
            let what = comptime!(Fetch { turns: false, columns: false, ..what });
            fetch::<T, W>(
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
                &mut keys_across,
                what,
            );
            fetch_labels(k_sorted, row, n_keys, first, &mut tokens, &mut labels, layout.labelled);
            sync_cube();

            // A step of tokens at a time, so that few sums are held.
            #[unroll]
            for part in 0..comptime!(TILE as usize / (8 * width)) {
                let mut scores = nothing(width);
                let mut products = nothing(width);
                #[unroll]
                for tile in 0..width {
                    #[unroll]
                    for step in 0..comptime!(d / (8 * width)) {
                        let at = (8 * (width * part + tile) + g) * row_step + 8 * step + t;
                        multiply::<T, W>(&mine, step, &keys, at, 4usize, &mut scores, tile, width);
                        multiply::<T, W>(&upstream, step, &values, at, 4usize, &mut products, tile, width);
                    }
                    let mut of_0 = scores[2 * tile];
                    let mut of_1 = scores[2 * tile + 1];
                    #[unroll]
                    for e in 0..2usize {
                        let column = 8 * (width * part + tile) + 2 * t + e;
                        let (key, label) = (tokens[column], labels[column]);
                        let score_0 = (of_0.extract(e) - log_0).exp() * (products[2 * tile].extract(e) - shift_0);
                        let score_1 = (of_1.extract(e) - log_1).exp() * (products[2 * tile + 1].extract(e) - shift_1);
                        let sees_0 = sees(query_0, stay.label_0, key, label, layout.causal);
                        let sees_1 = sees(query_1, stay.label_1, key, label, layout.causal);
                        of_0.insert(e, select(sees_0, score_0, 0.0_f32));
                        of_1.insert(e, select(sees_1, score_1, 0.0_f32));
                    }
                    scores[2 * tile] = of_0;
                    scores[2 * tile + 1] = of_1;
                }
                let of_scores = as_left::<T, W>(&scores, width, width);
                #[unroll]
                for tile in 0..comptime!(d / 8) {
                    let at = (8 * tile + g) * column_step + 8 * part + lane_first;
                    multiply::<T, W>(&of_scores, 0usize, &keys_across, at, lane_second, &mut sums, tile, width);
                }
            }
        }
        first += comptime!(TILE as usize);
    }
    if stay.place_0 < n_queries {
        put_turned(of_queries, start_0, q_angles, angle_0, &sums, scale, 0usize, half);
    }
    if stay.place_1 < n_queries {
        put_turned(of_queries, start_1, q_angles, angle_1, &sums, scale, 1usize, half);
    }
}

/// As `attention::key_grads`.
#[cube(launch)]
pub(super) fn key_grads<T: Float>(
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
    #[comptime] width: usize,
) {
    let size!(W) = width;
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (n_queries, n_keys) = (n_queries as usize, n_keys as usize);
    let (head, row) = (CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let n_heads = CUBE_COUNT_Y as usize;
    let (g, t) = (UNIT_POS_PLANE as usize / 4, UNIT_POS_PLANE as usize % 4);

    let stay = staying(k_sorted, row, n_keys, layout.labelled);
    let (key_0, key_1) = (stay.token_0, stay.token_1);
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
    let mine = rows_of::<T, W>(kv, (start_0, start_1), k_angles, (angle_0, angle_1), 1.0, true, half, width);
    let value = rows_of::<T, W>(kv, (value_0, value_1), k_angles, (angle_0, angle_1), 1.0, false, half, width);

    let row_step = comptime!(d / width + APART);
    let column_step = comptime!(TILE as usize / width + APART);
    let lane_first = if comptime!(width == 2) { t } else { 2 * t };
    let lane_second = comptime!(if width == 2 { 4usize } else { 1usize });
    let mut queries = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut queries_across = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut upstream = Shared::<[Vector<T, W>]>::new_slice(TILE as usize * row_step);
    let mut upstream_across = Shared::<[Vector<T, W>]>::new_slice(d * column_step);
    let mut tokens = Shared::<[i32]>::new_slice(TILE as usize);
    let mut labels = Shared::<[i32]>::new_slice(TILE as usize);
    let mut logs = Shared::<[f32]>::new_slice(TILE as usize);
    let mut shifts = Shared::<[f32]>::new_slice(TILE as usize);

    let mut of_key = nothing(d / 8);
    let mut of_value = nothing(d / 8);
    let mut first = 0_usize.runtime();
    while first < n_queries {
        let mut seen = meets(q_sorted, row, n_queries, first, &stay, layout.labelled);
        if comptime!(layout.causal) {
            let last = (first + comptime!(TILE as usize)).min(n_queries) - 1;
            seen = seen && token_at(q_sorted, row, n_queries, last, layout.labelled) >= stay.first;
        }
        if seen {
            sync_cube();
            let what = comptime!(Fetch {
                half,
                width,
                turns: true,
                shared_angles: layout.shared_angles[0],
                labelled: layout.labelled,
                rows: true,
                columns: true,
            });
            let q_step = comptime!(layout.rows[0]);
            let first_number = comptime!(layout.firsts[0]) + head * d;
            fetch::<T, W>(
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
                &mut queries_across,
                what,
            );
            let what = comptime!(Fetch { turns: false, ..what });
            fetch::<T, W>(
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
                &mut upstream_across,
                what,
            );
            fetch_labels(q_sorted, row, n_queries, first, &mut tokens, &mut labels, layout.labelled);
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
                let mut scores = nothing(width);
                let mut products = nothing(width);
                #[unroll]
                for tile in 0..width {
                    #[unroll]
                    for step in 0..comptime!(d / (8 * width)) {
                        let at = (8 * (width * part + tile) + g) * row_step + 8 * step + t;
                        multiply::<T, W>(&mine, step, &queries, at, 4usize, &mut scores, tile, width);
                        multiply::<T, W>(&value, step, &upstream, at, 4usize, &mut products, tile, width);
                    }
                    let mut of_0 = scores[2 * tile];
                    let mut of_1 = scores[2 * tile + 1];
                    let mut product_0 = products[2 * tile];
                    let mut product_1 = products[2 * tile + 1];
                    #[unroll]
                    for e in 0..2usize {
                        let column = 8 * (width * part + tile) + 2 * t + e;
                        let (query, label) = (tokens[column], labels[column]);
                        let (log, shift) = (logs[column], shifts[column]);
                        let sees_0 = sees(query, label, key_0, stay.label_0, layout.causal);
                        let sees_1 = sees(query, label, key_1, stay.label_1, layout.causal);
                        let weight_0 = select(sees_0, (of_0.extract(e) - log).exp(), 0.0_f32);
                        let weight_1 = select(sees_1, (of_1.extract(e) - log).exp(), 0.0_f32);
                        of_0.insert(e, weight_0);
                        of_1.insert(e, weight_1);
                        product_0.insert(e, weight_0 * (product_0.extract(e) - shift));
                        product_1.insert(e, weight_1 * (product_1.extract(e) - shift));
                    }
                    scores[2 * tile] = of_0;
                    scores[2 * tile + 1] = of_1;
                    products[2 * tile] = product_0;
                    products[2 * tile + 1] = product_1;
                }
                let weights = as_left::<T, W>(&scores, width, width);
                let of_scores = as_left::<T, W>(&products, width, width);
                #[unroll]
                for tile in 0..comptime!(d / 8) {
                    let at = (8 * tile + g) * column_step + 8 * part + lane_first;
                    multiply::<T, W>(&weights, 0usize, &upstream_across, at, lane_second, &mut of_value, tile, width);
                    multiply::<T, W>(&of_scores, 0usize, &queries_across, at, lane_second, &mut of_key, tile, width);
                }
            }
        }
        first += comptime!(TILE as usize);
    }
    if stay.place_0 < n_keys {
        put_turned(of_keys, start_0, k_angles, angle_0, &of_key, 1.0, 0usize, half);
        put(of_keys, value_0, &of_value, 0usize, d);
    }
    if stay.place_1 < n_keys {
        put_turned(of_keys, start_1, k_angles, angle_1, &of_key, 1.0, 1usize, half);
        put(of_keys, value_1, &of_value, 1usize, d);
    }
}

// One row of sums to where `start` says.
#[cube]
fn put(to: &mut [f32], start: usize, sums: &Array<Vector<f32, Two>>, #[comptime] second: usize, #[comptime] d: usize) {
    let t = UNIT_POS_PLANE as usize % 4;
    #[unroll]
    for tile in 0..comptime!(d / 8) {
        #[unroll]
        for e in 0..2usize {
            to[start + 8 * tile + 2 * t + e] = sums[2 * tile + second].extract(e);
        }
    }
}
