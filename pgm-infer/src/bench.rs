//! Sampling speed of several models, measured in alternation in one process.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::Device;
use pgm_model::{ModelConfig, Network};

use crate::denoise::{HeadPositions, MaskedDenoiser, NetworkHandle, SamplingPath};
use crate::sample::order::OrderKind;
use crate::sample::{Curve, Guidance, Refresh, RowChange, SampleRequest, SampleSettings, StepView, TokenGrid, sample};
use crate::settings::{curve_schedule, default_schedule};
use crate::{InferError, flops};

/// The work that every model is measured on.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Tokens of a row. A model of images takes rows of its own length.
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
    pub head_at: HeadPositions,
    /// The order of a model of images, `uniform` or `halton`; one that looks at more positions than it decodes would be
    /// counted too low.
    pub order: OrderKind,
    /// The weight of a class in a model of images; 0 is not guided.
    pub guidance: f64,
    /// How often a partition model encodes the clean tokens anew; what it was trained for, if nothing is said.
    pub refresh: Option<Refresh>,
}

/// The measurements of one model.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Seconds of each timed run.
    pub seconds: Vec<f64>,
    /// Network evaluations of the last run.
    pub network_evaluations: usize,
    /// Floating-point operations of each step that decodes something, counted for the tokens that it decoded.
    pub step_flops: Vec<f64>,
    /// Seconds of each such step, for each timed run.
    pub step_seconds: Vec<Vec<f64>>,
}

/// A line fitted to the times of the steps: the fixed cost of a step and the cost of each operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCost {
    /// Seconds of a step without a floating-point operation, by least squares; negative if small steps are more
    /// efficient than large ones.
    pub fixed_seconds: f64,
    /// The fixed cost as a share of the mean step.
    pub fixed_share: f64,
    /// Floating-point operations per second, the fixed cost left out.
    pub flops_per_second: f64,
}

impl Measured {
    /// The median of the timed runs.
    pub fn seconds_median(&self) -> f64 {
        median(&self.seconds)
    }

    /// Floating-point operations of a run.
    pub fn flops(&self) -> f64 {
        self.step_flops.iter().sum()
    }

    /// Operations and median seconds of each step; empty where steps do not decode equal shares.
    pub fn steps(&self) -> Vec<(f64, f64)> {
        let n = self.step_flops.len();
        if self.step_seconds.iter().any(|run| run.len() != n) {
            return Vec::new();
        }
        let seconds = |step: usize| median(&self.step_seconds.iter().map(|run| run[step]).collect::<Vec<_>>());
        self.step_flops.iter().enumerate().map(|(step, &flops)| (flops, seconds(step))).collect()
    }

    /// The line through the steps; none if all steps have as many operations.
    pub fn step_cost(&self) -> Option<StepCost> {
        let steps = self.steps();
        let n = steps.len() as f64;
        let (mean_flops, mean_seconds) =
            steps.iter().fold((0.0, 0.0), |(flops, seconds), step| (flops + step.0 / n, seconds + step.1 / n));
        let spread: f64 = steps.iter().map(|step| (step.0 - mean_flops).powi(2)).sum();
        if spread <= 1e-6 * mean_flops.powi(2) {
            return None;
        }
        let slope = steps.iter().map(|step| (step.0 - mean_flops) * (step.1 - mean_seconds)).sum::<f64>() / spread;
        let fixed_seconds = mean_seconds - slope * mean_flops;
        Some(StepCost { fixed_seconds, fixed_share: fixed_seconds / mean_seconds, flops_per_second: 1.0 / slope })
    }
}

/// The median of at least one number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}

