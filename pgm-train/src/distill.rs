//! Self-distillation through time (SDTT, arXiv 2410.21035): in rounds, a student learns to do in one step what its
//! teacher does in several, then becomes the teacher.
//!
//! A round is a run of its own in `OUT/round-N/`, with checkpoints, `metrics.jsonl`, `loss.svg` and a model folder. The
//! rows, times, groups and the teacher's decoding of a step are functions of (seed, round, step) alone, so a resumed
//! distillation equals the unbroken one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::{DataFolder, RowOrder, Split, TokenRows};
use pgm_model::loss::antithetic_times;
use pgm_model::{ModelConfig, Network, model_folder};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::batch::{
    Batch, DISTILLATION, DROPOUT, LoaderIter, ValidationLoader, ValidationSettings, draw_groups, read, stream,
};
use crate::checkpoint::{self, CheckpointRecords};
use crate::config::{
    self, Decay, OptimSection, Precision, four, one, ten, three, two_hundred_fifty, two_hundred_fifty_six,
};
use crate::eval::check_same_tokens;
use crate::fit::{Run, TrainEvent, check_same, finish};
use crate::history::ValidationLine;
use crate::learner::{StepOptions, TrainModel};
use crate::lesson::{DistillBatch, Divergence, MaskedRow, TargetGroups, Teacher};
use crate::strategy::{LoopSettings, LoopStart};
use crate::{Objective, TrainError};

/// Which of a student's weights teach the next round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeacherWeights {
    /// The moving average, which then starts anew.
    #[default]
    Ema,
    /// The weights as trained; the average goes on.
    Raw,
}

/// A distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// Rounds, unless `min_steps` ends them before.
    pub rounds: usize,
    /// Optimiser steps of each round.
    pub round_steps: usize,
    /// Rows of an optimiser step.
    pub batch: usize,
    /// Parts into which a step's rows are cut to save memory; their gradients are summed.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// What the matrix products of training are computed in; weights, norms and the loss stay in float32.
    #[serde(default)]
    pub precision: Precision,
    /// Whether norms and activations are computed again in the backward pass instead of kept: the same numbers, a third
    /// less memory for activations, a few per cent more time.
    #[serde(default)]
    pub checkpointing: bool,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Sampling steps that the first teacher stands for: its step is `1 / teacher_steps` of the time.
    #[serde(default = "thousand_twenty_four")]
    pub teacher_steps: usize,
    /// Teacher steps that the student learns to do in one; a round later the teacher's step is so much longer.
    #[serde(default = "two")]
    pub steps_at_once: usize,
    /// No round is begun whose student would sample in fewer steps.
    #[serde(default = "eight")]
    pub min_steps: usize,
    /// How student and teacher are compared.
    #[serde(default)]
    pub divergence: Divergence,
    /// Which groups are predicted.
    #[serde(default)]
    pub targets: TargetGroups,
    /// Which weights teach the next round.
    #[serde(default)]
    pub teacher_weights: TeacherWeights,
    /// Whether each round begins with a fresh optimiser and warm-up.
    #[serde(default)]
    pub restart_optimiser: bool,
    /// Steps between reports.
    #[serde(default = "ten")]
    pub log_every: usize,
    /// Steps between validations (of the NELBO, which distillation trades for fewer steps).
    #[serde(default = "two_hundred_fifty")]
    pub validate_every: usize,
    /// Rows of a validation; 0 takes all.
    #[serde(default = "two_hundred_fifty_six")]
    pub validate_rows: usize,
    /// Antithetic times drawn for each validation row.
    #[serde(default = "four")]
    pub validate_times: usize,
    /// Steps between checkpoints.
    #[serde(default = "two_hundred_fifty")]
    pub checkpoint_every: usize,
    /// Checkpoints kept of each round.
    #[serde(default = "three")]
    pub checkpoint_keep: usize,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimSection,
}

fn two() -> usize {
    2
}
fn eight() -> usize {
    8
}
fn thousand_twenty_four() -> usize {
    1024
}

