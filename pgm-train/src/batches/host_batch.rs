//! Rows with their groups and weights on the host, and their upload as the batch of an objective.

use std::ops::Range;

use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use pgm_data::{Row, TokenRows};
use pgm_model::loss::GroupDistribution;
use pgm_model::{Class, Partition, Sets};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::batch::{NetworkInputs, ObjectiveBatch};
use crate::config::Objective;

/// What a batch is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchKind {
    pub(super) objective: Objective,
    /// Whether the model is one of image codes: BOS is always visible and no target, and rows have classes.
    pub(super) of_images: bool,
    /// Id of the mask.
    pub(super) mask: u32,
}

impl BatchKind {
    /// Whether the first token of a row is no target.
    pub(super) fn skips_first(self) -> bool {
        self.of_images || self.objective == Objective::Autoregressive
    }

    /// Tokens of a row that count.
    pub(super) fn n_counted(self, row: &Row) -> usize {
        if self.skips_first() { row.valid.saturating_sub(1) } else { row.valid }
    }

    /// The class of each row: its label, but for those that `drop` picks.
    pub(super) fn classes(self, rows: &[Row], mut drop: impl FnMut() -> bool) -> Vec<Class> {
        let class = |row: &Row| row.label.map(|label| label as usize).filter(|_| !drop());
        rows.iter().map(class).collect()
    }
}

/// Rows with their groups and weights.
pub(super) struct HostBatch {
    pub(super) kind: BatchKind,
    pub(super) rows: Vec<Row>,
    /// The class of each row.
    pub(super) classes: Vec<Class>,
    /// Whether each position is in group 1.
    pub(super) groups: Vec<Vec<bool>>,
    /// The set of each position in its group's order; `None` where each group is one set.
    pub(super) sets: Option<Vec<Vec<usize>>>,
    /// The weight of each position, before validity and the mean over the step.
    pub(super) weights: Vec<Vec<f64>>,
}

impl HostBatch {
    /// Tokens that count.
    pub(super) fn n_valid(&self) -> usize {
        self.rows.iter().map(|row| self.kind.n_counted(row)).sum()
    }

    /// Uploads a range of rows, with the weights of valid tokens times `scale`.
    pub(super) fn upload(&self, range: Range<usize>, device: &Device, scale: f64) -> ObjectiveBatch {
        let BatchKind { objective, of_images, mask } = self.kind;
        // MaskGIT has no BOS.
        let first = usize::from(objective == Objective::Maskgit);
        let length = self.rows[range.start].tokens.len() - first;
        let n_valid = self.rows[range.clone()].iter().map(|row| self.kind.n_counted(row)).sum();
        // The complementary objective has a second copy of each row, with the other group masked.
        let copies: &[bool] = if objective == Objective::MaskedComplementary { &[true, false] } else { &[true] };
        let shape = [range.len() * copies.len(), length];
        let mut tokens = Vec::with_capacity(shape[0] * length);
        let mut masked = Vec::with_capacity(shape[0] * length);
        let mut weights = Vec::with_capacity(shape[0] * length);
        for index in range.clone() {
            let (row, groups) = (&self.rows[index], &self.groups[index]);
            for &hidden in copies {
                let tokens_and_weights = row.tokens.iter().zip(&self.weights[index]).enumerate();
                for (position, (&token, &weight)) in tokens_and_weights.skip(first) {
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
            Objective::Partition => {
                let partition = Partition::from_rows(&self.groups[range.clone()], device);
                let partition = match &self.sets {
                    Some(sets) => partition.with_sets(&sets[range.clone()]),
                    None => partition,
                };
                NetworkInputs::Partition(match of_images {
                    true => partition.with_classes(self.classes[range].to_vec()),
                    false => partition,
                })
            }
            Objective::Maskgit => NetworkInputs::MaskGit(ints(masked), self.classes[range].to_vec()),
            Objective::Masked | Objective::MaskedComplementary => NetworkInputs::Masked(ints(masked)),
            Objective::Autoregressive => NetworkInputs::Causal,
        };
        let weights = Tensor::from_data(TensorData::new(weights, shape), device);
        ObjectiveBatch { inputs, tokens: ints(tokens), weights, n_valid, seed: 0 }
    }
}

/// Weights of an autoregressive model: 1 for each token but the first.
pub(super) fn causal_weights(length: usize) -> Vec<f64> {
    (0..length).map(|position| if position == 0 { 0.0 } else { 1.0 }).collect()
}

/// Draws the set of each position in its group's order, row after row; nothing where each group is one set.
pub(super) fn draw_sets(
    sets: Sets,
    groups: &[Vec<bool>],
    mut uniform: impl FnMut(usize) -> f64,
) -> Option<Vec<Vec<usize>>> {
    let draw = |(row, groups): (usize, &Vec<bool>)| sets.draw_groups(groups, || uniform(row));
    (!sets.is_one()).then(|| groups.iter().enumerate().map(draw).collect())
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
