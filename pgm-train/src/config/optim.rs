//! The section `[optim]`.

use serde::{Deserialize, Serialize};

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// It follows a half cosine that would reach zero one step after the last.
    Cosine,
}

/// AdamW. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimSection {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Steps of linear warm-up: the learning rate of step i (from 0) is `lr * (i + 1) / warmup`.
    pub warmup: usize,
    /// The learning rate after the warm-up.
    pub decay: Decay,
    /// Largest global gradient norm; 0 does not clip.
    pub clip: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the exponential moving average of the weights, which is what the model folder holds; 0 keeps no average.
    pub ema: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
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
        }
    }
}

impl OptimSection {
    pub(super) fn validate(&self) -> Result<(), String> {
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        let ranges = [
            ("optim.lr", self.lr, self.lr > 0.0, "must be positive"),
            ("optim.clip", self.clip, self.clip >= 0.0, "must be 0 or positive"),
            ("optim.weight_decay", self.weight_decay, self.weight_decay >= 0.0, "must be 0 or positive"),
            ("optim.ema", self.ema, below_one(self.ema), "must be at least 0 and below 1"),
            ("optim.beta1", self.beta1, below_one(self.beta1), "must be at least 0 and below 1"),
            ("optim.beta2", self.beta2, below_one(self.beta2), "must be at least 0 and below 1"),
            ("optim.eps", self.eps, self.eps > 0.0, "must be positive"),
        ];
        for (key, value, fits, rule) in ranges {
            check_number(key, value, fits, rule)?;
        }
        Ok(())
    }
}

pub(super) fn check_number(key: &str, value: f64, fits: bool, rule: &str) -> Result<(), String> {
    if fits && value.is_finite() { Ok(()) } else { Err(format!("{key} = {value} {rule}")) }
}
