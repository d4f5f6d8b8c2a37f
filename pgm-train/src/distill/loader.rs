//! The micro-batches of a round: rows, times, groups and seeds of a step are functions of (seed, round, step).

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use pgm_data::{RowOrder, TokenRows};
use pgm_model::loss::{GroupDistribution, NoiseSchedule};
use pgm_model::{ModelConfig, Sets};
use rand::RngExt;

use super::teacher::TIME_FLOOR;
use crate::batches::random::{CLASSES, DISTILLATION, DROPOUT, SETS, stream};
use crate::batches::{Batch, BatchIterator, DistillBatch, MaskedRow, draw_groups, read_rows};
use crate::config::{DistillConfig, TargetGroups};
use crate::world::Share;

/// How often a student of images learns without the class, as in training.
const CLASS_DROPOUT: f64 = 0.1;

/// What a row begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstToken {
    /// A token as the others: text.
    Ordinary,
    /// BOS, which is always visible: codes of an image.
    Visible,
    /// BOS, which the network does not have: MaskGIT.
    LeftOut,
}

/// The micro-batches of a round, from a step on.
#[derive(Clone)]
pub(crate) struct DistillLoader {
    rows: Arc<TokenRows>,
    order: RowOrder,
    config: Arc<DistillConfig>,
    // Steps of the rounds before: a round continues the order of the rows.
    steps_before: usize,
    first_token: FirstToken,
    sets: Sets,
    device: Device,
    share: Share,
    // Of this process.
    micro_batches: Range<usize>,
}

impl DistillLoader {
    /// Micro-batches of steps `first_step..` of a round (from 0), on the student's device.
    pub(crate) fn new(
        rows: Arc<TokenRows>,
        config: Arc<DistillConfig>,
        round: usize,
        first_step: usize,
        device: Device,
    ) -> Self {
        let order = RowOrder::new(config.run.seed, rows.len());
        let micro_batches = first_step * config.run.accumulate..config.round_steps * config.run.accumulate;
        let steps_before = round * config.round_steps;
        let (first_token, sets, share) = (FirstToken::Ordinary, Sets::One, Share::default());
        Self { rows, order, steps_before, config, first_token, sets, device, share, micro_batches }
    }

    /// The loader of a process that computes a part of each step's micro-batches.
    #[must_use]
    pub(crate) fn of_share(self, share: Share) -> Self {
        let Range { start, end } = self.micro_batches;
        Self { share, micro_batches: start / share.size..end / share.size, ..self }
    }

    /// The loader for networks of that kind.
    #[must_use]
    pub(crate) fn of_model(self, model: &ModelConfig) -> Self {
        let first_token = match model {
            ModelConfig::MaskGit(_) => FirstToken::LeftOut,
            _ if model.image().is_some() => FirstToken::Visible,
            _ => FirstToken::Ordinary,
        };
        Self { first_token, sets: model.sets(), ..self }
    }

    fn step(&self, step: usize) -> Result<Vec<Batch>, DatasetError> {
        let DistillConfig { targets, ref run, .. } = *self.config;
        let step = (self.steps_before + step) as u64;
        let rows = read_rows(&self.rows, &self.order.step(step, run.batch))?;
        let mut rng = stream(run.seed, DISTILLATION, step);
        let uniforms: Vec<f64> = (0..run.batch).map(|_| rng.random()).collect();
        let schedule = NoiseSchedule::LogLinear;
        let times = schedule.antithetic_times(&uniforms);
        let groups = draw_groups(&rows, GroupDistribution::Noise(schedule), &times, &mut rng);
        let n_copies = if targets == TargetGroups::Both { 2 } else { 1 };
        let mut masked_rows = Vec::with_capacity(run.batch * n_copies);
        let (mut dropped, mut of_sets) = (stream(run.seed, CLASSES, step), stream(run.seed, SETS, step));
        for ((row, is_masked), time) in rows.into_iter().zip(groups).zip(times) {
            let label = row.label.filter(|_| self.first_token != FirstToken::Ordinary);
            let class = label.filter(|_| dropped.random::<f64>() >= CLASS_DROPOUT).map(|label| label as usize);
            let sets = (!self.sets.is_one()).then(|| self.sets.draw_groups(&is_masked, || of_sets.random::<f64>()));
            let row = MaskedRow { tokens: row.tokens, is_masked, time, valid: row.valid, class, sets };
            let other = (targets == TargetGroups::Both).then(|| MaskedRow {
                is_masked: row.is_masked.iter().map(|is_masked| !is_masked).collect(),
                time: (1.0 - time).max(TIME_FLOOR),
                ..row.clone()
            });
            masked_rows.extend([Some(row), other].into_iter().flatten().map(|row| self.begun(row)));
        }
        let n_counted: usize = masked_rows.iter().map(MaskedRow::n_counted).sum();
        let scale = 1.0 / n_counted.max(1) as f64;
        let mut seeds = stream(run.seed, DROPOUT, step);
        let seeds: Vec<u64> = (0..run.accumulate).map(|_| seeds.random()).collect();
        let n_rows = run.micro_batch() * n_copies;
        let batches = self.share.micro_batches(run.accumulate).map(|part| {
            let (rows, device) = (masked_rows[part * n_rows..(part + 1) * n_rows].to_vec(), self.device.clone());
            Batch::Distill(DistillBatch { rows, scale, device, seed: seeds[part] })
        });
        Ok(batches.collect())
    }
}

impl DistillLoader {
    // The row with its first token as the network sees it.
    fn begun(&self, mut row: MaskedRow) -> MaskedRow {
        match self.first_token {
            FirstToken::Ordinary => {}
            FirstToken::Visible => row.is_masked[0] = false,
            FirstToken::LeftOut => {
                row.tokens.remove(0);
                row.is_masked.remove(0);
                row.valid -= 1;
            }
        }
        row
    }
}

impl DataLoader<Batch> for DistillLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let accumulate = self.config.run.accumulate / self.share.size;
        Box::new(BatchIterator::new(self.micro_batches.clone(), move |index| {
            Ok(self.step(index / accumulate)?.split_off(index % accumulate))
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