impl DistillConfig {
    /// Reads a TOML file and puts `settings` (`key=value`, dotted keys) on top.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the file or the setting, the key and what is wrong with it.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|error| TrainError::file("read", path, error))?;
        Self::parse(&text, &path.display().to_string(), settings)
    }

    /// As [`load`](Self::load), from a text.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, settings: &[String]) -> Result<Self, TrainError> {
        let config: Self = config::read(text, origin, settings)?;
        config.validate().map_err(|problem| TrainError::Config { origin: origin.to_string(), problem })?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), String> {
        let positive = [
            ("rounds", self.rounds),
            ("round_steps", self.round_steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("teacher_steps", self.teacher_steps),
            ("steps_at_once", self.steps_at_once),
            ("min_steps", self.min_steps),
            ("log_every", self.log_every),
            ("validate_every", self.validate_every),
            ("checkpoint_every", self.checkpoint_every),
            ("checkpoint_keep", self.checkpoint_keep),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} = 0 must be at least 1"));
        }
        if !self.batch.is_multiple_of(self.accumulate) {
            return Err(format!("batch = {} must be a multiple of accumulate = {}", self.batch, self.accumulate));
        }
        if self.validate_times < 4 {
            return Err(format!("validate_times = {} must be at least 4", self.validate_times));
        }
        if self.schedule().is_empty() {
            return Err(format!(
                "teacher_steps = {} leaves the first student fewer than min_steps = {} steps",
                self.teacher_steps, self.min_steps
            ));
        }
        self.optim.validate()
    }

    /// Sampling steps of the teacher and of the student in each round.
    pub fn schedule(&self) -> Vec<(usize, usize)> {
        let mut teacher = self.teacher_steps;
        let mut rounds = Vec::new();
        while rounds.len() < self.rounds && teacher / self.steps_at_once >= self.min_steps {
            let student = teacher / self.steps_at_once;
            rounds.push((teacher, student));
            teacher = student;
        }
        rounds
    }

    // What may differ when a distillation goes on.
    fn free_keys(&self) -> Vec<&'static str> {
        let mut free = vec![
            "log_every",
            "validate_every",
            "validate_rows",
            "validate_times",
            "checkpoint_every",
            "checkpoint_keep",
            "checkpointing",
        ];
        // A cosine over all rounds depends on how many there are.
        if self.restart_optimiser || self.optim.decay != Decay::Cosine {
            free.push("rounds");
        }
        free
    }
}

/// What to run.
pub struct Distill<'a> {
    /// The distillation.
    pub config: &'a DistillConfig,
    /// The teacher's model folder.
    pub teacher: &'a Path,
    /// The prepared data folder.
    pub data: &'a Path,
    /// The folder of the distillation.
    pub out: &'a Path,
    /// Whether to go on where an earlier run stopped.
    pub resume: bool,
    /// Where to train.
    pub device: &'a Device,
    /// A way to stop after the current step, which is then saved.
    pub interrupter: Interrupter,
    /// Sees what happens.
    pub observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
}

/// How a distillation ended.
#[derive(Clone, Debug)]
pub struct DistillResult {
    /// Model folders of the rounds that are complete, in order.
    pub models: Vec<PathBuf>,
    /// Steps done of the round that was stopped.
    pub stopped_at: Option<usize>,
    /// The last validation.
    pub validation: Option<ValidationLine>,
}

