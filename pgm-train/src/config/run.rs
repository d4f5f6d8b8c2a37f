//! The keys that training and distillation share.

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use super::card::CardSection;
use super::optim::OptimSection;
use crate::TrainError;

/// The data type of the matmuls of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16 inputs with float32 accumulation.
    Bf16,
}

/// How the likelihood bound (NELBO) of held-out rows is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NelboEstimator {
    /// A stratified count k of the n tokens is hidden, with the weight n/k.
    #[default]
    AnyOrder,
    /// MDLM's: a time t is drawn, each token is hidden with about this probability, with the weight 1/t.
    Mdlm,
}

/// Keys of both kinds of file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Rows of an optimiser step.
    pub batch: usize,
    /// Micro-batches of a step: its rows are divided among them to save memory, and their gradients are summed.
    #[serde(default = "default::accumulate")]
    pub accumulate: usize,
    /// Data type of the matmuls; weights, norms and the loss stay in float32.
    #[serde(default)]
    pub precision: Precision,
    /// Gradient checkpointing: the backward pass recomputes norms and activations. The numbers are the same, activations
    /// take a third less memory, a step takes a few per cent more time.
    #[serde(default)]
    pub checkpointing: bool,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Steps between two lines of training figures.
    #[serde(default = "default::log_every")]
    pub log_every: usize,
    /// Steps between two validations, which measure the NELBO; the last step always has one.
    #[serde(default = "default::validate_every")]
    pub validate_every: usize,
    /// Rows of a validation, from the start of the validation split; 0 takes all.
    #[serde(default = "default::validate_rows")]
    pub validate_rows: usize,
    /// Draws of hidden tokens for each validation row; at least 4 for the estimator `mdlm`.
    #[serde(default = "default::validate_times")]
    pub validate_times: usize,
    /// How a validation estimates the NELBO. Unused for an autoregressive model, whose likelihood is exact.
    #[serde(default)]
    pub validate_estimator: NelboEstimator,
    /// Steps between two checkpoints; the last step always has one.
    #[serde(default = "default::checkpoint_every")]
    pub checkpoint_every: usize,
    /// Readable checkpoints to keep, of each round in a distillation.
    #[serde(default = "default::checkpoint_keep")]
    pub checkpoint_keep: usize,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimSection,
    /// The model card.
    #[serde(default, skip_serializing_if = "CardSection::is_empty")]
    pub card: CardSection,
}

mod default {
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
    pub(super) fn validate_times() -> usize {
        4
    }
    pub(super) fn checkpoint_every() -> usize {
        250
    }
    pub(super) fn checkpoint_keep() -> usize {
        3
    }
}

impl RunConfig {
    /// Keys that a resumed run may change without a change of its weights.
    pub(crate) const FREE_ON_RESUME: [&str; 9] = [
        "log_every",
        "validate_every",
        "validate_rows",
        "validate_times",
        "validate_estimator",
        "checkpoint_every",
        "checkpoint_keep",
        "checkpointing",
        "card",
    ];

    /// How a training step is computed.
    pub fn step_options(&self) -> StepOptions {
        StepOptions { precision: self.precision, checkpointing: self.checkpointing }
    }

    /// Rows of a micro-batch.
    pub fn micro_batch(&self) -> usize {
        self.batch / self.accumulate
    }

    // A sentence about a warm-up that is longer than the steps.
    pub(super) fn warmup_warning(&self, key: &str, steps: usize) -> Option<String> {
        let warmup = self.optim.warmup;
        (steps < warmup).then(|| {
            let share = 100.0 * steps as f64 / warmup as f64;
            format!(
                "{key} = {steps} is less than optim.warmup = {warmup}: the learning rate rises to {share:.1} % of optim.lr \
                 only; lower optim.warmup"
            )
        })
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        at_least_one(&[
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("log_every", self.log_every),
            ("validate_every", self.validate_every),
            ("validate_times", self.validate_times),
            ("checkpoint_every", self.checkpoint_every),
            ("checkpoint_keep", self.checkpoint_keep),
        ])?;
        if !self.batch.is_multiple_of(self.accumulate) {
            return Err(format!("batch = {} must be a multiple of accumulate = {}", self.batch, self.accumulate));
        }
        if self.validate_estimator == NelboEstimator::Mdlm && self.validate_times < 4 {
            let times = self.validate_times;
            return Err(format!("validate_times = {times} must be at least 4 with validate_estimator = \"mdlm\""));
        }
        self.card.validate()?;
        self.optim.validate()
    }
}

pub(super) fn at_least_one(counts: &[(&str, usize)]) -> Result<(), String> {
    match counts.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => Err(format!("{key} = 0 must be at least 1")),
        None => Ok(()),
    }
}

/// How a training step is computed, see [`RunConfig`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StepOptions {
    /// Data type of the matmuls.
    pub precision: Precision,
    /// Whether the backward pass recomputes norms and activations.
    pub checkpointing: bool,
}

impl StepOptions {
    /// The autodiff device with these options.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the device does not support the precision.
    pub fn training_device(self, device: &Device) -> Result<Device, TrainError> {
        let plain = device.clone().without_autodiff();
        if self.precision == Precision::Bf16 && !plain.supports_dtype(DType::BF16) {
            let problem = "this device has no bfloat16; set precision=\"f32\" or take another --device".to_string();
            return Err(TrainError::Config { origin: "precision = \"bf16\"".to_string(), problem });
        }
        let device = plain.autodiff();
        Ok(if self.checkpointing { device.gradient_checkpointing() } else { device })
    }
}
