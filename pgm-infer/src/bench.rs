//! Sampling speed, several models in alternation in one process.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::Device;
use pgm_model::{ModelConfig, Network};

use crate::denoiser::{HeadAt, MaskedDenoiser};
use crate::sampler::{Request, Settings, StepView, sample};
use crate::text::{Route, Source};
use crate::{InferError, Schedule, flops};

/// What every model samples.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Tokens of a row.
    pub length: usize,
    /// Rows.
    pub batch: usize,
    /// Steps.
    pub steps: usize,
    /// Runs of each model before the timed ones.
    pub warmup: usize,
    /// Timed runs of each model.
    pub runs: usize,
    /// Where a masked baseline runs its head.
    pub head_at: HeadAt,
}

/// What one model did.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Seconds of each timed run.
    pub seconds: Vec<f64>,
    /// Network evaluations of the last run.
    pub network_evaluations: usize,
    /// Floating-point operations of a run, counted for equal shares.
    pub flops: f64,
}

impl Measured {
    /// The median of the timed runs.
    pub fn seconds_median(&self) -> f64 {
        median(&self.seconds)
    }
}

/// The median of at least one number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}

/// Samples with each model in turn, `runs` times, each by its own default sampler: `uniform` for a partition model,
/// MDLM's ancestral one for the masked baseline, token by token for the autoregressive one.
///
/// # Errors
/// As [`sample`].
pub fn alternate(
    models: &[(&Network, &ModelConfig)],
    device: &Device,
    workload: &Workload,
) -> Result<Vec<Measured>, InferError> {
    let mut measured: Vec<Measured> = models
        .iter()
        .map(|(_, config)| Measured {
            seconds: Vec::new(),
            network_evaluations: 0,
            flops: workload.batch as f64
                * flops::uniform_sampling(config, workload.length, workload.steps, workload.head_at),
        })
        .collect();
    for run in 0..workload.warmup + workload.runs {
        for ((network, config), measured) in models.iter().zip(&mut measured) {
            let bos = config.backbone().bos_index as u32;
            let request = |row: usize| Request { length: workload.length, given: vec![(0, bos)], seed: row as u64 };
            let requests: Vec<Request> = (0..workload.batch).map(request).collect();
            let schedule = default_schedule(config);
            let settings = Settings { steps: workload.steps, schedule, ..Settings::default() };
            let start = Instant::now();
            let observe = &mut |_: &StepView| ControlFlow::Continue(());
            let outcome = match network {
                Network::Masked(model) => {
                    let (mask_index, head_at) = (config.backbone().mask_index, workload.head_at);
                    let denoiser = MaskedDenoiser { model, device, mask_index, head_at };
                    sample(&denoiser, &requests, &settings, observe)?
                }
                _ => Source { network, config, device }.generate(&requests, &settings, Route::Clean, observe)?,
            };
            if run >= workload.warmup {
                measured.seconds.push(start.elapsed().as_secs_f64());
            }
            measured.network_evaluations = outcome.n_evaluations;
        }
    }
    Ok(measured)
}

/// The schedule a model is sampled with unless another is asked for.
pub fn default_schedule(config: &ModelConfig) -> Schedule {
    match config {
        ModelConfig::Partition(_) | ModelConfig::Autoregressive(_) => Schedule::Uniform,
        ModelConfig::Masked(_) => Schedule::Binomial,
    }
}
