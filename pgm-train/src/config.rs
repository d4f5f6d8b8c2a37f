//! What a training run is: a strict TOML file, with `--set key=value` on top.

use std::path::Path;

use pgm_data::Manifest;
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::learner::StepOptions;

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The partition loss: every position supervised, each group from the other.
    #[default]
    Partition,
    /// MDLM's loss on masked tokens.
    Masked,
    /// MDLM with complementary masks: each row twice, either group masked, at half weight. Every position is
    /// supervised, as in the partition loss, at twice the cost of `masked`.
    MaskedComplementary,
    /// Each token from those before it.
    Autoregressive,
}

/// What the matrix products of training are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16 inputs with float32 accumulation.
    Bf16,
}

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What is trained.
    pub objective: Objective,
    /// Optimiser steps.
    pub steps: usize,
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
    /// Steps between reports.
    #[serde(default = "ten")]
    pub log_every: usize,
    /// Steps between validations; one always comes at the last step.
    #[serde(default = "two_hundred_fifty")]
    pub validate_every: usize,
    /// Rows of a validation, from the start of the split; 0 takes all.
    #[serde(default = "two_hundred_fifty_six")]
    pub validate_rows: usize,
    /// Antithetic times drawn for each validation row.
    #[serde(default = "four")]
    pub validate_times: usize,
    /// Steps between checkpoints; one always comes at the last step.
    #[serde(default = "two_hundred_fifty")]
    pub checkpoint_every: usize,
    /// Checkpoints kept.
    #[serde(default = "three")]
    pub checkpoint_keep: usize,
    /// The network.
    pub model: ModelSection,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimSection,
}

pub(crate) fn one() -> usize {
    1
}
pub(crate) fn three() -> usize {
    3
}
pub(crate) fn four() -> usize {
    4
}
pub(crate) fn ten() -> usize {
    10
}
pub(crate) fn two_hundred_fifty() -> usize {
    250
}
pub(crate) fn two_hundred_fifty_six() -> usize {
    256
}

/// The network's sizes. Vocabulary and special tokens come from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Encoder blocks; the baselines have encoder + decoder blocks.
    pub encoder: usize,
    /// Decoder blocks.
    pub decoder: usize,
    /// Tokens of a row, as prepared.
    pub length: usize,
    /// Dropout probability.
    #[serde(default)]
    pub dropout: f64,
    /// What the GroupSwap's queries are made of.
    #[serde(default)]
    pub queries: Queries,
    /// How they are projected.
    #[serde(default)]
    pub projection: Projection,
    /// Width of the conditioning vector.
    #[serde(default = "cond")]
    pub cond: usize,
}

fn cond() -> usize {
    128
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// It follows a half cosine to zero at the last step.
    Cosine,
}

/// AdamW with the paper's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimSection {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Steps of linear warm-up: `(i + 1) / warmup` at step i.
    pub warmup: usize,
    /// What follows.
    pub decay: Decay,
    /// Largest global gradient norm; 0 does not clip.
    pub clip: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the averaged weights; 0 keeps no average.
    pub ema: f64,
    /// First moment's decay.
    pub beta1: f64,
    /// Second moment's decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Floor of 1 - t in the weight of group 0; 0 is the public code's unbounded weight.
    pub weight_floor: f64,
}

impl Default for OptimSection {
    fn default() -> Self {
        Self {
            lr: 3e-4,
            warmup: 2500,
            decay: Decay::default(),
            clip: 1.0,
            weight_decay: 0.0,
            ema: 0.9999,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_floor: pgm_model::loss::EPS,
        }
    }
}

impl OptimSection {
    pub(crate) fn validate(&self) -> Result<(), String> {
        let optim = self;
        let ranges = [
            ("optim.lr", optim.lr, optim.lr > 0.0, "must be positive"),
            ("optim.clip", optim.clip, optim.clip >= 0.0, "must be 0 or positive"),
            ("optim.weight_decay", optim.weight_decay, optim.weight_decay >= 0.0, "must be 0 or positive"),
            ("optim.ema", optim.ema, (0.0..1.0).contains(&optim.ema), "must be at least 0 and below 1"),
            ("optim.beta1", optim.beta1, (0.0..1.0).contains(&optim.beta1), "must be at least 0 and below 1"),
            ("optim.beta2", optim.beta2, (0.0..1.0).contains(&optim.beta2), "must be at least 0 and below 1"),
            ("optim.eps", optim.eps, optim.eps > 0.0, "must be positive"),
            ("optim.weight_floor", optim.weight_floor, optim.weight_floor >= 0.0, "must be 0 or positive"),
        ];
        for (key, value, fits, rule) in ranges {
            if !fits || !value.is_finite() {
                return Err(format!("{key} = {value} {rule}"));
            }
        }
        Ok(())
    }
}

