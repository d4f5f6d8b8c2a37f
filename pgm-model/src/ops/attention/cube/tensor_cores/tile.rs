//! Tiles of tokens: the resident side in registers, and the streamed side in shared memory.
#![allow(clippy::too_many_arguments)]

use cubecl::prelude::*;

use super::super::layout::{Layout, angle_start, label_at, lowest_seen, sees, token_at};
use super::mma::load_pair;

/// Units of a cube: four planes, each with sixteen rows.
pub(crate) const UNITS: u32 = 4 * 32;
/// Rows of a cube, and of a tile of the streamed side.
pub(crate) const TILE: u32 = 4 * 16;
/// Widest heads whose sums fit in registers.
pub(crate) const MAX_HEAD_WIDTH: usize = 64;
/// The label of a place without a token.
const NO_LABEL: i32 = i32::MIN;
/// Words of padding behind rows of shared memory, so that the lanes of a plane read from different banks.
pub(crate) const ROW_PADDING: usize = 4;

/// Loads one head's vectors of the tokens from place `first` on into shared memory: in `rows` the numbers of a token are
/// side by side, in `columns` one number of all tokens. Places without a token hold zeros.
#[cube]
pub(crate) fn load_tile<T: Float, W: Size>(
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
    #[comptime] options: LoadOptions,
) {
    let (half, width) = comptime!((options.half, options.width));
    let groups = comptime!(half / width);
    let row_step = comptime!(2 * half / width + ROW_PADDING);
    let column_step = comptime!(TILE as usize / width + ROW_PADDING);
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
            let token = token_at(sorted, row, n_tokens, at.min(n_tokens - 1), options.labelled) as usize;
            let start = (row * n_tokens + token) * x_step + x_first;
            let angle = angle_start(row, token, n_tokens, 2 * half, options.shared_angles);
            let mut low_row = Vector::<T, W>::empty();
            let mut high_row = Vector::<T, W>::empty();
            #[unroll]
            for f in 0..width {
                let (low, high) = load_pair(x, start, angles, angle, i + f, options.rotated, half);
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
            if comptime!(options.rows) {
                rows[(place + e) * row_step + i / width] = low_row;
                rows[(place + e) * row_step + (half + i) / width] = high_row;
            }
        }
        if comptime!(options.columns) {
            #[unroll]
            for f in 0..width {
                columns[(i + f) * column_step + place / width] = low_of[f];
                columns[(half + i + f) * column_step + place / width] = high_of[f];
            }
        }
        index += comptime!(UNITS as usize);
    }
}

/// How [`load_tile`] reads vectors and writes them to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LoadOptions {
    /// Half of the head's width.
    pub(crate) half: usize,
    /// Numbers in a word.
    pub(crate) width: usize,
    /// Whether vectors are rotated by their angles.
    pub(crate) rotated: bool,
    /// Whether all rows have the same angles.
    pub(crate) shared_angles: bool,
    pub(crate) labelled: bool,
    /// Whether `rows` is written.
    pub(crate) rows: bool,
    /// Whether `columns` is written.
    pub(crate) columns: bool,
}

/// The tile that stays in registers. A lane holds place, token and label of its two rows. The cube shares the minimum and
/// maximum label of the tile, and its first and last token.
#[derive(CubeType)]
pub(crate) struct ResidentTile {
    pub(crate) place_0: usize,
    pub(crate) place_1: usize,
    pub(crate) token_0: i32,
    pub(crate) token_1: i32,
    pub(crate) label_0: i32,
    pub(crate) label_1: i32,
    pub(crate) lowest: i32,
    pub(crate) highest: i32,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

/// This cube's tile of the side that stays in registers.
#[cube]
pub(crate) fn resident_tile(sorted: &[i32], row: usize, n_tokens: usize, #[comptime] labelled: bool) -> ResidentTile {
    let first = CUBE_POS_X as usize * comptime!(TILE as usize);
    let last = (first + comptime!(TILE as usize)).min(n_tokens) - 1;
    let place_0 = first + UNIT_POS as usize / 32 * 16 + UNIT_POS_PLANE as usize / 4;
    let place_1 = place_0 + 8;
    let (at_0, at_1) = (place_0.min(n_tokens - 1), place_1.min(n_tokens - 1));
    ResidentTile {
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

/// Loads tokens and labels of the side that streams through shared memory.
#[cube]
pub(crate) fn load_labels(
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
        labels[unit] = select(at < n_tokens, label_at(sorted, row, n_tokens, place, labelled), NO_LABEL);
    }
}

/// Whether a query of one side can see a key of the other. The streamed tile holds keys if `streams_keys`, else queries.
#[cube]
pub(crate) fn shares_a_label(
    sorted: &[i32],
    row: usize,
    n_tokens: usize,
    first: usize,
    resident: &ResidentTile,
    #[comptime] layout: Layout,
    #[comptime] streams_keys: bool,
) -> bool {
    let last = (first + comptime!(TILE as usize)).min(n_tokens) - 1;
    let lowest = label_at(sorted, row, n_tokens, first, layout.labelled);
    let highest = label_at(sorted, row, n_tokens, last, layout.labelled);
    if comptime!(streams_keys) {
        lowest <= resident.highest && highest >= lowest_seen(resident.lowest, layout.ordered)
    } else {
        lowest_seen(lowest, layout.ordered) <= resident.highest && highest >= resident.lowest
    }
}

/// Whether a query sees a key.
#[cube]
pub(crate) fn is_visible(query: i32, query_label: i32, key: i32, key_label: i32, #[comptime] layout: Layout) -> bool {
    let by_label = sees(query_label, key_label, layout.ordered);
    if comptime!(layout.causal) { by_label && key <= query } else { by_label }
}
