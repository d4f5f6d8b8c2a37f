//! The likelihood bound of rows, one draw at a time, and the exact likelihood of an autoregressive model.

use burn::tensor::{Int, Tensor, TensorData};
use pgm_infer::denoise::{CleanRow, logits_at};
use pgm_model::Network;
use pgm_model::loss::{EPS, masked_probability, masked_weight, token_cross_entropy};
use rand::RngExt;

use super::EvalModel;
use crate::TrainError;
use crate::batches::random::{EVALUATION, EVALUATION_GROUPS, stream};

/// A row with some positions masked, at a time: one draw of the bound.
pub(super) struct Masked<'a> {
    pub(super) tokens: &'a [u32],
    /// Positions from here on are padding and do not count.
    pub(super) valid: usize,
    pub(super) time: f64,
    pub(super) is_masked: Vec<bool>,
}

impl Masked<'_> {
    fn counted(&self) -> Vec<usize> {
        (0..self.valid).filter(|&position| self.is_masked[position]).collect()
    }
}

/// The `n` draws of item `index`: a time, and which of `length` positions are masked. The times are antithetic, one in
/// each of `n` equal parts of `[EPS, 1]`, from one uniform. The groups take one uniform a position: rows of different
/// lengths at one index share the groups of their common positions.
pub(super) fn draws(seed: u64, index: usize, length: usize, n: usize) -> Vec<(f64, Vec<bool>)> {
    let uniform = stream(seed, EVALUATION, index as u64).random::<f64>();
    let draw = |draw: usize| {
        let time = EPS + (1.0 - EPS) * (uniform + draw as f64) / n as f64;
        let mut rng = stream(seed, EVALUATION_GROUPS, (index * n + draw) as u64);
        let p = masked_probability(time);
        (time, (0..length).map(|_| rng.random::<f64>() < p).collect())
    };
    (0..n).map(draw).collect()
}

/// `w(t) CE` summed over the masked positions of each draw, in nats. The rows have equal length and are one batch.
pub(super) fn nats(subject: &EvalModel, draws: &[Masked]) -> Result<Vec<f64>, TrainError> {
    let positions: Vec<Vec<usize>> = draws.iter().map(Masked::counted).collect();
    // A draw that masks nothing costs nothing.
    let active: Vec<usize> = (0..draws.len()).filter(|&draw| !positions[draw].is_empty()).collect();
    let mut found = vec![0.0; draws.len()];
    if active.is_empty() {
        return Ok(found);
    }
    let states: Vec<CleanRow> = active.iter().map(|&draw| clean(&draws[draw])).collect();
    let states: Vec<&CleanRow> = states.iter().collect();
    let slices: Vec<&[usize]> = active.iter().map(|&draw| positions[draw].as_slice()).collect();
    let mask = subject.mask_index();
    let logits = logits_at(subject.network(), mask, &states, &slices, &subject.device);
    let width = logits.dims()[1];
    let mut targets = vec![0_i32; active.len() * width];
    for (row, &draw) in active.iter().enumerate() {
        for (index, &position) in positions[draw].iter().enumerate() {
            targets[row * width + index] = draws[draw].tokens[position] as i32;
        }
    }
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [active.len(), width]), &subject.device);
    let values = read(token_cross_entropy(logits, targets, mask))?;
    for (row, &draw) in active.iter().enumerate() {
        let sum: f64 = values[row * width..][..positions[draw].len()].iter().map(|&value| f64::from(value)).sum();
        found[draw] = masked_weight(draws[draw].time) * sum;
    }
    Ok(found)
}

fn clean(draw: &Masked) -> CleanRow {
    let positions: Vec<usize> = (0..draw.tokens.len()).filter(|&position| !draw.is_masked[position]).collect();
    let tokens = positions.iter().map(|&position| draw.tokens[position]).collect();
    CleanRow { length: draw.tokens.len(), positions, tokens }
}

/// Nats of each token but the first given those before, from an autoregressive model. The rows have equal length.
pub(super) fn causal_nats(subject: &EvalModel, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError> {
    let Network::Autoregressive(model) = subject.network() else {
        return Err(TrainError::judge("the model", "is not autoregressive"));
    };
    let length = rows[0].len();
    let values = rows.iter().flat_map(|row| row.iter().map(|&token| token as i32)).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(values, [rows.len(), length]), &subject.device);
    let logits = model.forward(tokens.clone().narrow(1, 0, length - 1));
    let nll = token_cross_entropy(logits, tokens.narrow(1, 1, length - 1), subject.mask_index());
    let values = read(nll)?;
    Ok(values.chunks(length - 1).map(|row| row.iter().map(|&value| f64::from(value)).collect()).collect())
}

pub(super) fn read(values: Tensor<2>) -> Result<Vec<f32>, TrainError> {
    values.try_into_vec_as::<f32>().map_err(|error| TrainError::Device(error.to_string()))
}
