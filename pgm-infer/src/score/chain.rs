//! The likelihood of a row token by token from left to right.
//!
//! Shapes: B rows, K positions, L length, H hidden, V vocabulary.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData};
use pgm_model::Network;

use crate::InferError;
use crate::denoise::{CleanRow, NetworkHandle, hidden_at, logit_chunks};

/// Positions of a partition or masked model that are computed together.
const BATCH: usize = 32;

/// A token of a row given the tokens before it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// Its log-probability in nats, at temperature 1.
    pub log_probability: f64,
    /// The most probable tokens with their log-probabilities, best first.
    pub best: Vec<(u32, f64)>,
}

/// Scores the tokens of a row but the first, each given the tokens before it, with the `n_best` most probable tokens at its
/// position. The scores come in batches, in the order of the row.
///
/// An autoregressive model computes all of them in one evaluation. Any other model takes one clean row for each token,
/// some at a time; the positions behind a token are open.
pub fn left_to_right<'a>(
    handle: NetworkHandle<'a>,
    row: &'a [u32],
    n_best: usize,
) -> impl Iterator<Item = Result<Vec<TokenScore>, InferError>> + 'a {
    let size = if matches!(handle.network, Network::Autoregressive(_)) { row.len().max(1) } else { BATCH };
    let starts = (1..row.len()).step_by(size);
    starts.map(move |start| score(handle, row, start..(start + size).min(row.len()), n_best))
}

fn score(
    handle: NetworkHandle<'_>,
    row: &[u32],
    positions: Range<usize>,
    n_best: usize,
) -> Result<Vec<TokenScore>, InferError> {
    let NetworkHandle { network, config, device } = handle;
    let mask_index = config.backbone().mask_index;
    let hidden = match network {
        Network::Autoregressive(network) => {
            let values: Vec<i32> = row[..row.len() - 1].iter().map(|&token| token as i32).collect();
            let shape = [1, values.len()];
            network.hidden(Tensor::<2, Int>::from_data(TensorData::new(values, shape), device)) // [1, L - 1, H]
        }
        Network::Partition(_) | Network::Masked(_) | Network::MaskGit(_) => {
            let clean = |end| CleanRow::new(row.len(), (0..end).collect(), row[..end].to_vec());
            let rows: Vec<CleanRow> = positions.clone().map(clean).collect();
            let rows: Vec<&CleanRow> = rows.iter().collect();
            let wanted: Vec<[usize; 1]> = positions.clone().map(|position| [position]).collect();
            let wanted: Vec<&[usize]> = wanted.iter().map(<[usize; 1]>::as_slice).collect();
            hidden_at(network, mask_index, &rows, &wanted, device) // [B, 1, H]
        }
    };
    let mut scores = Vec::with_capacity(positions.len());
    for (range, logits) in logit_chunks(hidden, |hidden| network.logits(hidden)) {
        let n_classes = logits.dims()[1];
        let values = logits.try_into_vec_as::<f32>().map_err(|error| InferError::Device(error.to_string()))?; // [n, V]
        for (index, logits) in range.zip(values.chunks(n_classes)) {
            let position = positions.start + index;
            let found = token_score(logits, row[position] as usize, mask_index, n_best);
            scores.push(found.ok_or(InferError::NotFinite { position })?);
        }
    }
    Ok(scores)
}

// None if the logits are not finite. The mask is no class.
fn token_score(logits: &[f32], token: usize, mask_index: usize, n_best: usize) -> Option<TokenScore> {
    let mut classes: Vec<usize> = (0..logits.len()).filter(|&class| class != mask_index).collect();
    let largest = classes.iter().map(|&class| f64::from(logits[class])).fold(f64::NEG_INFINITY, f64::max);
    let total = classes.iter().map(|&class| (f64::from(logits[class]) - largest).exp()).sum::<f64>().ln();
    let log_probability = |class: usize| f64::from(logits[class]) - largest - total;
    let better = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if !total.is_finite() {
        return None;
    }
    if n_best < classes.len() {
        classes.select_nth_unstable_by(n_best, better);
        classes.truncate(n_best);
    }
    classes.sort_unstable_by(better);
    let best = classes.into_iter().map(|class| (class as u32, log_probability(class))).collect();
    Some(TokenScore { log_probability: log_probability(token), best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_share_of_the_distribution_without_the_mask() {
        let logits = [1.0_f32, 3.0, 2.0, 90.0];
        let found = token_score(&logits, 2, 3, 2).unwrap();
        let total = 1_f64.exp() + 3_f64.exp() + 2_f64.exp();
        assert!((found.log_probability - (2.0 - total.ln())).abs() < 1e-12, "{found:?}");
        assert_eq!(found.best.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found.best[1].1, found.log_probability, "the same number, to the bit");
        assert_eq!(token_score(&logits, 0, 3, 0).unwrap().best, []);
        assert_eq!(token_score(&logits, 0, 3, 9).unwrap().best.len(), 3);
        assert_eq!(token_score(&[f32::NAN, 1.0], 0, 1, 1), None);
    }
}