/// Samples with each model in turn, `runs` times, each with its default schedule: `uniform` for a partition model,
/// MDLM's ancestral one for the masked baseline, token by token for the autoregressive one.
///
/// # Errors
/// As [`sample`].
pub fn alternate(
    models: &[(&Network, &ModelConfig)],
    device: &Device,
    workload: &Workload,
) -> Result<Vec<Measured>, InferError> {
    let none =
        Measured { seconds: Vec::new(), network_evaluations: 0, step_flops: Vec::new(), step_seconds: Vec::new() };
    let mut measured = vec![none; models.len()];
    for run in 0..workload.warmup + workload.runs {
        for ((network, config), measured) in models.iter().zip(&mut measured) {
            let (requests, settings) = (requests(config, workload), settings(config, workload));
            let start = Instant::now();
            let (mut last, mut steps, mut counted) = (start, Vec::new(), FlopCounter::new(config, workload));
            let observe = &mut |view: &StepView| {
                let now = Instant::now();
                if counted.add(view.changes) {
                    steps.push((now - last).as_secs_f64());
                }
                last = now;
                ControlFlow::Continue(())
            };
            let outcome = match network {
                Network::Masked(model) => {
                    let (mask_index, head_at) = (config.backbone().mask_index, workload.head_at);
                    let denoiser = MaskedDenoiser::new(model, device, mask_index, head_at);
                    sample(&denoiser, &requests, &settings, observe)?
                }
                _ => NetworkHandle { network, config, device }.generate(
                    &requests,
                    &settings,
                    SamplingPath::Clean,
                    observe,
                )?,
            };
            if run >= workload.warmup {
                measured.seconds.push(start.elapsed().as_secs_f64());
                measured.step_seconds.push(steps);
            }
            measured.network_evaluations = outcome.n_evaluations;
            measured.step_flops = counted.steps;
        }
    }
    Ok(measured)
}

// MaskGIT has no BOS.
fn n_given(config: &ModelConfig) -> usize {
    usize::from(!matches!(config, ModelConfig::MaskGit(_)))
}

fn row_length(config: &ModelConfig, workload: &Workload) -> usize {
    if config.image().is_some() { config.backbone().length } else { workload.length }
}

fn requests(config: &ModelConfig, workload: &Workload) -> Vec<SampleRequest> {
    let (length, bos) = (row_length(config, workload), config.backbone().bos_index as u32);
    let given = (0..n_given(config)).map(|position| (position, bos)).collect::<Vec<_>>();
    let grid = config.image().map(|image| {
        let [rows, columns] = image.grid;
        TokenGrid { start: length - image.n_cells(), rows, columns, channels: image.channels }
    });
    let request = |row: usize| SampleRequest {
        length,
        given: given.clone(),
        seed: row as u64,
        class: config.image().map(|image| row % image.n_classes),
        grid,
        ..SampleRequest::default()
    };
    (0..workload.batch).map(request).collect()
}

fn refresh(config: &ModelConfig, workload: &Workload) -> Refresh {
    match config {
        ModelConfig::Partition(_) => workload.refresh.unwrap_or(Refresh::of_model(config)),
        _ => Refresh::Always,
    }
}

fn settings(config: &ModelConfig, workload: &Workload) -> SampleSettings {
    let text = SampleSettings {
        steps: workload.steps,
        schedule: default_schedule(config),
        refresh: refresh(config, workload),
        ..SampleSettings::default()
    };
    if config.image().is_none() {
        return text;
    }
    let guidance = Guidance { weight: workload.guidance, ..Guidance::default() };
    SampleSettings { order: workload.order, schedule: curve_schedule(Curve::Arccos, workload.order), guidance, ..text }
}

// Counts a run's operations from what its steps decode.
struct FlopCounter<'a> {
    config: &'a ModelConfig,
    workload: &'a Workload,
    length: usize,
    // Decoded tokens of each row, given ones included.
    n_clean: Vec<usize>,
    // Those of them that are encoded and kept.
    n_encoded: Vec<usize>,
    // Evaluations of each row.
    n_evaluations: Vec<usize>,
    refresh: Refresh,
    steps: Vec<f64>,
}

impl<'a> FlopCounter<'a> {
    fn new(config: &'a ModelConfig, workload: &'a Workload) -> Self {
        let (n_clean, none) = (vec![n_given(config); workload.batch], vec![0; workload.batch]);
        let (length, refresh) = (row_length(config, workload), refresh(config, workload));
        let (n_encoded, n_evaluations, steps) = (none.clone(), none, Vec::new());
        Self { config, workload, length, n_clean, n_encoded, n_evaluations, refresh, steps }
    }

