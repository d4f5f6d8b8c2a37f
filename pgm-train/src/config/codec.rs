//! The file of `pgm-train codec`.

use std::path::Path;

use pgm_data::PixelShape;
use pgm_model::codec::{AutoencoderConfig, CodecConfig, QuantizerConfig};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Table;

use super::card::CardSection;
use super::optim::{LrScheduleKind, OptimSection};
use super::run::at_least_one;
use super::toml_file::{self, ConfigFile};
use crate::TrainError;

/// How the pixels of original and reconstruction are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReconstructionLoss {
    /// Mean absolute difference of pixels in -1 to 1: sharper edges.
    #[default]
    L1,
    /// Mean squared difference: the highest PSNR.
    L2,
}

/// How vectors become codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantizerKind {
    /// Finite scalar quantisation: each channel is rounded to one of its `levels`.
    #[default]
    Fsq,
    /// The nearest of `codes` learned unit vectors of width `code_width`.
    Vq,
}

/// The codec. Size and channels of the pictures come from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodecSection {
    /// How vectors become codes.
    pub quantizer: QuantizerKind,
    /// Levels of each channel of `fsq`; their product is the number of codes.
    pub levels: Vec<usize>,
    /// Number of codes of `vq`.
    pub codes: usize,
    /// Width of a code's vector of `vq`; 4 to 8 keeps all codes in use.
    pub code_width: usize,
    /// Width of the convolutions at each resolution, the highest first. Each is followed by a halving of the sides: two
    /// make a code of 4 x 4 pixels, three of 8 x 8.
    pub widths: Vec<usize>,
    /// Residual blocks at each resolution, of the encoder and of the decoder.
    pub blocks: usize,
}

impl CodecSection {
    // The quantizer, and the keys that belong to the other one.
    fn unused_keys(&self) -> (&'static str, &'static [&'static str]) {
        match self.quantizer {
            QuantizerKind::Fsq => ("fsq", &["codes", "code_width"]),
            QuantizerKind::Vq => ("vq", &["levels"]),
        }
    }
}

impl Default for CodecSection {
    fn default() -> Self {
        Self {
            quantizer: QuantizerKind::default(),
            levels: vec![8, 5, 5, 5],
            codes: 1024,
            code_width: 8,
            widths: vec![16, 32],
            blocks: 1,
        }
    }
}

/// A training of a codec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodecTrainConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Pictures of an optimiser step.
    pub batch: usize,
    /// Micro-batches of a step: its pictures are divided among them to save memory, and their gradients are summed.
    #[serde(default = "default::accumulate")]
    pub accumulate: usize,
    /// How the pixels of original and reconstruction are compared.
    #[serde(default)]
    pub loss: ReconstructionLoss,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Steps between two lines of training figures.
    #[serde(default = "default::log_every")]
    pub log_every: usize,
    /// Steps between two validations; the last step always has one.
    #[serde(default = "default::validate_every")]
    pub validate_every: usize,
    /// Pictures of a validation, from the start of the validation split; 0 takes all.
    #[serde(default = "default::validate_rows")]
    pub validate_rows: usize,
    /// Steps between two checkpoints; the last step always has one.
    #[serde(default = "default::checkpoint_every")]
    pub checkpoint_every: usize,
    /// Readable checkpoints to keep.
    #[serde(default = "default::checkpoint_keep")]
    pub checkpoint_keep: usize,
    /// The codec.
    #[serde(default)]
    pub codec: CodecSection,
    /// The optimiser.
    #[serde(default = "default::optim", deserialize_with = "optim_of_a_codec")]
    pub optim: OptimSection,
    /// The codec's card.
    #[serde(default, skip_serializing_if = "CardSection::is_empty")]
    pub card: CardSection,
}

mod default {
    use super::OptimSection;

    pub(super) fn accumulate() -> usize {
        1
    }
    pub(super) fn log_every() -> usize {
        10
    }
    pub(super) fn validate_every() -> usize {
        250
    }
    pub(super) fn validate_rows() -> usize {
        256
    }
    pub(super) fn checkpoint_every() -> usize {
        250
    }
    pub(super) fn checkpoint_keep() -> usize {
        3
    }
    // A codec is trained for thousands of steps, where a paper's model is trained for a million.
    pub(super) fn optim() -> OptimSection {
        OptimSection { lr: 1e-3, warmup: 100, ema: 0.99, ..OptimSection::default() }
    }
}

// The keys of [optim] that are given, over a codec's defaults.
fn optim_of_a_codec<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OptimSection, D::Error> {
    let mut all = Table::try_from(default::optim()).expect("a configuration always serialises");
    all.extend(Table::deserialize(deserializer)?);
    all.try_into().map_err(|error: toml::de::Error| serde::de::Error::custom(error.message()))
}

