//! Hidden states at some positions of each row.
// B batch, L length, K positions, H hidden

use burn::tensor::{Int, Tensor, assert_shape};

use crate::sequence::Positions;

/// The hidden states at `positions`.
///
/// # Shapes
/// hidden `[B, L, H]`, positions `[B, K] -> [B, K, H]`
pub(super) fn at_positions(hidden: Tensor<3>, positions: &Positions) -> Tensor<3> {
    let [n_rows, length, width] = hidden.dims();
    let n_positions = positions.indices().dims()[1];
    assert_shape!(positions.indices(), [n_rows, n_positions]);
    // In a list of the tokens of all rows, position i of row b is entry b L + i.
    let row_start = Tensor::<1, Int>::arange(0..n_rows as i64, &hidden.device()).mul_scalar(length as i32);
    let index = positions.indices().clone() + row_start.unsqueeze_dim(1); // [B, K]
    let selected = hidden.reshape([n_rows * length, width]).select(0, index.reshape([n_rows * n_positions]));
    selected.reshape([n_rows, n_positions, width]) // [B, K, H]
}
