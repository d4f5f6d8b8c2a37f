//! The likelihood bound (NELBO) of rows, one draw of hidden tokens at a time, and the exact likelihood of an
//! autoregressive model.
//!
//! Shapes: B rows, K masked positions of a row, L length, H hidden.

use burn::tensor::{Int, Tensor, TensorData};
use pgm_model::{Network, Sets};
use rand::RngExt;

use super::draws::{EVALUATION_SETS, HiddenTokens, stream};
use super::nll::{read, token_nll};
use crate::InferError;
use crate::denoise::{CleanRow, NetworkHandle, hidden_at};

/// How a draw divides the tokens that are not hidden into ordered sets, a function of these.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetDraw {
    /// The division; one set takes no random number.
    pub sets: Sets,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Index of the draw in it.
    pub index: u64,
}

/// One draw of the bound: a row and its hidden tokens.
#[derive(Clone, Debug)]
pub struct MaskedDraw<'a> {
    /// The row.
    pub tokens: &'a [u32],
    /// Number of tokens before the padding. Padding does not count.
    pub valid: usize,
    /// Its hidden tokens.
    pub hidden: HiddenTokens,
    /// How the other tokens are divided into ordered sets.
    pub sets: SetDraw,
}

impl MaskedDraw<'_> {
    /// The masked positions before the padding.
    fn masked_positions(&self) -> Vec<usize> {
        (0..self.valid).filter(|&position| self.hidden.is_hidden[position]).collect()
    }

    fn clean_row(&self) -> CleanRow {
        let is_clean = |&position: &usize| !self.hidden.is_hidden[position];
        let positions: Vec<usize> = (0..self.tokens.len()).filter(is_clean).collect();
        let tokens = positions.iter().map(|&position| self.tokens[position]).collect();
        let row = CleanRow::new(self.tokens.len(), positions, tokens);
        let SetDraw { sets, seed, index } = self.sets;
        if sets.is_one() {
            return row;
        }
        let mut rng = stream(seed, EVALUATION_SETS, index);
        let drawn = sets.draw(row.tokens.len(), || rng.random());
        row.with_sets(Some(drawn))
    }
}

/// The estimate of the NELBO of each draw's row, in nats: the sum of its hidden tokens' NLLs times the draw's weight. The
/// rows have equal length and are one batch.
///
/// # Errors
/// [`InferError::Device`] when the device fails.
///
/// # Panics
/// For an autoregressive network, see [`hidden_at`].
pub fn weighted_nll(handle: NetworkHandle<'_>, draws: &[MaskedDraw<'_>]) -> Result<Vec<f64>, InferError> {
    let positions: Vec<Vec<usize>> = draws.iter().map(MaskedDraw::masked_positions).collect();
    // A draw without masked positions adds 0.
    let active: Vec<usize> = (0..draws.len()).filter(|&draw| !positions[draw].is_empty()).collect();
    let mut sums = vec![0.0; draws.len()];
    if active.is_empty() {
        return Ok(sums);
    }
    let rows: Vec<CleanRow> = active.iter().map(|&draw| draws[draw].clean_row()).collect();
    let rows: Vec<&CleanRow> = rows.iter().collect();
    let active_positions: Vec<&[usize]> = active.iter().map(|&draw| positions[draw].as_slice()).collect();
    let NetworkHandle { network, config, device } = handle;
    let mask_index = config.backbone().mask_index;
    let hidden = hidden_at(network, mask_index, &rows, &active_positions, device); // [B, K, H]
    let n_positions = hidden.dims()[1];
    let mut targets = vec![0_i32; active.len() * n_positions];
    for (row, &draw) in active.iter().enumerate() {
        for (index, &position) in positions[draw].iter().enumerate() {
            targets[row * n_positions + index] = draws[draw].tokens[position] as i32;
        }
    }
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [active.len(), n_positions]), device);
    let nll = read(token_nll(|hidden| network.logits(hidden), hidden, targets, mask_index))?;
    for (&draw, nll) in active.iter().zip(nll.chunks(n_positions)) {
        let sum: f64 = nll[..positions[draw].len()].iter().map(|&nll| f64::from(nll)).sum();
        sums[draw] = draws[draw].hidden.weight * sum;
    }
    Ok(sums)
}

/// NLL in nats of each token but the first given the tokens before it, by an autoregressive model. The rows have equal
/// length.
///
/// # Errors
/// [`InferError::Request`] for another model, [`InferError::Device`] when the device fails.
pub fn causal_nll(handle: NetworkHandle<'_>, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, InferError> {
    let NetworkHandle { network: Network::Autoregressive(network), config, device } = handle else {
        return Err(InferError::Request("the model is not autoregressive".to_string()));
    };
    let mask_index = config.backbone().mask_index;
    let n_predicted = rows[0].len() - 1;
    let values = rows.iter().flat_map(|row| row.iter().map(|&token| token as i32)).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(values, [rows.len(), n_predicted + 1]), device); // [B, L]
    let hidden = network.hidden(tokens.clone().narrow(1, 0, n_predicted)); // [B, L - 1, H]
    let targets = tokens.narrow(1, 1, n_predicted);
    let nll = read(token_nll(|hidden| network.logits(hidden), hidden, targets, mask_index))?;
    Ok(nll.chunks(n_predicted).map(|row| row.iter().map(|&nll| f64::from(nll)).collect()).collect())
}