impl CodecTrainConfig {
    /// Reads a TOML file and puts `settings` (`key=value`, dotted keys) on top.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the file or the setting, the key and what is wrong with it.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        toml_file::load(path, settings, &Table::new())
    }

    /// As [`load`](Self::load), from a text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, settings: &[String]) -> Result<Self, TrainError> {
        toml_file::parse(text, origin, settings, &Table::new())
    }

    /// The codec for pictures of that shape.
    ///
    /// # Errors
    /// [`TrainError::Model`] for sizes that no codec can have.
    pub fn autoencoder(&self, pixels: PixelShape) -> Result<AutoencoderConfig, TrainError> {
        let PixelShape { height, width, channels } = pixels;
        let CodecSection { quantizer, levels, codes, code_width, widths, blocks } = self.codec.clone();
        let quantizer = match quantizer {
            QuantizerKind::Fsq => QuantizerConfig::Fsq { levels },
            QuantizerKind::Vq => QuantizerConfig::Vq { codes, width: code_width },
        };
        let config = AutoencoderConfig { height, width, channels, widths, blocks, quantizer };
        CodecConfig::Autoencoder(config.clone()).validate()?;
        Ok(config)
    }

    /// Sentences about values that are allowed but hardly meant, for the user to read before the run.
    pub fn warnings(&self) -> Vec<String> {
        let (steps, warmup) = (self.steps, self.optim.warmup);
        let warmup = (steps < warmup).then(|| {
            format!(
                "steps = {steps} is less than optim.warmup = {warmup}: the learning rate never reaches optim.lr; lower \
                 optim.warmup"
            )
        });
        warmup.into_iter().collect()
    }

    /// Keys that a resumed run may change.
    pub(crate) fn free_keys(&self) -> Vec<String> {
        let mut free =
            vec!["log_every", "validate_every", "validate_rows", "checkpoint_every", "checkpoint_keep", "card"];
        // With a cosine the number of steps shapes every learning rate.
        if self.optim.schedule == LrScheduleKind::Constant {
            free.push("steps");
        }
        free.into_iter().map(str::to_string).collect()
    }
}

impl ConfigFile for CodecTrainConfig {
    const EXAMPLE: &str = "steps = 1000\nbatch = 64\n";

    fn known_keys() -> Table {
        let all = Self { card: CardSection::example(), ..Self::example() };
        Table::try_from(all).expect("a configuration always serialises")
    }

    fn moved_key(_table: &Table) -> Option<String> {
        None
    }

    fn rename_keys(table: &mut Table) -> Result<(), String> {
        OptimSection::rename_keys(table)
    }

    fn unused_key(&self, table: &Table) -> Option<String> {
        let codec = table.get("codec")?.as_table()?;
        let (kind, unused) = self.codec.unused_keys();
        let key = unused.iter().find(|key| codec.contains_key(**key))?;
        Some(format!("codec.{key} has no effect with codec.quantizer = \"{kind}\"; remove it"))
    }

    fn remove_unused(&self, table: &mut Table) {
        let (_, unused) = self.codec.unused_keys();
        if let Some(codec) = table.get_mut("codec").and_then(toml::Value::as_table_mut) {
            codec.retain(|key, _| !unused.contains(&key));
        }
    }

    fn validate(&self) -> Result<(), String> {
        at_least_one(&[
            ("steps", self.steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("log_every", self.log_every),
            ("validate_every", self.validate_every),
            ("checkpoint_every", self.checkpoint_every),
            ("checkpoint_keep", self.checkpoint_keep),
        ])?;
        if !self.batch.is_multiple_of(self.accumulate) {
            return Err(format!("batch = {} must be a multiple of accumulate = {}", self.batch, self.accumulate));
        }
        self.card.validate()?;
        self.optim.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(settings: &[&str]) -> Result<CodecTrainConfig, TrainError> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        CodecTrainConfig::parse("steps = 10\nbatch = 4\n[optim]\nclip = 0.5\n", "codec.toml", &settings)
    }

    #[test]
    fn a_codec_has_defaults_of_its_own_under_the_given_keys() {
        let config = parse(&["optim.lr=1", "codec.widths=[8, 16, 32]"]).unwrap();
        let optim = &config.optim;
        assert_eq!((optim.lr, optim.warmup, optim.ema, optim.clip), (1.0, 100, 0.99, 0.5));
        let shape = PixelShape { height: 64, width: 32, channels: 3 };
        let codec = config.autoencoder(shape).unwrap();
        assert_eq!((codec.grid(), codec.quantizer), ([8, 4], QuantizerConfig::Fsq { levels: vec![8, 5, 5, 5] }));
        let vq = parse(&["codec.quantizer=vq", "codec.codes=77"]).unwrap().autoencoder(shape).unwrap();
        assert_eq!(vq.quantizer, QuantizerConfig::Vq { codes: 77, width: 8 });
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (setting, says) in [
            ("codec.width=1", "unknown key codec.width; the keys of [codec] are"),
            ("optim.rate=1", "unknown key optim.rate"),
            ("model.hidden=1", "unknown key model"),
            ("codec.codes=9", "codec.codes has no effect with codec.quantizer = \"fsq\""),
            ("loss=lpips", "lpips"),
            ("steps=0", "steps = 0"),
            ("accumulate=3", "accumulate = 3"),
            ("optim.lr=0", "optim.lr = 0 must be positive"),
            ("optim.lr=high", "optim"),
            ("codec.levels=8", "levels"),
        ] {
            let message = parse(&[setting]).unwrap_err().to_string();
            assert!(message.contains(says) && !message.contains('\n'), "{setting}: {message}");
        }
        let message = parse(&["codec.quantizer=vq", "codec.levels=[3]"]).unwrap_err().to_string();
        assert!(message.contains("codec.levels has no effect"), "{message}");
        let odd = PixelShape { height: 30, width: 28, channels: 1 };
        let message = parse(&[]).unwrap().autoencoder(odd).unwrap_err().to_string();
        assert!(message.contains("height = 30 must be a multiple of 4"), "{message}");
        assert!(parse(&[]).unwrap().warnings()[0].contains("optim.warmup = 100"));
    }
}