/// Distils, and writes `round-N/` for each round into `out`.
///
/// # Errors
/// What is wrong with the configuration, the teacher, the data, the checkpoints or the disk. Checkpoints written before
/// stay.
pub fn distill(what: Distill) -> Result<DistillResult, TrainError> {
    let config = what.config;
    let data = DataFolder::open(what.data)?;
    let plain = what.device.clone().without_autodiff();
    let how = StepOptions { precision: config.precision, checkpointing: config.checkpointing };
    let device = how.training_device(&plain)?;
    let (model_config, first_teacher) = model_folder::load(what.teacher, &plain)?;
    check_teacher(what.teacher, &model_config, &data)?;
    let round_folder = |round: usize| what.out.join(format!("round-{}", round + 1));
    if !what.resume && round_folder(0).exists() {
        return Err(TrainError::Exists { path: what.out.to_path_buf() });
    }
    let weights = what.teacher.join(model_folder::WEIGHTS_FILE);
    let teacher_crc = checkpoint::fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?.1;
    let train_rows = Arc::new(data.rows(Split::Train)?);
    let validation_rows = Arc::new(data.rows(Split::Validation)?);
    let identity = (data.manifest().tokenizer_sha256.clone(), data.manifest().train.rows);
    let mask = model_config.backbone().mask_index;

    let schedule = config.schedule();
    let mut models = Vec::new();
    let mut validation = None;
    for (round, &(teacher_steps, student_steps)) in schedule.iter().enumerate() {
        let out = round_folder(round);
        let model = out.join("model");
        if model.join(model_folder::CONFIG_FILE).exists() {
            // Its checkpoint says whether it is a round of this distillation.
            if let Some((state, _)) = checkpoint::newest(&out)?.0 {
                check_round(&out, &state, config, teacher_crc, round + 1, &identity)?;
            }
            models.push(model);
            continue;
        }
        std::fs::create_dir_all(&out).map_err(|error| TrainError::file("write", &out, error))?;
        let settings = serde_json::json!({
            "distill": config, "round": round + 1, "teacher_crc32": teacher_crc,
        });
        // The student of the round before: its weights, its average, its optimiser.
        let before = match round {
            0 => None,
            _ => {
                let (newest, damaged) = checkpoint::newest(&round_folder(round - 1))?;
                damaged.into_iter().for_each(|problem| (what.observe)(&TrainEvent::Notice(problem)));
                let path = round_folder(round - 1);
                let (state, records) = newest.ok_or_else(|| TrainError::NoCheckpoint {
                    path: path.clone(),
                    problem: "the round before has none".to_string(),
                })?;
                check_round(&path, &state, config, teacher_crc, round, &identity)?;
                if state.step != config.round_steps {
                    let problem = format!("its last whole checkpoint is of step {}", state.step);
                    return Err(TrainError::NoCheckpoint { path, problem });
                }
                Some(records)
            }
        };
        let teacher = match &before {
            None => first_teacher.clone(),
            Some(records) => {
                let record = match (config.teacher_weights, &records.average) {
                    (TeacherWeights::Ema, Some(average)) => average.clone(),
                    _ => records.model.clone(),
                };
                restored(&model_config, record, mask, &plain)
            }
        };
        let student = first_teacher.clone();
        let start = {
            let (newest, damaged) = checkpoint::newest(&out)?;
            damaged.into_iter().for_each(|problem| (what.observe)(&TrainEvent::Notice(problem)));
            match newest {
                Some((state, records)) => {
                    check_round(&out, &state, config, teacher_crc, round + 1, &identity)?;
                    Some(LoopStart::resumed(&state, records))
                }
                None => before.map(|records| begin(config, records)),
            }
        };
        let first_step = start.as_ref().map_or(0, |start| start.step);
        (what.observe)(&TrainEvent::Round { round: round + 1, n_rounds: schedule.len(), teacher_steps, student_steps });
        let trainee = TrainModel::new(student, mask).computed(how).train();
        (what.observe)(&TrainEvent::Started {
            step: first_step,
            parameters: trainee.network.n_parameters(),
            rows: train_rows.len(),
        });
        let teacher = Teacher {
            network: teacher,
            mask_index: mask,
            dt: 1.0 / teacher_steps as f64,
            n_steps: config.steps_at_once,
        };
        let train = DistillLoader {
            rows: train_rows.clone(),
            order: RowOrder::new(config.seed, train_rows.len()),
            config: Arc::new(config.clone()),
            teacher: Arc::new(teacher),
            first_global_step: round * config.round_steps,
            device: device.clone(),
            micro_batches: first_step * config.accumulate..config.round_steps * config.accumulate,
        };
        let validating = ValidationSettings {
            objective: if matches!(model_config, ModelConfig::Partition(_)) {
                Objective::Partition
            } else {
                Objective::Masked
            },
            batch: config.batch / config.accumulate,
            rows: config.validate_rows,
            times: config.validate_times,
        };
        let validate = ValidationLoader::with(validation_rows.clone(), validating, mask as u32, plain.clone());
        let ema_goes_on = config.teacher_weights == TeacherWeights::Raw;
        let run = Run {
            pace: LoopSettings {
                steps: config.round_steps,
                accumulate: config.accumulate,
                log_every: config.log_every,
                validate_every: config.validate_every,
                checkpoint_every: config.checkpoint_every,
                checkpoint_keep: config.checkpoint_keep,
                clip: config.optim.clip,
                ema: config.optim.ema,
                ema_updates: if ema_goes_on { round * config.round_steps } else { 0 },
                settings,
            },
            optim: &config.optim,
            schedule_steps: if config.restart_optimiser {
                config.round_steps
            } else {
                schedule.len() * config.round_steps
            },
            out: &out,
            device: &device,
            data: identity.clone(),
            start,
            trainee,
            interrupter: what.interrupter.clone(),
            renderer: None,
            observe: what.observe.clone(),
        };
        let ended = run.launch(Arc::new(train), Arc::new(validate))?;
        let finished = finish(&out, &model_config, data.tokenizer().json(), ended, config.round_steps)?;
        validation = finished.validation.or(validation);
        if !finished.complete {
            return Ok(DistillResult { models, stopped_at: Some(finished.step), validation });
        }
        models.push(model);
    }
    Ok(DistillResult { models, stopped_at: None, validation })
}

fn check_teacher(folder: &Path, model: &ModelConfig, data: &DataFolder) -> Result<(), TrainError> {
    let refuse =
        |problem: String| Err(TrainError::Config { origin: format!("--teacher {}", folder.display()), problem });
    if matches!(model, ModelConfig::Autoregressive(_)) {
        return refuse("is autoregressive; distillation needs a partition or a masked model".to_string());
    }
    let (model_length, data_length) = (model.backbone().length, data.manifest().length);
    if model_length != data_length {
        return refuse(format!("has {model_length} tokens in a row, the data has {data_length}; prepare such rows"));
    }
    check_same_tokens(folder, "--teacher", model, data)
}

