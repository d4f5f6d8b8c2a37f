//! Rows with their groups and weights on the host, and their upload as the batch of an objective.

use std::ops::Range;

use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use pgm_data::{Row, TokenRows};
use pgm_model::Partition;
use pgm_model::loss::GroupDistribution;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::batch::{NetworkInputs, ObjectiveBatch};
use crate::config::Objective;

/// Rows with their groups and weights.
pub(super) struct HostBatch {
    pub(super) rows: Vec<Row>,
    /// Whether each position is in group 1.
    pub(super) groups: Vec<Vec<bool>>,
    /// The weight of each position, before validity and the mean over the step.
    pub(super) weights: Vec<Vec<f64>>,
}

impl HostBatch {
    /// Tokens that count.
    pub(super) fn n_valid(&self, objective: Objective) -> usize {
        self.rows.iter().map(|row| n_counted(row, objective)).sum()
    }

    /// Uploads a range of rows, with the weights of valid tokens times `scale`.
    pub(super) fn upload(
        &self,
        range: Range<usize>,
        objective: Objective,
        mask: u32,
        device: &Device,
        scale: f64,
    ) -> ObjectiveBatch {
        let length = self.rows[range.start].tokens.len();
        let n_valid = self.rows[range.clone()].iter().map(|row| n_counted(row, objective)).sum();
        // The complementary objective has a second copy of each row, with the other group masked.
        let copies: &[bool] = if objective == Objective::MaskedComplementary { &[true, false] } else { &[true] };
        let shape = [range.len() * copies.len(), length];
        let mut tokens = Vec::with_capacity(shape[0] * length);
        let mut masked = Vec::with_capacity(shape[0] * length);
        let mut weights = Vec::with_capacity(shape[0] * length);
        for index in range.clone() {
            let (row, groups) = (&self.rows[index], &self.groups[index]);
            for &hidden in copies {
                for (position, (&token, &weight)) in row.tokens.iter().zip(&self.weights[index]).enumerate() {
                    let is_masked = groups[position] == hidden;
                    let counts = position < row.valid && (copies.len() == 1 || is_masked);
                    tokens.push(token as i32);
                    masked.push(if is_masked { mask as i32 } else { token as i32 });
                    weights.push(if counts { (weight * scale) as f32 } else { 0.0 });
                }
            }
        }
        let ints = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, shape), device);
        let inputs = match objective {
            Objective::Partition => NetworkInputs::Partition(Partition::from_rows(&self.groups[range], device)),
            Objective::Masked | Objective::MaskedComplementary => NetworkInputs::Masked(ints(masked)),
            Objective::Autoregressive => NetworkInputs::Causal,
        };
        let weights = Tensor::from_data(TensorData::new(weights, shape), device);
        ObjectiveBatch { inputs, tokens: ints(tokens), weights, n_valid, seed: 0 }
    }
}

/// Tokens of a row that count: an autoregressive model predicts all but the first.
pub(super) fn n_counted(row: &Row, objective: Objective) -> usize {
    match objective {
        Objective::Autoregressive => row.valid.saturating_sub(1),
        _ => row.valid,
    }
}

/// Weights of an autoregressive model: 1 for each token but the first.
pub(super) fn causal_weights(length: usize) -> Vec<f64> {
    (0..length).map(|position| if position == 0 { 0.0 } else { 1.0 }).collect()
}

/// Draws whether each position is in group 1, row after row.
pub(crate) fn draw_groups(
    rows: &[Row],
    distribution: GroupDistribution,
    levels: &[f64],
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<bool>> {
    let groups_of = |(row, &level): (&Row, &f64)| distribution.groups(level, row.tokens.len(), || rng.random::<f64>());
    rows.iter().zip(levels).map(groups_of).collect()
}

/// The rows at some indices.
pub(crate) fn read_rows(rows: &TokenRows, indices: &[usize]) -> Result<Vec<Row>, DatasetError> {
    indices.iter().map(|&index| rows.row(index).map_err(DatasetError::new)).collect()
}