impl TrainConfig {
    /// How its steps are computed.
    pub fn how(&self) -> StepOptions {
        StepOptions { precision: self.precision, checkpointing: self.checkpointing }
    }

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
        let config: Self = read(text, origin, settings)?;
        config.validate().map_err(|problem| TrainError::Config { origin: origin.to_string(), problem })?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), String> {
        let positive = [
            ("steps", self.steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("log_every", self.log_every),
            ("validate_every", self.validate_every),
            ("checkpoint_every", self.checkpoint_every),
            ("checkpoint_keep", self.checkpoint_keep),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(format!("{key} = 0 must be at least 1"));
            }
        }
        if !self.batch.is_multiple_of(self.accumulate) {
            return Err(format!("batch = {} must be a multiple of accumulate = {}", self.batch, self.accumulate));
        }
        if self.validate_times < 4 {
            return Err(format!("validate_times = {} must be at least 4", self.validate_times));
        }
        self.optim.validate()
    }

    /// The network for data of that manifest.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the row lengths differ, [`TrainError::Model`] for sizes that no model can have.
    pub fn model_config(&self, data: &Manifest) -> Result<ModelConfig, TrainError> {
        let model = &self.model;
        if model.length != data.length {
            return Err(TrainError::Config {
                origin: "model.length".to_string(),
                problem: format!(
                    "is {}, but the data's rows have {} tokens; set model.length={1} or prepare the data again",
                    model.length, data.length
                ),
            });
        }
        let special = &data.special;
        let backbone = BackboneConfig {
            cond_dim: model.cond,
            dropout: model.dropout,
            mask_index: special.mask as usize,
            bos_index: special.bos as usize,
            eos_index: special.eos as usize,
            pad_index: special.pad.map(|pad| pad as usize),
            ..BackboneConfig::new(data.vocab_size, model.hidden, model.heads, model.length)
        };
        let config = match self.objective {
            Objective::Partition => ModelConfig::Partition(PartitionConfig {
                backbone,
                encoder_blocks: model.encoder,
                decoder_blocks: model.decoder,
                queries: model.queries,
                projection: model.projection,
            }),
            Objective::Masked | Objective::MaskedComplementary => {
                ModelConfig::Masked(MaskedConfig { backbone, n_blocks: model.encoder + model.decoder })
            }
            Objective::Autoregressive => {
                ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: model.encoder + model.decoder })
            }
        };
        config.validate()?;
        Ok(config)
    }
}

/// A strict TOML text with settings (`key=value`, dotted keys) on top.
pub(crate) fn read<T: DeserializeOwned>(text: &str, origin: &str, settings: &[String]) -> Result<T, TrainError> {
    let invalid = |origin: &str, problem: String| TrainError::Config { origin: origin.to_string(), problem };
    let from_table = |table: &toml::Table| -> Result<T, String> {
        toml::Value::Table(table.clone()).try_into().map_err(|error: toml::de::Error| one_line(&error))
    };
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| invalid(origin, one_line(&error)))?;
    // The file is checked alone first, so that an unknown key in it is not blamed on a setting.
    let mut config = from_table(&table).map_err(|error| invalid(origin, error))?;
    for setting in settings {
        let flag = format!("--set {setting}");
        let (key, value) =
            setting.split_once('=').ok_or_else(|| invalid(&flag, "must have the form key=value".to_string()))?;
        let value = parse_value(value.trim());
        insert(&mut table, key.trim(), value).map_err(|problem| invalid(&flag, problem))?;
        config = from_table(&table).map_err(|error| invalid(&flag, error))?;
    }
    Ok(config)
}

// The parser draws the offending line over several lines; people get one sentence.
fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

// A value as TOML reads it, or else a string: `objective=masked` needs no quotes.
fn parse_value(text: &str) -> toml::Value {
    let parsed: Result<toml::Table, _> = format!("value = {text}").parse();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| toml::Value::String(text.to_string()))
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            // `lr=1` means the number, whichever way the field is typed.
            let value = match (table.get(key), value) {
                (Some(toml::Value::Float(_)), toml::Value::Integer(number)) => toml::Value::Float(number as f64),
                (_, value) => value,
            };
            table.insert(key.to_string(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = entry.as_table_mut().ok_or_else(|| format!("{section} is a value, not a section"))?;
            insert(inner, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "objective = \"partition\"\nsteps = 10\nbatch = 4\n[model]\nhidden = 32\nheads = 4\n\
                        encoder = 1\ndecoder = 1\nlength = 16\n[optim]\nlr = 1e-3\n";

    fn parse(settings: &[&str]) -> Result<TrainConfig, TrainError> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        TrainConfig::parse(TOML, "run.toml", &settings)
    }

    #[test]
    fn settings_override_the_file_and_defaults_are_the_papers() {
        let config = parse(&[]).unwrap();
        assert_eq!((config.optim.lr, config.optim.warmup, config.optim.ema), (1e-3, 2500, 0.9999));
        let config = parse(&["objective=masked", "optim.lr=1", "model.queries=learn+freqs+mean", "seed = 7"]).unwrap();
        assert_eq!(config.objective, Objective::Masked);
        assert_eq!((config.optim.lr, config.seed, config.model.queries), (1.0, 7, Queries::LearnFreqsMean));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (setting, says) in [
            ("optim.learning_rate=1", "learning_rate"),
            ("steps=0", "steps = 0"),
            ("accumulate=3", "accumulate = 3"),
            ("optim.ema=1.0", "optim.ema = 1"),
            ("steps.more=1", "steps is a value"),
            ("steps", "key=value"),
            ("objective=both", "both"),
            ("batch=many", "batch"),
        ] {
            let message = parse(&[setting]).unwrap_err().to_string();
            assert!(message.contains(says) && !message.contains('\n'), "{setting}: {message}");
        }
        let text = TOML.replace("steps", "step");
        let message = TrainConfig::parse(&text, "run.toml", &[]).unwrap_err().to_string();
        assert!(message.starts_with("run.toml: ") && message.contains("step"), "{message}");
    }
}