// The settings of a checkpoint are those of its round.
fn check_round(
    out: &Path,
    state: &checkpoint::CheckpointState,
    config: &DistillConfig,
    teacher_crc: u32,
    round: usize,
    data: &(String, u64),
) -> Result<(), TrainError> {
    let without_free = |mut value: serde_json::Value| {
        if let Some(map) = value.get_mut("distill").and_then(serde_json::Value::as_object_mut) {
            config.free_keys().into_iter().for_each(|key| drop(map.remove(key)));
        }
        value
    };
    let settings = serde_json::json!({ "distill": config, "round": round, "teacher_crc32": teacher_crc });
    let mut state = state.clone();
    state.config = without_free(state.config);
    check_same(out, &state, &without_free(settings), &[], data)
}

// Where a round begins whose student is that of the round before.
fn begin(config: &DistillConfig, before: CheckpointRecords) -> LoopStart {
    LoopStart {
        step: 0,
        pending: checkpoint::PendingLoss::default(),
        seconds: 0.0,
        model: before.model,
        average: before.average.filter(|_| config.teacher_weights == TeacherWeights::Raw),
        optimiser: (!config.restart_optimiser).then_some((before.optim, before.scheduler)),
    }
}

fn restored(config: &ModelConfig, record: ModuleRecord, mask: usize, device: &Device) -> Network {
    TrainModel::new(Network::new(config, device), mask).load_record(record).valid().network
}

/// The micro-batches of a round, from a step on.
#[derive(Clone)]
struct DistillLoader {
    rows: Arc<TokenRows>,
    order: RowOrder,
    config: Arc<DistillConfig>,
    teacher: Arc<Teacher>,
    // Steps of the rounds before, so that no round sees the rows of another again at once.
    first_global_step: usize,
    device: Device,
    micro_batches: std::ops::Range<usize>,
}

impl DistillLoader {
    fn step(&self, step: usize) -> Result<Vec<Batch>, DatasetError> {
        let DistillConfig { batch, accumulate, seed, targets, divergence, .. } = *self.config;
        let global = (self.first_global_step + step) as u64;
        let rows = read(&self.rows, &self.order.step(global, batch))?;
        let mut rng = stream(seed, DISTILLATION, global);
        let uniforms: Vec<f64> = (0..batch).map(|_| rng.random()).collect();
        let times = antithetic_times(&uniforms);
        let groups = draw_groups(&rows, &times, &mut rng);
        let views_per_row = if targets == TargetGroups::Both { 2 } else { 1 };
        let mut views = Vec::with_capacity(batch * views_per_row);
        for ((row, is_masked), time) in rows.into_iter().zip(groups).zip(times) {
            let view = MaskedRow { tokens: row.tokens, is_masked, time, valid: row.valid };
            let other = (targets == TargetGroups::Both).then(|| MaskedRow {
                is_masked: view.is_masked.iter().map(|is_masked| !is_masked).collect(),
                time: (1.0 - time).max(crate::lesson::TIME_FLOOR),
                ..view.clone()
            });
            views.push(view);
            views.extend(other);
        }
        let n_counted: usize = views.iter().map(MaskedRow::n_counted).sum();
        let scale = 1.0 / n_counted.max(1) as f64;
        let mut seeds = stream(seed, DROPOUT, global);
        let micro = batch / accumulate * views_per_row;
        let lessons = views.chunks(micro).map(|views| {
            Batch::Distillation(DistillBatch {
                teacher: self.teacher.clone(),
                views: views.to_vec(),
                groups: targets,
                divergence,
                scale,
                device: self.device.clone(),
                seed: seeds.random(),
            })
        });
        Ok(lessons.collect())
    }
}

impl DataLoader<Batch> for DistillLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let accumulate = self.config.accumulate;
        Box::new(LoaderIter::new(self.micro_batches.clone(), move |index| {
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

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "rounds = 5\nround_steps = 4\nbatch = 2\n";

    #[test]
    fn rounds_halve_the_steps_until_there_are_too_few() {
        let schedule = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
            DistillConfig::parse(TOML, "test", &settings).map(|config| config.schedule())
        };
        assert_eq!(schedule(&[]).unwrap(), [(1024, 512), (512, 256), (256, 128), (128, 64), (64, 32)]);
        assert_eq!(schedule(&["teacher_steps=32"]).unwrap(), [(32, 16), (16, 8)]);
        assert_eq!(schedule(&["teacher_steps=64", "steps_at_once=4"]).unwrap(), [(64, 16)]);
        assert_eq!(schedule(&["rounds=2", "steps_at_once=1"]).unwrap(), [(1024, 1024); 2]);
        let message = schedule(&["teacher_steps=15"]).unwrap_err().to_string();
        assert!(message.contains("teacher_steps = 15"), "{message}");
    }
}
