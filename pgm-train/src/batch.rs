//! What a step trains on, as a pure function of (seed, step): rows, times, groups, weights.
//!
//! Shapes: B rows of a micro-batch, L length.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_data::{Row, RowOrder, TokenRows};
use pgm_model::Partition;
use pgm_model::loss::{EPS, antithetic_times, masked_probability, nelbo_weights, partition_weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::lesson::DistillBatch;
use crate::{Objective, TrainConfig};

/// What the network reads.
#[derive(Clone, Debug)]
pub enum NetworkInputs {
    /// All tokens, and the split into groups.
    Partition(Partition),
    /// Tokens with masks, `[B, L]`.
    Masked(Tensor<2, Int>),
    /// All tokens but the last, each of which predicts the next.
    Causal,
}

/// A micro-batch of an objective.
#[derive(Clone, Debug)]
pub struct ObjectiveBatch {
    /// What the network reads.
    pub inputs: NetworkInputs,
    /// True tokens, `[B, L]`.
    pub tokens: Tensor<2, Int>,
    /// Weight of each token's cross-entropy, everything included, `[B, L]`.
    pub weights: Tensor<2>,
    /// Tokens that count, in this micro-batch.
    pub n_valid: usize,
    /// Seed of the device's generator for this micro-batch (dropout).
    pub seed: u64,
}

/// What a step of the learner works on.
#[derive(Clone, Debug)]
pub enum Batch {
    /// True tokens are the targets.
    Supervised(Box<ObjectiveBatch>),
    /// A teacher's predictions are.
    Distillation(DistillBatch),
}

impl Batch {
    /// Tokens that count.
    pub fn n_valid(&self) -> usize {
        match self {
            Self::Supervised(batch) => batch.n_valid,
            Self::Distillation(lesson) => lesson.n_valid(),
        }
    }
}

/// A random stream for one purpose at one index.
pub(crate) fn stream(seed: u64, purpose: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_mut(8).zip([seed, purpose, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

const TRAINING: u64 = 1;
const VALIDATION: u64 = 2;
const VALIDATION_GROUPS: u64 = 3;
pub(crate) const DROPOUT: u64 = 4;
pub(crate) const DISTILLATION: u64 = 5;
pub(crate) const EVALUATION: u64 = 6;
pub(crate) const EVALUATION_GROUPS: u64 = 7;
/// Validation draws the same times and groups whatever the run's seed, so that runs compare.
const VALIDATION_SEED: u64 = 0x5eed;

/// Rows with their times and groups, on the host.
struct HostBatch {
    rows: Vec<Row>,
    times: Vec<f64>,
    groups: Vec<Vec<bool>>,
}

impl HostBatch {
    fn n_valid(&self, objective: Objective) -> usize {
        self.rows.iter().map(|row| counted(row, objective)).sum()
    }

    /// Uploads a range of rows. `weigh` gives the weights of a row before validity and `scale`.
    fn upload(
        &self,
        range: std::ops::Range<usize>,
        objective: Objective,
        mask: u32,
        device: &Device,
        weigh: impl Fn(f64, &[bool]) -> Vec<f64>,
        scale: f64,
    ) -> ObjectiveBatch {
        let length = self.rows[range.start].tokens.len();
        let n_valid = self.rows[range.clone()].iter().map(|row| counted(row, objective)).sum();
        // The complementary objective has a second copy of each row, with the other group masked.
        let copies: &[bool] = if objective == Objective::MaskedComplementary { &[true, false] } else { &[true] };
        let shape = [range.len() * copies.len(), length];
        let mut tokens = Vec::with_capacity(shape[0] * length);
        let mut masked = Vec::with_capacity(shape[0] * length);
        let mut weights = Vec::with_capacity(shape[0] * length);
        for index in range.clone() {
            let (row, groups) = (&self.rows[index], &self.groups[index]);
            let row_weights = weigh(self.times[index], groups);
            for &hidden in copies {
                for (position, (&token, &weight)) in row.tokens.iter().zip(&row_weights).enumerate() {
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

// Tokens of a row that count: an autoregressive model predicts all but the first.
fn counted(row: &Row, objective: Objective) -> usize {
    match objective {
        Objective::Autoregressive => row.valid.saturating_sub(1),
        _ => row.valid,
    }
}

// 1 for each predicted token.
fn causal_weights(length: usize) -> Vec<f64> {
    (0..length).map(|position| if position == 0 { 0.0 } else { 1.0 }).collect()
}

pub(crate) fn draw_groups(rows: &[Row], times: &[f64], rng: &mut ChaCha8Rng) -> Vec<Vec<bool>> {
    let of_row = |(row, &t): (&Row, &f64)| {
        let p = masked_probability(t);
        (0..row.tokens.len()).map(|_| rng.random::<f64>() < p).collect()
    };
    rows.iter().zip(times).map(of_row).collect()
}

pub(crate) fn read(rows: &TokenRows, indices: &[usize]) -> Result<Vec<Row>, DatasetError> {
    indices.iter().map(|&index| rows.row(index).map_err(DatasetError::new)).collect()
}

/// The micro-batches of training, from a step on.
#[derive(Clone)]
pub struct TrainLoader {
    rows: Arc<TokenRows>,
    order: RowOrder,
    config: Arc<TrainConfig>,
    mask: u32,
    device: Device,
    micro_batches: std::ops::Range<usize>,
}

impl TrainLoader {
    /// Micro-batches of steps `first_step..config.steps`, on `device`.
    pub fn new(rows: Arc<TokenRows>, config: Arc<TrainConfig>, mask: u32, device: Device, first_step: usize) -> Self {
        let order = RowOrder::new(config.seed, rows.len());
        let micro_batches = first_step * config.accumulate..config.steps * config.accumulate;
        Self { rows, order, config, mask, device, micro_batches }
    }

    /// All micro-batches of a step. Times are antithetic over the whole step, the loss is a mean over its tokens.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn step(&self, step: usize) -> Result<Vec<ObjectiveBatch>, DatasetError> {
        let TrainConfig { batch, accumulate, seed, objective, .. } = *self.config;
        let rows = read(&self.rows, &self.order.step(step as u64, batch))?;
        let mut rng = stream(seed, TRAINING, step as u64);
        let uniforms: Vec<f64> = (0..batch).map(|_| rng.random()).collect();
        let times = antithetic_times(&uniforms);
        let groups = draw_groups(&rows, &times, &mut rng);
        let drawn = HostBatch { rows, times, groups };
        let scale = 1.0 / drawn.n_valid(objective).max(1) as f64;
        let floor = self.config.optim.weight_floor;
        let mut dropout = stream(seed, DROPOUT, step as u64);
        let micro = batch / accumulate;
        let batches = (0..accumulate).map(|part| {
            let weigh = |t: f64, groups: &[bool]| -> Vec<f64> {
                match objective {
                    Objective::Partition | Objective::MaskedComplementary => {
                        partition_weights(t, groups, floor).collect()
                    }
                    Objective::Masked => nelbo_weights(t, groups).collect(),
                    Objective::Autoregressive => causal_weights(groups.len()),
                }
            };
            let range = part * micro..(part + 1) * micro;
            ObjectiveBatch {
                seed: dropout.random(),
                ..drawn.upload(range, objective, self.mask, &self.device, weigh, scale)
            }
        });
        Ok(batches.collect())
    }
}

impl DataLoader<Batch> for TrainLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let accumulate = self.config.accumulate;
        Box::new(LoaderIter::new(self.micro_batches.clone(), move |index| {
            let batches = self.step(index / accumulate)?.split_off(index % accumulate);
            Ok(batches.into_iter().map(|batch| Batch::Supervised(Box::new(batch))).collect())
        }))
    }

    fn num_items(&self) -> usize {
        self.micro_batches.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let first = self.micro_batches.start;
        Arc::new(Self { micro_batches: first + start..first + end, ..self.clone() })
    }
}

/// How a run validates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValidationSettings {
    pub(crate) objective: Objective,
    /// Rows of a batch.
    pub(crate) batch: usize,
    /// Rows in all, from the start of the split; 0 takes all.
    pub(crate) rows: usize,
    /// Times of each row; an autoregressive model has none and takes each row once.
    pub(crate) times: usize,
}

/// The batches of a validation: the first rows, each at several antithetic times, the same in every run.
#[derive(Clone)]
pub struct ValidationLoader {
    rows: Arc<TokenRows>,
    how: ValidationSettings,
    mask: u32,
    device: Device,
    batches: std::ops::Range<usize>,
}

impl ValidationLoader {
    /// All batches of a validation, on `device`.
    pub fn new(rows: Arc<TokenRows>, config: &TrainConfig, mask: u32, device: Device) -> Self {
        let how = ValidationSettings {
            objective: config.objective,
            batch: config.batch / config.accumulate,
            rows: config.validate_rows,
            times: config.validate_times,
        };
        Self::with(rows, how, mask, device)
    }

    pub(crate) fn with(rows: Arc<TokenRows>, how: ValidationSettings, mask: u32, device: Device) -> Self {
        let n_rows = match how.rows {
            0 => rows.len(),
            n => n.min(rows.len()),
        };
        let times = if how.objective == Objective::Autoregressive { 1 } else { how.times };
        let how = ValidationSettings { rows: n_rows, times, ..how };
        Self { rows, how, mask, device, batches: 0..n_rows.div_ceil(how.batch) * times }
    }

    // Weights are w(t) on group 1 and not yet divided by the number of tokens.
    fn batch(&self, index: usize) -> Result<ObjectiveBatch, DatasetError> {
        let ValidationSettings { objective, batch, times: n_times, rows: n_rows } = self.how;
        let (block, time_index) = (index / n_times, index % n_times);
        let indices: Vec<usize> = (block * batch..((block + 1) * batch).min(n_rows)).collect();
        let rows = read(&self.rows, &indices)?;
        let n = n_times as f64;
        // A row's times share one uniform, one in each of `n_times` equal parts.
        let times: Vec<f64> = indices
            .iter()
            .map(|&row| stream(VALIDATION_SEED, VALIDATION, row as u64).random::<f64>())
            .map(|uniform| EPS + (1.0 - EPS) * (uniform + time_index as f64) / n)
            .collect();
        let groups = indices.iter().zip(rows.iter().zip(&times)).flat_map(|(&index, (row, &t))| {
            let entry = (index * n_times + time_index) as u64;
            let mut rng = stream(VALIDATION_SEED, VALIDATION_GROUPS, entry);
            draw_groups(std::slice::from_ref(row), &[t], &mut rng)
        });
        let groups = groups.collect();
        let drawn = HostBatch { rows, times, groups };
        // Of a complementary model the NELBO is that of the masked one.
        let objective = if objective == Objective::MaskedComplementary { Objective::Masked } else { objective };
        let weigh = |t: f64, groups: &[bool]| match objective {
            Objective::Autoregressive => causal_weights(groups.len()),
            _ => nelbo_weights(t, groups).collect(),
        };
        Ok(drawn.upload(0..indices.len(), objective, self.mask, &self.device, weigh, 1.0))
    }
}

impl DataLoader<Batch> for ValidationLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(LoaderIter::new(self.batches.clone(), |index| {
            Ok(vec![Batch::Supervised(Box::new(self.batch(index)?))])
        }))
    }

    fn num_items(&self) -> usize {
        self.batches.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { batches: self.batches.start + start..self.batches.start + end, ..self.clone() })
    }
}

/// Loads one or more batches at an index and hands them on one by one.
pub(crate) struct LoaderIter<F> {
    next: usize,
    range: std::ops::Range<usize>,
    load: F,
    pending: Vec<Batch>,
}

impl<F: Fn(usize) -> Result<Vec<Batch>, DatasetError>> LoaderIter<F> {
    pub(crate) fn new(range: std::ops::Range<usize>, load: F) -> Self {
        Self { next: range.start, range, load, pending: Vec::new() }
    }
}

impl<F: Fn(usize) -> Result<Vec<Batch>, DatasetError>> Iterator for LoaderIter<F> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.range.end {
            return None;
        }
        if self.pending.is_empty() {
            match (self.load)(self.next) {
                Ok(batches) => self.pending = batches,
                Err(error) => return Some(Err(error)),
            }
        }
        self.next += 1;
        Some(Ok(self.pending.remove(0)))
    }
}

impl<F: Fn(usize) -> Result<Vec<Batch>, DatasetError>> DataLoaderIterator<Batch> for LoaderIter<F> {
    fn progress(&self) -> Progress {
        Progress::new(self.next - self.range.start, self.range.len(), Some("batches".to_string()))
    }
}