    // Whether the step decoded anything.
    fn add(&mut self, changes: &[RowChange]) -> bool {
        let is_masked = matches!(self.config, ModelConfig::Masked(_) | ModelConfig::MaskGit(_));
        let everywhere = is_masked && self.workload.head_at == HeadPositions::Masked;
        let mut flops = 0.0;
        for (row, change) in changes.iter().enumerate() {
            let (n_decoded, n_clean) = (change.decoded.len(), self.n_clean[row]);
            if n_decoded > 0 {
                let n_head = if everywhere { self.length - n_clean } else { n_decoded };
                if self.refresh.is_due(self.n_evaluations[row]) {
                    self.n_encoded[row] = 0;
                }
                flops += flops::evaluation(self.config, self.length, [n_clean, n_clean - self.n_encoded[row]], n_head);
                self.n_encoded[row] = n_clean;
                self.n_evaluations[row] += 1;
                self.n_clean[row] += n_decoded;
            }
        }
        let is_guided = self.config.image().is_some() && self.workload.guidance != 0.0;
        if flops > 0.0 {
            // A guided row is evaluated with its class and without.
            self.steps.push(if is_guided { 2.0 * flops } else { flops });
        }
        flops > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_cost_of_a_step_is_separated_from_the_cost_of_its_operations() {
        let step_flops = vec![1e9, 2e9, 4e9];
        let run = |noise: f64| step_flops.iter().map(|flops| 0.5 + flops / 1e10 + noise).collect();
        let measured = Measured {
            seconds: vec![1.0],
            network_evaluations: 3,
            step_seconds: vec![run(0.3), run(0.0), run(-0.2)],
            step_flops: step_flops.clone(),
        };
        let cost = measured.step_cost().unwrap();
        assert!((cost.fixed_seconds - 0.5).abs() < 1e-9 && (cost.flops_per_second / 1e10 - 1.0).abs() < 1e-9);
        assert!((cost.fixed_share - 0.5 / (0.5 + 7e9 / 3e10)).abs() < 1e-9);
        let alike = Measured { step_flops: vec![1e9; 3], ..measured };
        assert_eq!(alike.step_cost(), None);
    }

    #[test]
    fn operations_are_counted_from_what_the_steps_decode() {
        let device = Device::flex();
        let text = ModelConfig::Masked(pgm_model::MaskedConfig {
            backbone: pgm_model::BackboneConfig::new(12, 8, 2, 9),
            n_blocks: 1,
        });
        let image = pgm_model::ImageConfig { registers: 2, ..pgm_model::ImageConfig::new(3, [4, 4]) };
        let images = ModelConfig::Partition(pgm_model::PartitionConfig {
            backbone: pgm_model::BackboneConfig::for_codes(10, 8, 2, image),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Default::default(),
            projection: Default::default(),
            sets: Default::default(),
        });
        let workload = Workload {
            length: 9,
            batch: 2,
            steps: 4,
            warmup: 0,
            runs: 1,
            head_at: HeadPositions::Decoded,
            order: OrderKind::Halton { roll: false },
            guidance: 0.0,
            refresh: None,
        };
        let measure = |config: &ModelConfig, workload: &Workload| {
            let network = Network::new(config, &device).folded();
            alternate(&[(&network, config)], &device, workload).unwrap().remove(0)
        };
        // The ancestral schedule decodes the row's 8 open tokens, in whatever shares, and every evaluation is of all 9.
        let counted = measure(&text, &workload);
        let bodies = counted.network_evaluations as f64 * 2.0 * flops::evaluation(&text, 9, [1, 1], 0);
        let heads = 2.0 * (flops::evaluation(&text, 9, [1, 1], 8) - flops::evaluation(&text, 9, [1, 1], 0));
        assert!(counted.flops() <= bodies + heads && counted.flops() >= heads);
        let plain = measure(&images, &workload);
        let guided = measure(&images, &Workload { guidance: 2.0, ..workload });
        assert_eq!(plain.step_flops.len(), plain.network_evaluations);
        assert_eq!(guided.flops(), 2.0 * plain.flops());
        // Kept tokens cost attention, but no layers of their own.
        let kept = measure(&images, &Workload { refresh: Some(Refresh::Never), ..workload });
        let sometimes = measure(&images, &Workload { refresh: Some(Refresh::Every(2)), ..workload });
        assert!(kept.flops() < sometimes.flops() && sometimes.flops() < plain.flops());
        assert_eq!(kept.network_evaluations, plain.network_evaluations);
    }
}
