//! Where attention kernels find their inputs: the layout that they are compiled for, and sorted tokens.

use cubecl::prelude::*;

/// Sets of a group that labels can tell apart, as in `visibility`. This file also compiles by itself.
pub(crate) const N_SETS: i32 = 1 << 16;

/// Lower than any score.
pub(crate) const LOWEST: f32 = -1e30;

/// What the kernels are compiled for. Arrays of three hold queries, keys and values; arrays of two, queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    pub(crate) head_width: usize,
    /// Strides: elements from one token to the next.
    pub(crate) rows: [usize; 3],
    /// Where the vector of the first head begins within a token.
    pub(crate) firsts: [usize; 3],
    /// Whether a query sees only itself and earlier tokens.
    pub(crate) causal: bool,
    /// Whether all rows have the same angles.
    pub(crate) shared_angles: [bool; 2],
    /// Whether tokens have labels. Without labels every query sees every key, and tokens are not sorted.
    pub(crate) labelled: bool,
    /// Whether a query also sees the keys of its group's earlier sets.
    pub(crate) ordered: bool,
}

/// The token at a place in the order of labels.
#[cube]
pub(crate) fn token_at(sorted: &[i32], row: usize, n_tokens: usize, place: usize, #[comptime] labelled: bool) -> i32 {
    if comptime!(labelled) { sorted[2 * row * n_tokens + place] } else { place as i32 }
}

/// The label at a place in the order of labels.
#[cube]
pub(crate) fn label_at(sorted: &[i32], row: usize, n_tokens: usize, place: usize, #[comptime] labelled: bool) -> i32 {
    if comptime!(labelled) { sorted[(2 * row + 1) * n_tokens + place] } else { 0_i32.runtime() }
}

/// The lowest label of the keys that a query sees; the highest is its own.
#[cube]
pub(crate) fn lowest_seen(query_label: i32, #[comptime] ordered: bool) -> i32 {
    if comptime!(ordered) { query_label & comptime!(-N_SETS) } else { query_label }
}

/// Whether a query sees a key of this label.
#[cube]
pub(crate) fn sees(query_label: i32, key_label: i32, #[comptime] ordered: bool) -> bool {
    key_label <= query_label && key_label >= lowest_seen(query_label, ordered)
}

/// Where the angles of a token begin.
#[cube]
pub(crate) fn angle_start(
    row: usize,
    token: usize,
    n_tokens: usize,
    #[comptime] width: usize,
    #[comptime] shared: bool,
) -> usize {
    if comptime!(shared) { token * width } else { (row * n_tokens + token) * width }
}
