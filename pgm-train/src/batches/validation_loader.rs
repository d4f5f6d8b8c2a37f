//! The batches of a validation: the first rows of the split, each at several antithetic times, the same in every run.

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use pgm_data::TokenRows;
use pgm_model::loss::{EPS, nelbo_weights};
use rand::RngExt;

use super::batch::ObjectiveBatch;
use super::host_batch::{HostBatch, causal_weights, draw_groups, read_rows};
use super::iterator::BatchIterator;
use super::random::{VALIDATION, VALIDATION_GROUPS, VALIDATION_SEED, stream};
use crate::config::{Objective, RunConfig};

/// How a run validates.
#[derive(Clone, Copy, Debug)]
struct ValidationSettings {
    objective: Objective,
    /// Rows of a batch.
    batch: usize,
    /// Rows in all.
    rows: usize,
    /// Times of each row; an autoregressive model has none and takes each row once.
    times: usize,
}

/// The batches of a validation.
#[derive(Clone)]
pub struct ValidationLoader {
    rows: Arc<TokenRows>,
    settings: ValidationSettings,
    mask: u32,
    device: Device,
    batches: Range<usize>,
}

impl ValidationLoader {
    /// All batches of a validation, on `device`.
    pub fn new(rows: Arc<TokenRows>, objective: Objective, run: &RunConfig, mask: u32, device: Device) -> Self {
        let settings = ValidationSettings {
            // The NELBO of a complementary model is that of the masked one.
            objective: if objective == Objective::MaskedComplementary { Objective::Masked } else { objective },
            batch: run.micro_batch(),
            rows: if run.validate_rows == 0 { rows.len() } else { run.validate_rows.min(rows.len()) },
            times: if objective == Objective::Autoregressive { 1 } else { run.validate_times },
        };
        let n_batches = settings.rows.div_ceil(settings.batch) * settings.times;
        Self { rows, settings, mask, device, batches: 0..n_batches }
    }

    // Weights are w(t) on group 1 and not yet divided by the number of tokens.
    fn batch(&self, index: usize) -> Result<ObjectiveBatch, DatasetError> {
        let ValidationSettings { objective, batch, times: n_times, rows: n_rows } = self.settings;
        let (block, time_index) = (index / n_times, index % n_times);
        let indices: Vec<usize> = (block * batch..((block + 1) * batch).min(n_rows)).collect();
        let rows = read_rows(&self.rows, &indices)?;
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
        let host = HostBatch { rows, times, groups };
        let weigh = |t: f64, groups: &[bool]| match objective {
            Objective::Autoregressive => causal_weights(groups.len()),
            _ => nelbo_weights(t, groups).collect(),
        };
        Ok(host.upload(0..indices.len(), objective, self.mask, &self.device, weigh, 1.0))
    }
}

impl DataLoader<ObjectiveBatch> for ValidationLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<ObjectiveBatch> + 'a> {
        Box::new(BatchIterator::new(self.batches.clone(), |index| Ok(vec![self.batch(index)?])))
    }

    fn num_items(&self) -> usize {
        self.batches.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<ObjectiveBatch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<ObjectiveBatch>> {
        Arc::new(Self { batches: self.batches.start + start..self.batches.start + end, ..self.clone() })
    }
}
