//! Hidden states at some positions of rows of which some tokens are known.
//!
//! Shapes: B rows, L length, C clean tokens, K positions, H hidden.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_infer::denoiser::CleanRow;
use pgm_model::ops::is_flex;
use pgm_model::{CleanTokens, Network, PartitionTransformer, Positions};

/// Hidden states of a partition or masked network at `positions[row]` of each row, ready for [`Network::logits`]. The rows
/// have equal length. Rows with fewer positions than the longest are padded.
///
/// # Shapes
/// `[B, K, H]`
///
/// # Panics
/// For an autoregressive network, which predicts only from the tokens before a position.
pub(super) fn hidden_at(
    network: &Network,
    mask_index: usize,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    match network {
        Network::Partition(model) => partition_hidden(model, rows, positions, device),
        Network::Masked(model) => {
            let positions: Vec<Vec<usize>> = positions.iter().map(|row| row.to_vec()).collect();
            model.hidden_at(with_masks(rows, mask_index, device), &Positions::new(&positions, device))
        }
        Network::Autoregressive(_) => panic!("an autoregressive network predicts only from the tokens before"),
    }
}

fn partition_hidden(
    model: &PartitionTransformer,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    let tokens: Vec<Vec<u32>> = rows.iter().map(|row| row.tokens.clone()).collect();
    let clean: Vec<Vec<usize>> = rows.iter().map(|row| row.positions.clone()).collect();
    let positions: Vec<Vec<usize>> = positions.iter().map(|row| row.to_vec()).collect();
    let longest = |rows: &[Vec<usize>]| rows.iter().map(Vec::len).max().unwrap_or(0);
    let n_positions = longest(&positions);
    let clean = CleanTokens::padded(&tokens, &clean, padded_width(longest(&clean), device), device);
    let queries = Positions::padded(&positions, padded_width(n_positions, device), device);
    let hidden = model.decode_hidden(&model.encode(&clean), &queries);
    if hidden.dims()[1] == n_positions { hidden } else { hidden.narrow(1, 0, n_positions) }
}

// The known tokens of each row, the mask at the other positions. [B, L]
fn with_masks(rows: &[&CleanRow], mask_index: usize, device: &Device) -> Tensor<2, Int> {
    let length = rows[0].length;
    let mut values = vec![mask_index as i32; rows.len() * length];
    for (index, row) in rows.iter().enumerate() {
        for (&position, &token) in row.positions.iter().zip(&row.tokens) {
            values[index * length + position] = token as i32;
        }
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), length]), device)
}

// Width of a padded row of `n` tokens. GPUs compile and tune kernels for each shape, so there only a few widths are used.
fn padded_width(n: usize, device: &Device) -> usize {
    match n {
        _ if is_flex(device) => n,
        0..=64 => n.next_power_of_two(),
        _ => n.next_multiple_of(64),
    }
}
