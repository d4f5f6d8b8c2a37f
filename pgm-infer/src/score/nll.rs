//! Negative log-likelihoods of tokens from hidden states, without the logits of all positions in memory.
//!
//! Logits of all positions, `[B, K, V]`, are by far the largest tensor of an evaluation. Here the head runs over
//! [`POSITIONS_AT_ONCE`] positions at a time.
//!
//! Shapes: B rows, K positions of a row, R positions of a chunk, H hidden, V vocabulary.

use burn::tensor::{Int, Tensor};
use pgm_model::loss::token_cross_entropy;

use crate::InferError;

/// The most positions whose logits exist at the same time.
pub const POSITIONS_AT_ONCE: usize = 256;

/// NLL in nats of a target token at each position, with the mask's class left out. `head` maps `[1, R, H]` to
/// `[1, R, V]`.
///
/// # Shapes
/// hidden `[B, K, H]`, targets `[B, K] -> [B, K]`
pub fn token_nll(
    head: impl Fn(Tensor<3>) -> Tensor<3>,
    hidden: Tensor<3>,
    targets: Tensor<2, Int>,
    mask_index: usize,
) -> Tensor<2> {
    in_chunks(hidden, targets, |hidden, targets| token_cross_entropy(head(hidden), targets, mask_index))
}

/// Calls `score` on at most [`POSITIONS_AT_ONCE`] positions at a time. If all positions fit, it is one call with the
/// shapes `[B, K, H]` and `[B, K]`; otherwise each call gets `[1, R, H]` and `[1, R]`.
///
/// # Shapes
/// hidden `[B, K, H]`, targets `[B, K] -> [B, K]`
pub fn in_chunks(
    hidden: Tensor<3>,
    targets: Tensor<2, Int>,
    mut score: impl FnMut(Tensor<3>, Tensor<2, Int>) -> Tensor<2>,
) -> Tensor<2> {
    let [n_rows, n_positions, width] = hidden.dims();
    let n = n_rows * n_positions;
    if n <= POSITIONS_AT_ONCE {
        return score(hidden, targets);
    }
    let (hidden, targets) = (hidden.reshape([1, n, width]), targets.reshape([1, n]));
    let chunk = |start: usize| {
        let n_chunk = POSITIONS_AT_ONCE.min(n - start);
        score(hidden.clone().narrow(1, start, n_chunk), targets.clone().narrow(1, start, n_chunk)) // [1, R]
    };
    Tensor::cat((0..n).step_by(POSITIONS_AT_ONCE).map(chunk).collect(), 1).reshape([n_rows, n_positions])
}

/// Reads a tensor from the device, row by row.
///
/// # Errors
/// [`InferError::Device`] when the device fails.
pub fn read<const D: usize>(values: Tensor<D>) -> Result<Vec<f32>, InferError> {
    values.try_into_vec_as::<f32>().map_err(|error| InferError::Device(error.to_string()))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, TensorData};
    use pgm_model::{BackboneConfig, MaskedConfig, ModelConfig, Network};

    use super::*;

    const VOCAB: usize = 11;
    const HIDDEN: usize = 6;

    fn inputs(n_rows: usize, n_positions: usize) -> (Tensor<3>, Tensor<2, Int>) {
        let (n, device) = (n_rows * n_positions, Device::flex());
        let values: Vec<f32> = (0..n * HIDDEN).map(|i| ((i * 31 + 7) % 23) as f32 / 11.0 - 1.0).collect();
        let targets: Vec<i32> = (0..n).map(|i| (i * 7 % (VOCAB - 1)) as i32).collect();
        let hidden = Tensor::from_data(TensorData::new(values, [n_rows, n_positions, HIDDEN]), &device);
        (hidden, Tensor::from_data(TensorData::new(targets, [n_rows, n_positions]), &device))
    }

    #[test]
    fn the_head_never_sees_more_than_the_allowed_positions() {
        for (n_rows, n_positions) in [(1, 1), (3, 5), (2, 128), (1, 257), (7, 131)] {
            let (hidden, targets) = inputs(n_rows, n_positions);
            let mut seen = Vec::new();
            let found = in_chunks(hidden, targets.clone(), |hidden, targets| {
                let [n_rows, n_positions, width] = hidden.dims();
                assert_eq!((targets.dims(), width), ([n_rows, n_positions], HIDDEN));
                seen.push(n_rows * n_positions);
                targets.float()
            });
            assert!(seen.iter().all(|&n| n <= POSITIONS_AT_ONCE), "{seen:?}");
            assert_eq!(seen.iter().sum::<usize>(), n_rows * n_positions);
            assert_eq!(read(found).unwrap(), read(targets.float()).unwrap());
        }
    }

    #[test]
    fn chunks_give_the_likelihoods_of_all_logits_at_once() {
        let backbone = BackboneConfig::new(VOCAB, HIDDEN, 1, 300);
        let config = ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 1 });
        let network = Network::new(&config, &Device::flex()).with_noise(0.4, 3);
        for (n_rows, n_positions, is_exact) in [(2, 128, true), (2, 129, false), (3, 300, false)] {
            let (hidden, targets) = inputs(n_rows, n_positions);
            let found =
                read(token_nll(|hidden| network.logits(hidden), hidden.clone(), targets.clone(), VOCAB - 1)).unwrap();
            let expected = read(token_cross_entropy(network.logits(hidden), targets, VOCAB - 1)).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                let tolerance = if is_exact { 0.0 } else { 1e-5 };
                assert!((found - expected).abs() <= tolerance, "{found} against {expected}");
            }
        }
    }
}
