//! The micro-batches of training: rows, times, groups and weights of a step are functions of (seed, step).

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use pgm_data::{RowOrder, TokenRows};
use pgm_model::loss::GroupDistribution;
use rand::RngExt;

use super::batch::{Batch, ObjectiveBatch};
use super::host_batch::{BatchKind, HostBatch, causal_weights, draw_groups, draw_sets, read_rows};
use super::iterator::BatchIterator;
use super::random::{CLASSES, DROPOUT, SETS, TRAINING, stream};
use crate::config::{Objective, TrainConfig};
use crate::world::Share;

/// The micro-batches of training, from a step on.
#[derive(Clone)]
pub struct TrainLoader {
    rows: Arc<TokenRows>,
    order: RowOrder,
    config: Arc<TrainConfig>,
    mask: u32,
    of_images: bool,
    device: Device,
    share: Share,
    // Of this process.
    micro_batches: Range<usize>,
}

impl TrainLoader {
    /// Micro-batches of steps `first_step..config.steps`, on `device`.
    pub fn new(rows: Arc<TokenRows>, config: Arc<TrainConfig>, mask: u32, device: Device, first_step: usize) -> Self {
        let order = RowOrder::new(config.run.seed, rows.len());
        let micro_batches = first_step * config.run.accumulate..config.steps * config.run.accumulate;
        Self { rows, order, config, mask, of_images: false, device, share: Share::default(), micro_batches }
    }

    /// The loader of a process that computes a part of each step's micro-batches.
    #[must_use]
    pub fn of_share(self, share: Share) -> Self {
        let Range { start, end } = self.micro_batches;
        Self { share, micro_batches: start / share.size..end / share.size, ..self }
    }

    /// The loader for a model of image codes: groups follow the arccos of a uniform number, BOS is visible and no target,
    /// rows have classes.
    #[must_use]
    pub fn of_images(self, of_images: bool) -> Self {
        Self { of_images, ..self }
    }

    /// The micro-batches of a step, or this process's share of them. Times are antithetic over the whole step, the loss is a mean
    /// over its tokens.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn step(&self, step: usize) -> Result<Vec<ObjectiveBatch>, DatasetError> {
        let TrainConfig { objective, weight_floor, class_dropout, ref run, .. } = *self.config;
        let kind = BatchKind { objective, of_images: self.of_images, mask: self.mask };
        let rows = read_rows(&self.rows, &self.order.step(step as u64, run.batch))?;
        let distribution = if self.of_images { GroupDistribution::Arccos } else { GroupDistribution::default() };
        let mut rng = stream(run.seed, TRAINING, step as u64);
        let uniforms: Vec<f64> = (0..run.batch).map(|_| rng.random()).collect();
        let levels = distribution.levels(&uniforms);
        let groups = draw_groups(&rows, distribution, &levels, &mut rng);
        let weigh = |level: f64, groups: &[bool]| -> Vec<f64> {
            let mut weights = match objective {
                Objective::Partition | Objective::MaskedComplementary => {
                    distribution.partition_weights(level, groups, weight_floor)
                }
                Objective::Masked => distribution.masked_weights(level, groups),
                Objective::Autoregressive => causal_weights(groups.len()),
                // MaskGIT also learns to repeat the codes that it sees.
                Objective::Maskgit => vec![1.0; groups.len()],
            };
            if kind.skips_first() {
                weights[0] = 0.0;
            }
            weights
        };
        let weights = levels.iter().zip(&groups).map(|(&level, groups)| weigh(level, groups)).collect();
        let mut dropped = stream(run.seed, CLASSES, step as u64);
        let classes = kind.classes(&rows, || dropped.random::<f64>() < class_dropout);
        let mut rng = stream(run.seed, SETS, step as u64);
        let sets = draw_sets(self.config.model.sets, &groups, |_| rng.random());
        let host = HostBatch { kind, rows, classes, groups, sets, weights };
        let scale = 1.0 / host.n_valid().max(1) as f64;
        let mut dropout = stream(run.seed, DROPOUT, step as u64);
        let n_rows = run.micro_batch();
        let seeds: Vec<u64> = (0..run.accumulate).map(|_| dropout.random()).collect();
        let batches = self.share.micro_batches(run.accumulate).map(|part| ObjectiveBatch {
            seed: seeds[part],
            ..host.upload(part * n_rows..(part + 1) * n_rows, &self.device, scale)
        });
        Ok(batches.collect())
    }
}

impl DataLoader<Batch> for TrainLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let accumulate = self.config.run.accumulate / self.share.size;
        Box::new(BatchIterator::new(self.micro_batches.clone(), move |index| {
            let batches = self.step(index / accumulate)?.split_off(index % accumulate);
            Ok(batches.into_iter().map(|batch| Batch::Objective(Box::new(batch))).collect())
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
