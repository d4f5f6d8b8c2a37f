//! Batches, from the loaders to the train model: data only, no network.
//!
//! Shapes: B rows of a micro-batch, L length.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor};
use pgm_infer::denoise::CleanRow;
use pgm_model::{Class, Partition};

/// The inputs of the network.
#[allow(clippy::large_enum_variant)] // one exists at a time, and all are handles of tensors
#[derive(Clone, Debug)]
pub enum NetworkInputs {
    /// All tokens, and the split into groups.
    Partition(Partition),
    /// Tokens with masks, `[B, L]`.
    Masked(Tensor<2, Int>),
    /// All tokens but the last; each predicts the next.
    Causal,
    /// Codes with masks, `[B, L]`, and the class of each row.
    MaskGit(Tensor<2, Int>, Vec<Class>),
}

/// A micro-batch of an objective.
#[derive(Clone, Debug)]
pub struct ObjectiveBatch {
    /// The inputs of the network.
    pub inputs: NetworkInputs,
    /// True tokens, `[B, L]`.
    pub tokens: Tensor<2, Int>,
    /// Complete weight of each token's cross-entropy: the objective's, validity and the mean over the step, `[B, L]`.
    pub weights: Tensor<2>,
    /// Tokens of this micro-batch that count.
    pub n_valid: usize,
    /// Seed of the device's generator for this micro-batch (dropout).
    pub seed: u64,
}

/// A batch of a validation: one draw of hidden tokens of some rows.
#[derive(Clone, Debug)]
pub struct ValidationBatch {
    /// The batch; its weights are those of the estimator, not divided by the number of tokens.
    pub batch: ObjectiveBatch,
    /// The indices of its rows in the split.
    pub rows: Range<usize>,
    /// Tokens of each row that count.
    pub tokens: Vec<usize>,
}

/// A row with some of its positions masked, at a time.
#[derive(Clone, Debug)]
pub struct MaskedRow {
    /// All tokens; those at masked positions are never read.
    pub tokens: Vec<u32>,
    /// Which positions are masked.
    pub is_masked: Vec<bool>,
    /// The time, in (0, 1].
    pub time: f64,
    /// Positions from here on are padding and do not count.
    pub valid: usize,
    /// The class that a class-conditional network is given.
    pub class: Class,
    /// The set of each position in its group's order; `None` where a group is one set.
    pub sets: Option<Vec<usize>>,
}

impl MaskedRow {
    /// The masked positions.
    pub fn masked(&self) -> Vec<usize> {
        (0..self.tokens.len()).filter(|&position| self.is_masked[position]).collect()
    }

    /// The other positions with their tokens, set by set.
    pub fn clean(&self) -> CleanRow {
        let mut positions: Vec<usize> = (0..self.tokens.len()).filter(|&position| !self.is_masked[position]).collect();
        if let Some(sets) = &self.sets {
            positions.sort_by_key(|&position| sets[position]);
        }
        let tokens = positions.iter().map(|&position| self.tokens[position]).collect();
        let sets = self.sets.as_ref().map(|sets| positions.iter().map(|&position| sets[position]).collect());
        CleanRow::new(self.tokens.len(), positions, tokens).with_class(self.class).with_sets(sets)
    }

    /// Masked positions that count.
    pub fn n_counted(&self) -> usize {
        self.is_masked[..self.valid].iter().filter(|&&is_masked| is_masked).count()
    }
}

/// A micro-batch of a distillation.
#[derive(Clone, Debug)]
pub struct DistillBatch {
    /// The masked rows. Where both groups are predicted, a row's two copies follow each other, the one with group 1
    /// masked first.
    pub rows: Vec<MaskedRow>,
    /// Factor of each position's divergence: one over the masked tokens of the whole step.
    pub scale: f64,
    /// The student's device.
    pub device: Device,
    /// Seed of the teacher's decoding and of the student's dropout.
    pub seed: u64,
}

impl DistillBatch {
    /// Masked positions that count.
    pub fn n_valid(&self) -> usize {
        self.rows.iter().map(MaskedRow::n_counted).sum()
    }
}

/// A micro-batch of a training step.
#[derive(Clone, Debug)]
pub enum Batch {
    /// The targets are true tokens.
    Objective(Box<ObjectiveBatch>),
    /// The targets are a teacher's predictions.
    Distill(DistillBatch),
}

impl Batch {
    /// Tokens that count.
    pub fn n_valid(&self) -> usize {
        match self {
            Self::Objective(batch) => batch.n_valid,
            Self::Distill(batch) => batch.n_valid(),
        }
    }
}
