//! The objective of a training run.

use pgm_model::ModelConfig;
use serde::{Deserialize, Serialize};

/// The loss of a training run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The partition loss: every position supervised, each group predicted from the other.
    #[default]
    Partition,
    /// MDLM's loss on masked tokens.
    Masked,
    /// MDLM with complementary masks: each row twice, once with either group masked, at half weight. Every position is
    /// supervised, as in the partition loss, at twice the cost of `masked`.
    MaskedComplementary,
    /// Each token from those before it.
    Autoregressive,
}

impl Objective {
    /// Whether the loss weighs group 0, whose weight `1 / (1 - t)` needs a floor.
    pub fn uses_weight_floor(self) -> bool {
        match self {
            Self::Partition | Self::MaskedComplementary => true,
            Self::Masked | Self::Autoregressive => false,
        }
    }

    /// Whether it trains networks of that kind.
    pub fn trains(self, model: &ModelConfig) -> bool {
        match model {
            ModelConfig::Partition(_) => self == Self::Partition,
            ModelConfig::Masked(_) => matches!(self, Self::Masked | Self::MaskedComplementary),
            ModelConfig::Autoregressive(_) => self == Self::Autoregressive,
        }
    }

    /// The usual objective of a network of that kind.
    pub fn of(model: &ModelConfig) -> Self {
        match model {
            ModelConfig::Partition(_) => Self::Partition,
            ModelConfig::Masked(_) => Self::Masked,
            ModelConfig::Autoregressive(_) => Self::Autoregressive,
        }
    }

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Masked => "masked",
            Self::MaskedComplementary => "masked-complementary",
            Self::Autoregressive => "autoregressive",
        }
    }
}
