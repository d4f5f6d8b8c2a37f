//! The any-order likelihood of rows in one pass: every token is predicted from the tokens that an order puts before it.
//!
//! Shapes: B rows, L length.

use burn::tensor::{Int, Tensor, TensorData};
use pgm_model::visibility::MAX_SETS;
use pgm_model::{ModelConfig, Network, Queries};
use rand::seq::SliceRandom;

use super::draws::{ONE_PASS_ORDERS, stream};
use super::nll::{read, token_nll};
use crate::InferError;
use crate::denoise::NetworkHandle;

/// A row and an order of its tokens.
#[derive(Clone, Debug)]
pub struct OrderedRow<'a> {
    /// The row.
    pub tokens: &'a [u32],
    /// Number of tokens before the padding. Padding does not count.
    pub valid: usize,
    /// Positions in the order in which their tokens are predicted. Those that it leaves out are visible from the start.
    pub order: Vec<usize>,
}

/// A random order of the first `n` tokens, a function of its arguments.
pub fn random_order(seed: u64, index: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut stream(seed, ONE_PASS_ORDERS, index));
    order
}

/// Why a model has no likelihood in one pass, if it has none.
pub fn one_pass_problem(config: &ModelConfig) -> Option<&'static str> {
    match config {
        ModelConfig::Partition(config) => match config.queries {
            Queries::Learn | Queries::LearnFreqs => None,
            Queries::LearnFreqsMean | Queries::LearnFreqsLogSumExp => Some(
                "the GroupSwap's queries hold an aggregate of the tokens that are seen, which is another one for each token",
            ),
        },
        _ => Some("it is not a partition model"),
    }
}

/// The negative log-likelihood of each row in its order, in nats. Its expectation over orders is the any-order bound of a
/// model that encodes each token once, one token in a step. The rows have equal length and are one batch.
///
/// # Errors
/// [`InferError::Request`] for a model without such a likelihood, for rows of different lengths, and for a row that is empty or
/// longer than the places of an order; [`InferError::Device`] when the device fails.
pub fn one_pass_nll(handle: NetworkHandle<'_>, rows: &[OrderedRow<'_>]) -> Result<Vec<f64>, InferError> {
    let NetworkHandle { network, config, device } = handle;
    let (Network::Partition(model), None) = (network, one_pass_problem(config)) else {
        let problem = one_pass_problem(config).unwrap_or("it is not a partition model");
        return Err(InferError::Request(format!("this model has no likelihood in one pass: {problem}")));
    };
    let Some(length) = rows.first().map(|row| row.tokens.len()) else { return Ok(Vec::new()) };
    let most = MAX_SETS - 2;
    if !(1..=most).contains(&length) || rows.iter().any(|row| row.tokens.len() != length) {
        let problem = format!("rows that are scored in one pass have one length from 1 to {most} tokens");
        return Err(InferError::Request(problem));
    }
    let mut places = vec![0_i32; rows.len() * length];
    for (places, row) in places.chunks_mut(length).zip(rows) {
        // What is visible from the start is the first set.
        let first = i32::from(row.order.len() < length);
        row.order.iter().zip(first..).for_each(|(&position, place)| places[position] = place);
    }
    let shape = [rows.len(), length];
    let tokens = rows.iter().flat_map(|row| row.tokens).map(|&token| token as i32).collect::<Vec<_>>();
    let [tokens, places] =
        [tokens, places].map(|values| Tensor::<2, Int>::from_data(TensorData::new(values, shape), device));
    let hidden = model.hidden_any_order(tokens.clone(), &places, None); // [B, L, H]
    let nll = read(token_nll(|hidden| network.logits(hidden), hidden, tokens, config.backbone().mask_index))?;
    let of_row = |(nll, row): (&[f32], &OrderedRow<'_>)| {
        let counted = row.order.iter().filter(|&&position| position < row.valid);
        counted.map(|&position| f64::from(nll[position])).sum()
    };
    Ok(nll.chunks(length).zip(rows).map(of_row).collect())
}
