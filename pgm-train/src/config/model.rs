//! The section `[model]`.

use pgm_data::Manifest;
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries,
};
use serde::{Deserialize, Serialize};

use super::objective::Objective;
use crate::TrainError;

/// Sizes of the network. Vocabulary and special tokens come from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSection {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Encoder blocks; a masked or autoregressive network has encoder + decoder blocks.
    pub encoder: usize,
    /// Decoder blocks.
    pub decoder: usize,
    /// Tokens of a row, as in the prepared data.
    pub length: usize,
    /// Dropout probability.
    #[serde(default)]
    pub dropout: f64,
    /// What the queries of the GroupSwap are made of.
    #[serde(default)]
    pub queries: Queries,
    /// How the queries of the GroupSwap are projected.
    #[serde(default)]
    pub projection: Projection,
    /// Width of the conditioning vector.
    #[serde(default = "default_cond")]
    pub cond: usize,
}

fn default_cond() -> usize {
    128
}

impl ModelSection {
    /// The network of an objective for data of that manifest.
    pub(super) fn model_config(&self, objective: Objective, data: &Manifest) -> Result<ModelConfig, TrainError> {
        if self.length != data.length {
            return Err(TrainError::Config {
                origin: "model.length".to_string(),
                problem: format!(
                    "is {}, but the data's rows have {} tokens; set model.length={1} or prepare the data again",
                    self.length, data.length
                ),
            });
        }
        let special = &data.special;
        let backbone = BackboneConfig {
            cond_dim: self.cond,
            dropout: self.dropout,
            mask_index: special.mask as usize,
            bos_index: special.bos as usize,
            eos_index: special.eos as usize,
            pad_index: special.pad.map(|pad| pad as usize),
            ..BackboneConfig::new(data.vocab_size, self.hidden, self.heads, self.length)
        };
        let n_blocks = self.encoder + self.decoder;
        let config = match objective {
            Objective::Partition => ModelConfig::Partition(PartitionConfig {
                backbone,
                encoder_blocks: self.encoder,
                decoder_blocks: self.decoder,
                queries: self.queries,
                projection: self.projection,
            }),
            Objective::Masked | Objective::MaskedComplementary => {
                ModelConfig::Masked(MaskedConfig { backbone, n_blocks })
            }
            Objective::Autoregressive => ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks }),
        };
        config.validate()?;
        Ok(config)
    }
}
