//! Clean rows as tensors.
//!
//! Shapes: B rows, L length, K positions, H hidden.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::sample::CleanRow;

pub(super) fn to_vecs(positions: &[&[usize]]) -> Vec<Vec<usize>> {
    positions.iter().map(|row| row.to_vec()).collect()
}

/// Tokens `[B, L]`, `filler` at open positions. Rows have equal length.
pub(super) fn dense(rows: &[&CleanRow], filler: u32, device: &Device) -> Tensor<2, Int> {
    let length = rows[0].length;
    let mut values = vec![filler as i32; rows.len() * length];
    for (index, row) in rows.iter().enumerate() {
        for (&position, &token) in row.positions.iter().zip(&row.tokens) {
            values[index * length + position] = token as i32;
        }
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), length]), device)
}

/// Runs rows of equal length together, because a network that sees whole rows must not see padding: hidden states
/// `[B, K, H]` of each set of rows, and which rows these are.
pub(super) fn by_length(
    rows: &[&CleanRow],
    positions: &[&[usize]],
    run: impl Fn(&[&CleanRow], &[&[usize]]) -> Tensor<3>,
) -> Vec<(Tensor<3>, Vec<usize>)> {
    let mut lengths: Vec<usize> = rows.iter().map(|row| row.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let of_length = |length: usize| {
        let members: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].length == length).collect();
        let some_rows: Vec<&CleanRow> = members.iter().map(|&row| rows[row]).collect();
        let some_positions: Vec<&[usize]> = members.iter().map(|&row| positions[row]).collect();
        (run(&some_rows, &some_positions), members)
    };
    lengths.into_iter().map(of_length).collect()
}
