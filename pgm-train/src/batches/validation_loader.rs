//! The batches of a validation: the first rows of the split, each with several draws of hidden tokens, the same in every
//! run.

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use pgm_data::TokenRows;
use pgm_model::Sets;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::batch::ValidationBatch;
use super::host_batch::{BatchKind, HostBatch, causal_weights, draw_sets, read_rows};
use super::iterator::BatchIterator;
use super::random::{VALIDATION_SEED, VALIDATION_SETS, stream};
use crate::config::{Objective, RunConfig};
use crate::draws::{DrawnItem, HiddenTokens, NelboDraws};

/// How a run validates.
#[derive(Clone, Copy, Debug)]
struct ValidationSettings {
    kind: BatchKind,
    /// Rows of a batch.
    batch: usize,
    /// Rows in all.
    rows: usize,
    /// Draws of each row; an autoregressive model has none and takes each row once.
    times: usize,
    /// How clean tokens see each other.
    sets: Sets,
}

/// The batches of a validation.
#[derive(Clone)]
pub struct ValidationLoader {
    rows: Arc<TokenRows>,
    settings: ValidationSettings,
    draws: NelboDraws,
    device: Device,
    batches: Range<usize>,
}

impl ValidationLoader {
    /// All batches of a validation, on `device`.
    pub fn new(rows: Arc<TokenRows>, objective: Objective, run: &RunConfig, mask: u32, device: Device) -> Self {
        // The NELBO of a complementary model is that of the masked one.
        let objective = if objective == Objective::MaskedComplementary { Objective::Masked } else { objective };
        let settings = ValidationSettings {
            kind: BatchKind { objective, of_images: false, mask },
            batch: run.micro_batch(),
            rows: if run.validate_rows == 0 { rows.len() } else { run.validate_rows.min(rows.len()) },
            times: if objective == Objective::Autoregressive { 1 } else { run.validate_times },
            sets: Sets::One,
        };
        let n_batches = settings.rows.div_ceil(settings.batch) * settings.times;
        let draws = NelboDraws::of_validation(run.validate_estimator, settings.rows, settings.times);
        Self { rows, settings, draws, device, batches: 0..n_batches }
    }

    /// The loader for a model of image codes: BOS is always visible, and rows have their classes.
    #[must_use]
    pub fn of_images(mut self, of_images: bool) -> Self {
        self.settings.kind.of_images = of_images;
        self
    }

    /// The loader for a partition model whose clean tokens see each other so. The bound is the mean over the numbers of sets
    /// that are drawn.
    #[must_use]
    pub fn with_sets(mut self, sets: Sets) -> Self {
        self.settings.sets = sets;
        self
    }

    fn batch(&self, index: usize) -> Result<ValidationBatch, DatasetError> {
        let ValidationSettings { kind, batch, times, rows: n_rows, sets } = self.settings;
        let (block, draw) = (index / times, index % times);
        let range = block * batch..((block + 1) * batch).min(n_rows);
        let rows = read_rows(&self.rows, &range.clone().collect::<Vec<_>>())?;
        let tokens: Vec<usize> = rows.iter().map(|row| kind.n_counted(row)).collect();
        let (mut groups, mut weights) = (Vec::new(), Vec::new());
        for (row, index) in rows.iter().zip(range.clone()) {
            let length = row.tokens.len();
            if kind.objective == Objective::Autoregressive {
                groups.push(vec![false; length]);
                weights.push(causal_weights(length));
            } else {
                let n_given = usize::from(kind.of_images);
                let item = DrawnItem { place: index, index, length: length - n_given, valid: row.valid - n_given };
                let HiddenTokens { mut is_hidden, weight } = self.draws.draw(item, draw);
                if kind.of_images {
                    is_hidden.insert(0, false);
                }
                weights.push(is_hidden.iter().map(|&is_hidden| if is_hidden { weight } else { 0.0 }).collect());
                groups.push(is_hidden);
            }
        }
        let classes = kind.classes(&rows, || false);
        let set_stream = |row: usize| stream(VALIDATION_SEED, VALIDATION_SETS, (row * times + draw) as u64);
        let mut streams: Vec<ChaCha8Rng> = range.clone().map(set_stream).collect();
        let sets = draw_sets(sets, &groups, |row| streams[row].random());
        let batch = HostBatch { kind, rows, classes, groups, sets, weights }.upload(0..range.len(), &self.device, 1.0);
        Ok(ValidationBatch { batch, rows: range, tokens })
    }
}

impl DataLoader<ValidationBatch> for ValidationLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<ValidationBatch> + 'a> {
        Box::new(BatchIterator::new(self.batches.clone(), |index| Ok(vec![self.batch(index)?])))
    }

    fn num_items(&self) -> usize {
        self.batches.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<ValidationBatch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<ValidationBatch>> {
        Arc::new(Self { batches: self.batches.start + start..self.batches.start + end, ..self.clone() })
    }
}
