//! Draws samples from a model for [`judge_samples`](crate::judge::judge_samples).

use std::ops::ControlFlow;
use std::time::Instant;

use pgm_infer::sample::Refresh;
use pgm_infer::settings::{DEFAULT_STEPS, default_schedule};
use pgm_infer::{DrawSettings, OrderKind, SampleRequest, SampleSettings, SamplingPath};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::EvalModel;
use super::result_log::ResultLog;
use crate::TrainError;
use crate::judge::{Observe, Sample, report_progress};

/// Settings of [`sample_texts`]. Sample `i` depends on the seed `seed + i` only, not on its batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerativeSettings {
    /// Number of samples.
    pub samples: usize,
    /// Length of a sample, BOS included; 0 takes the model's.
    pub length: usize,
    /// Sampling steps.
    pub steps: usize,
    /// The order, which chooses the positions that a step decodes.
    #[serde(default)]
    pub order: OrderKind,
    /// The temperature divides the logits.
    pub temperature: f64,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of tokens that holds this probability.
    pub top_p: f64,
    /// How often a partition model encodes clean tokens anew; what it was trained for, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// Seed of the first sample.
    pub seed: u64,
    /// Samples of a batch.
    #[serde(skip)]
    pub batch: usize,
}

impl Default for GenerativeSettings {
    /// The paper's 1024 samples.
    fn default() -> Self {
        Self {
            samples: 1024,
            length: 0,
            steps: DEFAULT_STEPS,
            order: OrderKind::Uniform,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            refresh: None,
            seed: 0,
            batch: 8,
        }
    }
}

/// A batch of samples with its sampling time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleBatch {
    /// Its samples.
    pub samples: Vec<Sample>,
    /// Sampling time in seconds.
    pub seconds: f64,
}

/// Identifies the evaluation in a [`ResultLog`]: model and settings.
pub fn identity(model: &EvalModel, settings: &GenerativeSettings) -> Value {
    json!({ "eval": "generative", "subject": model.identity(), "settings": settings })
}

/// Draws samples with the schedule of the model's kind ([`default_schedule`]). The text of a sample contains the names of
/// special tokens, as in the public code.
///
/// # Errors
/// [`TrainError::Config`] when a setting is out of range, and the sampler's errors. [`TrainError::Stopped`] when `observe`
/// breaks; the samples so far are then in the log.
pub fn sample_texts(
    model: &EvalModel,
    settings: &GenerativeSettings,
    mut log: ResultLog<SampleBatch>,
    observe: &mut Observe,
) -> Result<Vec<SampleBatch>, TrainError> {
    let model = model.text_model();
    let backbone = model.config().backbone();
    let length = if settings.length == 0 { backbone.length } else { settings.length };
    if settings.samples == 0 || settings.batch == 0 || settings.steps == 0 || length < 2 {
        let problem = "-n, --batch and --steps must be at least 1, --length at least 2".to_string();
        return Err(TrainError::Config { origin: "eval generative".to_string(), problem });
    }
    let draw = DrawSettings { temperature: settings.temperature, top_k: settings.top_k, top_p: settings.top_p };
    let sampler = SampleSettings {
        steps: settings.steps,
        schedule: default_schedule(model.config()),
        order: settings.order,
        draw,
        refresh: settings.refresh.unwrap_or(Refresh::of_model(model.config())),
        ..SampleSettings::default()
    };
    let mut n_done: usize = log.done().iter().map(|batch| batch.samples.len()).sum();
    while n_done < settings.samples {
        report_progress(observe, n_done, settings.samples)?;
        let n_now = settings.batch.min(settings.samples - n_done);
        let request = |index: usize| SampleRequest {
            length,
            given: vec![(0, backbone.bos_index as u32)],
            seed: settings.seed.wrapping_add((n_done + index) as u64),
            ..SampleRequest::default()
        };
        let requests: Vec<SampleRequest> = (0..n_now).map(request).collect();
        let start = Instant::now();
        let mut stopped = false;
        let outcome = model.generate(&requests, &sampler, SamplingPath::Clean, &mut |_| {
            stopped = observe(n_done, settings.samples).is_break();
            if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if stopped {
            return Err(TrainError::Stopped);
        }
        let seconds = start.elapsed().as_secs_f64();
        let sample = |tokens: Vec<u32>| {
            let text = model.decode_with_special(&tokens)?;
            Ok(Sample { text, tokens: Some(tokens) })
        };
        let samples = outcome.rows.into_iter().map(|row| sample(row.tokens)).collect::<Result<_, TrainError>>()?;
        log.push(SampleBatch { samples, seconds })?;
        n_done += n_now;
    }
    report_progress(observe, settings.samples, settings.samples)?;
    Ok(log.into_done())
}
