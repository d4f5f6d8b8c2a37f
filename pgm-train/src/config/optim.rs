//! The section `[optim]`.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrScheduleKind {
    /// It stays.
    #[default]
    Constant,
    /// It falls on a line that would reach the floor one step after the last.
    Linear,
    /// It follows a half cosine that would reach the floor one step after the last.
    Cosine,
    /// It stays, and follows such a half cosine over the last steps, see `decay_share`.
    CosineEnd,
    /// Warm-up, stable, decay: it stays, and falls on such a line over the last steps, see `decay_share`.
    Wsd,
}

impl LrScheduleKind {
    /// Whether it falls over the last steps only.
    pub fn decays_at_the_end(self) -> bool {
        matches!(self, Self::CosineEnd | Self::Wsd)
    }

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::CosineEnd => "cosine-end",
            Self::Wsd => "wsd",
        }
    }
}

/// The default of `decay_share`: that of the published image models.
const DECAY_SHARE: f64 = 0.1;

/// AdamW. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimSection {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Steps of linear warm-up: the learning rate of step i (from 0) is `lr * (i + 1) / warmup`.
    pub warmup: usize,
    /// How the learning rate goes on after the warm-up.
    pub schedule: LrScheduleKind,
    /// The share of `lr` that a schedule falls to.
    pub floor: f64,
    /// The share of all steps over which `cosine-end` and `wsd` fall.
    pub decay_share: f64,
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
            schedule: LrScheduleKind::default(),
            floor: 0.0,
            decay_share: DECAY_SHARE,
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
            ("optim.floor", self.floor, (0.0..=1.0).contains(&self.floor), "must be between 0 and 1"),
            (
                "optim.decay_share",
                self.decay_share,
                self.decay_share > 0.0 && self.decay_share <= 1.0,
                "must be above 0 and at most 1",
            ),
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
        let name = self.schedule.name();
        if self.floor != 0.0 && self.schedule == LrScheduleKind::Constant {
            return Err(format!(
                "optim.floor = {} has no effect with optim.schedule = \"{name}\", which does not fall; remove it",
                self.floor
            ));
        }
        if self.decay_share != DECAY_SHARE && !self.schedule.decays_at_the_end() {
            return Err(format!(
                "optim.decay_share = {} has no effect with optim.schedule = \"{name}\", only with cosine-end and wsd; \
                 remove it",
                self.decay_share
            ));
        }
        Ok(())
    }

    /// Gives a table the present names of keys: `optim.schedule` was `optim.decay`.
    pub(super) fn rename_keys(table: &mut Table) -> Result<(), String> {
        let Some(optim) = table.get_mut("optim").and_then(Value::as_table_mut) else { return Ok(()) };
        let Some(decay) = optim.remove("decay") else { return Ok(()) };
        match optim.insert("schedule".to_string(), decay) {
            None => Ok(()),
            Some(_) => Err("optim.decay is the former name of optim.schedule; remove one of them".to_string()),
        }
    }
}

pub(super) fn check_number(key: &str, value: f64, fits: bool, rule: &str) -> Result<(), String> {
    if fits && value.is_finite() { Ok(()) } else { Err(format!("{key} = {value} {rule}")) }
}
