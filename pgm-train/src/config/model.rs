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
    /// The sizes of a model. A network without a decoder has all its blocks in `encoder`.
    pub fn of(model: &ModelConfig) -> Self {
        let backbone = model.backbone();
        let (encoder, decoder, queries, projection) = match model {
            ModelConfig::Partition(config) => {
                (config.encoder_blocks, config.decoder_blocks, config.queries, config.projection)
            }
            ModelConfig::Masked(MaskedConfig { n_blocks, .. })
            | ModelConfig::Autoregressive(AutoregressiveConfig { n_blocks, .. }) => {
                (*n_blocks, 0, Queries::default(), Projection::default())
            }
        };
        Self {
            hidden: backbone.hidden_size,
            heads: backbone.n_heads,
            encoder,
            decoder,
            length: backbone.length,
            dropout: backbone.dropout,
            queries,
            projection,
            cond: backbone.cond_dim,
        }
    }

    /// The first key whose value is another than that of `model`: the key, the value here, the value there. Dropout and the
    /// length of a row may be others.
    pub(crate) fn first_difference(&self, model: &ModelConfig) -> Option<(&'static str, String, String)> {
        let other = Self::of(model);
        let sizes = [("hidden", self.hidden, other.hidden), ("heads", self.heads, other.heads)];
        let blocks = match model {
            ModelConfig::Partition(_) => {
                vec![("encoder", self.encoder, other.encoder), ("decoder", self.decoder, other.decoder)]
            }
            _ => vec![("encoder + model.decoder", self.encoder + self.decoder, other.encoder)],
        };
        let sizes = sizes.into_iter().chain(blocks).chain([("cond", self.cond, other.cond)]);
        let words = [
            ("queries", json_word(self.queries), json_word(other.queries)),
            ("projection", json_word(self.projection), json_word(other.projection)),
        ];
        let is_partition = matches!(model, ModelConfig::Partition(_));
        sizes
            .map(|(key, here, there)| (key, here.to_string(), there.to_string()))
            .chain(words.into_iter().filter(|_| is_partition))
            .find(|(_, here, there)| here != there)
    }

    /// Refuses data whose rows have another length.
    pub(crate) fn check_length(&self, data: &Manifest) -> Result<(), TrainError> {
        if self.length == data.length {
            return Ok(());
        }
        Err(TrainError::Config {
            origin: "model.length".to_string(),
            problem: format!(
                "is {}, but the data's rows have {} tokens; set model.length={1} or prepare the data again",
                self.length, data.length
            ),
        })
    }

    /// The network of an objective for data of that manifest.
    pub(super) fn model_config(&self, objective: Objective, data: &Manifest) -> Result<ModelConfig, TrainError> {
        self.check_length(data)?;
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

// An enum's value as in the file.
fn json_word(value: impl Serialize) -> String {
    serde_json::to_value(value).expect("an enum always serialises").as_str().unwrap_or_default().to_string()
}
