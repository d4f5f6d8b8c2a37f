//! Everything about one model's kept encodings: what they cost, what they save, and what samples are like.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use pgm_data::DataFolder;
use pgm_infer::OrderKind;
use pgm_infer::bench::{Workload, alternate, median};
use pgm_infer::denoise::HeadPositions;
use pgm_infer::sample::Refresh;
use serde::Serialize;

use super::{CacheFigures, CacheSettings, CacheSpeed, cache, check, identity, plot};
use crate::TrainError;
use crate::eval::generative::{self, GenerativeSettings, sample_texts};
use crate::eval::model::EvalModel;
use crate::eval::result_log::ResultLog;
use crate::judge::metrics::Estimate;
use crate::judge::{Judge, JudgeReport, JudgeSettings, Sample, judge_samples};

/// What [`measure`] needs beside the settings of the comparison.
pub struct CacheInputs<'a> {
    /// A partition model.
    pub model: &'a EvalModel,
    /// Data with the model's tokenizer.
    pub data: &'a DataFolder,
    /// Judges samples, if given; and whether its tokens are the model's.
    pub judge: Option<(&'a dyn Judge, bool)>,
    /// Samples for the judge.
    pub samples: usize,
    /// Rows that are sampled together in the measurement of speed.
    pub batch: usize,
    /// Timed runs of each interval, in turns.
    pub runs: usize,
    /// The model's device.
    pub device: &'a Device,
    /// A folder for what is measured so far, from which the same call continues.
    pub out: &'a Path,
}

/// All figures of a model, an entry for each interval.
#[derive(Clone, Debug, Serialize)]
pub struct CacheReport {
    /// What keeping costs.
    pub figures: Vec<CacheFigures>,
    /// How fast it is.
    pub speed: Vec<CacheSpeed>,
    /// Samples under the judge; empty without one.
    pub judge: Vec<JudgeReport>,
}

/// Is told what is counted, how much of it is done, and of how much.
pub type ObserveCache<'a> = dyn FnMut(&'static str, usize, usize) -> ControlFlow<()> + 'a;

/// Compares refresh intervals: their divergence and bound, their speed, and samples under a judge.
///
/// # Errors
/// As [`cache`]; also when sampling or judging fails.
pub fn measure(
    inputs: &CacheInputs,
    settings: &CacheSettings,
    observe: &mut ObserveCache,
) -> Result<CacheReport, TrainError> {
    check(inputs.model, inputs.data, settings)?;
    std::fs::create_dir_all(inputs.out).map_err(|error| TrainError::file("write", inputs.out, error))?;
    let what = identity(inputs.model, inputs.data, settings)?;
    let log = ResultLog::open(Some(&inputs.out.join("rows.jsonl")), &what)?;
    let figures = cache(inputs.model, inputs.data, settings, log, &mut |done, all| observe("rows", done, all))?;
    let speed = speeds(inputs, settings, observe)?;
    let mut judge = Vec::new();
    if let Some(by) = inputs.judge {
        for &refresh in &settings.refresh {
            judge.push(judged(inputs, settings, by, refresh, observe)?);
        }
    }
    Ok(CacheReport { figures, speed, judge })
}

// The intervals take turns, so that what else the machine does meets them all.
fn speeds(
    inputs: &CacheInputs,
    settings: &CacheSettings,
    observe: &mut ObserveCache,
) -> Result<Vec<CacheSpeed>, TrainError> {
    let model = inputs.model.text_model();
    let (n_intervals, runs, batch) = (settings.refresh.len(), inputs.runs.max(1), inputs.batch.max(1));
    let length = inputs.data.manifest().length;
    let mut seconds = vec![Vec::new(); n_intervals];
    for round in 0..runs {
        for (index, (&refresh, seconds)) in settings.refresh.iter().zip(&mut seconds).enumerate() {
            let workload = Workload {
                length,
                batch,
                steps: settings.steps,
                warmup: usize::from(round == 0),
                runs: 1,
                head_at: HeadPositions::Decoded,
                order: OrderKind::Uniform,
                guidance: 0.0,
                refresh: Some(refresh),
            };
            let measured = alternate(&[(model.network(), model.config())], inputs.device, &workload)?;
            seconds.push(measured[0].seconds_median());
            if observe("timed runs", round * n_intervals + index + 1, runs * n_intervals).is_break() {
                return Err(TrainError::Stopped);
            }
        }
    }
    Ok(seconds.iter().map(|seconds| CacheSpeed::new(batch * length, median(seconds))).collect())
}

fn judged(
    inputs: &CacheInputs,
    settings: &CacheSettings,
    (judge, same_tokens): (&dyn Judge, bool),
    refresh: Refresh,
    observe: &mut ObserveCache,
) -> Result<JudgeReport, TrainError> {
    let sampling = GenerativeSettings {
        samples: inputs.samples,
        length: inputs.data.manifest().length,
        steps: settings.steps,
        refresh: Some(refresh),
        seed: settings.seed,
        ..GenerativeSettings::default()
    };
    let path = inputs.out.join(format!("samples-{refresh}.jsonl"));
    let log = ResultLog::open(Some(&path), &generative::identity(inputs.model, &sampling))?;
    let mut observe = |done, all| observe("samples", done, all);
    let batches = sample_texts(inputs.model, &sampling, log, &mut observe)?;
    let samples: Vec<Sample> = batches.into_iter().flat_map(|batch| batch.samples).collect();
    let judging = JudgeSettings { length: 1024, batch: 8, seed: settings.seed, same_tokens };
    judge_samples(judge, &samples, &judging, &mut observe)
}

impl CacheReport {
    /// The figures as a Markdown table.
    pub fn table(&self) -> String {
        let mut lines = vec![
            "| refresh | nats per token | over R = 1 | KL per token | tokens/s | judge perplexity | entropy |"
                .to_string(),
            "|---|---|---|---|---|---|---|".to_string(),
        ];
        for (index, (figures, speed)) in self.figures.iter().zip(&self.speed).enumerate() {
            let report = self.judge.get(index);
            let cells = [
                figures.refresh.to_string(),
                Estimate::shown(figures.nats_per_token, 3),
                Estimate::shown(figures.nats_over_anew, 4),
                Estimate::shown(figures.kl_per_token, 4),
                format!("{:.0}", speed.tokens_per_second),
                Estimate::shown(report.and_then(|report| report.paper.perplexity), 1),
                Estimate::shown(report.and_then(|report| report.entropy_model_tokens), 3),
            ];
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        lines.join("\n") + "\n"
    }

    /// What keeping costs against how fast it is, as SVG.
    ///
    /// # Errors
    /// As [`plot`].
    pub fn plot(&self) -> Result<String, TrainError> {
        plot(&self.figures, &self.speed)
    }
}
